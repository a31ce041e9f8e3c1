-- Revert app_jobs:add_jobs from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.add_jobs(
    text, json[], uuid, text, timestamptz, integer, integer, jsonb, interval
);
drop function app_jobs.add_jobs(json);
drop function app_jobs.insert_jobs(
    json, text, json[], uuid[], integer, text, timestamptz, integer, integer, jsonb,
    interval
);
drop function app_jobs.check_specs(json);
drop function app_jobs.check_spec(json);

commit;
