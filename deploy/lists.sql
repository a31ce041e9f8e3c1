-- Deploy app_jobs:lists to pg
-- requires: explain_job

begin;

set local lock_timeout = '5s';

create type app_jobs.listed_job as (
    id bigint,
    state text,
    task_identifier text,
    queue_name text,
    database_id uuid,
    key text,
    priority integer,
    run_at timestamptz,
    attempts integer,
    max_attempts integer,
    created_at timestamptz,
    held_by text,
    held_since timestamptz,
    finished_at timestamptz,
    last_error text
);

create function app_jobs.check_list(
    state text, states text[], most integer, most_allowed integer
) returns void
language plpgsql
immutable
as $$
begin
    if check_list.state is not null and check_list.state <> all(check_list.states) then
        raise exception 'state is "%"', check_list.state
            using errcode = '22023',
                hint = format('Use %s, or null for all.', array_to_string(check_list.states, ', '));
    end if;
    perform app_jobs.check_not_null(
        'most', check_list.most is null, format('Give 1 to %s jobs.', check_list.most_allowed)
    );
    if check_list.most not between 1 and check_list.most_allowed then
        raise exception 'most is %', check_list.most
            using errcode = '22023', hint = format('Give 1 to %s jobs.', check_list.most_allowed);
    end if;
end;
$$;

create function app_jobs.is_wanted(
    job app_jobs.listed_job, task text, queue text, db_id uuid, state text, search text
) returns boolean
language sql
stable
as $$
    select
        (task is null or (job).task_identifier = task)
        and (queue is null or (job).queue_name is not distinct from queue)
        and (db_id is null or (job).database_id is not distinct from db_id)
        and (state is null or (job).state = state)
        and (
            search is null
            or strpos(
                lower(concat_ws(
                    chr(10), (job).task_identifier, (job).queue_name, (job).key, (job).held_by,
                    (job).last_error
                )),
                lower(search)
            ) > 0
        )
$$;

create function app_jobs.list_jobs(
    task text default null,
    queue text default null,
    db_id uuid default null,
    state text default null,
    search text default null,
    before bigint default null,
    most integer default 50
) returns setof app_jobs.listed_job
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
    c_look_at constant integer := 20000;
    c_time constant interval := interval '0.25 seconds';
    v_start constant timestamptz := clock_timestamp();
    v_before bigint;
    v_from bigint;
    v_span bigint := 1000;
    v_seen integer := 0;
    v_found integer := 0;
    v_job app_jobs.listed_job;
    v_end app_jobs.listed_job;
begin
    perform app_jobs.check_list(
        list_jobs.state, array['ready', 'parked', 'scheduled', 'running', 'processing'],
        list_jobs.most, 1000
    );
    v_before := coalesce(
        list_jobs.before,
        pg_sequence_last_value('app_jobs.jobs_id_seq') + 1,
        (select max(j.id) + 1 from app_jobs.jobs as j)
    );
    -- Span by span, each twice as long, so that neither a table full of dead entries nor an empty
    -- one makes a look long.
    while v_before > 1 loop
        v_from := greatest(v_before - v_span, 1);
        for v_job in
            select
                j.id,
                case
                    when j.line = '' then 'ready'
                    when j.line is not null then 'parked'
                    when j.locked_by is null then 'scheduled'
                    when j.lease_expires_at is null then 'processing'
                    else 'running'
                end,
                j.task_identifier, j.queue_name, j.database_id, j.key, j.priority, j.run_at,
                j.attempts, j.max_attempts, j.created_at, j.locked_by, j.locked_at,
                null::timestamptz, app_jobs.first_line(left(j.last_error, 1000))
            from app_jobs.jobs as j
            where j.id >= v_from and j.id < v_before
            order by j.id desc
        loop
            if v_seen >= c_look_at
                or (v_seen % 500 = 499 and clock_timestamp() > v_start + c_time)
            then
                v_end.id := v_job.id + 1;
                return next v_end;
                return;
            end if;
            v_seen := v_seen + 1;
            continue when not app_jobs.is_wanted(
                v_job, list_jobs.task, list_jobs.queue, list_jobs.db_id, list_jobs.state,
                list_jobs.search
            );
            if v_found = list_jobs.most then
                v_end.id := v_job.id + 1;
                return next v_end;
                return;
            end if;
            v_found := v_found + 1;
            return next v_job;
        end loop;
        v_before := v_from;
        v_span := v_span * 2;
        if v_before > 1 and clock_timestamp() > v_start + c_time then
            v_end.id := v_before;
            return next v_end;
            return;
        end if;
    end loop;
end;
$$;

create function app_jobs.list_finished(
    task text default null,
    queue text default null,
    db_id uuid default null,
    state text default null,
    search text default null,
    since timestamptz default null,
    before timestamptz default null,
    before_id bigint default null,
    most integer default 50
) returns setof app_jobs.listed_job
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
-- in the order of the index, and by id only within one time: a sort would read all there is
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_look_at constant integer := 20000;
    c_time constant interval := interval '0.25 seconds';
    v_start constant timestamptz := clock_timestamp();
    v_since constant timestamptz := coalesce(list_finished.since, '-infinity');
    v_before constant timestamptz := coalesce(list_finished.before, 'infinity');
    v_before_id constant bigint := coalesce(list_finished.before_id, 0);
    v_failed constant boolean := coalesce(list_finished.state = 'failed', false);
    v_seen integer := 0;
    v_found integer := 0;
    v_job app_jobs.listed_job;
    v_end app_jobs.listed_job;
