-- Revert app_jobs:queues from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.advance_queues(text[], text[], boolean);
drop function app_jobs.take_seats(integer, text[], text[], app_jobs.place[]);
drop type app_jobs.seated;
drop function app_jobs.free_seats(text, integer);
drop function app_jobs.queues_at_most();

commit;
