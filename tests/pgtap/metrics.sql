begin;
\ir include/helpers.sql
select no_plan();

\set tenant '''00000000-0000-0000-0000-00000000000a'''
-- what metrics has to say, by a look at all jobs
create temporary view plain as
select
    j.database_id,
    j.task_identifier,
    j.queue_name,
    count(*) filter (where j.line = '') as ready,
    count(*) filter (where j.line is null and j.locked_by is null) as scheduled,
    count(*) filter (where j.locked_by is not null) as running,
    count(*) filter (where j.line > '') as parked,
    count(*) filter (where j.lease_expires_at <= clock_timestamp()) as expired,
    min(j.run_at) filter (where j.line = '') as oldest
from app_jobs.jobs as j
group by j.database_id, j.task_identifier, j.queue_name;
create temporary view said as
select
    m.database_id,
    m.task_identifier,
    m.queue_name,
    m.ready,
    m.scheduled,
    m.running,
    m.parked,
    m.expired,
    -- the age is as of the clock
    date_trunc('minute', clock_timestamp() - m.oldest_ready_age + interval '1 s') as oldest
from app_jobs.metrics as m
where m.ready + m.scheduled + m.running + m.parked > 0;
create temporary view plainly as
select
    p.database_id,
    p.task_identifier,
    p.queue_name,
    p.ready,
    p.scheduled,
    p.running,
    p.parked,
    p.expired,
    date_trunc('minute', p.oldest + interval '1 s') as oldest
from plain as p;

select is_empty('select from app_jobs.metrics', 'no jobs, no rows');

-- one of each state, in an open slot
do $$
begin
    perform app_jobs.add_job(identifier => 'held'), app_jobs.add_job(identifier => 'over'),
        app_jobs.add_job(identifier => 'processing'),
        app_jobs.add_job(identifier => 'seated', queue_name => 'q');
    perform app_jobs.get_jobs('w', null, '1 h', 9);
    perform app_jobs.add_job(identifier => 'parked', queue_name => 'q');
    perform app_jobs.get_jobs('w', array['parked'], '1 h', 9);
    perform app_jobs.add_job(identifier => 'ready', run_at => now() - interval '3 min'),
        app_jobs.add_job(identifier => 'ready', run_at => now() - interval '7 min', priority => 9),
        app_jobs.add_job('00000000-0000-0000-0000-00000000000a', 'ready', queue_name => 'a:b'),
        app_jobs.add_job(identifier => 'scheduled', run_at => now() + interval '1 h');
    update app_jobs.jobs set lease_expires_at = now() where task_identifier = 'over';
    update app_jobs.jobs set lease_expires_at = null where task_identifier = 'processing';
end;
$$;
select results_eq(
    $$select
        database_id::text, task_identifier collate "default", queue_name, ready, scheduled, running,
        parked, expired, date_trunc('minute', oldest_ready_age), failed_1h
    from app_jobs.metrics order by task_identifier, database_id nulls first$$,
    $$values
        (null, 'held', null, 0::bigint, 0::bigint, 1::bigint, 0::bigint, 0::bigint, null::interval,
            0::bigint),
        (null, 'over', null, 0, 0, 1, 0, 1, null, 0),
        (null, 'parked', 'q', 0, 0, 0, 1, 0, null, 0),
        (null, 'processing', null, 0, 0, 1, 0, 0, null, 0),
        (null, 'ready', null, 2, 0, 0, 0, 0, interval '7 min', 0),
        ('00000000-0000-0000-0000-00000000000a', 'ready', 'a:b', 1, 0, 0, 0, 0, interval '0', 0),
        (null, 'scheduled', null, 0, 1, 0, 0, 0, null, 0),
        (null, 'seated', 'q', 0, 0, 1, 0, 0, null, 0)$$,
    'a job of each state'
);

-- the same in a closed slot, and more
insert into app_jobs.jobs (slot, task_identifier, database_id, queue_name, line, run_at)
select
    -7,
    't' || n % 3,
    case when n % 4 = 0 then :tenant::uuid end,
    case when n % 2 = 0 then 'q' end,
    case
        when n % 5 = 0 then null
        when n % 6 = 0 then app_jobs.queue_line(case when n % 4 = 0 then :tenant::uuid end, 'q')
        else ''
    end,
    now() - n * interval '1 min'
from generate_series(1, 300) as n;
insert into app_jobs.jobs (slot, task_identifier, locked_by, locked_at, lease_expires_at)
select
    -7,
    't1',
    'w',
    now(),
    now() + n * interval '1 min'
from generate_series(-2, 2) as n;
select app_jobs.close_slot(-7);
select set_eq('select * from said', 'select * from plainly', 'open and closed slots together');

-- large additions, claims, failures, snoozes; then ticks
do $$
declare
    v_ids bigint[];
begin
    perform app_jobs.add_jobs((
        select json_agg(json_build_object(
            'identifier', 't' || n % 4, 'queue_name', case when n % 7 = 0 then 'q' || n % 3 end,
            'db_id', case when n % 11 = 0 then '00000000-0000-0000-0000-00000000000a' end,
            'run_at', case when n % 5 = 0 then now() + n * interval '1 s' else now() end,
            'priority', n % 3
        ))
        from generate_series(1, 3000) as n
    ));
    v_ids := array(select g.id from app_jobs.get_jobs('v', array['t0', 't1', 't2'], '1 h', 600) as g);
    perform app_jobs.complete_jobs('v', v_ids[:400]);
    perform app_jobs.fail_job('v', v_ids[n], permanent => n % 2 = 0) from generate_series(401, 480) as n;
    perform app_jobs.snooze_job('v', v_ids[n], interval '1 h') from generate_series(481, 500) as n;
    delete from app_jobs.jobs as j where j.id % 10 = 0;
end;
$$;
select is_empty(
    $$select p.* from plain as p
    left join said as s
        on (p.database_id, p.task_identifier, p.queue_name)
        is not distinct from (s.database_id, s.task_identifier, s.queue_name)
    where s.ready is null or s.ready < p.ready or s.parked < p.parked or s.scheduled < p.scheduled$$,
    'before the next count there are never too few'
);
select isnt_empty(
    'select * from said except select * from plainly', 'though there may be too many'
);
do $$
begin
    perform app_jobs.keep_house(1000) from generate_series(1, 10);
    -- each tick moves queues on, so a last look at all slots
    perform app_jobs.count_again(100), app_jobs.count_again(100);
end;
$$;
select set_eq('select * from said', 'select * from plainly', 'after some ticks they are exact');

-- failures
select is(
    (select sum(m.failed_1h) from app_jobs.metrics as m), 40::numeric, 'failures of the last hour'
);
update app_jobs.finished_jobs set finished_at = now() - interval '61 min'
where id in (
    select f.id from app_jobs.finished_jobs as f
    order by f.id limit 10
);
select is(
    (select sum(m.failed_1h) from app_jobs.metrics as m), 30::numeric,
    'not those of the hour before'
);
delete from app_jobs.jobs;
select isnt_empty(
    'select from app_jobs.metrics where failed_1h > 0', 'a task may have nothing but failures'
);

-- who may read it
select is(
    pg_temp.callers('select * from app_jobs.metrics'), 'operator monitor', 'who may read the view'
);
select is(
    pg_temp.callers('select * from app_jobs.metrics()'), 'operator monitor',
    'who may call the function'
);

select finish();
rollback;
