-- Deploy app_jobs:tick to pg
-- requires: cancel_job
-- requires: run_schedules
-- requires: task_stats

begin;

set local lock_timeout = '5s';

-- When tick() last ran, in milliseconds since 1970; when it last swept, in seconds. Sequences: no
-- dead rows, no lock.
create sequence app_jobs.ticked_at minvalue 0 start 0;
create sequence app_jobs.swept_at minvalue 0 start 0;
create sequence app_jobs.pruned_to minvalue 0 start 0;
create sequence app_jobs.moved_to minvalue -9223372036854775808;
select
    setval('app_jobs.ticked_at', 0),
    setval('app_jobs.swept_at', 0),
    setval('app_jobs.pruned_to', 0),
    setval('app_jobs.moved_to', -9223372036854775808);

create function app_jobs.due_slots(kind text, now timestamptz, first integer)
returns setof integer
language sql
stable
as $$
    -- once each: a slot that a sweep listed again may have kept its alarm
    select o.slot from app_jobs.open_slots as o
    where o.slot >= due_slots.first
    union
    (
        select a.slot
        from app_jobs.alarms as a
        where a.kind = due_slots.kind and a.due_at <= due_slots.now
        order by a.due_at
        limit 50
    )
$$;

create function app_jobs.anything_due(now timestamptz, first integer) returns setof integer
language sql
stable
as $$
    select a.slot from app_jobs.alarms as a
    where a.kind = 'run' and a.due_at <= anything_due.now
    union all
    select o.slot
    from app_jobs.open_slots as o
    cross join lateral (
        select from app_jobs.jobs as w
        where
            w.slot = o.slot
            and w.line is null
            and w.locked_by is null
            and w.run_at <= anything_due.now
        limit 1
    ) as due
    where o.slot >= anything_due.first
$$;

create function app_jobs.make_due_ready(
    tasks text[], paused text[], most integer
) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_looked_at constant integer := 1000;
    c_spare constant integer := 100;
    c_of_queues constant integer := 10;
    v_now constant timestamptz := clock_timestamp();
    v_first constant integer := app_jobs.first_slot();
    v_due tid[];
    v_wanted integer;
    v_rung boolean;
    v_tids tid[] := '{}'::tid[];
    v_emptied integer[];
