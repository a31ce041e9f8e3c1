-- Deploy app_jobs:jobs_origin to pg
-- requires: jobs
-- requires: finished_jobs

begin;

set local lock_timeout = '5s';

-- Columns go to the end, with a constant default: nothing is rewritten or read.
alter table app_jobs.jobs add column origin text not null default 'unknown';
alter table app_jobs.finished_jobs add column origin text not null default 'unknown';

create function app_jobs.jobs_from(origin text) returns setof bigint
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select j.id from app_jobs.jobs as j
    where j.origin = jobs_from.origin and j.origin <> 'unknown'
    order by j.id
$$;

revoke all on function app_jobs.jobs_from(text) from public;
grant execute on function app_jobs.jobs_from(text) to app_jobs_monitor;

comment on column app_jobs.jobs.origin is 'Where it came from.';
comment on column app_jobs.finished_jobs.origin is 'Where it came from.';
comment on function app_jobs.jobs_from(text) is
'List the jobs that came from a place.

origin  the place

Returns: their ids. Roles: app_jobs_monitor.';

commit;
