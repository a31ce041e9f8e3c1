-- Deploy app_jobs:counts to pg
-- requires: jobs

begin;

set local lock_timeout = '5s';

create table app_jobs.slot_counts (
    slot integer not null,
    state text collate "C" not null,
    task_identifier text collate "C" not null,
    queue_line text collate "C" not null,
    jobs bigint not null,
    oldest timestamptz not null,
    constraint slot_counts_pkey primary key (slot, state, task_identifier, queue_line),
    constraint slot_counts_state_known check (state in ('ready', 'parked', 'scheduled'))
);
create index slot_counts_oldest on app_jobs.slot_counts (
    task_identifier, queue_line, oldest
) where state = 'ready';

-- Differences, not a row per group that is written again and again: whoever counts waits for
-- nobody.
create table app_jobs.totals (
    id bigint generated always as identity,
    state text collate "C" not null,
    task_identifier text collate "C" not null,
    queue_line text collate "C" not null,
    jobs bigint not null,
    merged boolean not null default false,
    constraint totals_pkey primary key (id)
);
create index totals_merged on app_jobs.totals (merged, state, task_identifier, queue_line);

-- The slot that was counted again last, and when: seconds since 1970.
create sequence app_jobs.counted_to as integer minvalue -2147483648 start -2147483648;
create sequence app_jobs.counted_at minvalue 0 start 0;
select
    setval('app_jobs.counted_to', -2147483648),
    setval('app_jobs.counted_at', 0);

create function app_jobs.groups_at_most() returns integer
language sql
immutable
as $$
    select 50
$$;

create function app_jobs.waiting_in(slot integer)
returns table (state text, task_identifier text, queue_line text, jobs bigint, oldest timestamptz)
language sql
stable
as $$
    select
        w.state, w.task_identifier,
        app_jobs.queue_line(w.database_id, coalesce(w.queue_name, '')), w.jobs, w.oldest
    from (
        select
            case when j.line = '' then 'ready' else 'parked' end as state,
            j.task_identifier, j.database_id, j.queue_name, count(*) as jobs, min(j.run_at) as oldest
        from app_jobs.jobs as j
        where j.slot = waiting_in.slot and j.line is not null
        group by 1, 2, 3, 4
        union all
        select
            'scheduled', j.task_identifier, j.database_id, j.queue_name, count(*), min(j.run_at)
        from app_jobs.jobs as j
        where j.slot = waiting_in.slot and j.line is null and j.locked_by is null
        group by 1, 2, 3, 4
    ) as w
$$;

create function app_jobs.note_counts(counts app_jobs.slot_counts[]) returns void
language plpgsql
volatile
as $$
begin
    with noted as (
        insert into app_jobs.slot_counts as c (
            slot, state, task_identifier, queue_line, jobs, oldest
        )
        select n.slot, n.state, n.task_identifier, n.queue_line, n.jobs, n.oldest
        from unnest(note_counts.counts) as n
        -- in a slot that a sweep had listed again, and only if another session is counting there
        on conflict on constraint slot_counts_pkey do nothing
        returning c.state, c.task_identifier, c.queue_line, c.jobs
    )

    insert into app_jobs.totals (state, task_identifier, queue_line, jobs)
    select n.state, n.task_identifier, n.queue_line, sum(n.jobs)
    from noted as n
    group by n.state, n.task_identifier, n.queue_line;
end;
$$;

create function app_jobs.forget_counts(
    slots integer[], state text, tasks text[], queue_line text
) returns void
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    with gone as (
        delete from app_jobs.slot_counts as c
        where c.ctid = any(array(
            select f.ctid
            from app_jobs.slot_counts as f
            where
                f.slot = any(forget_counts.slots)
                and f.state = coalesce(forget_counts.state, f.state)
                and (
                    forget_counts.tasks is null or f.task_identifier = any(forget_counts.tasks)
                )
                and f.queue_line = coalesce(forget_counts.queue_line, f.queue_line)
            for update skip locked
        ))
        returning c.state, c.task_identifier, c.queue_line, c.jobs
    )

    insert into app_jobs.totals (state, task_identifier, queue_line, jobs)
    select g.state, g.task_identifier, g.queue_line, -sum(g.jobs)
    from gone as g
    group by g.state, g.task_identifier, g.queue_line;
