-- Revert app_jobs:version from pg

begin;

set local lock_timeout = '5s';

create or replace function app_jobs.version() returns text
language sql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select 'THIS'
$$;

commit;
