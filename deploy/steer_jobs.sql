-- Deploy app_jobs:steer_jobs to pg
-- requires: set_task

begin;

set local lock_timeout = '5s';

create function app_jobs.lock_jobs(job_ids bigint[], leased boolean) returns tid[]
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    perform app_jobs.check_not_null(
        'job_ids', lock_jobs.job_ids is null, 'Give the ids of the jobs.'
    );
    -- in the order of ids, so that no two who steer jobs wait for each other
    perform from (
        select distinct g.id from unnest(lock_jobs.job_ids) as g(id) order by g.id
    ) as given
    cross join lateral (
        select from app_jobs.jobs as w
        where
            w.id = given.id
            -- said in a way that no partial index can serve: by id, whatever the statistics say
            and (lock_jobs.leased or coalesce(w.lease_expires_at, '-infinity') = '-infinity')
        for update
    ) as j;
    -- A new statement, a new snapshot: it sees what those have done for whom we waited.
    return array(
        select j.ctid
        from app_jobs.jobs as j
        where
            j.id = any(lock_jobs.job_ids)
            and (lock_jobs.leased or coalesce(j.lease_expires_at, '-infinity') = '-infinity')
        order by j.id
    );
end;
$$;

create function app_jobs.slots_for(jobs integer, out slots integer[], out closed boolean)
language plpgsql
volatile
as $$
declare
    c_slot_size constant integer := 1000;
begin
    closed := slots_for.jobs >= c_slot_size;
    if closed then
        slots := array(
            select nextval('app_jobs.slot_number')
            from generate_series(1, (slots_for.jobs + c_slot_size - 1) / c_slot_size)
        );
    else
        slots := array[app_jobs.enter_slot()];
        perform app_jobs.note_arrivals(slots_for.jobs);
    end if;
end;
$$;

create function app_jobs.complete_jobs(job_ids bigint[]) returns setof app_jobs.jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_tids constant tid[] := app_jobs.lock_jobs(complete_jobs.job_ids, false);
begin
    return query
    select j.*
    from unnest(v_tids) with ordinality as g(tid, n)
    inner join app_jobs.jobs as j on j.ctid = g.tid
    order by g.n;
    perform app_jobs.end_jobs(v_tids, 'completed', null);
end;
$$;

create function app_jobs.permanently_fail_jobs(
    job_ids bigint[], error_message text default null
) returns setof app_jobs.jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_tids constant tid[] := app_jobs.lock_jobs(permanently_fail_jobs.job_ids, false);
begin
    return query
    select j.*
    from unnest(v_tids) with ordinality as g(tid, n)
    inner join app_jobs.jobs as j on j.ctid = g.tid
    order by g.n;
    perform app_jobs.end_jobs(v_tids, 'failed', permanently_fail_jobs.error_message);
end;
$$;

create function app_jobs.cancel_jobs(
    job_ids bigint[], reason text default null
) returns setof app_jobs.jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_tids constant tid[] := app_jobs.lock_jobs(cancel_jobs.job_ids, true);
begin
    return query
    select j.*
    from unnest(v_tids) with ordinality as g(tid, n)
    inner join app_jobs.jobs as j on j.ctid = g.tid
    order by g.n;
    perform app_jobs.cancel_locked(v_tids, cancel_jobs.reason);
end;
$$;

create function app_jobs.reschedule_jobs(
    job_ids bigint[],
    run_at timestamptz default null,
    priority integer default null,
    attempts integer default null,
    max_attempts integer default null
) returns setof app_jobs.jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_tids tid[];
    v_ids bigint[];
    v_slots integer[];
    v_closed boolean;
    v_lines text[];
    v_tasks text[];