end;
$$;

create function app_jobs.count_again(slots integer) returns integer
language plpgsql
volatile
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
-- keep_house() has it off: a slot may have hundreds of groups
set enable_hashjoin = on
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_from constant integer := pg_sequence_last_value('app_jobs.counted_to');
    v_slots integer[];
begin
    v_slots := array(
        with recursive counted(slot) as (
            (
                select c.slot from app_jobs.slot_counts as c
                where v_from is null or c.slot > v_from
                order by c.slot limit 1
            )
            union all
            select (
                select c.slot from app_jobs.slot_counts as c where c.slot > n.slot
                order by c.slot limit 1
            )
            from counted as n
            where n.slot is not null
        )

        select n.slot from counted as n where n.slot is not null limit count_again.slots
    );
    -- at the end: from the start, next time
    perform setval('app_jobs.counted_to', case
        when cardinality(v_slots) < count_again.slots then -2147483648
        else v_slots[count_again.slots]
    end);

    -- A closed slot only loses jobs, so its groups only shrink. Counts that another session is
    -- changing are left to it.
    with counted as materialized (
        select c.slot, c.state, c.task_identifier, c.queue_line, c.jobs
        from app_jobs.slot_counts as c
        where c.slot = any(v_slots)
        for update skip locked
    ),

    waiting as materialized (
        select s.slot, w.state, w.task_identifier, w.queue_line, w.jobs, w.oldest
        from unnest(v_slots) as s(slot)
        cross join lateral app_jobs.waiting_in(s.slot) as w
    ),

    fresh as materialized (
        select
            c.slot, c.state, c.task_identifier, c.queue_line, c.jobs as noted,
            coalesce(sum(w.jobs), 0) as jobs, min(w.oldest) as oldest
        from counted as c
        left join waiting as w
            on
                w.slot = c.slot
                and w.state = c.state
                and w.task_identifier = c.task_identifier
                and c.queue_line in ('*', w.queue_line)
        group by c.slot, c.state, c.task_identifier, c.queue_line, c.jobs
    ),

    emptied as (
        delete from app_jobs.slot_counts as c
        using fresh as f
        where
            (c.slot, c.state, c.task_identifier, c.queue_line)
            = (f.slot, f.state, f.task_identifier, f.queue_line)
            and f.jobs = 0
    ),

    changed as (
        update app_jobs.slot_counts as c
        set jobs = f.jobs, oldest = f.oldest
        from fresh as f
        where
            (c.slot, c.state, c.task_identifier, c.queue_line)
            = (f.slot, f.state, f.task_identifier, f.queue_line)
            and f.jobs > 0
            and (f.jobs, f.oldest) is distinct from (c.jobs, c.oldest)
    )

    insert into app_jobs.totals (state, task_identifier, queue_line, jobs)
    select f.state, f.task_identifier, f.queue_line, sum(f.jobs - f.noted)
    from fresh as f
    group by f.state, f.task_identifier, f.queue_line
    having sum(f.jobs - f.noted) <> 0;

    -- what others have noted since, added up
    with noted as materialized (
        select t.id, t.state, t.task_identifier, t.queue_line
        from app_jobs.totals as t
        where not t.merged
        order by t.state, t.task_identifier, t.queue_line
        limit 1000
        for update skip locked
    ),

    added_up as (
        delete from app_jobs.totals as t
        where t.id = any(array(
            select n.id from noted as n
            union all
            select m.id
            from (select distinct n.state, n.task_identifier, n.queue_line from noted as n) as g
            cross join lateral (
                select s.id
                from app_jobs.totals as s
                where
                    s.merged
                    and s.state = g.state
                    and s.task_identifier = g.task_identifier
                    and s.queue_line = g.queue_line
                for update skip locked
            ) as m
        ))
        returning t.state, t.task_identifier, t.queue_line, t.jobs
    )

    insert into app_jobs.totals (state, task_identifier, queue_line, jobs, merged)
    select a.state, a.task_identifier, a.queue_line, sum(a.jobs), true
    from added_up as a
    group by a.state, a.task_identifier, a.queue_line
    having sum(a.jobs) <> 0;
    return cardinality(v_slots);
