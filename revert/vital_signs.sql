-- Revert app_jobs:vital_signs from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.vital_signs();

commit;
