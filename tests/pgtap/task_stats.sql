begin;
\ir include/helpers.sql
select no_plan();

-- a histogram from its first counts, and the figures of a task as json
create function pg_temp.h(variadic counts bigint[]) returns bigint[]
language sql
as $$
    select counts || array_fill(0::bigint, array[21 - cardinality(counts)])
$$;
create function pg_temp.stats(task text, more json default '{}') returns json
language sql
as $$
    select json_agg(jsonb_build_object('task_identifier', task) || more::jsonb)
$$;
create function pg_temp.marks(merged interval, pruned interval) returns void
language sql
as $$
    select
        setval('app_jobs.stats_merged_to', extract(epoch from now() - merged)::bigint),
        setval('app_jobs.stats_pruned_to', extract(epoch from now() - pruned)::bigint)
$$;
create temporary view minute as
select date_bin('1 minute', now(), 'epoch') as now;

-- what workers tell
select app_jobs.record_stats('w', '[]');
select is_empty('select from app_jobs.stat_reports', 'nothing told, nothing written');
select app_jobs.record_stats('w', pg_temp.stats('a', json_build_object(
    'completed', 3, 'failed', 1, 'retried', 2, 'wait_seconds', 1.5, 'run_seconds', 0.25,
    'wait_histogram', pg_temp.h(1, 2), 'run_histogram', pg_temp.h(0, 0, 3)
)));
select app_jobs.record_stats('v', '[
    {"task_identifier": "a", "completed": 4}, {"task_identifier": "b", "failed": 1}
]');
select is(count(*), 2::bigint, 'a row for each report') from app_jobs.stat_reports;
select results_eq(
    $$select
        task_identifier, completed, failed, retried, wait_histogram, run_histogram, wait_seconds,
        run_seconds
    from app_jobs.task_stats(now() - interval '1 min', clock_timestamp())$$,
    $$values
        (
            'a'::text, 7::bigint, 1::bigint, 2::bigint, pg_temp.h(1, 2), pg_temp.h(0, 0, 3),
            1.5::double precision, 0.25::double precision
        ),
        ('b', 0, 1, 0, pg_temp.h(0), pg_temp.h(0), 0, 0)$$,
    'they are added up at once'
);
select ok(r.at in (m.now, m.now + interval '1 min'), 'in the minute in which they were told')
from app_jobs.stat_reports as r, minute as m;

select pg_temp.refuses(
    $$select app_jobs.record_stats('', '[]')$$, '22023', 'worker_id has 0 characters: ""'
);
select pg_temp.refuses($$select app_jobs.record_stats('w', null)$$, '22004', 'stats is null');
select pg_temp.refuses(
    $$select app_jobs.record_stats('w', '{}')$$, '22023', 'stats is of type object'
);
select pg_temp.refuses(
    $$select app_jobs.record_stats('w', pg_temp.stats('a', '{"lot": 1}'))$$,
    '22023', 'stats has an unknown key: "lot"'
);
select
    pg_temp.refuses(
        format('select app_jobs.record_stats(''w'', ''[{"task_identifier": "a"}, %s]'')', s.wrong),
        '22023', 'stats[1] is not the figures of a task: ' || s.wrong
    )
from unnest(array[
    '{}',
    '{"task_identifier": ""}',
    format('{"task_identifier": "%s"}', repeat('x', 127)),
    '{"task_identifier": "a", "completed": -1}',
    '{"task_identifier": "a", "failed": 1000000001}',
    '{"task_identifier": "a", "wait_histogram": [1, 2]}',
    format('{"task_identifier": "a", "run_histogram": %s}', array_to_json(pg_temp.h(-1))),
    format('{"task_identifier": "a", "run_histogram": %s}', array_to_json(pg_temp.h(null))),
    format('{"task_identifier": "a", "run_histogram": [%s]}', array_to_json(pg_temp.h(1))),
    '{"task_identifier": "a", "run_seconds": -1}',
    '{"task_identifier": "a", "wait_seconds": "NaN"}'
]) as s (wrong);

