-- Deploy app_jobs:lines to pg
-- requires: slots

begin;

set local lock_timeout = '5s';

create function app_jobs.raise_bounds(slot integer, line text) returns boolean
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_emptied text[];
    v_raised boolean;
begin
    -- A closed slot only loses rows, and a claim not yet committed still shows its row as waiting,
    -- so what this statement sees is a lower bound for everybody. Bounds that another claim is
    -- raising are left to it.
    with stale as materialized (
        select s.task_identifier, s.priority, s.run_at, s.id
        from app_jobs.streams as s
        where s.slot = raise_bounds.slot and s.line = raise_bounds.line
        for update skip locked
    ),

    left_over as materialized (
        select t.task_identifier, n.priority, n.run_at, n.id
        from stale as t
        left join lateral (
            select j.priority, j.run_at, j.id
            from app_jobs.jobs as j
            where
                j.slot = raise_bounds.slot
                and j.line = raise_bounds.line
                and j.task_identifier = t.task_identifier
                and (j.priority, j.run_at, j.id) >= (t.priority, t.run_at, t.id)
            order by j.priority, j.run_at, j.id
            limit 1
        ) as n on true
    ),

    emptied as (
        delete from app_jobs.streams as s
        using left_over as l
        where
            s.slot = raise_bounds.slot
            and s.line = raise_bounds.line
            and s.task_identifier = l.task_identifier
            and l.id is null
        returning s.task_identifier
    ),

    raised as (
        update app_jobs.streams as s
        set priority = l.priority, run_at = l.run_at, id = l.id
        from left_over as l
        where
            s.slot = raise_bounds.slot
            and s.line = raise_bounds.line
            and s.task_identifier = l.task_identifier
            and (l.priority, l.run_at, l.id) > (s.priority, s.run_at, s.id)
        returning 1
    )

    select (select array_agg(e.task_identifier) from emptied as e), exists (select from raised)
    into v_emptied, v_raised;
    if v_emptied is not null then
        perform app_jobs.forget_counts(
            array[raise_bounds.slot],
            case when raise_bounds.line = '' then 'ready' else 'parked' end,
            v_emptied,
            nullif(raise_bounds.line, '')
        );
    end if;
    return v_raised or v_emptied is not null;
end;
$$;

create type app_jobs.place as (
    tid tid, priority integer, run_at timestamptz, id bigint, queue_line text
);

create type app_jobs.found as (
    tids tid [], queued app_jobs.place [], last_id bigint, used_slots integer [], left_out boolean
);

create function app_jobs.task_range(tasks text[]) returns table (low text, high text)
language sql
stable
as $$
    select
        coalesce(min(t.name collate "C"), ''),
        coalesce(max(t.name collate "C"), repeat(
            case getdatabaseencoding() when 'UTF8' then chr(1114111) else chr(255) end, 127
        ))
    from unnest(task_range.tasks) as t(name)
$$;

create function app_jobs.only_slot(line text, tasks text[], first integer)
returns setof integer
language sql
stable
as $$
    select min(o.slot)
    from app_jobs.open_slots as o
    where o.slot >= only_slot.first
    having
        count(*) = 1
        and not exists (
            select from app_jobs.streams as s
            where s.line = only_slot.line and only_slot.tasks is null
            union all
            select
            from unnest(only_slot.tasks) as t(name)
            cross join lateral (
                select from app_jobs.streams as s
                where s.line = only_slot.line and s.task_identifier = t.name
                limit 1
            ) as b
        )
$$;

