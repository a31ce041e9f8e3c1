-- Revert app_jobs:version from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.version();

commit;
