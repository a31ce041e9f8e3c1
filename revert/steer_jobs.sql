-- Revert app_jobs:steer_jobs from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.reschedule_jobs(bigint[], timestamptz, integer, integer, integer);
drop function app_jobs.cancel_jobs(bigint[], text);
drop function app_jobs.permanently_fail_jobs(bigint[], text);
drop function app_jobs.complete_jobs(bigint[]);
drop function app_jobs.slots_for(integer);
drop function app_jobs.lock_jobs(bigint[], boolean);

commit;