create function app_jobs.lock_jobs(
    slot integer,
    line text,
    tasks text[],
    low text,
    high text,
    paused text[],
    after app_jobs.place,
    until app_jobs.place,
    most integer,
    of_queues boolean
) returns app_jobs.found
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_found app_jobs.found;
begin
    -- As plain comparisons the task's bounds are checked within the index; "= any" needs a visit to
    -- the table.
    select
        coalesce(array_agg(l.ctid) filter (where l.queue_name is null), '{}'),
        coalesce(
            array_agg(
                row(
                    l.ctid, l.priority, l.run_at, l.id,
                    app_jobs.queue_line(l.database_id, l.queue_name)
                )::app_jobs.place
            ) filter (where l.queue_name is not null),
            '{}'
        ),
        (array_agg(l.id))[count(*)],
        '{}'::integer[],
        false
    into v_found
    from (
        select j.ctid, j.priority, j.run_at, j.id, j.database_id, j.queue_name
        from app_jobs.jobs as j
        where
            j.slot = lock_jobs.slot
            and j.line = lock_jobs.line
            and j.task_identifier between lock_jobs.low and lock_jobs.high
            and (lock_jobs.tasks is null or j.task_identifier = any(lock_jobs.tasks))
            and j.task_identifier <> all(lock_jobs.paused)
            and (lock_jobs.of_queues or j.queue_name is null)
            and (j.priority, j.run_at, j.id) > (
                coalesce((lock_jobs.after).priority, -2147483648),
                coalesce((lock_jobs.after).run_at, '-infinity'),
                coalesce((lock_jobs.after).id, 0)
            )
            and (j.priority, j.run_at, j.id) <= (
                coalesce((lock_jobs.until).priority, 2147483647),
                coalesce((lock_jobs.until).run_at, 'infinity'),
                coalesce((lock_jobs.until).id, 9223372036854775807)
            )
        order by j.priority, j.run_at, j.id
        limit lock_jobs.most
        for update skip locked
    ) as l;
    return v_found;
end;
$$;

create function app_jobs.look(
    line text,
    tasks text[],
    paused text[],
    wanted integer,
    after app_jobs.place
) returns app_jobs.found
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_found app_jobs.found := row(
        '{}'::tid[], '{}'::app_jobs.place[], null, '{}'::integer[], false
    )::app_jobs.found;
    v_lot app_jobs.found;
    c_slots_at_most constant integer := 200;
    c_many constant integer := 100;
    c_note_every constant integer := 256;
    c_heads_at_most constant integer := 256;
    v_first constant integer := app_jobs.first_slot();
    v_tasks text[] := look.tasks;
    v_low text;
    v_high text;
    v_left integer := look.wanted;
    v_seen integer[] := '{}'::integer[];
    v_from app_jobs.place[] := '{}'::app_jobs.place[];
    v_head record;
    v_best record;
    v_next record;
    v_after app_jobs.place := coalesce(
        look.after, row(null, -2147483648, '-infinity', 0, null)::app_jobs.place
    );
    v_until app_jobs.place;
    v_count integer;
    v_at integer;
    -- Claims of many jobs at the same moment would pass over each other's rows. So each takes closed
    -- slots for itself, where there are others as urgent; for this second, and not as long as its
    -- transaction is open.
    v_shares boolean := look.line <> '' or look.wanted < c_many;
    v_second constant text := floor(extract(epoch from clock_timestamp()))::text;
    v_heads integer := 2;
    v_left_out integer[] := '{}'::integer[];
    v_urgency integer;
