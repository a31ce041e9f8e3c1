-- Revert app_jobs:effects from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.forget_once(bigint, text, integer);
drop function app_jobs.finish_once(text, bigint, text, json, integer);
drop function app_jobs.begin_once(text, bigint, text, integer);
drop function app_jobs.hold_job(text, bigint, integer);
drop function app_jobs.check_effect(bigint, text);
drop table app_jobs.effects;

commit;