begin
    perform from app_jobs.anything_due(v_now, v_first) limit 1;
    if not found then
        return 0;
    end if;

    -- The best of what is due, so that a claim for one job finds it, and some more, since others
    -- may have locked those; then lock as many as are wanted, and those of queues before them, which
    -- may be full.
    select
        array_agg(b.ctid),
        least(
            count(*) filter (where b.others < make_due_ready.most),
            make_due_ready.most + c_of_queues
        ),
        exists (select from app_jobs.alarms as a where a.kind = 'run' and a.due_at <= v_now)
    into v_due, v_wanted, v_rung
    from (
        select
            d.ctid,
            count(*) filter (where d.queue_name is null) over (
                order by d.priority, d.run_at, d.id
                rows between unbounded preceding and 1 preceding
            ) as others
        from (
            select j.ctid, j.priority, j.run_at, j.id, j.queue_name
            from app_jobs.due_slots('run', v_now, v_first) as s(slot)
            -- lateral: slot by slot, whatever the statistics say
            cross join lateral (
                select w.ctid, w.priority, w.run_at, w.id, w.queue_name
                from app_jobs.jobs as w
                where
                    w.slot = s.slot
                    and w.line is null
                    and w.locked_by is null
                    and w.run_at <= v_now
                    and (
                        make_due_ready.tasks is null
                        or w.task_identifier = any(make_due_ready.tasks)
                    )
                    and w.task_identifier <> all(make_due_ready.paused)
                order by w.run_at
                limit c_looked_at
            ) as j
            limit c_looked_at
        ) as d
        order by d.priority, d.run_at, d.id
        limit make_due_ready.most + c_spare
    ) as b;

    if v_due is not null then
        v_tids := array(
            select j.ctid
            from app_jobs.jobs as j
            -- said in a way that no partial index can serve: by address, whatever the statistics
            -- say
            where j.ctid = any(v_due) and coalesce(j.line, j.locked_by) is null
            order by j.priority, j.run_at, j.id
            limit v_wanted
            for update skip locked
        );
    end if;
    if v_tids <> '{}' then
        update app_jobs.jobs as j
        set line = '', slot = app_jobs.enter_slot(), updated_at = v_now
        where j.ctid = any(v_tids);
        perform app_jobs.note_arrivals(cardinality(v_tids));
        perform app_jobs.wake_workers();
    end if;
    if not v_rung then
        return cardinality(v_tids);
    end if;
    -- An alarm that has gone off is set again, or removed. One that would go off in a moment is
    -- left as it is: to look once more costs less than to write the row for every single job.
    with rung as materialized (
        select a.slot, a.due_at
        from app_jobs.alarms as a
        where a.kind = 'run' and a.due_at <= v_now
        order by a.due_at
        limit 50
        for update skip locked
    ),

    next_due as materialized (
        select r.slot, n.run_at
        from rung as r
        left join lateral (
            select j.run_at
            from app_jobs.jobs as j
            where j.slot = r.slot and j.line is null and j.locked_by is null
            order by j.run_at
            limit 1
        ) as n on true
    ),

    silent as (
        delete from app_jobs.alarms as a
        using next_due as n
        where a.slot = n.slot and a.kind = 'run' and n.run_at is null
        returning a.slot
    ),

    set_again as (
        update app_jobs.alarms as a
        set due_at = n.run_at
        from next_due as n
        where a.slot = n.slot and a.kind = 'run' and n.run_at > v_now + interval '0.2 seconds'
    )

    select array_agg(s.slot) into v_emptied from silent as s;
    if v_emptied is not null then
        perform app_jobs.forget_counts(v_emptied, 'scheduled', null, null);
    end if;
    return cardinality(v_tids);
end;
$$;

create function app_jobs.end_leases(tids tid[]) returns void
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_errors text[];
begin
    v_errors := array(
        select case
            when j.locked_at + t.timeout <= v_now then format('timed out after %s', t.timeout)
            else 'lease expired'
        end
        from unnest(end_leases.tids) with ordinality as e(tid, n)
        inner join app_jobs.jobs as j on j.ctid = e.tid
        left join app_jobs.tasks as t on t.task_identifier = j.task_identifier
        order by e.n
    );
    insert into app_jobs.job_errors (job_id, lease, attempt, worker_id, failed_at, error_message)
    select j.id, j.lease, j.attempts, j.locked_by, v_now, e.message
    from unnest(end_leases.tids, v_errors) as e(tid, message)
    inner join app_jobs.jobs as j on j.ctid = e.tid;
    perform app_jobs.let_go(end_leases.tids, null, v_errors, null, true, false);
end;
$$;

create function app_jobs.end_expired_leases(most integer) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_first constant integer := app_jobs.first_slot();
    v_tids tid[];
begin
    v_tids := array(
        select j.ctid
        from app_jobs.due_slots('lease', v_now, v_first) as s(slot)
        cross join lateral (
            select d.ctid
            from app_jobs.jobs as d
            where d.slot = s.slot and d.lease_expires_at <= v_now
            for update skip locked
        ) as j
        limit end_expired_leases.most
    );
    if v_tids <> '{}' then
        perform app_jobs.end_leases(v_tids);
    end if;

    with rung as materialized (
        select a.slot
        from app_jobs.alarms as a
        where a.kind = 'lease' and a.due_at <= v_now
        order by a.due_at
        limit 50
        for update skip locked
    ),

    next_due as materialized (
        select r.slot, n.lease_expires_at
        from rung as r
        left join lateral (
            select j.lease_expires_at
            from app_jobs.jobs as j
            where j.slot = r.slot and j.lease_expires_at is not null
            order by j.lease_expires_at
            limit 1
        ) as n on true
    ),

    silent as (
        delete from app_jobs.alarms as a
        using next_due as n
        where a.slot = n.slot and a.kind = 'lease' and n.lease_expires_at is null
    )

    update app_jobs.alarms as a
    set due_at = n.lease_expires_at
    from next_due as n
    where a.slot = n.slot and a.kind = 'lease' and n.lease_expires_at > v_now + interval '1 second';
    return cardinality(v_tids);