begin
    select r.low, r.high into v_low, v_high from app_jobs.task_range(look.tasks) as r;
    if look.tasks is null then
        v_tasks := array(
            with recursive named(task) as (
                (
                    select s.task_identifier from app_jobs.streams as s
                    where s.line = look.line
                    order by s.task_identifier limit 1
                )
                union all
                select (
                    select s.task_identifier from app_jobs.streams as s
                    where s.line = look.line and s.task_identifier > n.task
                    order by s.task_identifier limit 1
                )
                from named as n
                where n.task is not null
            )

            select n.task from named as n where n.task is not null
        );
    end if;
    if not v_shares then
        v_heads := 2 + 14 / greatest(cardinality(v_tasks), 1);
    end if;

    loop
        -- The two slots with the best heads: exact in open slots and in those seen in this call,
        -- elsewhere a bound.
        v_best := null;
        v_next := null;
        v_count := 0;
        for v_head in
            with exact as (
                select o.slot from app_jobs.open_slots as o
                where o.slot >= v_first and o.slot <> all(v_seen)
                union all
                select s.slot from unnest(v_seen) as s(slot)
            )

            select e.slot, h.priority, h.run_at, h.id, false as closed
            from exact as e
            cross join lateral (
                select j.priority, j.run_at, j.id
                from app_jobs.jobs as j
                where
                    j.slot = e.slot
                    and j.line = look.line
                    and j.task_identifier between v_low and v_high
                    and (look.tasks is null or j.task_identifier = any(look.tasks))
                    and j.task_identifier <> all(look.paused)
                    and (j.priority, j.run_at, j.id) > (
                        coalesce((v_from[array_position(v_seen, e.slot)]).priority,
                        v_after.priority),
                        coalesce((v_from[array_position(v_seen, e.slot)]).run_at, v_after.run_at),
                        coalesce((v_from[array_position(v_seen, e.slot)]).id, v_after.id)
                    )
                order by j.priority, j.run_at, j.id
                limit 1
            ) as h
            union all
            select b.slot, b.priority, b.run_at, b.id, true
            from unnest(v_tasks) as task(name)
            cross join lateral (
                select s.slot, s.priority, s.run_at, s.id
                from app_jobs.streams as s
                where
                    s.line = look.line
                    and s.task_identifier = task.name
                    and s.slot <> all(v_seen)
                order by s.priority, s.run_at, s.id
                limit v_heads
            ) as b
            where task.name <> all(look.paused)
            order by 2, 3, 4
        loop
            exit when v_best is null and v_head.priority > v_urgency;
            v_count := v_count + 1;
            continue when v_head.slot = any(v_left_out);
            if v_best is null
                and not v_shares
                and v_head.closed
                and not pg_try_advisory_xact_lock(
                    app_jobs.lock_key('claim', v_head.slot || ' ' || v_second)
                )
            then
                v_left_out := v_left_out || v_head.slot;
                v_urgency := v_head.priority;
                continue;
            end if;
            if v_best is null then
                v_best := v_head;
            elsif v_head.slot <> v_best.slot then
                v_next := v_head;
                exit;
            end if;
        end loop;
        v_found.left_out := v_urgency is not null;
        if v_best is null and v_found.left_out and v_left = look.wanted then
            if v_count >= v_heads and v_heads < c_heads_at_most then
                v_heads := 4 * v_heads;
            else
                -- nothing as urgent elsewhere
                v_shares := true;
                v_seen := '{}';
                v_left_out := '{}';
                v_urgency := null;
            end if;
            continue;
        end if;
        exit when v_best is null;

        v_until := null;
        if v_next is not null then
            v_until := row(null, v_next.priority, v_next.run_at, v_next.id, null);
        end if;
        if v_urgency is not null and (v_until is null or v_until.priority > v_urgency) then
            v_until := row(null, v_urgency, 'infinity', 9223372036854775807, null);
        end if;
        if (v_best.priority, v_best.run_at, v_best.id) <= (v_after.priority, v_after.run_at,
        v_after.id) then
            v_best.priority := v_after.priority;
            v_best.run_at := v_after.run_at;
            v_best.id := v_after.id + 1;
        end if;

        v_lot := app_jobs.lock_jobs(
            v_best.slot, look.line, look.tasks, v_low, v_high, look.paused,
            row(null, v_best.priority, v_best.run_at, v_best.id - 1, null)::app_jobs.place,
            -- included: a bound may have been left behind by a job that stands here now
            v_until,
            v_left,
            v_urgency is null  -- jobs of a queue keep their order
        );
        v_count := cardinality(v_lot.tids) + cardinality(v_lot.queued);
        v_found.tids := v_found.tids || v_lot.tids;
        v_found.queued := v_found.queued || v_lot.queued;
        if v_urgency is null then
            v_found.last_id := coalesce(v_lot.last_id, v_found.last_id);
        end if;
        -- Once for so many jobs, as if by chance: to write it down for each single one would cost
        -- more than to pass over its entry again.
        if v_best.closed and v_count > (hashint8(v_lot.last_id) & (c_note_every - 1)) then
            v_found.used_slots := v_found.used_slots || v_best.slot;
        end if;

        v_left := v_left - v_count;
        exit when v_left = 0;
        if v_count = 0
            and v_best.closed
            and current_setting('transaction_isolation') = 'read committed'
        then
            -- Thousands may be out of date where many jobs were cancelled: this goes on until a
            -- bound is right, or another claim is raising it.
            continue when app_jobs.raise_bounds(v_best.slot, look.line);
        end if;
        -- What is left in this slot before the next one's head is locked by others: go on behind
        -- it.
        exit when v_next is null and v_urgency is null or cardinality(v_seen) >= c_slots_at_most;
        v_at := coalesce(array_position(v_seen, v_best.slot), cardinality(v_seen) + 1);
        v_seen[v_at] := v_best.slot;
        v_from[v_at] := v_until;
    end loop;
    return v_found;
