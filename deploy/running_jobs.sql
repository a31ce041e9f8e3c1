-- Deploy app_jobs:running_jobs to pg
-- requires: metrics

begin;

set local lock_timeout = '5s';

create function app_jobs.running_jobs() returns table (
    worker_id text,
    task_identifier text,
    jobs bigint,
    since timestamptz
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    -- As metrics() does it: leases slot by slot, or dead entries of the index would be walked.
    return query
    with slots as (
        select o.slot from app_jobs.open_slots as o
        union
        select a.slot from app_jobs.alarms as a where a.kind = 'lease'
    ),

    held as (
        select j.*
        from slots as s
        cross join lateral (
            select l.locked_by, l.task_identifier, l.locked_at
            from app_jobs.jobs as l
            where l.slot = s.slot and l.lease_expires_at is not null
            offset 0
        ) as j
        union all
        select p.locked_by, p.task_identifier, p.locked_at
        from app_jobs.jobs as p
        where p.locked_by is not null and p.lease_expires_at is null
    )

    select h.locked_by, h.task_identifier, count(*), min(h.locked_at)
    from held as h
    group by h.locked_by, h.task_identifier
    order by h.locked_by, min(h.locked_at), h.task_identifier;
end;
$$;

revoke all on function app_jobs.running_jobs() from public;
grant execute on function app_jobs.running_jobs() to app_jobs_monitor;

comment on function app_jobs.running_jobs() is
'Tell what each worker holds, processing jobs included; exact, and cheap however many jobs wait.

Returns: a row per worker and task: how many jobs, and since when the first of them has been held.
Roles: app_jobs_monitor.';

commit;