end;
$$;

create function app_jobs.move_queues(most integer) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_start constant bigint := -9223372036854775808;
    v_from constant bigint := pg_sequence_last_value('app_jobs.moved_to');
    v_keys bigint[];
    v_last bigint;
    v_lines text[];
    v_tasks text[];
begin
    -- Each line and task that has parked jobs, once, in the order of the lines' keys from where the
    -- last call ended: with very many lines they take turns. The lines of seats come before '$'.
    with recursive waiting(key, line, task) as (
        (
            select app_jobs.lock_key('queue', s.line), s.line, s.task_identifier
            from app_jobs.streams as s
            where s.line > '$' and app_jobs.lock_key('queue', s.line) > v_from
            order by app_jobs.lock_key('queue', s.line), s.task_identifier
            limit 1
        )
        union all
        select n.key, n.line, n.task
        from waiting as w
        cross join lateral (
            select app_jobs.lock_key('queue', s.line) as key, s.line, s.task_identifier as task
            from app_jobs.streams as s
            where
                s.line > '$'
                and (app_jobs.lock_key('queue', s.line), s.task_identifier) > (w.key, w.task)
            order by app_jobs.lock_key('queue', s.line), s.task_identifier
            limit 1
        ) as n
    ),

    closed as materialized (
        select w.key, w.line, w.task from waiting as w limit move_queues.most
    ),

    parked as (
        select c.line, c.task from closed as c
        union
        (
            select j.line, j.task_identifier
            from app_jobs.open_slots as o
            cross join lateral (
                select distinct p.line, p.task_identifier
                from app_jobs.jobs as p
                where p.slot = o.slot and p.line > ''
            ) as j
            order by random()
            limit move_queues.most
        )
    )

    select array_agg(p.line), array_agg(p.task), (select array_agg(c.key) from closed as c)
    into v_lines, v_tasks, v_keys
    from parked as p;

    -- The next call goes on behind the last line of which all tasks were met, or from the start.
    v_last := v_keys[move_queues.most];
    v_last := coalesce(
        (select max(k.key) from unnest(v_keys) as k(key) where k.key < v_last), v_last
    );
    perform setval('app_jobs.moved_to', coalesce(v_last, c_start));
    return app_jobs.advance_queues(v_lines, v_tasks, false);
end;
$$;

create function app_jobs.sweep() returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_highest integer;
    v_ids constant regclass := pg_get_serial_sequence('app_jobs.jobs', 'id');
    v_last_id bigint;
    v_table regclass;
    v_sequence regclass;
    v_unlisted integer[];
    v_current integer;
    v_listed integer;
