-- Revert app_jobs:lines from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.look(text, text[], text[], integer, app_jobs.place);
drop function app_jobs.lock_jobs(
    integer, text, text[], text, text, text[], app_jobs.place, app_jobs.place, integer, boolean
);
drop function app_jobs.only_slot(text, text[], integer);
drop function app_jobs.task_range(text[]);
drop type app_jobs.found;
drop type app_jobs.place;
drop function app_jobs.raise_bounds(integer, text);

commit;
