-- Revert app_jobs:fail_jobs from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.fail_job(text, bigint, text, integer, interval, text, boolean);
drop function app_jobs.fail_jobs(text, json);

commit;
