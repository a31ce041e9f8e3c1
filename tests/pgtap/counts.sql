begin;
\ir include/helpers.sql
select no_plan();

\set tenant '''00000000-0000-0000-0000-00000000000a'''
create temporary view noted as
select
    c.slot,
    c.state,
    c.task_identifier,
    c.queue_line,
    c.jobs,
    c.oldest
from app_jobs.slot_counts as c
where c.slot < 0;
create temporary view summed as
select
    t.state,
    t.task_identifier,
    t.queue_line,
    sum(t.jobs)::integer as jobs
from app_jobs.totals as t
group by t.state, t.task_identifier, t.queue_line
having sum(t.jobs) <> 0;

-- waiting_in: what waits in a slot, and nothing that is held
insert into app_jobs.jobs (slot, task_identifier, line, database_id, queue_name, run_at) values
(-9, 'a', '', null, null, '2020-01-02'),
(-9, 'a', '', null, null, '2020-01-01'),
(-9, 'a', '', :tenant, null, '2020-01-03'),
(-9, 'a', '', :tenant, 'q', '2020-01-04'),
(-9, 'b', ':q', null, 'q', '2020-01-05'),
(-9, 'b', null, null, 'q:r', '2120-01-06');
insert into app_jobs.jobs (slot, task_identifier, locked_by, locked_at, lease_expires_at) values
(-9, 'a', 'w', now(), now()), (-9, 'a', 'w', now(), null);
select set_eq(
    $$select state, task_identifier, queue_line, jobs, oldest from app_jobs.waiting_in(-9)$$,
    $$values
        ('ready', 'a' collate "C", ':' collate "C", 2::bigint, timestamptz '2020-01-01'),
        ('ready', 'a', '00000000-0000-0000-0000-00000000000a:', 1, '2020-01-03'),
        ('ready', 'a', '00000000-0000-0000-0000-00000000000a:q', 1, '2020-01-04'),
        ('parked', 'b', ':q', 1, '2020-01-05'),
        ('scheduled', 'b', ':q:r', 1, '2120-01-06')$$,
    'what waits in a slot, by state, task, tenant and queue'
);

-- close_slot notes it
select app_jobs.close_slot(-9);
select set_eq(
    'select state, task_identifier, queue_line, jobs, oldest from noted',
    'select state, task_identifier, queue_line, jobs, oldest from app_jobs.waiting_in(-9)',
    'a slot that is closed is counted'
);
select set_eq(
    'select * from summed',
    'select state, task_identifier, queue_line, jobs::integer from noted',
    'and summed up'
);
delete from app_jobs.jobs
where slot = -9 and run_at = '2020-01-02';
select app_jobs.close_slot(-9);
select set_eq(
    'select state, task_identifier, queue_line, jobs, oldest from noted',
    'select state, task_identifier, queue_line, jobs, oldest from app_jobs.waiting_in(-9)',
    'closed again, counted again'
);
select set_eq(
    'select * from summed',
    'select state, task_identifier, queue_line, jobs::integer from noted',
    'a slot that a sweep had listed again is not counted twice'
);

-- count_again
delete from app_jobs.jobs
where slot = -9 and (run_at = '2020-01-01' or line is null);
select setval('app_jobs.counted_to', -10);
select cmp_ok(app_jobs.count_again(1), '=', 1, 'one slot is counted again');
select is(
    pg_sequence_last_value('app_jobs.counted_to'), -9::bigint, 'the next one comes next time'
);
select set_eq(
    'select state, task_identifier, queue_line, jobs, oldest from noted',
    'select state, task_identifier, queue_line, jobs, oldest from app_jobs.waiting_in(-9)',
    'what has gone is not counted any more'
);
select set_eq(
    'select * from summed',
    'select state, task_identifier, queue_line, jobs::integer from noted',
    'nor summed up'
);
select is_empty(
    'select from app_jobs.totals where not merged', 'differences are merged'
);
select is_empty(
    'select from app_jobs.totals group by state, task_identifier, queue_line having count(*) > 1',
    'into one row each'
);
create temporary table before on commit drop as
select
    t.ctid as tid,
    t.id
from app_jobs.totals as t;
select cmp_ok(app_jobs.count_again(1), '=', 0, 'behind the last slot there is none');
select cmp_ok(app_jobs.count_again(9), '=', 1, 'so it begins anew');
select set_eq(
    'select ctid as tid, id from app_jobs.totals', 'select * from before',
    'where nothing has changed nothing is written'
);