begin
    perform setval('app_jobs.swept_at', extract(epoch from clock_timestamp())::bigint);
    perform setval('app_jobs.pruned_to', 0);
    -- A sequence is only ever set forward, and only if it is behind: others draw numbers meanwhile.
    -- Finished jobs keep the ids that jobs have drawn; every other table draws its own.
    v_last_id := (select f.id from app_jobs.finished_jobs as f order by f.id desc limit 1);
    if v_last_id > coalesce(pg_sequence_last_value(v_ids), 0) then
        perform setval(v_ids, v_last_id);
    end if;
    for v_table, v_sequence in
        select c.oid, pg_get_serial_sequence(c.oid::regclass::text, a.attname)
        from pg_class as c
        inner join pg_attribute as a on a.attrelid = c.oid
        where c.relnamespace = 'app_jobs'::regnamespace and a.attidentity <> '' and a.attname = 'id'
    loop
        -- dynamic, for whatever tables there are
        execute format('select max(t.id) from %s as t', v_table) into v_last_id;
        if v_last_id > coalesce(pg_sequence_last_value(v_sequence), 0) then
            perform setval(v_sequence, v_last_id);
        end if;
    end loop;
    if pg_sequence_last_value('app_jobs.activity') is null then
        perform setval('app_jobs.activity', 0);
    end if;

    -- Each slot that holds jobs or schedules must be listed: closed, with bounds, or else open.
    -- Slot after slot, by index.
    with recursive waiting(slot) as (
        (select j.slot from app_jobs.jobs as j where j.line is not null order by j.slot limit 1)
        union all
        select (
            select j.slot from app_jobs.jobs as j
            where j.line is not null and j.slot > w.slot order by j.slot limit 1
        )
        from waiting as w where w.slot is not null
    ),

    scheduled(slot) as (
        (
            select j.slot from app_jobs.jobs as j
            where j.line is null and j.locked_by is null order by j.slot limit 1
        )
        union all
        select (
            select j.slot from app_jobs.jobs as j
            where j.line is null and j.locked_by is null and j.slot > s.slot order by j.slot limit 1
        )
        from scheduled as s where s.slot is not null
    ),

    leased(slot) as (
        (
            select j.slot from app_jobs.jobs as j
            where j.lease_expires_at is not null order by j.slot limit 1
        )
        union all
        select (
            select j.slot from app_jobs.jobs as j
            where j.lease_expires_at is not null and j.slot > l.slot order by j.slot limit 1
        )
        from leased as l where l.slot is not null
    ),

    seated(slot) as (
        (select j.slot from app_jobs.jobs as j where j.seat is not null order by j.slot limit 1)
        union all
        select (
            select j.slot from app_jobs.jobs as j
            where j.seat is not null and j.slot > s.slot order by j.slot limit 1
        )
        from seated as s where s.slot is not null
    ),

    planned(slot) as (
        (
            select s.slot from app_jobs.scheduled_jobs as s
            where s.due_at is not null order by s.slot limit 1
        )
        union all
        select (
            select s.slot from app_jobs.scheduled_jobs as s
            where s.due_at is not null and s.slot > p.slot order by s.slot limit 1
        )
        from planned as p where p.slot is not null
    ),

    -- scalar subqueries: slot by slot, whatever the statistics say
    unlisted as (
        select w.slot from waiting as w
        where (
            select s.slot from app_jobs.streams as s
            where s.slot = w.slot and s.line not like '#%' limit 1
        ) is null
        union
        select d.slot from scheduled as d
        where (
            select a.slot from app_jobs.alarms as a where a.slot = d.slot and a.kind = 'run'
        ) is null
        union
        select l.slot from leased as l
        where (
            select a.slot from app_jobs.alarms as a where a.slot = l.slot and a.kind = 'lease'
        ) is null
        union
        select t.slot from seated as t
        where (
            select s.slot from app_jobs.streams as s
            where s.slot = t.slot and s.line like '#%' limit 1
        ) is null
        union
        select p.slot from planned as p
        where (
            select a.slot from app_jobs.alarms as a where a.slot = p.slot and a.kind = 'schedule'
        ) is null
    ),

    used as (
        select w.slot from waiting as w
        union all
        select d.slot from scheduled as d
        union all
        select l.slot from leased as l
        union all
        select t.slot from seated as t
        union all
        select p.slot from planned as p
    )

    select (select max(u.slot) from used as u), array_agg(n.slot)
    into v_highest, v_unlisted
    from unlisted as n
    where
        n.slot is not null
        -- by the same snapshot: one that is closed a moment later is not unlisted
        and n.slot not in (select o.slot from app_jobs.open_slots as o);

    v_highest := greatest(
        v_highest,
        pg_sequence_last_value('app_jobs.slot_current'),
        (select o.slot from app_jobs.open_slots as o order by o.slot desc limit 1)
    );
    if v_highest > coalesce(pg_sequence_last_value('app_jobs.slot_number'), 0) then
        perform setval('app_jobs.slot_number', v_highest);
    end if;
    -- So must the current one, or what producers write now would be seen by nobody.
    -- While we are in it nobody can close it.
    if pg_sequence_last_value('app_jobs.slot_current') is null then
        perform setval('app_jobs.slot_current', nextval('app_jobs.slot_number'));
    end if;
    v_current := app_jobs.enter_slot();
    insert into app_jobs.open_slots (slot)
    select u.slot from unnest(v_unlisted || v_current) as u(slot)
    on conflict on constraint open_slots_pkey do nothing;
    get diagnostics v_listed = row_count;
    perform setval('app_jobs.slot_first', 0);  -- until the next tick() has looked
    return v_listed;