end;
$$;

revoke all on function app_jobs.raise_bounds(integer, text) from public;
revoke all on function app_jobs.task_range(text[]) from public;
revoke all on function app_jobs.only_slot(text, text[], integer) from public;
revoke all on function app_jobs.lock_jobs(
    integer, text, text[], text, text, text[], app_jobs.place, app_jobs.place, integer, boolean
) from public;
revoke all on function app_jobs.look(text, text[], text[], integer, app_jobs.place) from public;
revoke all on type app_jobs.place from public;
revoke all on type app_jobs.found from public;

comment on type app_jobs.place is
'Where a job stands in a line: its row, its position, and what a claim needs to know of it.';
comment on type app_jobs.found is
'What look() has found: the rows of jobs without a queue, the places of those with one, both in
order; the last of them all; the closed slots in which many were found; and whether slots were left
to other claims (then the last is the last before them).';
comment on function app_jobs.raise_bounds(integer, text) is
'Set the streams of a closed slot to what is left in it; drop those with nothing left.

slot  a closed slot
line  '''', or a queue''s line

Returns: whether any bound was out of date. Locks: its streams, skipping locked ones. Roles: internal.';
comment on function app_jobs.task_range(text[]) is
'Tell the first and the last of these tasks, in the order of the index, whatever the database''s is.

tasks  task identifiers; null: all there can be

Returns: one row. Roles: internal.';
comment on function app_jobs.only_slot(text, text[], integer) is
'Name the one slot in which jobs of this line can stand, if there is but one and it is open.

line   '''', or a queue''s line
tasks  tasks wanted; null: all
first  as first_slot() says

Returns: a row, or none. Roles: internal.';
comment on function app_jobs.lock_jobs(
    integer, text, text[], text, text, text[], app_jobs.place, app_jobs.place, integer, boolean
) is
'Lock and return the first jobs of a line in a slot that nobody else has locked, in the order
priority, run_at, id.

slot       the slot
line       '''', or a queue''s line
tasks      tasks wanted; null: all
low        the first of them, as task_range() says
high       the last of them
paused     tasks not wanted
after      only jobs behind this place; null: from the start
until      only jobs up to this place; null: to the end
most       jobs at most
of_queues  false: only those of no queue

Returns: those of no queue, those of queues, and the last of them. Locks: the jobs returned (for
update), skipping locked ones. Roles: internal; the caller pins the plans.';
comment on function app_jobs.look(text, text[], text[], integer, app_jobs.place) is
'Lock and return the first jobs of a line that nobody else has locked, in the order priority,
run_at, id.

line    '''': the ready jobs; a queue''s line: its parked jobs
tasks   tasks wanted; null: all
paused  tasks not wanted
wanted  jobs at most, 1 or more
after   only jobs behind this place; null: from the start

Returns: those of no queue, and those of queues, in order; but of a hundred and more ready jobs, some
may stand in another closed slot, as urgent, than those that another transaction is claiming just now.
Locks: the jobs returned (for update), skipping locked ones.
Roles: internal; the caller pins the plans.';

commit;
