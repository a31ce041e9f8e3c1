-- Revert app_jobs:error_codes from pg

begin;

set local lock_timeout = '5s';

drop table app_jobs.error_codes;

commit;
