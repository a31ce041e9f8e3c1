-- Deploy app_jobs:version to pg
-- requires: roles

begin;

set local lock_timeout = '5s';

create function app_jobs.version() returns text
language sql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select '0.1.0'
$$;

revoke all on function app_jobs.version() from public;
grant execute on function app_jobs.version()
to app_jobs_producer, app_jobs_worker, app_jobs_operator, app_jobs_monitor;

comment on function app_jobs.version() is
'Tell the version of this schema.

Returns: major.minor.patch. Roles: app_jobs_producer, app_jobs_worker, app_jobs_operator,
app_jobs_monitor.';

commit;
