-- Deploy app_jobs:run_schedules to pg
-- requires: scheduled_jobs
-- requires: add_jobs

begin;

set local lock_timeout = '5s';

create function app_jobs.schedule_slots(
    now timestamptz, out slot integer, out since timestamptz
) returns setof record
language sql
stable
as $$
    select o.slot, timestamptz '-infinity' from app_jobs.open_slots as o
    union all
    (
        select a.slot, a.due_at
        from app_jobs.alarms as a
        where a.kind = 'schedule' and a.due_at <= schedule_slots.now
        order by a.due_at
        limit 50
    )
$$;

create function app_jobs.next_schedule_at(now timestamptz) returns timestamptz
language plpgsql
stable
as $$
#variable_conflict use_column
begin
    return (
        select min(d.due_at)
        from (
            (
                select a.due_at
                from app_jobs.alarms as a
                where a.kind = 'schedule' and a.due_at > next_schedule_at.now
                order by a.due_at
                limit 1
            )
            union all
            -- in open slots, and where an alarm has just gone off: exactly
            select h.due_at
            from app_jobs.schedule_slots(next_schedule_at.now) as p(slot, since)
            cross join lateral (
                select w.due_at
                from app_jobs.scheduled_jobs as w
                where w.slot = p.slot and w.due_at >= p.since
                order by w.due_at
                limit 1
            ) as h
        ) as d
    );
end;
$$;

create function app_jobs.last_due(
    schedule app_jobs.scheduled_jobs, now timestamptz
) returns timestamptz
language plpgsql
stable
as $$
declare
    v_last timestamptz := schedule.next_run_at;
    v_until timestamptz := now;
    v_next timestamptz;
    v_middle timestamptz;
begin
    -- Halve the time in which it must be: a thousand due times cost ten looks.
    loop
        v_next := app_jobs.next_run_at(schedule.schedule_info, v_last, schedule.time_zone);
        exit when v_next is null or v_next > now;
        v_last := v_next;
        v_middle := v_last + make_interval(secs => extract(epoch from v_until - v_last) / 2);
        v_next := app_jobs.next_run_at(schedule.schedule_info, v_middle, schedule.time_zone);
        if v_next is null or v_next > now then
            v_until := v_middle;
        else
            v_last := v_next;
        end if;
    end loop;
    return v_last;
end;
$$;

create function app_jobs.due_times(
    schedule app_jobs.scheduled_jobs, now timestamptz,
    out due timestamptz[], out last_due timestamptz, out next_due timestamptz
)
language plpgsql
stable
as $$
declare
    c_late constant interval := interval '1 minute';
    c_at_once constant integer := 100;
begin
    due := '{}';
    next_due := schedule.next_run_at;
    if next_due < now - c_late and schedule.missed <> 'all' then
        last_due := app_jobs.last_due(schedule, now);
        if schedule.missed = 'once' then
            due := array[last_due];
        end if;
        next_due := app_jobs.next_run_at(schedule.schedule_info, last_due, schedule.time_zone);
        return;
    end if;
    loop
        last_due := next_due;
        due := due || last_due;
        -- from the due time, not from the clock: none is left out, whenever we come, and none
        -- comes twice, wherever the clock is set
        next_due := app_jobs.next_run_at(schedule.schedule_info, last_due, schedule.time_zone);
        exit when next_due is null or next_due > now or cardinality(due) = c_at_once;
    end loop;
end;
$$;

