-- Deploy app_jobs:task_stats to pg
-- requires: metrics

begin;

set local lock_timeout = '5s';

-- What workers counted, merged: a row per minute and task, or some where very many workers report;
-- and per ten minutes, so that a week is read quickly. The key begins with the time, so what old
-- snapshots keep of other times is never met.
create table app_jobs.task_figures (
    minutes integer not null,
    at timestamptz not null,
    task_identifier text collate "C" not null,
    lot bigint not null,
    completed bigint not null,
    failed bigint not null,
    retried bigint not null,
    wait_histogram bigint[] not null,
    run_histogram bigint[] not null,
    wait_seconds double precision not null,
    run_seconds double precision not null,
    constraint task_figures_pkey primary key (minutes, at, task_identifier, lot),
    constraint task_figures_minutes_known check (minutes in (1, 10))
);

-- What they say every few seconds: inserted, merged a minute later, deleted.
create table app_jobs.stat_reports (
    at timestamptz not null,
    id bigint generated always as identity,
    worker_id text not null,
    figures app_jobs.task_figures[] not null,
    constraint stat_reports_pkey primary key (at, id)
);

-- What waited in the middle of each minute, by task and by queue.
create table app_jobs.depth_figures (
    at timestamptz not null,
    kind text not null,
    name text collate "C" not null,
    ready bigint not null,
    scheduled bigint not null,
    running bigint not null,
    parked bigint not null,
    oldest_ready_age interval,
    constraint depth_figures_pkey primary key (at, kind, name),
    constraint depth_figures_kind_known check (kind in ('task', 'queue'))
);

-- Minutes up to which reports are merged, and figures deleted: seconds since 1970.
create sequence app_jobs.stats_merged_to minvalue 0 start 0;
create sequence app_jobs.stats_pruned_to minvalue 0 start 0;
select
    setval('app_jobs.stats_merged_to', 0),
    setval('app_jobs.stats_pruned_to', 0);

create function app_jobs.histogram_bounds() returns double precision[]
language sql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select array[
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300,
        900, 3600, 14400
    ]::double precision[]
$$;

create function app_jobs.histogram_quantile(
    histogram bigint[], quantile double precision
) returns double precision
language sql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    -- as if what is in a bucket were spread evenly over it; the last one has no upper bound
    select b.lower + coalesce(
        (b.upper - b.lower) * (r.rank - b.until + b.jobs) / b.jobs, 0
    )
    from (
        select
            h.jobs,
            sum(h.jobs) over (order by h.n) as until,
            coalesce(u.bounds[h.n - 1], 0) as lower,
            u.bounds[h.n] as upper,
            h.n
        from unnest(histogram_quantile.histogram) with ordinality as h(jobs, n)
        cross join (select app_jobs.histogram_bounds()) as u(bounds)
    ) as b
    cross join (
        select histogram_quantile.quantile * sum(s.jobs)
        from unnest(histogram_quantile.histogram) as s(jobs)
    ) as r(rank)
    where
        b.jobs > 0
        and b.until >= r.rank
        and histogram_quantile.quantile between 0 and 1
    order by b.n
    limit 1
$$;

