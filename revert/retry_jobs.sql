-- Revert app_jobs:retry_jobs from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.retry_jobs(bigint[]);

commit;
