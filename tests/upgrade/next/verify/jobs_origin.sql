-- Verify app_jobs:jobs_origin on pg

begin;

select j.origin, f.origin
from app_jobs.jobs as j, app_jobs.finished_jobs as f
where false;
select app_jobs.jobs_from('nowhere');

rollback;
