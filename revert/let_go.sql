-- Revert app_jobs:let_go from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.let_go(tid[], timestamptz[], text[], boolean[], boolean, boolean);
drop function app_jobs.end_jobs(tid[], text, text, interval);
drop function app_jobs.finish_jobs(tid[], text, text, text[], json[], interval);
drop function app_jobs.queues_left(tid[]);

commit;
