-- Revert app_jobs:job_queues from pg

begin;

set local lock_timeout = '5s';

drop view app_jobs.job_queues;
drop table app_jobs.queue_settings;

commit;
