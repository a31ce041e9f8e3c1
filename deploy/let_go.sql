-- Deploy app_jobs:let_go to pg
-- requires: queues
-- requires: effects

begin;

set local lock_timeout = '5s';

create function app_jobs.queues_left(tids tid[], out queue_lines text[], out tasks text[])
language plpgsql
stable
as $$
begin
    select array_agg(q.line), array_agg(q.task_identifier) into queue_lines, tasks
    from (
        select distinct app_jobs.queue_line(j.database_id, j.queue_name) as line, j.task_identifier
        from app_jobs.jobs as j
        where
            j.ctid = any(queues_left.tids)
            and j.queue_name is not null
            -- said in a way that no partial index can serve: by address, whatever the statistics say
            and (coalesce(j.seat, 0) > 0 or coalesce(j.line, '-') = '')
        limit app_jobs.queues_at_most()
    ) as q;
end;
$$;

create function app_jobs.finish_jobs(
    tids tid[], state text, finished_by text, reasons text[], results json[] default null,
    keep interval default null
) returns setof bigint
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    return query
    with gone as materialized (
        delete from app_jobs.jobs as j
        using unnest(finish_jobs.tids, finish_jobs.reasons, finish_jobs.results)
            as g(tid, reason, result)
        where j.ctid = g.tid
        returning j.*, g.reason, g.result
    ),

    kept as (
        insert into app_jobs.finished_jobs (
            id, database_id, queue_name, task_identifier, payload, attributes, priority, run_at,
            attempts, max_attempts, lease, key, last_error, retry_after, created_at, started_at,
            state, finished_by, result, keep_until
        )
        select
            g.id, g.database_id, g.queue_name, g.task_identifier, g.payload, g.attributes,
            g.priority, g.run_at, g.attempts, g.max_attempts, g.lease, g.key,
            coalesce(g.reason, g.last_error), g.retry_after, g.created_at, g.locked_at,
            finish_jobs.state, coalesce(finish_jobs.finished_by, g.locked_by), g.result,
            clock_timestamp() + k.keep
        from gone as g
        left join app_jobs.tasks as t on t.task_identifier = g.task_identifier
        cross join lateral (
            select coalesce(finish_jobs.keep, case finish_jobs.state
                when 'completed' then coalesce(t.keep_completed, interval '0')
                else coalesce(t.keep_failed, interval '30 days')
            end)
        ) as k(keep)
        where k.keep > interval '0'
        returning id
    ),

    forgotten as (
        delete from app_jobs.job_errors as e
        where e.job_id = any(array(
            select g.id
            from gone as g
            where
                -- a job that is completed by its first claim has none
                not (finish_jobs.state = 'completed' and g.lease = 1 and g.locked_by is not null)
                and g.id not in (select k.id from kept as k)
        ))
    ),

    repeatable as (
        delete from app_jobs.effects as e
        where e.job_id = any(array(
            select g.id
            from gone as g
            where g.has_effects and g.id not in (select k.id from kept as k)
        ))
    )

    select g.id from gone as g;
end;
$$;

create function app_jobs.end_jobs(
    tids tid[], state text, reason text, keep interval default null
) returns void
language plpgsql
volatile
as $$
declare
    v_lines text[];
    v_tasks text[];
begin
    select q.queue_lines, q.tasks into v_lines, v_tasks
    from app_jobs.queues_left(end_jobs.tids) as q;
    perform app_jobs.finish_jobs(
        end_jobs.tids, end_jobs.state, null,
        array_fill(end_jobs.reason, array[cardinality(end_jobs.tids)]), null, end_jobs.keep
    );
    if v_lines is not null then
        perform app_jobs.advance_queues(v_lines, v_tasks, true);
    end if;
end;
$$;

create function app_jobs.let_go(
    tids tid[], run_ats timestamptz[], errors text[], permanent boolean[], counted boolean,
    wait boolean
) returns void
language plpgsql
volatile
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_cancelled tid[];
    v_reasons text[];
    v_failed tid[];
    v_errors text[];
    v_slot integer;
    v_lines text[];
    v_tasks text[];
