-- Revert app_jobs:prune from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.prune(interval, integer);

commit;