-- forget_counts
select app_jobs.forget_counts(array[-9], 'ready', array['b'], null);
select app_jobs.forget_counts(array[-9], 'parked', null, ':r');
select app_jobs.forget_counts(array[-8], null, null, null);
select is((select count(*) from noted), 3::bigint, 'other tasks, queues and slots are kept');
select app_jobs.forget_counts(array[-9], 'parked', array['b'], ':q');
select is_empty($$select from noted where state = 'parked'$$, 'a queue is forgotten');
select app_jobs.forget_counts(array[-9, -8], null, null, null);
select is_empty('select from noted', 'a slot is forgotten');
select is_empty('select from summed', 'the sums agree');

-- more tenants and queues than are worth counting
insert into app_jobs.jobs (slot, task_identifier, line, queue_name)
select
    -8,
    t.task,
    '',
    'q' || n
from (values ('many', 51), ('few', 50)) as t (task, queues)
cross join lateral generate_series(1, t.queues) as n;
select app_jobs.close_slot(-8);
select results_eq(
    $$select task_identifier, count(*), min(queue_line), sum(jobs)
    from noted group by 1 order by 1$$,
    $$values
        ('few' collate "C", 50::bigint, ':q1' collate "C", 50::numeric),
        ('many', 1, '*', 51)$$,
    'more than 50 of them are counted as one'
);
delete from app_jobs.jobs
where task_identifier = 'many' and queue_name < 'q2';
select
    setval('app_jobs.counted_to', -10),
    app_jobs.count_again(1);
select results_eq(
    $$select queue_line, jobs from noted where task_identifier = 'many'$$,
    $$select '*' collate "C", count(*) from app_jobs.jobs where task_identifier = 'many'$$,
    'and again so'
);
select app_jobs.forget_counts(array[-8], null, null, null);
delete from app_jobs.jobs;

-- a large addition is counted when it is added; what goes is forgotten with the last of a slot
do $$
begin
    perform app_jobs.add_jobs((
        select json_agg(json_build_object(
            'identifier', 't' || n % 2, 'queue_name', case when n % 10 = 0 then 'q' end,
            'run_at', case when n % 3 = 0 then now() + interval '1 h' else now() end
        ))
        from generate_series(1, 1200) as n
    ));
end;
$$;
select set_eq(
    'select * from summed',
    $$select
        case when j.line = '' then 'ready' else 'scheduled' end, j.task_identifier,
        ':' || coalesce(j.queue_name, ''), count(*)::integer
    from app_jobs.jobs as j group by 1, 2, 3$$,
    'a large addition is counted'
);
do $$
begin
    perform app_jobs.get_jobs('w', array['t0'], '1 h', 1200);
    -- the last look finds what is stale
    perform app_jobs.get_jobs('w', array['t0'], '1 h', 1);
    update app_jobs.jobs set run_at = now() where line is null and locked_by is null;
    update app_jobs.alarms set due_at = now() where kind = 'run';
    perform app_jobs.make_due_ready(null, '{}', 1000), app_jobs.make_due_ready(null, '{}', 1000);
end;
$$;
select is_empty(
    $$select from summed where (state, task_identifier) = ('ready', 't0')$$,
    'ready jobs are forgotten with the last of their slot and task'
);
select is_empty(
    $$select from summed where state = 'scheduled'$$, 'and scheduled ones with the alarm'
);
select isnt_empty(
    $$select from summed where (state, task_identifier) = ('ready', 't1')$$,
    'others are still counted'
);

-- tick() counts again, once a second
do $$
begin
    perform setval('app_jobs.counted_at', 0);
    perform app_jobs.keep_house(1000);
end;
$$;
select is_empty('select from app_jobs.totals where not merged', 'tick() counts and merges');
insert into app_jobs.totals (state, task_identifier, queue_line, jobs) values (
    'ready', 'more', ':', 1
);
do $$
begin
    perform setval('app_jobs.counted_at', extract(epoch from clock_timestamp())::bigint);
    perform app_jobs.keep_house(1000);
end;
$$;
select isnt_empty('select from app_jobs.totals where not merged', 'not again within the second');

-- internal
select is(pg_temp.callers('select app_jobs.count_again(1)'), '', 'who may count');

select finish();
rollback;