begin
    perform app_jobs.check_time('run_at', reschedule_jobs.run_at);
    if reschedule_jobs.attempts not between 0 and 1000000 then
        raise exception 'attempts is %', reschedule_jobs.attempts
            using errcode = '22023', hint = 'Give 0 to 1000000 runs, or null for as many as it had.';
    elsif reschedule_jobs.max_attempts < 1 then
        raise exception 'max_attempts is %', reschedule_jobs.max_attempts
            using errcode = '22023', hint = 'Give at least 1, or null for as many as it has.';
    end if;
    v_tids := app_jobs.lock_jobs(reschedule_jobs.job_ids, false);
    v_tids := array(
        select g.tid
        from unnest(v_tids) with ordinality as g(tid, n)
        inner join app_jobs.jobs as j on j.ctid = g.tid
        where j.locked_by is null
        order by g.n
    );
    if v_tids = '{}' then
        return;
    end if;

    -- A new position needs a new slot, since the old one's bounds do not reckon with it. A parked
    -- job that is due is met by a claim again.
    select q.queue_lines, q.tasks into v_lines, v_tasks from app_jobs.queues_left(v_tids) as q;
    select s.slots, s.closed into v_slots, v_closed
    from app_jobs.slots_for(cardinality(v_tids)) as s;
    v_now := clock_timestamp();
    with changed as (
        update app_jobs.jobs as j
        set
            run_at = coalesce(reschedule_jobs.run_at, j.run_at),
            priority = coalesce(reschedule_jobs.priority, j.priority),
            attempts = coalesce(reschedule_jobs.attempts, j.attempts),
            max_attempts = coalesce(reschedule_jobs.max_attempts, j.max_attempts),
            slot = v_slots[1 + (g.n - 1) * cardinality(v_slots) / cardinality(v_tids)],
            line = case when coalesce(reschedule_jobs.run_at, j.run_at) <= v_now then '' end,
            updated_at = v_now
        from unnest(v_tids) with ordinality as g(tid, n)
        where j.ctid = g.tid
        returning j.id
    )

    select array_agg(c.id) into v_ids from changed as c;
    if v_closed then
        perform app_jobs.close_slot(s.slot) from unnest(v_slots) as s(slot);
    end if;
    perform app_jobs.wake_workers();
    if v_lines is not null then
        perform app_jobs.advance_queues(v_lines, v_tasks, true);
    end if;
    return query select j.* from app_jobs.jobs as j where j.id = any(v_ids) order by j.id;
end;
$$;

revoke all on function app_jobs.lock_jobs(bigint[], boolean) from public;
revoke all on function app_jobs.slots_for(integer) from public;
revoke all on function app_jobs.complete_jobs(bigint[]) from public;
revoke all on function app_jobs.permanently_fail_jobs(bigint[], text) from public;
revoke all on function app_jobs.cancel_jobs(bigint[], text) from public;
revoke all on function app_jobs.reschedule_jobs(
    bigint[], timestamptz, integer, integer, integer
) from public;
grant execute on function app_jobs.complete_jobs(bigint[]) to app_jobs_operator;
grant execute on function app_jobs.permanently_fail_jobs(bigint[], text) to app_jobs_operator;
grant execute on function app_jobs.cancel_jobs(bigint[], text) to app_jobs_operator;
grant execute on function app_jobs.reschedule_jobs(
    bigint[], timestamptz, integer, integer, integer
) to app_jobs_operator;

comment on function app_jobs.lock_jobs(bigint[], boolean) is
'Lock live jobs, in the order of their ids.

job_ids  the jobs
leased   true: also those that a worker has leased

Returns: their rows; unknown ids are left out. Errors: 22004. Locks: the jobs; waits for them.
Roles: internal; the caller pins the plans.';
comment on function app_jobs.slots_for(integer) is
'Choose slots for jobs that are about to come to where they stand: the current one, or, from a
thousand jobs on, slots of their own.

jobs  how many

Returns: the slots, to be used evenly; closed: they are the jobs'' own, so call close_slot() for
each once the jobs are there. Errors: JQ090. Locks: the current slot, shared. Roles: internal.';
comment on function app_jobs.complete_jobs(bigint[]) is
'Complete jobs that no worker has leased: those that wait, and those that are processing. What is
kept of them is the task''s keep_completed.

job_ids  the jobs

Returns: those completed, as they were; a job that is leased, finished or unknown is left out.
Errors: 22004. Locks: the jobs; waits for other transactions that have them locked; their queues.
Roles: app_jobs_operator.';
comment on function app_jobs.permanently_fail_jobs(bigint[], text) is
'Fail jobs for good that no worker has leased: those that wait, and those that are processing. They
are kept as dead letters, for the task''s keep_failed.

job_ids        the jobs
error_message  kept as last_error; null: the error that they have

Returns: those failed, as they were; a job that is leased, finished or unknown is left out. Errors:
22004. Locks: as complete_jobs(job_ids). Roles: app_jobs_operator.';
comment on function app_jobs.cancel_jobs(bigint[], text) is
'Cancel jobs. Those that wait or are processing are finished as cancelled. Those that are leased are
marked, and their workers learn of it at the next heartbeat: one that is completed all the same is
completed, otherwise it is cancelled, not retried.

job_ids  the jobs
reason   kept as last_error; null: "cancelled"

Returns: the jobs as they were (lease_expires_at not null: marked); one that is finished or unknown
is left out. Errors: 22004. Locks: as complete_jobs(job_ids). Roles: app_jobs_operator.';
comment on function app_jobs.reschedule_jobs(bigint[], timestamptz, integer, integer, integer) is
'Change when and how jobs that wait will run.

job_ids       the jobs
run_at        not before this time; null: as it is
priority      lower runs first; null: as it is
attempts      runs so far, 0 to 1000000; null: as it is
max_attempts  1 or more; null: as it is

Returns: those changed, as they are now; a job that runs, is finished or unknown is left out.
Errors: 22004, 22023. Locks: as complete_jobs(job_ids). Roles: app_jobs_operator.';

commit;
