-- Revert app_jobs:jobs_origin from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.jobs_from(text);
alter table app_jobs.finished_jobs drop column origin;
alter table app_jobs.jobs drop column origin;

commit;