-- merging
update app_jobs.stat_reports set at = (select m.now - interval '3 min' from minute as m);
select app_jobs.record_stats('w', pg_temp.stats('a', '{"completed": 5}'));
select pg_temp.marks('5 min', '7 days');
select is(app_jobs.merge_stats(100, 100), 2, 'what was told in minutes that are over is merged');
select is(count(*), 1::bigint, 'and deleted; the others stay') from app_jobs.stat_reports;
select results_eq(
    $$select m.now - s.at, s.task_identifier, s.completed, s.wait_histogram
    from app_jobs.task_stats(now() - interval '1 h', 'infinity') as s, minute as m
    where s.at < m.now$$,
    $$values
        (interval '3 min', 'a'::text, 7::bigint, pg_temp.h(1, 2)),
        (interval '3 min', 'b', 0, pg_temp.h(0))$$,
    'which changes no figure'
);
select is(app_jobs.merge_stats(100, 100), 0, 'and once more: nothing to do');
select app_jobs.merge_stats(100, 100);
select
    ok(
        to_timestamp(pg_sequence_last_value('app_jobs.stats_merged_to')) between
        date_bin('1 minute', now() - interval '30 s', 'epoch')
        and date_bin('1 minute', clock_timestamp() - interval '30 s', 'epoch'),
        'all minutes that are over are merged'
    );

delete from app_jobs.stat_reports;
delete from app_jobs.task_figures;
insert into app_jobs.stat_reports (at, worker_id, figures)
select
    m.now - make_interval(mins => r.minutes),
    'w',
    array[row(
        null, null, 'a', null, 1, 0, 0, pg_temp.h(1), pg_temp.h(1), 0, 0
    )::app_jobs.task_figures]
from minute as m, unnest(array[5, 5, 5, 4]) as r (minutes);
select pg_temp.marks('9 min', '7 days');
select is(
    array(select app_jobs.merge_stats(2, 100) from generate_series(1, 3)), array[2, 1, 1],
    'a bounded number at once, minute by minute'
);
select results_eq(
    $$select m.now - s.at, s.completed
    from app_jobs.task_stats(now() - interval '1 h', now()) as s, minute as m$$,
    $$values (interval '5 min', 3::bigint), ('4 min', 1)$$,
    'lots of a minute are added up'
);
select is(count(*), 3::bigint, 'a row per lot and task') from app_jobs.task_figures as f
where f.minutes = 1;

-- ten minutes
create function pg_temp.report_and_merge(variadic minutes integer[]) returns void
language plpgsql
as $$
declare
    v_hour constant timestamptz := date_bin('10 minutes', now() - interval '1 h', 'epoch');
begin
    perform setval('app_jobs.stats_merged_to', extract(epoch from v_hour)::bigint);
    insert into app_jobs.stat_reports (at, worker_id, figures)
    select
        v_hour + make_interval(mins => m.n), 'w',
        array[row(
            null, null, 'a', null, 1, 0, 0, pg_temp.h(1), pg_temp.h(1), 0, 0
        )::app_jobs.task_figures]
    from unnest(minutes) as m(n);
    for n in 1..cardinality(minutes) + 1 loop
        perform app_jobs.merge_stats(1, 100);
    end loop;
end;
$$;
create temporary view tens as
select
    t.at - date_bin('10 minutes', now() - interval '1 h', 'epoch') as at,
    t.completed
from app_jobs.task_figures as t
where t.minutes = 10
order by t.at;
delete from app_jobs.task_figures;
select pg_temp.report_and_merge(1, 3, 15);
select results_eq(
    'select * from tens', $$values (interval '0', 2::bigint), ('10 min', 1)$$,
    'ten minutes are summed up once they are over'
);
select pg_temp.report_and_merge(2);
select results_eq(
    'select * from tens', $$values (interval '0', 3::bigint), ('10 min', 1)$$,
    'once more where the clock was set back'
);

-- a mark that is off
select pg_temp.marks('-1 day', '-1 day');
select app_jobs.merge_stats(100, 100);
select
    ok(
        pg_sequence_last_value('app_jobs.stats_merged_to') <= extract(epoch from clock_timestamp())
        and pg_sequence_last_value('app_jobs.stats_pruned_to')
        < extract(epoch from now() - interval '7 days'),
        'marks that a clock has set too far are set back'
    );
select setval('app_jobs.stats_merged_to', 1, false);
insert into app_jobs.stat_reports (at, worker_id, figures)
select
    now() - interval '1 day',
    'w',
    '{}'
from minute;
select is(app_jobs.merge_stats(100, 100), 1, 'a mark that is lost misses nothing');

-- pruning
delete from app_jobs.task_figures;
insert into app_jobs.task_figures
select
    d.minutes,
    m.now - make_interval(days => d.days, mins => 2),
    'a',
    0,
    1,
    0,
    0,
    pg_temp.h(1),
    pg_temp.h(1),
    0,
    0
