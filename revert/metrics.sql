-- Revert app_jobs:metrics from pg

begin;

set local lock_timeout = '5s';

drop view app_jobs.metrics;
drop function app_jobs.metrics();

commit;