create function app_jobs.sum_stats(
    step interval, tens tstzrange, minutes tstzrange, reports tstzrange, report_ids bigint[]
) returns setof app_jobs.task_figures
language sql
stable
as $$
    select
        (extract(epoch from sum_stats.step) / 60)::integer,
        date_bin(sum_stats.step, f.at, 'epoch'), f.task_identifier, min(f.lot),
        sum(f.completed)::bigint, sum(f.failed)::bigint, sum(f.retried)::bigint,
        array[
            sum(f.w[1]), sum(f.w[2]), sum(f.w[3]), sum(f.w[4]), sum(f.w[5]), sum(f.w[6]), sum(f.w[7]),
            sum(f.w[8]), sum(f.w[9]), sum(f.w[10]), sum(f.w[11]), sum(f.w[12]), sum(f.w[13]), sum(f.w[14]),
            sum(f.w[15]), sum(f.w[16]), sum(f.w[17]), sum(f.w[18]), sum(f.w[19]), sum(f.w[20]), sum(f.w[21])
        ]::bigint[],
        array[
            sum(f.r[1]), sum(f.r[2]), sum(f.r[3]), sum(f.r[4]), sum(f.r[5]), sum(f.r[6]), sum(f.r[7]),
            sum(f.r[8]), sum(f.r[9]), sum(f.r[10]), sum(f.r[11]), sum(f.r[12]), sum(f.r[13]), sum(f.r[14]),
            sum(f.r[15]), sum(f.r[16]), sum(f.r[17]), sum(f.r[18]), sum(f.r[19]), sum(f.r[20]), sum(f.r[21])
        ]::bigint[],
        sum(f.wait_seconds), sum(f.run_seconds)
    from (
        select t.*
        from app_jobs.task_figures as t
        where
            t.minutes = 10
            and t.at >= lower(sum_stats.tens)
            and t.at < upper(sum_stats.tens)
        union all
        select m.*
        from app_jobs.task_figures as m
        where
            m.minutes = 1
            and m.at >= lower(sum_stats.minutes)
            and m.at < upper(sum_stats.minutes)
        union all
        select
            1, r.at, n.task_identifier, r.id, n.completed, n.failed, n.retried, n.wait_histogram,
            n.run_histogram, n.wait_seconds, n.run_seconds
        from app_jobs.stat_reports as r
        cross join unnest(r.figures) as n
        where
            r.at >= lower(sum_stats.reports)
            and r.at < upper(sum_stats.reports)
            and (sum_stats.report_ids is null or r.id = any(sum_stats.report_ids))
    ) as f(
        minutes, at, task_identifier, lot, completed, failed, retried, w, r, wait_seconds,
        run_seconds
    )
    group by 2, 3
$$;

create function app_jobs.record_stats(worker_id text, stats json) returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    c_empty constant bigint[] := array_fill(
        0::bigint, array[cardinality(app_jobs.histogram_bounds()) + 1]
    );
    c_most constant bigint := 1000000000;
    c_keys constant text[] := array[
        'task_identifier', 'completed', 'failed', 'retried', 'wait_histogram', 'run_histogram',
        'wait_seconds', 'run_seconds'
    ];
    v_figures app_jobs.task_figures[];
    v_unknown text;
    v_wrong bigint;
begin
    perform app_jobs.check_worker_id(record_stats.worker_id);
    perform app_jobs.check_objects(
        'stats', record_stats.stats, 'Give an array of objects, one per task.'
    );
    select k.key into v_unknown
    from json_array_elements(record_stats.stats) as e(figures)
    cross join json_object_keys(e.figures) as k(key)
    where k.key <> all(c_keys);
    if found then
        raise exception 'stats has an unknown key: "%"', v_unknown
            using errcode = '22023',
                hint = 'Its keys are ' || array_to_string(c_keys, ', ') || '.';
    end if;
    v_figures := array(
        select row(
            null, null, s.task_identifier, null,
            coalesce(s.completed, 0), coalesce(s.failed, 0), coalesce(s.retried, 0),
            coalesce(s.wait_histogram, c_empty), coalesce(s.run_histogram, c_empty),
            coalesce(s.wait_seconds, 0), coalesce(s.run_seconds, 0)
        )::app_jobs.task_figures
        from json_populate_recordset(null::app_jobs.task_figures, record_stats.stats) as s
    );
    select f.n - 1 into v_wrong
    from unnest(v_figures) with ordinality as f(
        minutes, at, task_identifier, lot, completed, failed, retried, wait_histogram, run_histogram,
        wait_seconds, run_seconds, n
    )
    cross join lateral (
        select array[f.completed, f.failed, f.retried] || f.wait_histogram || f.run_histogram
    ) as c(counts)
    where (
        char_length(f.task_identifier) between 1 and 126
        and array_dims(f.wait_histogram) = array_dims(c_empty)
        and array_dims(f.run_histogram) = array_dims(c_empty)
        and 0 <= all(c.counts)
        and c_most >= all(c.counts)
        and f.wait_seconds between 0 and 1e18
        and f.run_seconds between 0 and 1e18
    ) is not true
    limit 1;
    if found then
        raise exception 'stats[%] is not the figures of a task: %',
            v_wrong, left((record_stats.stats -> v_wrong::integer)::text, 200)
            using errcode = '22023',
                hint = format(
                    'It needs a task_identifier, 1 to 126 characters. Counts are 0 to %s; a '
                    'histogram has %s of them, see histogram_bounds().',
                    c_most, cardinality(c_empty)
                );
    end if;
    if v_figures <> '{}' then
        insert into app_jobs.stat_reports (at, worker_id, figures)
        values (
            date_bin('1 minute', clock_timestamp(), 'epoch'), record_stats.worker_id, v_figures
        );
    end if;
