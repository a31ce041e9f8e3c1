-- Revert app_jobs:cancel_job from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.cancel_job(text, uuid, text);
drop function app_jobs.cancel_locked(tid[], text);

commit;