create function app_jobs.job_spec(
    schedule app_jobs.scheduled_jobs, due_at timestamptz
) returns json
language sql
stable
as $$
    select json_build_object(
        'db_id', schedule.database_id,
        'identifier', schedule.task_identifier,
        'payload', schedule.payload,
        'queue_name', schedule.queue_name,
        'run_at', due_at,
        'max_attempts', schedule.max_attempts,
        'priority', schedule.priority,
        'attributes', schedule.attributes || jsonb_build_object(
            'schedule', jsonb_build_object(
                'id', schedule.id,
                'due_at', (to_json(due_at at time zone 'UTC') #>> '{}') || '+00:00'
            )
        )
    )
$$;

create function app_jobs.fire_schedules(most integer) returns bigint[]
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_looked_at constant integer := 1000;
    c_jobs constant integer := 1000;
    v_now constant timestamptz := clock_timestamp();
    v_due tid[];
    v_row record;
    v_schedule app_jobs.scheduled_jobs;
    v_times record;
    v_due_times timestamptz[];
    v_overlaps boolean;
    v_tids tid[];
    v_last timestamptz[];
    v_next timestamptz[];
    v_counts integer[];
    v_specs json[] := '{}'::json[];
    v_ids bigint[] := '{}'::bigint[];
begin
    -- More than are wanted, since others may have locked those; then lock as many as are wanted.
    v_due := array(
        select d.ctid
        from app_jobs.schedule_slots(v_now) as p(slot, since)
        cross join lateral (
            select w.ctid
            from app_jobs.scheduled_jobs as w
            where w.slot = p.slot and w.due_at >= p.since and w.due_at <= v_now
            order by w.due_at
            limit c_looked_at
        ) as d
        limit c_looked_at
    );
    for v_row in
        select s.ctid as tid, s as schedule
        from app_jobs.scheduled_jobs as s
        -- The fence: of a row that somebody has just changed, what it says now counts. Said in a way
        -- that no partial index can serve: by address, whatever the statistics say.
        where s.ctid = any(v_due) and coalesce(s.due_at, 'infinity') <= v_now
        order by s.due_at
        limit fire_schedules.most
        for update skip locked
    loop
        v_schedule := v_row.schedule;
        begin
            select t.* into v_times from app_jobs.due_times(v_schedule, v_now) as t;
        exception when data_exception then
            -- Its time zone has gone from the server, say. It must not stop the others.
            raise warning 'app_jobs: schedule % is paused: %', v_schedule.id, sqlerrm
                using hint = 'Correct schedule_info or time_zone, then set paused = false.';
            update app_jobs.scheduled_jobs as s set paused = true where s.ctid = v_row.tid;
            continue;
        end;
        v_due_times := v_times.due;
        if v_schedule.overlap = 'skip' then
            v_overlaps := exists (
                select from app_jobs.jobs as j where j.id = v_schedule.last_scheduled_id
            );
            -- the job of the first one still waits when the second one is due
            v_due_times := case when v_overlaps then '{}' else v_due_times[1:1] end;
        end if;
        v_specs := v_specs || array(
            select app_jobs.job_spec(v_schedule, t.due_at)
            from unnest(v_due_times) with ordinality as t(due_at, n)
            order by t.n
        );
        v_tids := v_tids || v_row.tid;
        v_last := v_last || v_times.last_due;
        v_next := v_next || v_times.next_due;
        v_counts := v_counts || cardinality(v_due_times);
        exit when cardinality(v_specs) >= c_jobs;
    end loop;

    -- To add the jobs and to note it is one transaction: nothing in between can be lost.
    if cardinality(v_specs) > 0 then
        v_ids := array(
            select i.id
            from unnest(app_jobs.insert_jobs(
                array_to_json(v_specs), null, null, null, cardinality(v_specs), null, null, null,
                null, null, null
            )) as i(id)
            order by i.id
        );
    end if;
    update app_jobs.scheduled_jobs as s
    set
        last_scheduled = f.last_due,
        last_scheduled_id = case
            when f.jobs > 0 then v_ids[f.jobs_so_far] else s.last_scheduled_id
        end,
        next_run_at = f.next_due,
        locked_at = null,
        locked_by = null
    from (
        select u.*, sum(u.jobs) over (order by u.n) as jobs_so_far
        from unnest(v_tids, v_last, v_next, v_counts) with ordinality
        as u(tid, last_due, next_due, jobs, n)
    ) as f
    where s.ctid = f.tid;

    -- as in make_due_ready()
    with rung as materialized (
        select a.slot, a.due_at
        from app_jobs.alarms as a
        where a.kind = 'schedule' and a.due_at <= v_now
        order by a.due_at
        limit 50
        for update skip locked
    ),

    next_due as materialized (
        select r.slot, n.due_at
        from rung as r
        left join lateral (
            select s.due_at
            from app_jobs.scheduled_jobs as s
            where s.slot = r.slot and s.due_at >= r.due_at
            order by s.due_at
            limit 1
        ) as n on true
    ),

    silent as (
        delete from app_jobs.alarms as a
        using next_due as n
        where a.slot = n.slot and a.kind = 'schedule' and n.due_at is null
    )

    update app_jobs.alarms as a
    set due_at = n.due_at
    from next_due as n
    where
        a.slot = n.slot
        and a.kind = 'schedule'
        and n.due_at > v_now + interval '0.2 seconds';
    return v_ids;
end;
$$;

create function app_jobs.run_due_schedules() returns setof app_jobs.jobs
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
    v_ids bigint[];
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'run_due_schedules() cannot run at isolation level %',
            current_setting('transaction_isolation')
            using errcode = 'JQ002',
                detail = 'It locks, and then must see what others did before.',
                hint = 'Call it at READ COMMITTED.';
    end if;
    v_ids := app_jobs.fire_schedules(1000);
    return query
    select j.* from app_jobs.jobs as j where j.id = any(v_ids) order by j.id;
end;
$$;

create function app_jobs.run_scheduled_job(
    scheduled_job_id bigint,
    job_expiry interval default '1 hour'
) returns app_jobs.jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    c_hold constant interval := interval '1 minute';
    v_expiry constant interval := coalesce(run_scheduled_job.job_expiry, interval '1 hour');
    v_now timestamptz;
    v_schedule app_jobs.scheduled_jobs;
    v_last app_jobs.jobs;
    v_job app_jobs.jobs;
begin
    perform app_jobs.check_not_null(
        'scheduled_job_id', run_scheduled_job.scheduled_job_id is null, 'Give scheduled_jobs.id.'
    );
    perform app_jobs.check_positive('job_expiry', v_expiry);
    select s.* into v_schedule
    from app_jobs.scheduled_jobs as s
    where s.id = run_scheduled_job.scheduled_job_id
    for update;
    if not found then
        raise exception 'no schedule has id %', run_scheduled_job.scheduled_job_id
            using errcode = 'JQ001', hint = 'Look into scheduled_jobs: it may have been removed.';
    end if;
    v_now := clock_timestamp();
    select j.* into v_last from app_jobs.jobs as j where j.id = v_schedule.last_scheduled_id;
    if found and coalesce(v_last.locked_at, 'infinity') > v_now - v_expiry then
        raise exception 'the last job of schedule % still %', v_schedule.id,
            case when v_last.locked_at is null then 'waits' else 'runs' end
            using errcode = 'JQ004',
                detail = format('Job %s%s.', v_last.id, ', held by ' || v_last.locked_by
                    || ' since ' || v_last.locked_at),
                hint = 'Let it end, cancel it, or give a job_expiry after which it counts as dead.';
    end if;

    v_job := app_jobs.add_job(
        db_id => v_schedule.database_id,
        identifier => v_schedule.task_identifier,
        payload => v_schedule.payload,
        queue_name => v_schedule.queue_name,
        run_at => v_now,
        max_attempts => v_schedule.max_attempts,
        priority => v_schedule.priority,
        attributes => v_schedule.attributes || jsonb_build_object(
            'schedule', jsonb_build_object('id', v_schedule.id)
        )
    );
    -- Who holds the schedule sees to its due times: those up to now are done with. For anybody
    -- else this is a job more.
    update app_jobs.scheduled_jobs as s
    set
        last_scheduled_id = v_job.id,
        last_scheduled = case
            when s.locked_at > v_now - c_hold then greatest(v_now, s.last_scheduled)
            else s.last_scheduled
        end,
        next_run_at = case
            when s.locked_at > v_now - c_hold and s.next_run_at <= v_now
                then app_jobs.next_run_at(
                    s.schedule_info, greatest(v_now, s.last_scheduled), s.time_zone
                )
            else s.next_run_at
        end
    where s.id = v_schedule.id;
    return v_job;
end;
$$;

create function app_jobs.get_scheduled_job(
    worker_id text,
    task_identifiers text[] default null
) returns app_jobs.scheduled_jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    c_hold constant interval := interval '1 minute';
    v_now constant timestamptz := clock_timestamp();
    v_schedule app_jobs.scheduled_jobs;
begin
    perform app_jobs.check_worker_id(get_scheduled_job.worker_id);
    select s.* into v_schedule
    from app_jobs.scheduled_jobs as s
    where
        s.next_run_at is not null
        and (
            get_scheduled_job.task_identifiers is null
            or s.task_identifier = any(get_scheduled_job.task_identifiers)
        )
        -- nobody's, or its own and to be taken again before the hold is over
        and coalesce(s.locked_at, '-infinity') <= v_now - case
            when s.locked_by = get_scheduled_job.worker_id then c_hold / 2 else c_hold
        end
    order by s.id
    limit 1
    for update skip locked;
    if found then
        update app_jobs.scheduled_jobs as s
        set locked_at = v_now, locked_by = get_scheduled_job.worker_id
        where s.id = v_schedule.id
        returning s.* into v_schedule;
    end if;
    return v_schedule;
end;
$$;

create function app_jobs.release_scheduled_jobs(
    worker_id text,
    ids bigint[] default null
) returns setof bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform app_jobs.check_worker_id(release_scheduled_jobs.worker_id);
    return query
    update app_jobs.scheduled_jobs as s
    set locked_at = null, locked_by = null
    where
        s.locked_by = release_scheduled_jobs.worker_id
        and (
            release_scheduled_jobs.ids is null or s.id = any(release_scheduled_jobs.ids)
        )
    returning s.id;
end;
$$;

revoke all on function app_jobs.schedule_slots(timestamptz) from public;
revoke all on function app_jobs.next_schedule_at(timestamptz) from public;
revoke all on function app_jobs.last_due(app_jobs.scheduled_jobs, timestamptz) from public;
revoke all on function app_jobs.due_times(app_jobs.scheduled_jobs, timestamptz) from public;
revoke all on function app_jobs.job_spec(app_jobs.scheduled_jobs, timestamptz) from public;
revoke all on function app_jobs.fire_schedules(integer) from public;
revoke all on function app_jobs.run_due_schedules() from public;
revoke all on function app_jobs.run_scheduled_job(bigint, interval) from public;
revoke all on function app_jobs.get_scheduled_job(text, text[]) from public;
revoke all on function app_jobs.release_scheduled_jobs(text, bigint[]) from public;
grant execute on function app_jobs.run_due_schedules() to app_jobs_worker;
grant execute on function app_jobs.run_scheduled_job(bigint, interval) to app_jobs_worker;
grant execute on function app_jobs.get_scheduled_job(text, text[]) to app_jobs_worker;
grant execute on function app_jobs.release_scheduled_jobs(text, bigint[]) to app_jobs_worker;

comment on function app_jobs.schedule_slots(timestamptz) is
'List the slots in which a schedule may be due, with a lower bound of what is due there: the open
ones, and those whose alarm has gone off.

now  the time

Roles: internal; the caller pins the plans.';
comment on function app_jobs.next_schedule_at(timestamptz) is
'Tell when the next schedule is due.

now  the time

Returns: the time, or a lower bound of it; null: never. Roles: internal; the caller pins the
plans.';
comment on function app_jobs.last_due(app_jobs.scheduled_jobs, timestamptz) is
'Find the last due time of a schedule that is behind.

schedule  the schedule; its next_run_at has passed
now       the time

Returns: the last due time up to now. Errors: as next_run_at(). Roles: internal.';
comment on function app_jobs.due_times(app_jobs.scheduled_jobs, timestamptz) is
'Decide what a due schedule gets: a job for each due time, or what scheduled_jobs.missed says if it
is more than a minute behind.

schedule  the schedule; its next_run_at has passed
now       the time

Returns: due, the times that get a job, at most 100; last_due, the last one seen to; next_due, the
one after it (null: none). Errors: as next_run_at(). Roles: internal.';
comment on function app_jobs.job_spec(app_jobs.scheduled_jobs, timestamptz) is
'Describe the job of a due time, as add_jobs() takes it.

schedule  the schedule
due_at    the due time: run_at, and in attributes, as UTC

Roles: internal.';
comment on function app_jobs.fire_schedules(integer) is
'Add the jobs of schedules that are due, and note it in the same transaction.

most  schedules at most; it also stops after a thousand jobs

Returns: ids of the jobs. Locks: those schedules, skipping locked ones; the current slot, shared.
Roles: internal; READ COMMITTED only; the caller pins the plans.';
comment on function app_jobs.run_due_schedules() is
'Add the jobs of schedules that are due. tick() does it, so where a worker runs nobody needs to.
Each due time adds its job once, however many call it. A schedule that is more than a minute behind
gets what its column missed says. At most a thousand schedules in a call: call it again while it
returns jobs.

Returns: the jobs added. Errors: JQ002 at another level than READ COMMITTED. Locks: the schedules,
skipping locked ones; the current slot, shared. Roles: app_jobs_worker.';
comment on function app_jobs.run_scheduled_job(bigint, interval) is
'Add a job of a schedule now, paused or not. Its due times stay as they are, unless an outside
scheduler holds it: then those up to now are done with.

scheduled_job_id  the schedule
job_expiry        a last job that has been held for longer counts as dead; positive

Returns: the job. Errors: 22004, 22023, JQ001 if there is no such schedule, JQ004 if its last job
still waits or runs. Locks: the schedule; waits for it. Roles: app_jobs_worker.';
comment on function app_jobs.get_scheduled_job(text, text[]) is
'Take a schedule, for a scheduler outside that computes times itself and calls run_scheduled_job().
While it holds the schedule run_due_schedules() leaves it alone. The hold lasts a minute: call this
every 20 seconds or so until it returns nothing, for it also returns what the scheduler has held for
half a minute, taken again.

worker_id         names the scheduler, 1 to 200 characters
task_identifiers  only schedules of these tasks; null: all

Returns: the schedule; a row of nulls if there is none to take. Errors: 22004, 22023. Locks: that
schedule, skipping locked ones. Roles: app_jobs_worker.';
comment on function app_jobs.release_scheduled_jobs(text, bigint[]) is
'Give schedules back that an outside scheduler holds. Due times that it has not seen to are seen to
then, as missed says.

worker_id  the scheduler
ids        only these; null: all that it holds

Returns: their ids. Errors: 22004, 22023. Locks: those schedules. Roles: app_jobs_worker.';

commit;
