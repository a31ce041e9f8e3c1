-- Revert app_jobs:finished_jobs from pg

begin;

set local lock_timeout = '5s';

drop table app_jobs.job_errors;
drop table app_jobs.finished_jobs;

commit;
