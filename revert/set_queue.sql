-- Revert app_jobs:set_queue from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.set_queue_limit(text, integer, uuid);
drop function app_jobs.resume_queue(text, uuid);
drop function app_jobs.pause_queue(text, uuid);
drop function app_jobs.set_queue(text, uuid, integer, boolean);

commit;
