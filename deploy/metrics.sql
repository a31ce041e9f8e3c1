-- Deploy app_jobs:metrics to pg
-- requires: slots

begin;

set local lock_timeout = '5s';

-- A view cannot pin its plan.
create function app_jobs.metrics() returns table (
    database_id uuid,
    task_identifier text,
    queue_name text,
    ready bigint,
    scheduled bigint,
    running bigint,
    parked bigint,
    expired bigint,
    oldest_ready_age interval,
    failed_1h bigint
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
declare
    c_failures constant integer := 10000;
    v_now constant timestamptz := clock_timestamp();
begin
    return query
    with closed as (
        select t.state, t.task_identifier, t.queue_line, sum(t.jobs) as jobs
        from app_jobs.totals as t
        group by t.state, t.task_identifier, t.queue_line
        having sum(t.jobs) > 0
    ),

    held_in as (
        select o.slot from app_jobs.open_slots as o
        union
        select a.slot from app_jobs.alarms as a where a.kind = 'lease'
    ),

    -- lateral, and offset 0: slot by slot, whatever the statistics say
    held as (
        select j.*
        from held_in as s
        cross join lateral (
            select h.task_identifier, h.database_id, h.queue_name, h.lease_expires_at
            from app_jobs.jobs as h
            where h.slot = s.slot and h.lease_expires_at is not null
            offset 0
        ) as j
        union all
        select p.task_identifier, p.database_id, p.queue_name, p.lease_expires_at
        from app_jobs.jobs as p
        where
            p.locked_by is not null
            and p.lease_expires_at is null
            -- true of all: only the index of these jobs can serve it
            and p.locked_at > '-infinity'
    ),

    failed as (
        select f.task_identifier, f.database_id, f.queue_name
        from app_jobs.finished_jobs as f
        where f.state = 'failed' and f.finished_at > v_now - interval '1 hour'
        order by f.finished_at desc
        limit c_failures
    ),

    counted as (
        select
            c.state, c.task_identifier, c.queue_line, c.jobs,
            case when c.state = 'ready' then (
                select s.oldest
                from app_jobs.slot_counts as s
                where
                    s.state = 'ready'
                    and s.task_identifier = c.task_identifier
                    and s.queue_line = c.queue_line
                order by s.oldest
                limit 1
            ) end as oldest
        from closed as c
        union all
        select w.state, w.task_identifier, w.queue_line, w.jobs, w.oldest
        from app_jobs.open_slots as o
        cross join lateral app_jobs.waiting_in(o.slot) as w
        union all
        select
            case when h.lease_expires_at <= v_now then 'expired' else 'running' end,
            h.task_identifier,
            app_jobs.queue_line(h.database_id, coalesce(h.queue_name, '')), count(*), null
        from held as h
        group by 1, 2, 3
        union all
        select
            'failed', f.task_identifier,
            app_jobs.queue_line(f.database_id, coalesce(f.queue_name, '')), count(*), null
        from failed as f
        group by 1, 2, 3
    )

    select
        substring(c.queue_line from '^([^:]{36}):')::uuid,
        c.task_identifier,
        nullif(regexp_replace(c.queue_line, '^[^:]*:', ''), ''),
        coalesce(sum(c.jobs) filter (where c.state = 'ready'), 0)::bigint,
        coalesce(sum(c.jobs) filter (where c.state = 'scheduled'), 0)::bigint,
        coalesce(sum(c.jobs) filter (where c.state in ('running', 'expired')), 0)::bigint,
        coalesce(sum(c.jobs) filter (where c.state = 'parked'), 0)::bigint,
        coalesce(sum(c.jobs) filter (where c.state = 'expired'), 0)::bigint,
        v_now - min(c.oldest) filter (where c.state = 'ready'),
        coalesce(sum(c.jobs) filter (where c.state = 'failed'), 0)::bigint
    from counted as c
    group by c.queue_line, c.task_identifier;
end;
$$;

create view app_jobs.metrics as
select
    m.database_id,
    m.task_identifier,
    m.queue_name,
    m.ready,
    m.scheduled,
    m.running,
    m.parked,
    m.expired,
    m.oldest_ready_age,
    m.failed_1h
from app_jobs.metrics() as m;

revoke all on function app_jobs.metrics() from public;
grant execute on function app_jobs.metrics() to app_jobs_monitor;
grant select on app_jobs.metrics to app_jobs_monitor;

comment on function app_jobs.metrics() is
'Count jobs by tenant, task and queue; cheap enough to be asked every 10 seconds with millions of
jobs waiting.

Returns: a row per tenant, task and queue that has jobs or has failed of late, no payload. Jobs
that have waited for long (in closed slots) are counted as of tick()''s last look, never too few:
see the view''s columns. Roles: app_jobs_monitor.';
comment on view app_jobs.metrics is
'A row per tenant, task and queue that has jobs, or failures of the last hour: the rows of
metrics(). Exact for what runs and for the last thousand or so to arrive; for others that wait as
of the last count: a count goes with the last job of about a thousand that arrived together, and
tick() counts again in turn, some 4,000 jobs a call.';
comment on column app_jobs.metrics.database_id is 'Tenant; null: none.';
comment on column app_jobs.metrics.task_identifier is 'Task.';
comment on column app_jobs.metrics.queue_name is 'Queue; null: none; *: jobs of tenants and queues of which there are too many to count each (more than 50 among a thousand jobs of a task).';
comment on column app_jobs.metrics.ready is 'Jobs that could be claimed now, those of paused tasks included.';
comment on column app_jobs.metrics.scheduled is 'Jobs whose time has not come: added so, retried or snoozed.';
comment on column app_jobs.metrics.running is 'Jobs that a worker holds, expired and processing ones included.';
comment on column app_jobs.metrics.parked is 'Jobs behind others of their queue, or of a paused queue.';
comment on column app_jobs.metrics.expired is 'Running jobs whose lease is over: tick() takes them back within a second or so.';
comment on column app_jobs.metrics.oldest_ready_age is 'Time since the lowest run_at among ready jobs; null: none is ready.';
comment on column app_jobs.metrics.failed_1h is 'Jobs that failed for good within the last hour and are still kept; the newest 10,000 of all tasks are looked at.';

commit;
