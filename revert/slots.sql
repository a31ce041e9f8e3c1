-- Revert app_jobs:slots from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.turn_slots();
drop function app_jobs.close_slot(integer);
drop function app_jobs.note_arrivals(integer);
drop function app_jobs.enter_slot();
drop function app_jobs.find_first_slot();
drop function app_jobs.first_slot();
drop function app_jobs.seat_line(text);
drop table app_jobs.alarms;
drop table app_jobs.streams;
drop function app_jobs.lock_key(text, text);
drop table app_jobs.open_slots;
drop sequence app_jobs.activity;
drop sequence app_jobs.slot_first;
drop sequence app_jobs.slot_current;
drop sequence app_jobs.slot_number;

commit;
