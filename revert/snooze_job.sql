-- Revert app_jobs:snooze_job from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.snooze_job(text, bigint, interval, integer);

commit;
