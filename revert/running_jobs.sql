-- Revert app_jobs:running_jobs from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.running_jobs();

commit;
