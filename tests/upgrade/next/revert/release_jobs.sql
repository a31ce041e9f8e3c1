-- Revert app_jobs:release_jobs from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.release_jobs(text, integer);

-- here stands what deploy/release_jobs@vTHIS.sql has between begin and commit

commit;
