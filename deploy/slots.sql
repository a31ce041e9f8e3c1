-- Deploy app_jobs:slots to pg
-- requires: counts
-- requires: workers

begin;

set local lock_timeout = '5s';

-- Sequences are read and written in place, outside of MVCC: a transaction in REPEATABLE READ sees
-- them as they are.
create sequence app_jobs.slot_number as integer start 2;
create sequence app_jobs.slot_current as integer;
create sequence app_jobs.slot_first as integer minvalue 0;
create sequence app_jobs.activity minvalue 0;
select
    setval('app_jobs.slot_current', 1),
    setval('app_jobs.slot_first', 0),
    setval('app_jobs.activity', 0);

create table app_jobs.open_slots (
    slot integer not null,
    opened_by xid8 not null default pg_current_xact_id(),
    opened_at timestamptz not null default clock_timestamp(),
    constraint open_slots_pkey primary key (slot)
);
insert into app_jobs.open_slots (slot) values (1);

create table app_jobs.streams (
    slot integer not null,
    line text collate "C" not null,
    task_identifier text collate "C" not null,
    priority integer not null,
    run_at timestamptz not null,
    id bigint not null,
    constraint streams_pkey primary key (slot, line, task_identifier)
);
create index streams_order on app_jobs.streams (line, task_identifier, priority, run_at, id);

create table app_jobs.alarms (
    slot integer not null,
    kind text collate "C" not null,
    due_at timestamptz not null,
    constraint alarms_pkey primary key (slot, kind),
    constraint alarms_kind_known check (kind in ('run', 'lease', 'schedule'))
);
create index alarms_due on app_jobs.alarms (kind, due_at);

create function app_jobs.lock_key(kind text, name text) returns bigint
language sql
immutable
parallel safe
as $$
    select hashtextextended('app_jobs ' || kind || ' ' || name, 0)
$$;

create index streams_parked on app_jobs.streams (
    app_jobs.lock_key('queue', line), task_identifier
) where line > '$';

create function app_jobs.seat_line(queue_line text) returns text
language sql
immutable
parallel safe
as $$
    select '#' || queue_line
$$;

create function app_jobs.first_slot() returns integer
language sql
volatile
as $$
    -- a snapshot of long ago has slots open that were closed since
    select case current_setting('transaction_isolation')
        when 'read committed'
            then coalesce(pg_sequence_last_value('app_jobs.slot_first'), 0)::integer
        else 0
    end
$$;

create function app_jobs.find_first_slot() returns integer
language sql
volatile
as $$
    -- Not where this transaction may have closed some: to others they are open till it commits.
    select case
        when pg_current_xact_id_if_assigned() is null
            then
                setval('app_jobs.slot_first', (select min(o.slot) from app_jobs.open_slots as o))
                ::integer
    end
$$;

create function app_jobs.enter_slot() returns integer
language plpgsql
volatile
as $$
declare
    c_refusals constant integer := 100;
    c_pause constant double precision := 0.05;
    v_slot integer;
    v_refused integer := 0;
begin
    loop
        v_slot := pg_sequence_last_value('app_jobs.slot_current');
        if v_slot is null then
            raise exception 'sequence app_jobs.slot_current has no value'
                using errcode = 'JQ090',
                    hint = 'It was not restored with the tables. Call app_jobs.sweep().';
        end if;
        -- We take the exclusive lock only on a slot that is not current any more, so a lock that
        -- cannot be had and a slot that has moved on mean the same: look again. Nobody waits.
        if pg_try_advisory_xact_lock_shared(app_jobs.lock_key('slot', v_slot::text))
            and v_slot = pg_sequence_last_value('app_jobs.slot_current')
        then
            return v_slot;
        end if;
        -- Still current, and refused: somebody else has taken it.
        if v_slot = pg_sequence_last_value('app_jobs.slot_current') then
            v_refused := v_refused + 1;
            if v_refused = c_refusals then
                raise exception 'another session keeps slot % locked exclusively', v_slot
                    using errcode = '55P03',
                        detail = 'Nothing of app_jobs locks the current slot so.',
                        hint = format(
                            'Let go of advisory lock %s, and try again: pg_locks shows who has it.',
                            app_jobs.lock_key('slot', v_slot::text)
                        );
            end if;
            perform pg_sleep(c_pause);
        end if;
    end loop;
end;
$$;

create function app_jobs.note_arrivals(jobs integer) returns bigint
language sql
volatile
as $$
    -- two sessions may lose a count to each other: it only says when to open a new slot
    select setval('app_jobs.activity', pg_sequence_last_value('app_jobs.activity') + jobs)