from minute as m, unnest(array[6, 7, 8, 9], array[1, 10, 1, 10]) as d (days, minutes);
insert into app_jobs.stat_reports (at, worker_id, figures)
values (now() - interval '8 days', 'w', '{}'), (now() - interval '6 days', 'w', '{}');
select pg_temp.marks('2 min', '10 days');
select app_jobs.merge_stats(100, 2);
select is(count(*), 2::bigint, 'a bounded number at once') from app_jobs.task_figures;
select app_jobs.merge_stats(100, 2);
select results_eq(
    'select m.now - t.at from app_jobs.task_figures as t, minute as m',
    $$values (interval '6 days 2 min')$$,
    'figures are kept for 7 days'
);
select is(count(*), 1::bigint, 'reports, too, should one have come too late')
from app_jobs.stat_reports;

-- depths
select app_jobs.add_job(identifier => 'deep', queue_name => 'q') from generate_series(1, 3);
select app_jobs.get_job('w');
select app_jobs.add_job(identifier => 'shallow', run_at => now() + interval '1 h');
select pg_temp.marks('5 min', '7 days');
select app_jobs.merge_stats(100, 100);
select results_eq(
    $$select kind, name, ready, scheduled, running, parked, oldest_ready_age is not null
    from app_jobs.depths(now() - interval '5 min', 'infinity')$$,
    $$values
        ('queue', 'q', 2::bigint, 0::bigint, 1::bigint, 0::bigint, true),
        ('task', 'deep', 2, 0, 1, 0, true),
        ('task', 'shallow', 0, 1, 0, 0, false)$$,
    'once a minute it is written down what there is, by task and by queue'
);
select
    ok(
        min(d.at) >= m.now - interval '1 min' and max(d.at) <= m.now + interval '1 min',
        'of this minute'
    )
from minute as m, app_jobs.depth_figures as d
group by m.now;
select app_jobs.add_job(identifier => 'late');
select app_jobs.record_depths(min(d.at)) from app_jobs.depth_figures as d;
select is_empty($$select from app_jobs.depth_figures where name = 'late'$$, 'not twice');
delete from app_jobs.depth_figures;
select app_jobs.add_job(identifier => format('t%s', n), queue_name => format('q%s', n))
from generate_series(1, 60) as n;
select app_jobs.record_depths(now());
select results_eq(
    'select kind, count(*) from app_jobs.depth_figures group by kind order by kind',
    $$values ('queue', 50::bigint), ('task', 50)$$,
    'no more than 50 of each kind'
);
select is(count(*), 2::bigint, 'the deepest') from app_jobs.depth_figures
where name in ('deep', 'q');

delete from app_jobs.depth_figures;
insert into app_jobs.depth_figures
select
    m.now - make_interval(days => n, mins => 2),
    'task',
    'a',
    1,
    0,
    0,
    0,
    null
from minute as m, generate_series(5, 9) as n;
select pg_temp.marks('2 min', '10 days');
select app_jobs.merge_stats(100, 2);
select is(count(*), 3::bigint, 'a bounded number of depths at once')
from app_jobs.depth_figures as d
where d.at < now() - interval '1 h';
select app_jobs.merge_stats(100, 2);
select results_eq(
    $$select m.now - d.at from app_jobs.depth_figures as d, minute as m
    where d.at < now() - interval '1 h'
    order by d.at$$,
    $$values (interval '6 days 2 min'), ('5 days 2 min')$$,
    'depths are kept for 7 days'
);

delete from app_jobs.depth_figures;
insert into app_jobs.depth_figures
select
    '2026-01-02 10:00Z'::timestamptz + make_interval(mins => n),
    'task',
    'a',
    n,
    60 - n,
    7,
    0,
    make_interval(secs => n)
from generate_series(0, 59) as n;
select results_eq(
    $$select *
    from app_jobs.depths('2026-01-02 10:16Z', '2026-01-02 10:31Z', '15 minutes')$$,
    $$values
        (
            timestamptz '2026-01-02 10:15Z', 'task', 'a', 29::bigint, 45::bigint, 7::bigint,
            0::bigint, interval '29 s'
        ),
        ('2026-01-02 10:30Z', 'task', 'a', 44, 30, 7, 0, '44 s')$$,
    'the highest of each step'
);
select is(count(*), 2::bigint, 'of a minute, if nothing else is said')
from app_jobs.depths('2026-01-02 10:10Z', '2026-01-02 10:12Z');
select is_empty(
    $$select from app_jobs.depths('2026-01-02 10:10Z', '2026-01-02 10:10Z')$$, 'no time: no depths'
);
select pg_temp.refuses($$select app_jobs.depths(null, now())$$, '22004', 'from is null');
select pg_temp.refuses(
    $$select app_jobs.depths(now(), now(), '00:00:30')$$, '22023', 'step is 00:00:30'
);