end;
$$;

create function app_jobs.forget_finished(tids tid[]) returns void
language plpgsql
volatile
as $$
declare
    v_ids bigint[];
begin
    with gone as (
        delete from app_jobs.finished_jobs as f
        where f.ctid = any(forget_finished.tids)
        returning f.id
    )

    select array_agg(g.id) into v_ids from gone as g;
    delete from app_jobs.job_errors as e where e.job_id = any(v_ids);
    delete from app_jobs.effects as e where e.job_id = any(v_ids);
end;
$$;

create function app_jobs.prune_finished(most integer) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_late constant interval := interval '1 minute';
    v_now constant timestamptz := clock_timestamp();
    -- read here, since within the query it would be no index condition but a filter: it is volatile
    v_from constant timestamptz := to_timestamp(pg_sequence_last_value('app_jobs.pruned_to'));
    v_tids tid[];
    v_until timestamptz;
begin
    -- The mark lets us pass over rows deleted before that an old snapshot still holds; each sweep
    -- sets it back, and finds what was committed long after it had finished.
    with expired as materialized (
        select f.ctid as tid, f.keep_until
        from app_jobs.finished_jobs as f
        where
            f.keep_until >= v_from
            and f.keep_until <= v_now
        order by f.keep_until
        limit prune_finished.most
        for update skip locked
    )

    select coalesce(array_agg(e.tid), '{}'), max(e.keep_until) into v_tids, v_until
    from expired as e;
    perform app_jobs.forget_finished(v_tids);
    if cardinality(v_tids) < prune_finished.most then
        v_until := greatest(v_until, v_now - c_late);
    end if;
    perform setval('app_jobs.pruned_to', floor(extract(epoch from v_until))::bigint);
    return cardinality(v_tids);
end;
$$;

create function app_jobs.count_idle() returns void
language plpgsql
volatile
as $$
declare
    v_idle bigint;
    v_gone_idle bigint := coalesce(pg_sequence_last_value('app_jobs.went_idle'), 0);
    v_gone_busy bigint := coalesce(pg_sequence_last_value('app_jobs.went_busy'), 0);
begin
    delete from app_jobs.workers as w
    where w.ctid = any(array(
        select g.ctid from app_jobs.workers as g
        where g.last_seen_at < clock_timestamp() - interval '5 minutes'
        for update skip locked
    ));
    select count(*) into v_idle from app_jobs.workers as w where w.idle;
    if v_gone_idle - v_gone_busy <> v_idle then
        if v_idle > 0 then
            perform setval('app_jobs.went_idle', v_gone_busy + v_idle);
        else
            v_gone_idle := greatest(v_gone_idle, v_gone_busy, 1);
            perform
                setval('app_jobs.went_busy', v_gone_idle),
                setval('app_jobs.went_idle', v_gone_idle);
        end if;
    end if;
end;
$$;

create function app_jobs.keep_house(
    most integer,
    out made_ready integer, out expired integer, out moved integer,
    out closed integer, out relisted integer, out pruned integer
)
language plpgsql
volatile
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    c_queues constant integer := 250;
    -- no more, so that several workers share what is due at once
    c_schedules constant integer := 100;
    c_reports constant integer := 100;
    v_now constant timestamptz := clock_timestamp();