end;
$$;

create function app_jobs.record_depths(at timestamptz) returns void
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_deepest constant integer := 50;
begin
    if exists (select from app_jobs.depth_figures as f where f.at = record_depths.at) then
        return;
    end if;
    insert into app_jobs.depth_figures (
        at, kind, name, ready, scheduled, running, parked, oldest_ready_age
    )
    select
        record_depths.at, d.kind, d.name, d.ready, d.scheduled, d.running, d.parked,
        d.oldest_ready_age
    from (
        select
            n.kind, n.name,
            sum(m.ready) as ready,
            sum(m.scheduled) as scheduled,
            sum(m.running) as running,
            sum(m.parked) as parked,
            max(m.oldest_ready_age) as oldest_ready_age,
            row_number() over (
                partition by n.kind
                order by
                    sum(m.ready + m.parked) desc, sum(m.scheduled + m.running) desc, n.name
            ) as place
        from app_jobs.metrics() as m
        cross join lateral (
            values ('task', m.task_identifier), ('queue', m.queue_name)
        ) as n(kind, name)
        where n.name is not null
        group by n.kind, n.name
        having sum(m.ready + m.scheduled + m.running + m.parked) > 0
    ) as d
    where d.place <= c_deepest;
end;
$$;

create function app_jobs.merge_stats(reports integer, rows integer) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_minute constant interval := interval '1 minute';
    c_ten constant interval := interval '10 minutes';
    -- a report is on its way for so long at most; a later one counts, but is not merged
    c_late constant interval := interval '30 seconds';
    c_kept constant interval := interval '7 days';
    v_over constant timestamptz := date_bin(c_minute, clock_timestamp() - c_late, 'epoch');
    v_merged_to timestamptz := to_timestamp(
        coalesce(pg_sequence_last_value('app_jobs.stats_merged_to'), 0)
    );
    v_pruned_from constant timestamptz := to_timestamp(
        coalesce(pg_sequence_last_value('app_jobs.stats_pruned_to'), 0)
    );
    v_pruned_to timestamptz;
    v_ten constant timestamptz := date_bin(c_ten, v_merged_to, 'epoch');
    v_at timestamptz;
    v_ids bigint[];
    v_pruned integer;
begin
    -- The marks are minutes before which nothing is left to do: they pass over rows that an old
    -- snapshot still holds. One that is off, since the clock was set back, say, is set anew.
    if v_merged_to = v_over and v_pruned_from = v_over - c_kept
        or not pg_try_advisory_xact_lock(app_jobs.lock_key('stats', ''))
    then
        return 0;
    end if;
    perform app_jobs.record_depths(v_over);

    select r.at into v_at
    from app_jobs.stat_reports as r
    where r.at >= v_merged_to and r.at < v_over
    order by r.at
    limit 1;
    v_ids := array(
        select r.id from app_jobs.stat_reports as r
        where r.at = v_at
        order by r.id
        limit merge_stats.reports
    );
    insert into app_jobs.task_figures
    select s.*
    from app_jobs.sum_stats(
        c_minute, null, null, tstzrange(v_at, v_at + c_minute), v_ids
    ) as s;
    delete from app_jobs.stat_reports as r where r.at = v_at and r.id = any(v_ids);

    v_merged_to := case
        when cardinality(v_ids) = merge_stats.reports then v_at
        else coalesce(v_at + c_minute, v_over)
    end;
    if date_bin(c_ten, v_merged_to, 'epoch') <> v_ten then
        -- summed up once more only if the clock was set back
        delete from app_jobs.task_figures as t where t.minutes = 10 and t.at = v_ten;
        insert into app_jobs.task_figures
        select s.*
        from app_jobs.sum_stats(
            c_ten, null, tstzrange(v_ten, v_ten + c_ten), null, null
        ) as s;
    end if;
    perform setval('app_jobs.stats_merged_to', extract(epoch from v_merged_to)::bigint);

    with old as materialized (
        select m.figures, m.depths, m.at
        from unnest(array[1, 10]) as s(minutes)
        cross join lateral (
            select o.ctid as figures, null::tid as depths, o.at
            from app_jobs.task_figures as o
            where o.minutes = s.minutes and o.at >= v_pruned_from and o.at < v_over - c_kept
            order by o.at
            limit merge_stats.rows
        ) as m
        union all
        (
            select null, o.ctid, o.at
            from app_jobs.depth_figures as o
            where o.at >= v_pruned_from and o.at < v_over - c_kept
            order by o.at
            limit merge_stats.rows
        )
        order by at
        limit merge_stats.rows
    ),

    gone as (
        delete from app_jobs.task_figures as f
        where f.ctid = any(array(select o.figures from old as o))
    ),

    gone_depths as (
        delete from app_jobs.depth_figures as f
        where f.ctid = any(array(select o.depths from old as o))
    )

    select count(*), max(o.at) into v_pruned, v_pruned_to from old as o;
    if v_pruned < merge_stats.rows then
        v_pruned_to := v_over - c_kept;
        delete from app_jobs.stat_reports as r
        where r.at >= v_pruned_from and r.at < v_pruned_to;
    end if;
    perform setval('app_jobs.stats_pruned_to', extract(epoch from v_pruned_to)::bigint);
    return cardinality(v_ids);
