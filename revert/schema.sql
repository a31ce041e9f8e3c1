-- Revert app_jobs:schema from pg

begin;

set local lock_timeout = '5s';

drop schema app_jobs;

commit;
