-- Revert app_jobs:lists from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.list_tasks();
drop function app_jobs.list_queues(text, integer);
drop function app_jobs.list_finished(
    text, text, uuid, text, text, timestamptz, timestamptz, bigint, integer
);
drop function app_jobs.list_jobs(text, text, uuid, text, text, bigint, integer);
drop function app_jobs.is_wanted(app_jobs.listed_job, text, text, uuid, text, text);
drop function app_jobs.check_list(text, text[], integer, integer);
drop type app_jobs.listed_job;

commit;