end;
$$;

create function app_jobs.whole_steps(
    "from" timestamptz, "to" timestamptz, step interval
) returns tstzrange
language plpgsql
stable
as $$
#variable_conflict use_column
declare
    v_from timestamptz;
begin
    perform
        app_jobs.check_not_null('from', whole_steps."from" is null, 'Give the time to begin at.'),
        app_jobs.check_not_null('to', whole_steps."to" is null, 'Give the time to end at.');
    if whole_steps.step is null
        or whole_steps.step < interval '1 minute'
        or extract(epoch from whole_steps.step) % 60 <> 0
        or extract(year from whole_steps.step) <> 0
        or extract(month from whole_steps.step) <> 0
    then
        raise exception 'step is %', coalesce(whole_steps.step::text, 'null')
            using errcode = '22023',
                hint = 'Give minutes, hours or days, like ''15 minutes''; not months, which differ.';
    end if;
    v_from := date_bin(whole_steps.step, whole_steps."from", 'epoch');
    return tstzrange(v_from, greatest(
        v_from,
        date_bin(
            whole_steps.step, whole_steps."to" + whole_steps.step - interval '1 microsecond',
            'epoch'
        )
    ));
end;
$$;

create function app_jobs.task_stats(
    "from" timestamptz,
    "to" timestamptz,
    step interval default '1 minute'
) returns table (
    at timestamptz,
    task_identifier text,
    completed bigint,
    failed bigint,
    retried bigint,
    wait_histogram bigint[],
    run_histogram bigint[],
    wait_seconds double precision,
    run_seconds double precision
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
    c_ten constant interval := interval '10 minutes';
    v_merged_to constant bigint := pg_sequence_last_value('app_jobs.stats_merged_to');
    v_steps constant tstzrange := app_jobs.whole_steps(
        task_stats."from", task_stats."to", task_stats.step
    );
    -- null if the range is empty: no rows then
    v_from constant timestamptz := lower(v_steps);
    v_to constant timestamptz := upper(v_steps);
    v_tens_to timestamptz;
begin
    -- The sums of ten minutes, where they serve, save nine rows of ten. The last one may not have
    -- been committed yet.
    v_tens_to := v_from;
    if extract(epoch from task_stats.step) % extract(epoch from c_ten) = 0 then
        v_tens_to := least(v_to, greatest(v_from, date_bin(
            c_ten, to_timestamp(coalesce(v_merged_to, 0)), 'epoch'
        ) - c_ten));
    end if;
    return query
    select
        s.at, s.task_identifier, s.completed, s.failed, s.retried, s.wait_histogram,
        s.run_histogram, s.wait_seconds, s.run_seconds
    from app_jobs.sum_stats(
        task_stats.step, tstzrange(v_from, v_tens_to), tstzrange(v_tens_to, v_to),
        tstzrange(v_from, v_to), null
    ) as s
    order by s.at, s.task_identifier;
end;
$$;

create function app_jobs.depths(
    "from" timestamptz,
    "to" timestamptz,
    step interval default '1 minute'
) returns table (
    at timestamptz,
    kind text,
    name text,
    ready bigint,
    scheduled bigint,
    running bigint,
    parked bigint,
    oldest_ready_age interval
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
    v_steps constant tstzrange := app_jobs.whole_steps(depths."from", depths."to", depths.step);
begin
    return query
    select
        date_bin(depths.step, f.at, 'epoch'), f.kind, f.name, max(f.ready), max(f.scheduled),
        max(f.running), max(f.parked), max(f.oldest_ready_age)
    from app_jobs.depth_figures as f
    where f.at >= lower(v_steps) and f.at < upper(v_steps)
    group by 1, 2, 3
    order by 1, 2, 3;
end;
$$;

revoke all on function app_jobs.histogram_bounds() from public;
revoke all on function app_jobs.histogram_quantile(bigint[], double precision) from public;
revoke all on function app_jobs.sum_stats(
    interval, tstzrange, tstzrange, tstzrange, bigint[]
) from public;
revoke all on function app_jobs.record_stats(text, json) from public;
revoke all on function app_jobs.record_depths(timestamptz) from public;
revoke all on function app_jobs.merge_stats(integer, integer) from public;
revoke all on function app_jobs.whole_steps(timestamptz, timestamptz, interval) from public;
revoke all on function app_jobs.task_stats(timestamptz, timestamptz, interval) from public;
revoke all on function app_jobs.depths(timestamptz, timestamptz, interval) from public;
grant execute on function app_jobs.histogram_bounds() to app_jobs_worker, app_jobs_monitor;
grant execute on function app_jobs.histogram_quantile(bigint[], double precision)
to app_jobs_monitor;
grant execute on function app_jobs.record_stats(text, json) to app_jobs_worker;
grant execute on function app_jobs.task_stats(timestamptz, timestamptz, interval)
to app_jobs_monitor;
grant execute on function app_jobs.depths(timestamptz, timestamptz, interval)
to app_jobs_monitor;
grant select on app_jobs.task_figures, app_jobs.stat_reports, app_jobs.depth_figures
to app_jobs_operator;

comment on table app_jobs.task_figures is
'What workers counted, per minute and task, and per ten minutes, kept for 7 days; read it by task_stats().';
comment on column app_jobs.task_figures.minutes is '1, or 10 for the sum of ten rows.';
comment on column app_jobs.task_figures.at is 'When these minutes begin, by the database''s clock when it was told.';
comment on column app_jobs.task_figures.task_identifier is 'Task.';
comment on column app_jobs.task_figures.lot is 'Tells rows of a minute and task apart: where many workers report, there are some.';
comment on column app_jobs.task_figures.completed is 'Jobs that were completed.';
comment on column app_jobs.task_figures.failed is 'Jobs that failed for good.';
comment on column app_jobs.task_figures.retried is 'Attempts that failed, to be tried again.';
comment on column app_jobs.task_figures.wait_histogram is 'Runs by the time from run_at to their start: see histogram_bounds().';
comment on column app_jobs.task_figures.run_histogram is 'Runs by the time that they took: see histogram_bounds().';
comment on column app_jobs.task_figures.wait_seconds is 'Sum of these waits.';
comment on column app_jobs.task_figures.run_seconds is 'Sum of these run times.';
comment on table app_jobs.stat_reports is
'What workers counted of late: merged into task_figures when the minute is over.';
comment on column app_jobs.stat_reports.at is 'The minute in which it was told.';
comment on column app_jobs.stat_reports.id is 'Tells reports apart.';
comment on column app_jobs.stat_reports.worker_id is 'Who told.';
comment on column app_jobs.stat_reports.figures is 'What: minutes, at and lot are null.';
comment on table app_jobs.depth_figures is
'What waited in the middle of each minute, by task and by queue, the 50 deepest of each, kept for 7 days; read it by depths().';
comment on column app_jobs.depth_figures.at is 'When the minute begins.';
comment on column app_jobs.depth_figures.kind is 'task or queue: what name is the name of.';
comment on column app_jobs.depth_figures.name is 'Task, of all queues; or queue, of all tasks and tenants.';
comment on column app_jobs.depth_figures.ready is 'Jobs as in metrics.';
comment on column app_jobs.depth_figures.scheduled is 'Jobs as in metrics.';
comment on column app_jobs.depth_figures.running is 'Jobs as in metrics.';
comment on column app_jobs.depth_figures.parked is 'Jobs as in metrics.';
comment on column app_jobs.depth_figures.oldest_ready_age is 'Time since the lowest run_at among ready jobs; null: none was ready.';
comment on constraint depth_figures_kind_known on app_jobs.depth_figures is 'A task or a queue.';
comment on sequence app_jobs.stats_merged_to is 'Minute up to which merge_stats() has merged: seconds since 1970.';
comment on sequence app_jobs.stats_pruned_to is 'Minute up to which merge_stats() has deleted: seconds since 1970.';
comment on function app_jobs.histogram_bounds() is
'Tell the upper bounds of the buckets of histograms; one more bucket is beyond the last.

Returns: seconds, ascending; a time that equals a bound is below it. Roles: app_jobs_worker,
app_jobs_monitor.';
comment on function app_jobs.histogram_quantile(bigint[], double precision) is
'Estimate a quantile of what a histogram counts, as if times were spread evenly over each bucket.

histogram  as in task_stats(): a count per bucket of histogram_bounds(), and one beyond
quantile   0 to 1: 0.5 is the median

Returns: seconds; the last bound if it is beyond that; null if nothing was counted. Roles:
app_jobs_monitor.';
comment on function app_jobs.sum_stats(
    interval, tstzrange, tstzrange, tstzrange, bigint[]
) is
'Add up figures by step and task, of these times; null: none of that kind.

step        of time
tens        times of which to take the rows per ten minutes
minutes     times of which to take the rows per minute
reports     times of which to take the reports
report_ids  these reports only; null: all

Returns: a row per step and task. Roles: internal; the caller pins the plans.';
comment on function app_jobs.record_stats(text, json) is
'Tell what a worker has counted since it told last: once in ten seconds or so, of all its tasks.

worker_id  the worker
stats      array of objects: task_identifier; completed (jobs), failed (for good), retried (failed
           attempts to be tried again); wait_histogram and run_histogram (a count per bucket of
           histogram_bounds(), and one beyond), wait_seconds and run_seconds (sums) of the same
           runs. What is left out is 0

Errors: 22004, 22023. Locks: none, it only inserts. Roles: app_jobs_worker.';
comment on function app_jobs.record_depths(timestamptz) is
'Write down how many jobs there are, by task and by queue, the 50 deepest of each, unless that has
been done for this minute.

at  the minute

Roles: internal; the caller holds the lock of merge_stats().';
comment on function app_jobs.merge_stats(integer, integer) is
'Merge reports of minutes that are over, once a minute write down how many jobs there are, and delete
figures of more than 7 days ago.

reports  to merge at most, all of one minute
rows     to delete at most

Returns: reports merged; 0 if another session merges. Locks: an advisory one, trying only. Roles:
internal; the caller pins the plans; READ COMMITTED only.';
comment on function app_jobs.whole_steps(timestamptz, timestamptz, interval) is
'Check a time to be looked at in steps, and round it to whole ones.

from  the step in which this is comes first
to    the step that ends then or later comes last
step  whole minutes

Returns: from the first step''s beginning to the last one''s end. Errors: 22004, 22023. Roles:
internal.';
comment on function app_jobs.task_stats(timestamptz, timestamptz, interval) is
'Tell what workers have counted, per task and step of time: the last 7 days, until a few seconds ago.
What a worker counts comes with its next report, and is of the minute in which that arrived.

from  the step in which this is comes first
to    the step that ends then or later comes last
step  whole minutes; steps begin at multiples of it since 1970 (days: at midnight UTC)

Returns: a row per step and task in which runs ended: at, the step''s beginning; completed, failed
(for good), retried (failed attempts to be tried again); histograms of the time from run_at to the
start of a run and of the time that it took (see histogram_bounds(), histogram_quantile()), and the
sums of these times. Jobs whose worker died are not counted. Errors: 22004, 22023. Roles:
app_jobs_monitor.';
comment on function app_jobs.depths(timestamptz, timestamptz, interval) is
'Tell how many jobs there were and how old the oldest ready one was, by task and by queue: the last
7 days, until a minute and a half ago. tick() looks once a minute, and keeps the 50 deepest tasks
(ready and parked) and the 50 deepest queues.

from  the step in which this is comes first
to    the step that ends then or later comes last
step  whole minutes; steps begin at multiples of it since 1970 (days: at midnight UTC)

Returns: a row per step and task (kind task) or queue (kind queue, of all tenants; *: see metrics)
that had jobs: at, the step''s beginning; the highest of each figure within it. None where nobody
called tick(). Errors: 22004, 22023. Roles: app_jobs_monitor.';

commit;
