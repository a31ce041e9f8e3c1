-- Revert app_jobs:tick from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.tick(interval);
drop function app_jobs.keep_house(integer);
drop function app_jobs.count_idle();
drop function app_jobs.prune_finished(integer);
drop function app_jobs.forget_finished(tid[]);
drop function app_jobs.sweep();
drop function app_jobs.move_queues(integer);
drop function app_jobs.end_expired_leases(integer);
drop function app_jobs.end_leases(tid[]);
drop function app_jobs.make_due_ready(text[], text[], integer);
drop function app_jobs.anything_due(timestamptz, integer);
drop function app_jobs.due_slots(text, timestamptz, integer);
drop sequence app_jobs.moved_to;
drop sequence app_jobs.pruned_to;
drop sequence app_jobs.swept_at;
drop sequence app_jobs.ticked_at;

commit;
