begin;
\ir include/helpers.sql
select no_plan();

-- 2500 jobs in three slots of their own, which are closed, and 300 in the current one
create temporary table expected on commit drop as
select i.id
from app_jobs.add_jobs((
    select
        json_agg(json_build_object(
            'identifier', (array['a', 'b', 'c'])[1 + n % 3],
            'priority', n * 7 % 11,
            'run_at', timestamptz '2020-01-01' + n * 13 % 17 * interval '1 min'
        ))
    from generate_series(1, 2500) as g (n)
)) as i (id);
insert into expected
select i.id
from app_jobs.add_jobs((
    select
        json_agg(json_build_object(
            'identifier', (array['a', 'b', 'c'])[1 + n % 3],
            'priority', n * 5 % 13,
            'run_at', timestamptz '2020-01-01' + n * 11 % 19 * interval '1 min'
        ))
    from generate_series(1, 300) as g (n)
)) as i (id);
select is(
    (select count(distinct j.slot) from app_jobs.jobs as j),
    4::bigint,
    'the jobs stand in four slots'
);
select is(
    (select count(*) from app_jobs.streams), 9::bigint, 'closed ones have a stream for each task'
);

-- the ids of what look() finds, in its order
create function pg_temp.looked(
    line text, tasks text[], paused text[], wanted integer, after app_jobs.place default null
) returns setof bigint
language sql
as $$
    select j.id
    from unnest((app_jobs.look(line, tasks, paused, wanted, after)).tids)
        with ordinality as l(tid, n)
    inner join app_jobs.jobs as j on j.ctid = l.tid
    order by l.n
$$;

select
    results_eq(
        format('select pg_temp.looked('''', %L, %L, %s)', tasks, paused, wanted),
        format(
            'select * from (select j.id from app_jobs.jobs as j
        where (%1$L is null or j.task_identifier = any(%1$L)) and j.task_identifier <> all(%2$L)
        order by j.priority, j.run_at, j.id) as o limit %3$s',
            tasks, paused, wanted
        ),
        format('the first %s of %s but %s', wanted, tasks, paused)
    )
from (
    values
    (null::text[], '{}'::text[], 1),
    (null, '{}', 700),
    (null, '{}', 5000),
    (null, '{a,c}', 500),
    ('{b}', '{}', 1),
    ('{b}', '{}', 2000),
    ('{a,c}', '{}', 400),
    ('{a,c}', '{c}', 400),
    ('{nobody}', '{}', 10)
) as l (tasks, paused, wanted);

-- behind a place
select results_eq(
    $$select pg_temp.looked('', null, '{}', 100, (
        select row(null, j.priority, j.run_at, j.id, null)::app_jobs.place
        from app_jobs.jobs as j
        where j.id = (select (app_jobs.look('', null, '{}', 600, null)).last_id)
    ))$$,
    $$select j.id from app_jobs.jobs as j
    order by j.priority, j.run_at, j.id limit 100 offset 600$$,
    'the hundred behind the first six hundred'
);
select is_empty(
    $$select unnest((app_jobs.look(':q', null, '{}', 10, null)).queued)$$,
    'nobody is parked in a queue''s line'
);

-- bounds follow what is left
delete from app_jobs.jobs
where slot = (select min(s.slot) from app_jobs.streams as s) and task_identifier in ('a', 'b');
update app_jobs.streams set priority = -1
where slot = (select min(s.slot) from app_jobs.streams as s);
select is(
    pg_temp.looked('', null, '{}', 1),
    (
        select j.id from app_jobs.jobs as j
        order by j.priority, j.run_at, j.id limit 1
    ),
    'the first job is found where bounds are too low'
);
do $$
begin
    perform app_jobs.raise_bounds((select min(s.slot) from app_jobs.streams as s), '');
end;
$$;
select results_eq(
    $$select s.task_identifier, s.priority, s.run_at, s.id from app_jobs.streams as s
    where s.slot = (select min(l.slot) from app_jobs.streams as l)$$,
    $$select j.task_identifier, j.priority, j.run_at, j.id from app_jobs.jobs as j
    where j.slot = (select min(l.slot) from app_jobs.streams as l)
    order by j.priority, j.run_at, j.id limit 1$$,
    'raise_bounds() sets what is left to its first job, and drops what is empty'
);

-- a bound left behind by a job that has moved to another slot, where it now is the second
insert into app_jobs.streams (slot, line, task_identifier, priority, run_at, id)
select
    1000000,
    '',
    j.task_identifier,
    j.priority,
    j.run_at,
    j.id
from app_jobs.jobs as j
where
    j.slot = (
        select f.slot from app_jobs.jobs as f
        order by f.priority, f.run_at, f.id limit 1
    )
order by j.priority, j.run_at, j.id
limit 1 offset 1;
select results_eq(
    'select pg_temp.looked('''', null, ''{}'', 500)',
    'select j.id from app_jobs.jobs as j order by j.priority, j.run_at, j.id limit 500',
    'no job is passed over where its own former bound stands'
);

-- a million jobs cancelled at once leave a thousand streams with nothing behind them
insert into app_jobs.streams (slot, line, task_identifier, priority, run_at, id)
select
    1000000 + n,
    '',
    'a',
    -1,
    '-infinity',
    1
from generate_series(1, 1000) as n;
select is(
    pg_temp.looked('', null, '{}', 1),
    (
        select j.id from app_jobs.jobs as j
        order by j.priority, j.run_at, j.id limit 1
    ),
    'the first job is found behind any number of streams that are empty'
);
select is_empty('select from app_jobs.streams as s where s.slot > 1000000', 'which are gone');

select finish();
rollback;