end;
$$;

revoke all on function app_jobs.groups_at_most() from public;
revoke all on function app_jobs.waiting_in(integer) from public;
revoke all on function app_jobs.note_counts(app_jobs.slot_counts[]) from public;
revoke all on function app_jobs.forget_counts(integer[], text, text[], text) from public;
revoke all on function app_jobs.count_again(integer) from public;

comment on table app_jobs.slot_counts is
'Jobs that wait in closed slots, as of the last count: never too few, since a closed slot only
loses jobs.';
comment on column app_jobs.slot_counts.slot is 'A closed slot.';
comment on column app_jobs.slot_counts.state is 'ready, parked or scheduled.';
comment on column app_jobs.slot_counts.task_identifier is 'Task.';
comment on column app_jobs.slot_counts.queue_line is 'Tenant, colon, queue, each empty if there is none; *: more than 50 of them, counted as one.';
comment on column app_jobs.slot_counts.jobs is 'How many.';
comment on column app_jobs.slot_counts.oldest is 'Their lowest run_at.';
comment on index app_jobs.slot_counts_oldest is 'To find what is ready longest.';
comment on table app_jobs.totals is
'Sums of slot_counts over all slots. Several rows of one group are to be added up: each change of
slot_counts adds its difference, and tick() merges.';
comment on column app_jobs.totals.id is 'Number.';
comment on column app_jobs.totals.state is 'As in slot_counts, like the next two columns.';
comment on column app_jobs.totals.task_identifier is 'Task.';
comment on column app_jobs.totals.queue_line is 'Tenant and queue.';
comment on column app_jobs.totals.jobs is 'How many; less than zero for those that went.';
comment on column app_jobs.totals.merged is 'Added up by tick().';
comment on index app_jobs.totals_merged is 'To find what is to be merged, and with what.';
comment on sequence app_jobs.counted_to is 'The closed slot that tick() has counted again last.';
comment on sequence app_jobs.counted_at is 'When tick() has done so: seconds since 1970.';
comment on function app_jobs.groups_at_most() is
'Say how many tenants and queues of a task in one slot are counted each. If there are more, they
are counted as one, or there would be more to count than to run.

Returns: 50. Roles: internal.';
comment on function app_jobs.waiting_in(integer) is
'Count the jobs of a slot that wait.

slot  an open or closed slot

Returns: a row per state, task, tenant and queue, with the lowest run_at. Roles: internal; the
caller pins the plans.';
comment on function app_jobs.note_counts(app_jobs.slot_counts[]) is
'Note how many jobs wait in slots that nobody can enter any more.

counts  a row per slot, state, task, and tenant and queue or * for all of them

Roles: internal.';
comment on function app_jobs.forget_counts(integer[], text, text[], text) is
'Forget counts of closed slots in which nothing is left.

slots       the slots
state       ready, parked or scheduled; null: all
tasks       tasks; null: all
queue_line  tenant and queue; null: all

Locks: counts, skipping locked ones. Roles: internal; the caller pins the plans.';
comment on function app_jobs.count_again(integer) is
'Count what is left in the next few closed slots, in turn, and merge totals.

slots  slots at most

Returns: slots counted. Locks: counts and totals, skipping locked ones. Roles: internal; READ
COMMITTED only.';

commit;
