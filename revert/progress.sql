-- Revert app_jobs:progress from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.progress();
drop function app_jobs.set_progress(text, json);

alter table app_jobs.workers drop column progress;

commit;
