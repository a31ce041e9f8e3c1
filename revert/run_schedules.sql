-- Revert app_jobs:run_schedules from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.release_scheduled_jobs(text, bigint[]);
drop function app_jobs.get_scheduled_job(text, text[]);
drop function app_jobs.run_scheduled_job(bigint, interval);
drop function app_jobs.run_due_schedules();
drop function app_jobs.fire_schedules(integer);
drop function app_jobs.job_spec(app_jobs.scheduled_jobs, timestamptz);
drop function app_jobs.due_times(app_jobs.scheduled_jobs, timestamptz);
drop function app_jobs.last_due(app_jobs.scheduled_jobs, timestamptz);
drop function app_jobs.next_schedule_at(timestamptz);
drop function app_jobs.schedule_slots(timestamptz);

commit;
