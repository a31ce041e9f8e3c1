-- Revert app_jobs:counts from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.count_again(integer);
drop function app_jobs.forget_counts(integer[], text, text[], text);
drop function app_jobs.note_counts(app_jobs.slot_counts[]);
drop function app_jobs.waiting_in(integer);
drop function app_jobs.groups_at_most();
drop sequence app_jobs.counted_at;
drop sequence app_jobs.counted_to;
drop table app_jobs.totals;
drop table app_jobs.slot_counts;

commit;
