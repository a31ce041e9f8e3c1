-- Deploy app_jobs:queues to pg
-- requires: lines
-- requires: job_queues

begin;

set local lock_timeout = '5s';

create function app_jobs.queues_at_most() returns integer
language sql
stable
as $$
    select least(
        1000,
        current_setting('max_locks_per_transaction')::bigint
        * current_setting('max_connections')::bigint / 4
    )::integer
$$;

create function app_jobs.free_seats(queue_line text, wanted integer) returns integer[]
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_first constant integer := app_jobs.first_slot();
    v_seats integer := 1;
    v_paused boolean := false;
    v_taken integer[];
begin
    select s.max_running, s.paused into v_seats, v_paused
    from app_jobs.queue_settings as s
    where s.line = free_seats.queue_line;
    if v_paused then
        return '{}'::integer[];
    end if;
    v_seats := coalesce(v_seats, 1);

    with noted as materialized (
        select s.slot from app_jobs.streams as s
        where s.line = app_jobs.seat_line(free_seats.queue_line)
    ),

    taken as materialized (
        select j.slot, j.seat
        from (
            select o.slot from app_jobs.open_slots as o
            where o.slot >= v_first
            union
            select n.slot from noted as n
        ) as s
        cross join lateral (
            select h.slot, h.seat
            from app_jobs.jobs as h
            where
                h.slot = s.slot
                and app_jobs.queue_line(h.database_id, h.queue_name) = free_seats.queue_line
                and h.seat is not null
            offset 0
        ) as j
    ),

    left_behind as (
        delete from app_jobs.streams as s
        where s.ctid = any(array(
            select l.ctid
            from app_jobs.streams as l
            where
                l.line = app_jobs.seat_line(free_seats.queue_line)
                and l.slot not in (select t.slot from taken as t)
            for update skip locked
        ))
    )

    select array_agg(t.seat) into v_taken from taken as t;

    return array(
        select n.seat
        from generate_series(1, v_seats) as n(seat)
        where n.seat <> all(coalesce(v_taken, '{}'))
        limit greatest(0, least(free_seats.wanted, v_seats - coalesce(cardinality(v_taken), 0)))
    );
end;
$$;

create type app_jobs.seated as (tid tid, seat integer);

create function app_jobs.take_seats(
    slot integer, tasks text[], paused text[], places app_jobs.place[]
) returns setof app_jobs.seated
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_line text;
    v_met tid[];
    v_seats integer[];
    v_chosen tid[];
    v_parked integer;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'a job of a queue cannot be claimed at isolation level %',
            current_setting('transaction_isolation')
            using errcode = 'JQ002',
                detail = 'The transaction''s snapshot does not show who runs in the queue now.',
                hint = 'Call get_job() at READ COMMITTED.';
    end if;
    for v_line, v_met in
        select p.queue_line, array_agg(p.tid order by p.priority, p.run_at, p.id)
        from unnest(take_seats.places) as p
        where p.queue_line is not null
        group by p.queue_line
    loop
        if not pg_try_advisory_xact_lock(app_jobs.lock_key('queue', v_line)) then
            -- Somebody is changing this queue: for a moment, as a rule, so leave its best job for
            -- the next claim to meet. One that has been there for a second is parked like the
            -- others; tick() finds it.
            v_chosen := array(
                select j.ctid
                from app_jobs.jobs as j
                where
                    j.ctid = any(v_met[1:1])
                    and j.updated_at > clock_timestamp() - interval '1 second'
            );
        else
            -- New statements, new snapshots: what the lock's last holder did is seen.
            v_seats := app_jobs.free_seats(v_line, cardinality(v_met));
            v_chosen := '{}';
            if cardinality(v_seats) > 0 then
                v_chosen := array(
                    select c.tid
                    from (
                        select p.tid, p.priority, p.run_at, p.id
                        from unnest(take_seats.places) as p
                        where p.queue_line = v_line
                        union all
                        select l.tid, l.priority, l.run_at, l.id
                        from unnest((
                            app_jobs.look(
                                v_line, take_seats.tasks, take_seats.paused,
                                cardinality(v_seats), null
                            )
                        ).queued) as l
                    ) as c
                    order by c.priority, c.run_at, c.id
                    limit cardinality(v_seats)
                );
                return query
                select c.tid, v_seats[c.n::integer]
                from unnest(v_chosen) with ordinality as c(tid, n);
            end if;
        end if;
        update app_jobs.jobs as j
        set line = v_line, slot = take_seats.slot, updated_at = clock_timestamp()
        where j.ctid = any(array(
            select m.tid from unnest(v_met) as m(tid) where m.tid <> all(v_chosen)
        ));
        get diagnostics v_parked = row_count;
        perform app_jobs.note_arrivals(v_parked);
    end loop;
