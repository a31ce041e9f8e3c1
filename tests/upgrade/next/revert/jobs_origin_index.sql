-- Revert app_jobs:jobs_origin_index from pg

begin;

set local lock_timeout = '5s';

drop index app_jobs.jobs_origin;

commit;
