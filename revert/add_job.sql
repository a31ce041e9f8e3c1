-- Revert app_jobs:add_job from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.add_job(
    uuid, text, json, text, text, timestamptz, integer, integer, text, jsonb, interval
);
drop function app_jobs.finished_with_key(text, uuid);
drop function app_jobs.lock_key_holder(text, uuid);
drop function app_jobs.with_trace(jsonb);
drop function app_jobs.find_job(text, uuid);

commit;