begin
    perform app_jobs.check_list(
        list_finished.state, array['completed', 'failed', 'cancelled'], list_finished.most, 10000
    );
    for v_job in
        select
            f.id, f.state, f.task_identifier, f.queue_name, f.database_id, f.key, f.priority,
            f.run_at, f.attempts, f.max_attempts, f.created_at, f.finished_by, f.started_at,
            f.finished_at, app_jobs.first_line(left(f.last_error, 1000))
        from (
            -- one of the two, whose index has no others
            (
                select d.* from app_jobs.finished_jobs as d
                where
                    v_failed
                    and d.state = 'failed'
                    and d.finished_at >= v_since
                    and (d.finished_at, d.id) < (v_before, v_before_id)
                order by d.finished_at desc, d.id desc
            )
            union all
            (
                select a.* from app_jobs.finished_jobs as a
                where
                    not v_failed
                    and a.finished_at >= v_since
                    and (a.finished_at, a.id) < (v_before, v_before_id)
                order by a.finished_at desc, a.id desc
            )
        ) as f
    loop
        v_seen := v_seen + 1;
        if v_seen > c_look_at
            or (v_seen % 500 = 0 and clock_timestamp() > v_start + c_time)
        then
            v_end.finished_at := v_job.finished_at;
            v_end.id := v_job.id + 1;
            return next v_end;
            return;
        end if;
        continue when not app_jobs.is_wanted(
            v_job, list_finished.task, list_finished.queue, list_finished.db_id,
            list_finished.state, list_finished.search
        );
        if v_found = list_finished.most then
            v_end.finished_at := v_job.finished_at;
            v_end.id := v_job.id + 1;
            return next v_end;
            return;
        end if;
        v_found := v_found + 1;
        return next v_job;
    end loop;
end;
$$;

