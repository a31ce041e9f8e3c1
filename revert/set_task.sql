-- Revert app_jobs:set_task from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.resume_task(text);
drop function app_jobs.pause_task(text);
drop function app_jobs.set_task(text, json);

commit;
