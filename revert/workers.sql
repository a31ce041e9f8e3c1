-- Revert app_jobs:workers from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.idle_peers(text);
drop function app_jobs.set_worker_idle(text, boolean);
drop function app_jobs.register_worker(text, text, integer, text[]);
drop function app_jobs.wake_workers();
drop sequence app_jobs.went_busy;
drop sequence app_jobs.went_idle;
drop table app_jobs.workers;

commit;
