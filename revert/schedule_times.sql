-- Revert app_jobs:schedule_times from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.preview_schedule(json, integer, timestamptz, text);
drop function app_jobs.next_run_at(json, timestamptz, text);
drop function app_jobs.check_schedule(json, text);
drop function app_jobs.next_time(app_jobs.parsed_schedule, timestamptz);
drop function app_jobs.next_step(app_jobs.parsed_schedule, timestamptz);
drop function app_jobs.next_match(app_jobs.parsed_schedule, timestamp);
drop function app_jobs.read_schedule(json, text);
drop function app_jobs.calendar_field(text, json, integer, integer, integer);
drop function app_jobs.cron_field(text, text, integer, integer, text[]);
drop function app_jobs.cron_number(text, text[], integer);
drop function app_jobs.read_every(json);
drop function app_jobs.read_moment(text, json, text);
drop function app_jobs.first_reading(timestamp, text);
drop function app_jobs.clock_change(text, timestamptz, timestamptz);
drop function app_jobs.check_time_zone(text, text);
drop function app_jobs.next_bit(bit varying, integer);
drop type app_jobs.parsed_schedule;

commit;