begin
    select q.queue_lines, q.tasks into v_lines, v_tasks from app_jobs.queues_left(let_go.tids) as q;

    select
        array_agg(h.tid) filter (where h.cancel_reason is not null),
        array_agg(h.cancel_reason) filter (where h.cancel_reason is not null),
        array_agg(h.tid) filter (where h.cancel_reason is null and h.over),
        array_agg(h.error) filter (where h.cancel_reason is null and h.over)
    into v_cancelled, v_reasons, v_failed, v_errors
    from (
        select
            g.tid, g.error, j.cancel_reason,
            coalesce(g.permanent, false)
            or (let_go.counted and (j.attempts >= j.max_attempts or j.superseded)) as over
        from unnest(let_go.tids, let_go.errors, let_go.permanent) as g(tid, error, permanent)
        inner join app_jobs.jobs as j on j.ctid = g.tid
    ) as h;
    if v_cancelled is not null then
        perform app_jobs.finish_jobs(v_cancelled, 'cancelled', null, v_reasons);
    end if;
    if v_failed is not null then
        perform app_jobs.finish_jobs(v_failed, 'failed', null, v_errors);
    end if;

    -- The others wait again: the rows that were finished are gone.
    v_slot := app_jobs.enter_slot();
    update app_jobs.jobs as j
    set
        run_at = coalesce(g.run_at, j.run_at),
        line = case when coalesce(g.run_at, j.run_at) <= v_now then '' end,
        slot = v_slot,
        attempts = case when let_go.counted then j.attempts else greatest(j.attempts - 1, 0) end,
        last_error = case when let_go.counted then g.error else j.last_error end,
        seat = null,
        locked_by = null,
        locked_at = null,
        lease_expires_at = null,
        lease_length = null,
        updated_at = v_now
    from unnest(let_go.tids, let_go.run_ats, let_go.errors) as g(tid, run_at, error)
    where j.ctid = g.tid;
    if found then
        perform app_jobs.note_arrivals(cardinality(let_go.tids));
        perform app_jobs.wake_workers();
    end if;

    if v_lines is not null then
        perform app_jobs.advance_queues(v_lines, v_tasks, let_go.wait);
    end if;
end;
$$;

revoke all on function app_jobs.queues_left(tid[]) from public;
revoke all on function app_jobs.finish_jobs(tid[], text, text, text[], json[], interval)
from public;
revoke all on function app_jobs.end_jobs(tid[], text, text, interval) from public;
revoke all on function app_jobs.let_go(
    tid[], timestamptz[], text[], boolean[], boolean, boolean
) from public;

comment on function app_jobs.queues_left(tid[]) is
'Name the queues that may move on once these jobs are gone from where they stand, with the tasks of
those jobs: a seat is left, or one was on its way to a seat.

tids  jobs, locked by the caller

Returns: two arrays for advance_queues(), of queues_at_most(), since each queue costs an advisory
lock; tick() moves the others. Null if there is none. Roles: internal.';
comment on function app_jobs.finish_jobs(tid[], text, text, text[], json[], interval) is
'Move jobs to finished_jobs. What is not kept goes with its errors and effects.

tids         jobs, locked by the caller
state        completed, failed or cancelled
finished_by  the worker; null: the jobs'' holders
reasons      what to keep as last_error, one for each job; null: its own
results      what to keep as result, one for each job; null: none
keep         how long; 0: not at all; null: as long as the task''s keep_completed or keep_failed says

Returns: their ids. Roles: internal; the caller pins the plans.';
comment on function app_jobs.end_jobs(tid[], text, text, interval) is
'Finish jobs. Their queues move on.

tids    jobs, locked by the caller
state   completed, failed or cancelled
reason  what to keep as last_error; null: their own
keep    as in finish_jobs()

Locks: the jobs'' queues; waits for them. Roles: internal; the caller pins the plans.';
comment on function app_jobs.let_go(tid[], timestamptz[], text[], boolean[], boolean, boolean) is
'Let held jobs go that are not completed: back to wait, or to finished_jobs if they are to be
cancelled or have no attempt left. Their queues move on.

tids       jobs, locked by the caller
run_ats    when each may run again; null: at once
errors     why, one for each job
permanent  true: it failed for good; null or false: not
counted    whether the attempt counts
wait       as in advance_queues()

Locks: the jobs'' queues. Roles: internal.';

commit;
