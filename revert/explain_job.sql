-- Revert app_jobs:explain_job from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.explain_job(bigint);
drop function app_jobs.explain_ready(app_jobs.jobs);
drop function app_jobs.explain_finished(bigint);
drop function app_jobs.explain_queue(app_jobs.jobs);
drop function app_jobs.first_line(text);
drop function app_jobs.at_time(timestamptz);
drop function app_jobs.in_words(interval);

commit;
