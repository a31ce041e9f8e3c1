-- Revert app_jobs:arguments from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.check_job(text, text, text, integer, interval, timestamptz);
drop function app_jobs.check_objects(text, json, text);
drop function app_jobs.check_sizes(json, jsonb);
drop function app_jobs.check_time(text, timestamptz);
drop function app_jobs.check_delay(text, interval);
drop function app_jobs.check_positive(text, interval);
drop function app_jobs.check_length(text, text, integer);
drop function app_jobs.check_not_null(text, boolean, text);
drop function app_jobs.check_worker_id(text);

commit;