$$;

create function app_jobs.close_slot(slot integer) returns void
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    -- a slot that a sweep listed again may have left bounds behind
    delete from app_jobs.streams as s where s.slot = close_slot.slot;
    delete from app_jobs.alarms as a where a.slot = close_slot.slot;
    perform app_jobs.forget_counts(array[close_slot.slot], null, null, null);

    insert into app_jobs.streams (slot, line, task_identifier, priority, run_at, id)
    select close_slot.slot, j.line, j.task_identifier, min(j.priority), min(j.run_at), min(j.id)
    from app_jobs.jobs as j
    where j.slot = close_slot.slot and j.line is not null
    group by j.line, j.task_identifier
    union all
    select distinct
        close_slot.slot, app_jobs.seat_line(app_jobs.queue_line(j.database_id, j.queue_name)), '',
        0, timestamptz '-infinity', 0::bigint
    from app_jobs.jobs as j
    where j.slot = close_slot.slot and j.seat is not null;

    insert into app_jobs.alarms (slot, kind, due_at)
    select close_slot.slot, 'run', min(j.run_at)
    from app_jobs.jobs as j
    where j.slot = close_slot.slot and j.line is null and j.locked_by is null
    having count(*) > 0
    union all
    select close_slot.slot, 'lease', min(j.lease_expires_at)
    from app_jobs.jobs as j
    where j.slot = close_slot.slot and j.lease_expires_at is not null
    having count(*) > 0
    union all
    select close_slot.slot, 'schedule', min(s.due_at)
    from app_jobs.scheduled_jobs as s
    where s.slot = close_slot.slot and s.due_at is not null
    having count(*) > 0;

    perform app_jobs.note_counts(array(
        select row(
            close_slot.slot, w.state, w.task_identifier, w.queue_line, sum(w.jobs), min(w.oldest)
        )::app_jobs.slot_counts
        from (
            select
                c.state, c.task_identifier, c.jobs, c.oldest,
                case
                    when count(*) over (partition by c.state, c.task_identifier)
                        > app_jobs.groups_at_most() then '*'
                    else c.queue_line
                end as queue_line
            from app_jobs.waiting_in(close_slot.slot) as c
        ) as w
        group by w.state, w.task_identifier, w.queue_line
    ));

    delete from app_jobs.open_slots as o where o.slot = close_slot.slot;
end;
$$;

create function app_jobs.turn_slots() returns integer
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
    c_arrivals constant integer := 1000;
    v_current integer := pg_sequence_last_value('app_jobs.slot_current');
    v_first constant integer := app_jobs.first_slot();
    v_next integer;
    v_slot integer;
    v_closed integer := 0;
begin
    if pg_sequence_last_value('app_jobs.activity') >= c_arrivals then
        select o.slot into v_next
        from app_jobs.open_slots as o
        where o.slot > v_current
        order by o.slot desc
        limit 1;
        if not found then
            insert into app_jobs.open_slots (slot) values (nextval('app_jobs.slot_number'));
        elsif pg_try_advisory_xact_lock_shared(app_jobs.lock_key('slot', v_next::text)) then
            -- Only now make it current: its row must be committed, or producers would write where
            -- no claim looks, and our shared lock keeps others from closing it. The look comes
            -- after the lock, in a statement of its own.
            perform from app_jobs.open_slots as o
            where o.slot = v_next and o.opened_by is distinct from pg_current_xact_id_if_assigned();
            if found then
                perform setval('app_jobs.slot_current', v_next), setval('app_jobs.activity', 0);
            end if;
        end if;
    end if;

    for v_slot in
        select o.slot
        from app_jobs.open_slots as o
        where o.slot >= v_first and o.slot < v_current
        order by o.slot
    loop
        -- An uncommitted writer holds the shared lock. Without one, nobody can write here any more:
        -- to make a slot current again takes the shared lock, too. Lock, check, look: three
        -- statements, in this order.
        continue when not pg_try_advisory_xact_lock(app_jobs.lock_key('slot', v_slot::text));
        continue when v_slot = pg_sequence_last_value('app_jobs.slot_current');
        perform from app_jobs.open_slots as o where o.slot = v_slot;
        if found then
            perform app_jobs.close_slot(v_slot);
            v_closed := v_closed + 1;
        end if;
    end loop;
    return v_closed;
end;
$$;