create function app_jobs.list_queues(
    search text default null, most integer default 100
) returns table (
    database_id uuid,
    queue_name text,
    ready bigint,
    scheduled bigint,
    running bigint,
    parked bigint,
    oldest_ready_age interval,
    max_running integer,
    paused boolean
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
    c_look_at constant integer := 10000;
begin
    perform app_jobs.check_list(null, null, list_queues.most, 1000);
    return query
    with busy as materialized (
        select
            app_jobs.queue_line(m.database_id, m.queue_name) as line, m.database_id, m.queue_name,
            sum(m.ready)::bigint as ready, sum(m.scheduled)::bigint as scheduled,
            sum(m.running)::bigint as running, sum(m.parked)::bigint as parked,
            max(m.oldest_ready_age) as oldest_ready_age
        from app_jobs.metrics() as m
        where m.queue_name is not null and m.ready + m.scheduled + m.running + m.parked > 0
        group by m.database_id, m.queue_name
    ),

    listed as (
        select b.*, coalesce(s.max_running, 1) as max_running, coalesce(s.paused, false) as paused
        from busy as b
        left join app_jobs.queue_settings as s on s.line = b.line
        union all
        select s.line, s.database_id, s.queue_name, 0, 0, 0, 0, null, s.max_running, s.paused
        from (
            select q.* from app_jobs.queue_settings as q order by q.line limit c_look_at
        ) as s
        where s.line not in (select b.line from busy as b)
    )

    select
        l.database_id, l.queue_name, l.ready, l.scheduled, l.running, l.parked, l.oldest_ready_age,
        l.max_running, l.paused
    from listed as l
    where
        list_queues.search is null
        or strpos(lower(l.queue_name), lower(list_queues.search)) > 0
    order by l.ready + l.scheduled + l.running + l.parked desc, l.queue_name, l.database_id
    limit list_queues.most;
end;
$$;

create function app_jobs.list_tasks() returns table (
    task_identifier text,
    ready bigint,
    scheduled bigint,
    running bigint,
    parked bigint,
    expired bigint,
    oldest_ready_age interval,
    failed_1h bigint,
    workers bigint,
    paused boolean,
    max_attempts integer,
    retry_after interval,
    timeout interval,
    keep_completed interval,
    keep_failed interval
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    return query
    with served as materialized (
        select w.task, count(distinct p.worker_id) as workers
        from app_jobs.workers as p cross join unnest(p.task_identifiers) as w(task)
        group by w.task
    ),

    known as materialized (
        select
            m.task_identifier, m.ready, m.scheduled, m.running, m.parked, m.expired,
            m.oldest_ready_age, m.failed_1h
        from app_jobs.metrics() as m
        union all
        select t.task_identifier, 0, 0, 0, 0, 0, null, 0 from app_jobs.tasks as t
        union all
        select s.task, 0, 0, 0, 0, 0, null::interval, 0 from served as s
    ),

    counted as (
        select
            k.task_identifier, sum(k.ready)::bigint as ready, sum(k.scheduled)::bigint as scheduled,
            sum(k.running)::bigint as running, sum(k.parked)::bigint as parked,
            sum(k.expired)::bigint as expired, max(k.oldest_ready_age) as oldest_ready_age,
            sum(k.failed_1h)::bigint as failed_1h
        from known as k
        group by k.task_identifier
    )

    select
        c.task_identifier, c.ready, c.scheduled, c.running, c.parked, c.expired,
        c.oldest_ready_age, c.failed_1h,
        coalesce(s.workers, 0)
        + (select count(*) from app_jobs.workers as w where w.task_identifiers is null),
        coalesce(t.paused, false), t.max_attempts, t.retry_after, t.timeout, t.keep_completed,
        t.keep_failed
    from counted as c
    left join app_jobs.tasks as t on t.task_identifier = c.task_identifier
    left join served as s on s.task = c.task_identifier
    order by c.ready + c.parked desc, c.running desc, c.task_identifier;
end;
$$;

revoke all on type app_jobs.listed_job from public;
revoke all on function app_jobs.check_list(text, text[], integer, integer) from public;
revoke all on function app_jobs.is_wanted(
    app_jobs.listed_job, text, text, uuid, text, text
) from public;
revoke all on function app_jobs.list_jobs(
    text, text, uuid, text, text, bigint, integer
) from public;
revoke all on function app_jobs.list_finished(
    text, text, uuid, text, text, timestamptz, timestamptz, bigint, integer
) from public;
revoke all on function app_jobs.list_queues(text, integer) from public;
revoke all on function app_jobs.list_tasks() from public;
grant execute on function app_jobs.list_jobs(
    text, text, uuid, text, text, bigint, integer
) to app_jobs_monitor;
grant execute on function app_jobs.list_finished(
    text, text, uuid, text, text, timestamptz, timestamptz, bigint, integer
) to app_jobs_monitor;
grant execute on function app_jobs.list_queues(text, integer) to app_jobs_monitor;
grant execute on function app_jobs.list_tasks() to app_jobs_monitor;

comment on type app_jobs.listed_job is
'A job in a list, live or finished, without its payload. held_by and held_since: who runs it, or has
run it last, and since when. last_error: its first line.';
comment on function app_jobs.check_list(text, text[], integer, integer) is
'Refuse a state that no job of a list has, and a number of rows that is too high.

state         the state asked for; null passes
states        those that there are
most          rows asked for
most_allowed  rows allowed

Errors: 22004, 22023. Roles: internal.';
comment on function app_jobs.is_wanted(
    app_jobs.listed_job, text, text, uuid, text, text
) is
'Say whether a job is in a list; a filter that is null lets all pass.

job     the job
task    its task
queue   its queue
db_id   its tenant
state   its state
search  a part of its task, queue, key, worker or error, in whatever case

Roles: internal.';
comment on function app_jobs.list_jobs(text, text, uuid, text, text, bigint, integer) is
'List live jobs, those added last first, without payloads. Bounded: a call looks at 20,000 jobs or
for a quarter of a second, whichever is less. If it has not come to the end, its last row has nothing
but an id: give that as before to go on.

task    only of this task
queue   only of this queue
db_id   only of this tenant; null: all
state   only ready, parked, scheduled, running or processing; null: all
search  only with this in task, queue, key, worker or the error''s first line, in whatever case
before  only ids below this; null: from the newest on
most    jobs at most, 1 to 1000

Returns: jobs, and perhaps the row that says where to go on. Errors: 22004, 22023. Roles:
app_jobs_monitor.';
comment on function app_jobs.list_finished(
    text, text, uuid, text, text, timestamptz, timestamptz, bigint, integer
) is
'List finished jobs that are kept, those that ended last first, without payloads. Bounded as
list_jobs() is: a last row that has nothing but finished_at and id says where to go on.

task       only of this task
queue      only of this queue
db_id      only of this tenant; null: all
state      only completed, failed (the dead letters) or cancelled; null: all
search     only with this in task, queue, key, worker or the error''s first line, in whatever case
since      only those that ended then or later
before     only those that ended before this
before_id  to go on: with finished_at as before, only ids below this among those that ended then
most       jobs at most, 1 to 10000

Returns: jobs, and perhaps the row that says where to go on. Errors: 22004, 22023. Roles:
app_jobs_monitor.';
comment on function app_jobs.list_queues(text, integer) is
'List named queues that have jobs or settings, those with most jobs first. Unlike the view
job_queues it counts as metrics() does, at the same cost however many jobs wait; of queues with
settings and without jobs it looks at 10,000.

search  only with this in the name, in whatever case
most    queues at most, 1 to 1000

Returns: a row per tenant and queue. Errors: 22004, 22023. Roles: app_jobs_monitor.';
comment on function app_jobs.list_tasks() is
'List tasks that have jobs, settings or a worker, with their counts as in metrics(), the workers that
serve them, and their settings (null: the default).

Returns: a row per task. Roles: app_jobs_monitor.';

commit;