end;
$$;

create function app_jobs.advance_queues(
    queue_lines text[], tasks text[], wait boolean
) returns integer
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
    c_at_most constant integer := 100;
    v_paused text[];
    v_line text;
    v_tasks text[];
    v_task text;
    v_seats integer;
    v_tids tid[];
    v_count integer := 0;
begin
    -- At other levels we cannot see who runs in the queue now: the next tick() does it.
    if current_setting('transaction_isolation') <> 'read committed' then
        return 0;
    end if;
    v_paused := array(select t.task_identifier from app_jobs.tasks as t where t.paused);
    for v_line, v_tasks in
        select q.line, array_agg(distinct q.task)
        from unnest(advance_queues.queue_lines, advance_queues.tasks) as q(line, task)
        group by q.line
        order by app_jobs.lock_key('queue', q.line)
    loop
        if advance_queues.wait then
            perform pg_advisory_xact_lock(app_jobs.lock_key('queue', v_line));
        else
            -- a queue that is busy is left alone, without its lock: the end of a job moves it on
            continue when cardinality(app_jobs.free_seats(v_line, 1)) = 0;
            continue when not pg_try_advisory_xact_lock(app_jobs.lock_key('queue', v_line));
        end if;
        v_seats := cardinality(app_jobs.free_seats(v_line, c_at_most));
        continue when v_seats = 0;
        v_tids := array(
            select l.tid
            from unnest((app_jobs.look(v_line, null, v_paused, v_seats, null)).queued) as l
        );
        -- The best may be of a task that nobody serves: it must not keep those behind it, of tasks
        -- that somebody does.
        foreach v_task in array v_tasks loop
            v_tids := v_tids || array(
                select l.tid
                from unnest((app_jobs.look(v_line, array[v_task], v_paused, 1, null)).queued) as l
                where l.tid <> all(v_tids)
            );
        end loop;
        continue when v_tids = '{}';
        update app_jobs.jobs as j
        set line = '', slot = app_jobs.enter_slot(), updated_at = clock_timestamp()
        where j.ctid = any(v_tids);
        v_count := v_count + cardinality(v_tids);
    end loop;
    if v_count > 0 then
        perform app_jobs.note_arrivals(v_count);
        perform app_jobs.wake_workers();
    end if;
    return v_count;
end;
$$;

revoke all on function app_jobs.queues_at_most() from public;
revoke all on function app_jobs.free_seats(text, integer) from public;
revoke all on function app_jobs.take_seats(integer, text[], text[], app_jobs.place[]) from public;
revoke all on function app_jobs.advance_queues(text[], text[], boolean) from public;
revoke all on type app_jobs.seated from public;

comment on type app_jobs.seated is 'A job and the seat of its queue that it takes.';
comment on function app_jobs.queues_at_most() is
'Say of how many queues a call takes the locks, about: the server has room for some thousands, or
fewer where it is set so, to be shared by all transactions. What is left waits for the next call, or
for tick().

Returns: 1000, or a quarter of the room if that is less. Roles: internal.';
comment on function app_jobs.free_seats(text, integer) is
'Find free seats of a queue: none if it is paused.

queue_line  the queue''s line; its lock is held
wanted      seats at most

Returns: their numbers, lowest first. Roles: internal; the caller pins the plans.';
comment on function app_jobs.take_seats(integer, text[], text[], app_jobs.place[]) is
'Give the free seats of the queues of these ready jobs to the best of them and of the parked ones,
and park the others.

slot    entered by the caller
tasks   tasks that the claim may take; null: all
paused  tasks that it may not
places  ready jobs, locked by the caller

Returns: jobs to claim and their seats. Errors: JQ002. Locks: queues, trying only. Roles: internal;
the caller pins the plans.';
comment on function app_jobs.advance_queues(text[], text[], boolean) is
'Make the best parked jobs of these queues ready, as many as there are seats.

queue_lines  the queues
tasks        tasks somebody serves, one for each queue line: the best job of each is made ready in
             any case; null: unknown
wait         wait for the queues'' locks, in the order of their keys; false: leave out those that
             others hold

Returns: jobs made ready. Locks: the queues. Roles: internal.';

commit;
