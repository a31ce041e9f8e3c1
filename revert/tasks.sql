-- Revert app_jobs:tasks from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.retry_delay(text, integer);
drop table app_jobs.tasks;
drop function app_jobs.backoff_delay(json, integer);

commit;
