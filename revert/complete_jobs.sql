-- Revert app_jobs:complete_jobs from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.complete_job(text, bigint, integer, json);
drop function app_jobs.complete_jobs(text, bigint[], integer[], json[]);

commit;
