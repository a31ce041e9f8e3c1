-- Revert app_jobs:arguments from pg

begin;

set local lock_timeout = '5s';

drop domain app_jobs.attempt_limit;
drop domain app_jobs.lease_term;
drop domain app_jobs.due_time;
drop domain app_jobs.job_attributes;
drop domain app_jobs.job_payload;
drop domain app_jobs.queue_name;
drop domain app_jobs.task_name;
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
