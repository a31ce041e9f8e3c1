-- Revert app_jobs:one_job from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.delete_job(bigint);
drop function app_jobs.move_job_to_failed(bigint, boolean);
drop function app_jobs.move_job_to_done(bigint, boolean);
drop function app_jobs.end_job(bigint, text, interval);
drop function app_jobs.move_job_to_processing(bigint);
drop function app_jobs.set_run_at(bigint, timestamptz);
drop function app_jobs.set_retry_after(bigint, interval);
drop function app_jobs.set_attributes(bigint, jsonb);
drop function app_jobs.job_details(bigint);
drop type app_jobs.job_detail;

commit;