begin
    perform app_jobs.find_first_slot();
    perform setval('app_jobs.ticked_at', (extract(epoch from v_now) * 1000)::bigint);
    relisted := 0;
    if pg_sequence_last_value('app_jobs.swept_at') < extract(epoch from v_now) - 3600
        or not exists (
            select from app_jobs.open_slots as o
            where o.slot = (select pg_sequence_last_value('app_jobs.slot_current'))
        )
    then
        relisted := app_jobs.sweep();
        if relisted > 0 then
            raise warning 'app_jobs: % slots held jobs and were not listed', relisted
                using hint = 'Expected once after a restore; otherwise please report it.';
        end if;
    end if;
    closed := app_jobs.turn_slots();
    perform app_jobs.fire_schedules(least(most, c_schedules));
    made_ready := app_jobs.make_due_ready(null, '{}', most);
    expired := app_jobs.end_expired_leases(most);
    moved := app_jobs.move_queues(least(most, c_queues, app_jobs.queues_at_most()));
    pruned := app_jobs.prune_finished(most);
    perform app_jobs.count_idle();
    perform app_jobs.merge_stats(least(most, c_reports), most);
    -- however many workers call tick()
    if coalesce(pg_sequence_last_value('app_jobs.counted_at'), 0) < extract(epoch from v_now) - 1
    then
        perform setval('app_jobs.counted_at', extract(epoch from v_now)::bigint);
        perform app_jobs.count_again(4);
    end if;
end;
$$;

create function app_jobs.tick(
    every interval default null,
    out next_due_at timestamptz, out made_ready integer, out expired integer, out moved integer,
    out closed integer, out relisted integer, out pruned integer
)
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
    c_lot constant integer := 1000;
    v_now timestamptz;
    v_first integer;
    v_lot integer;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'tick() cannot run at isolation level %',
            current_setting('transaction_isolation')
            using errcode = 'JQ002',
                detail = 'It locks, and then must see what others did before.',
                hint = 'Call it at READ COMMITTED.';
    end if;
    -- a clock that was set back must not stop it
    if extract(epoch from clock_timestamp()) - pg_sequence_last_value('app_jobs.ticked_at') / 1000.0
        between 0 and extract(epoch from tick.every)
    then
        select 0, 0, 0, 0, 0, 0 into made_ready, expired, moved, closed, relisted, pruned;
    else
        select h.made_ready, h.expired, h.moved, h.closed, h.relisted, h.pruned
        into made_ready, expired, moved, closed, relisted, pruned
        from app_jobs.keep_house(c_lot) as h;
        -- Where much is kept for a while, as much must go: a tenth of the time may be spent on it.
        v_now := clock_timestamp();
        v_lot := pruned;
        while v_lot = c_lot loop
            v_lot := app_jobs.prune_finished(c_lot);
            pruned := pruned + v_lot;
            exit when clock_timestamp() > v_now + interval '0.1 seconds';
        end loop;
    end if;

    v_now := clock_timestamp();
    v_first := app_jobs.first_slot();
    select min(d.run_at) into next_due_at
    from (
        (
            select a.due_at as run_at
            from app_jobs.alarms as a
            where a.kind = 'run' and a.due_at > v_now
            order by a.due_at
            limit 1
        )
        union all
        -- in open slots, and where an alarm has just gone off: exactly
        select h.run_at
        from app_jobs.due_slots('run', v_now, v_first) as s(slot)
        cross join lateral (
            select j.run_at
            from app_jobs.jobs as j
            where j.slot = s.slot and j.line is null and j.locked_by is null
            order by j.run_at
            limit 1
        ) as h
        union all
        select app_jobs.next_schedule_at(v_now)
    ) as d;
end;
$$;

revoke all on function app_jobs.due_slots(text, timestamptz, integer) from public;
revoke all on function app_jobs.anything_due(timestamptz, integer) from public;
revoke all on function app_jobs.make_due_ready(text[], text[], integer) from public;
revoke all on function app_jobs.end_leases(tid[]) from public;
revoke all on function app_jobs.end_expired_leases(integer) from public;
revoke all on function app_jobs.move_queues(integer) from public;
revoke all on function app_jobs.sweep() from public;
revoke all on function app_jobs.forget_finished(tid[]) from public;
revoke all on function app_jobs.prune_finished(integer) from public;
revoke all on function app_jobs.count_idle() from public;
revoke all on function app_jobs.keep_house(integer) from public;
revoke all on function app_jobs.tick(interval) from public;
grant execute on function app_jobs.tick(interval) to app_jobs_worker;
grant execute on function app_jobs.sweep() to app_jobs_operator;

