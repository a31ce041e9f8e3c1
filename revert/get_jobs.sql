-- Revert app_jobs:get_jobs from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.get_job(text, text[], interval);
drop function app_jobs.get_jobs(text, text[], interval, integer);

commit;