revoke all on function app_jobs.lock_key(text, text) from public;
revoke all on function app_jobs.seat_line(text) from public;
revoke all on function app_jobs.first_slot() from public;
revoke all on function app_jobs.find_first_slot() from public;
revoke all on function app_jobs.enter_slot() from public;
revoke all on function app_jobs.note_arrivals(integer) from public;
revoke all on function app_jobs.close_slot(integer) from public;
revoke all on function app_jobs.turn_slots() from public;

comment on sequence app_jobs.slot_number is 'Names slots.';
comment on sequence app_jobs.slot_current is 'The slot that jobs enter now.';
comment on sequence app_jobs.slot_first is 'No slot below it is open.';
comment on sequence app_jobs.activity is 'Jobs that have entered the current slot, about.';
comment on table app_jobs.open_slots is
'Slots that may still gain jobs: the current one, and those that an uncommitted transaction has
entered.';
comment on column app_jobs.open_slots.slot is 'Its number.';
comment on column app_jobs.open_slots.opened_by is 'The transaction that listed it: it is made current by another, once this one is committed.';
comment on column app_jobs.open_slots.opened_at is 'When.';
comment on table app_jobs.streams is
'What is left in closed slots: a lower bound of the position of the first job per slot, line and
task. A closed slot only loses jobs, so a bound stays one. Seats taken stand here, too, in lines of
their own.';
comment on column app_jobs.streams.slot is 'A closed slot.';
comment on column app_jobs.streams.line is ''''': ready jobs; a queue''s line: its parked jobs; a seat line: its running ones.';
comment on column app_jobs.streams.task_identifier is 'Task; '''' in seat lines.';
comment on column app_jobs.streams.priority is 'Lower bound of the position.';
comment on column app_jobs.streams.run_at is 'Lower bound of the position.';
comment on column app_jobs.streams.id is 'Lower bound of the position.';
comment on index app_jobs.streams_order is 'To find the first stream of a line and task.';
comment on index app_jobs.streams_parked is 'For queues with parked jobs to take turns in tick(). The lines of seats come before ''$''.';
comment on table app_jobs.alarms is
'What falls due in closed slots: nothing before due_at.';
comment on column app_jobs.alarms.slot is 'A closed slot.';
comment on column app_jobs.alarms.kind is 'run: scheduled jobs; lease: leases that end; schedule: schedules.';
comment on column app_jobs.alarms.due_at is 'Lower bound of run_at, lease_expires_at or scheduled_jobs.due_at.';
comment on index app_jobs.alarms_due is 'To find what is due.';
comment on function app_jobs.lock_key(text, text) is
'Make the key of an advisory lock: 64 bits, so that two installations and the application do not
meet.

kind  slot or queue
name  its number or line

Roles: internal.';
comment on function app_jobs.seat_line(text) is
'Name the line in which the running jobs of a queue are noted.

queue_line  the queue''s line

Roles: internal.';
comment on function app_jobs.first_slot() is
'Say from which slot on there may be open ones. The rows of those before are gone, but where an old
snapshot is held each look would pass over all of them. Call it before the statement that looks, so
that this sees what had been closed.

Returns: a slot''s number; 0 at another level than READ COMMITTED. Roles: internal.';
comment on function app_jobs.find_first_slot() is
'Find the first open slot, for first_slot(). To be called before anything is written, once a second
or so: it passes over the dead rows.

Returns: its number; null if the transaction has written something before. Roles: internal; READ
COMMITTED only; the caller pins the plans.';
comment on function app_jobs.enter_slot() is
'Enter the current slot until the end of the transaction. Whoever puts a job in a line, schedules it
or leases it does so in a slot that it has entered: then nobody can close the slot before the job
is committed or gone.

Returns: the slot. Errors: JQ090; 55P03 if somebody who is not of app_jobs keeps it locked
exclusively for five seconds. Locks: the slot, shared; waits for nobody else. Roles: internal.';
comment on function app_jobs.note_arrivals(integer) is
'Count jobs that have entered the current slot.

jobs  how many; a lease counts for a quarter, since its index entries are looked at less often

Returns: how many have, about. Roles: internal.';
comment on function app_jobs.close_slot(integer) is
'Write down what is left in a slot that nobody can enter any more, and take it off the list of open
ones.

slot  the slot, locked exclusively

Roles: internal.';
comment on function app_jobs.turn_slots() is
'Open a new slot after about a thousand arrivals, and close those that nobody is in any more.

Returns: slots closed. Locks: slots, exclusively, if nobody is in them; never waits. Roles:
internal; READ COMMITTED only.';

commit;