comment on sequence app_jobs.ticked_at is 'When tick() last ran, or get_jobs() in its place: milliseconds since 1970.';
comment on sequence app_jobs.swept_at is 'When sweep() last ran: seconds since 1970.';
comment on sequence app_jobs.pruned_to is 'Up to which keep_until finished_jobs is pruned: seconds since 1970.';
comment on sequence app_jobs.moved_to is 'Up to which lock key of a queue''s line move_queues() has come.';
comment on function app_jobs.due_slots(text, timestamptz, integer) is
'List the slots in which something may be due: the open ones, and those whose alarm has gone off.

kind   run or lease
now    the time
first  as first_slot() says; 0: look at all rows

Roles: internal; the caller pins the plans.';
comment on function app_jobs.anything_due(timestamptz, integer) is
'Name slots in which scheduled jobs may be due. Most claims ask for the first alone, and there is none.

now    the time
first  as first_slot() says

Roles: internal; the caller pins the plans.';
comment on function app_jobs.make_due_ready(text[], text[], integer) is
'Put scheduled jobs whose time has come into the ready line, the best first.

tasks   tasks wanted; null: all
paused  tasks not wanted
most    jobs at most, and up to ten of queues before them

Returns: jobs made ready. Locks: those jobs, skipping locked ones. Roles: internal; READ COMMITTED
only.';
comment on function app_jobs.end_leases(tid[]) is
'Take back leased jobs: ready again, or finished if their attempts are used up. The attempt counts,
and has failed because the lease has expired or the run has taken longer than its task''s timeout.

tids  jobs, locked by the caller

Locks: queues, trying only. Roles: internal; the caller pins the plans.';
comment on function app_jobs.end_expired_leases(integer) is
'Take back jobs whose lease is over: ready again, or finished if their attempts are used up.

most  jobs at most

Returns: leases ended. Locks: those jobs, skipping locked ones; queues, trying only. Roles:
internal; READ COMMITTED only.';
comment on function app_jobs.move_queues(integer) is
'Let queues move on that have a free seat and a parked job: what others had to skip.

most  queues and tasks at most of those parked in open slots, and as many in closed ones, where they
      take turns

Returns: jobs made ready. Locks: queues, trying only. Roles: internal; READ COMMITTED only.';
comment on function app_jobs.sweep() is
'Repair the sequences and list any slot that holds jobs or schedules and is not listed: after a
restore or a failover, and hourly.

Returns: slots listed; 0 in a healthy database. Roles: app_jobs_operator.';
comment on function app_jobs.forget_finished(tid[]) is
'Delete finished jobs, with their errors and effects.

tids  rows of finished_jobs, locked by the caller

Roles: internal; the caller pins the plans.';
comment on function app_jobs.prune_finished(integer) is
'Delete finished jobs that are over their time, with their errors and effects.

most  jobs at most

Returns: jobs deleted. Locks: those rows, skipping locked ones. Roles: internal.';
comment on function app_jobs.count_idle() is
'Forget workers that are gone and set the count of idle ones right.

Locks: rows of workers, skipping locked ones. Roles: internal.';
comment on function app_jobs.keep_house(integer) is
'Do what must be done about once a second, by whoever comes first: tick() or get_jobs().

most  jobs at most in each step

Returns: what was done, in jobs, slots and rows. Locks: see the steps; never waits. Roles:
internal; READ COMMITTED only.';
comment on function app_jobs.tick(interval) is
'Keep house: open and close slots, run due schedules, make due jobs ready, end expired leases, move
queues on, prune. Any worker, pg_cron or a shell may call it at any time. get_jobs() does the same
if nobody has for a second.

every  do it only if nobody has for this time: for many workers that share the work; null: do it

Returns: next_due_at, when the next scheduled job or schedule is due (null: none); made_ready,
expired, moved: jobs; closed, relisted: slots; pruned: rows of finished_jobs. Errors: JQ002 at
another level than READ COMMITTED. Locks: rows and queues, skipping locked ones. Roles:
app_jobs_worker.';

commit;
