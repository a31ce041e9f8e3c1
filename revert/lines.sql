-- Revert app_jobs:lines from pg

begin;

set local lock_timeout = '5s';

drop function app_jobs.look(text, text[], text[], integer, app_jobs.place);
drop type app_jobs.found;
drop type app_jobs.place;
drop function app_jobs.raise_bounds(integer, text);

commit;