-- steps
delete from app_jobs.stat_reports;
delete from app_jobs.task_figures;
insert into app_jobs.task_figures
select
    m.n,
    '2026-01-02 10:00Z'::timestamptz + make_interval(mins => m.n * g.n),
    'a',
    0,
    -- not the sums, to tell them apart
    m.n * m.n,
    0,
    0,
    array(select n from generate_series(1, 21) as b (n)),
    pg_temp.h(0, 1),
    0.5,
    0.25
from unnest(array[1, 10]) as m (n), generate_series(0, 119) as g (n)
where m.n * g.n < 120;
select
    setval(
        'app_jobs.stats_merged_to', extract(epoch from '2026-01-02 11:07Z'::timestamptz)::bigint
    );
select results_eq(
    $$select
        at, completed, wait_histogram[1], wait_histogram[21], run_histogram, wait_seconds,
        run_seconds
    from app_jobs.task_stats('2026-01-02 10:10:01Z', '2026-01-02 11:20Z', '15 minutes')$$,
    $$select
        timestamptz '2026-01-02 10:00Z' + n * interval '15 min', 15::bigint, 15::bigint,
        315::bigint, pg_temp.h(0, 15), 7.5::double precision, 3.75::double precision
    from generate_series(0, 5) as s(n)$$,
    'whole steps that overlap with the time'
);
select results_eq(
    $$select at, completed
    from app_jobs.task_stats('2026-01-02 10:10:01Z', '2026-01-02 11:20Z', '30 minutes')$$,
    $$values
        (timestamptz '2026-01-02 10:00Z', 300::bigint),
        ('2026-01-02 10:30Z', 200 + 10),
        ('2026-01-02 11:00Z', 30)$$,
    'of sums of ten minutes, where there are some'
);
select
    is(
        (
            select array_agg(s.wait_histogram::text)
            from app_jobs.task_stats('2026-01-02 10:10Z', '2026-01-02 10:11Z') as s
        ),
        array['{1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21}'],
        'a minute, if nothing else is said'
    );
select is_empty(
    $$select from app_jobs.task_stats('2026-01-02 10:10Z', '2026-01-02 10:10Z')$$, 'no time'
);
select pg_temp.refuses($$select app_jobs.task_stats(null, now())$$, '22004', 'from is null');
select pg_temp.refuses($$select app_jobs.task_stats(now(), null)$$, '22004', 'to is null');
select
    pg_temp.refuses(
        format('select app_jobs.task_stats(now(), now(), %L)', s.step), '22023',
        'step is ' || coalesce(s.step, 'null')
    )
from unnest(array[null, '00:00:30', '00:01:30', '1 mon', '1 year', '-01:00:00']) as s (step);

-- quantiles
select
    is(
        array(
            select app_jobs.histogram_quantile(pg_temp.h(10, 0, 20), q)
            from unnest(array[0, 0.5, 0.75, 1]) as q
        ),
        array[0, 0.003125, 0.0040625, 0.005]::double precision[],
        'as if times were spread evenly over a bucket'
    );
select
    is(
        app_jobs.histogram_quantile(array_fill(0::bigint, array[20]) || 1::bigint, 0.5),
        14400::double precision, 'beyond the last bound: that bound'
    );
select is(app_jobs.histogram_quantile(pg_temp.h(0), 0.5), null, 'of nothing: null');
select is(app_jobs.histogram_quantile(pg_temp.h(1), 1.5), null, 'there is no such quantile: null');
select
    ok(
        b.bounds = array(
            select unnest(b.bounds) as bound
            order by bound
        ),
        'bounds ascend'
    )
from app_jobs.histogram_bounds() as b (bounds);

-- who may
select is(
    pg_temp.callers($$select app_jobs.record_stats('w', '[]')$$), 'worker operator',
    'who records'
);
select is(
    pg_temp.callers('select app_jobs.task_stats(now(), now())'), 'operator monitor',
    'who reads'
);
select is(
    pg_temp.callers('select app_jobs.depths(now(), now())'), 'operator monitor',
    'who reads depths'
);

select finish();
rollback;
