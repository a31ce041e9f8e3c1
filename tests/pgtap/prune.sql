begin;
\ir include/helpers.sql
select no_plan();

-- Job 1 finished 9 hours ago, …, job 9 an hour ago. Odd ones are kept for 4 hours.
insert into app_jobs.finished_jobs (
    id, task_identifier, payload, attributes, priority, run_at, attempts, max_attempts, lease,
    created_at, state, finished_at, keep_until
)
select
    n,
    't',
    '{}',
    '{}',
    0,
    now(),
    1,
    1,
    1,
    now(),
    'failed',
    now() - (10 - n) * interval '1 h',
    now() - (10 - n) * interval '1 h' + case when n % 2 = 0 then interval '1 day' else '4 h' end
from generate_series(1, 9) as n;
insert into app_jobs.job_errors (job_id, lease, attempt)
select
    n,
    1,
    1
from generate_series(1, 9) as n;
select is(setval('app_jobs.pruned_to', 0), 0::bigint, 'as after a sweep');
create function pg_temp.left_over() returns text
language sql
as $$
    select string_agg(f.id::text, ' ' order by f.id) from app_jobs.finished_jobs as f
$$;

select is(app_jobs.prune(batch => 2), 2::bigint, 'what is over its time, up to a batch');
select is(pg_temp.left_over(), '2 4 5 6 7 8 9', 'the oldest first');
select is(app_jobs.prune(), 1::bigint, 'the rest of it');
select is(pg_temp.left_over(), '2 4 6 7 8 9', 'the others are kept');
select is(app_jobs.prune(), 0::bigint, 'no more');
select is(app_jobs.prune('3.5 h', 2), 2::bigint, 'by age, whatever the task says');
select is(pg_temp.left_over(), '6 7 8 9', 'the oldest first');
select is(app_jobs.prune('3.5 h'), 1::bigint, 'the rest of that age');
select is(pg_temp.left_over(), '7 8 9', 'younger ones are kept');
select is(app_jobs.prune('300000 years'), 0::bigint, 'none is as old as that');
select results_eq(
    'select e.job_id from app_jobs.job_errors as e order by 1', array[7, 8, 9]::bigint[],
    'errors go with their jobs'
);

-- The mark behind which tick() does not look
select from app_jobs.prune();
select ok(
    pg_sequence_last_value('app_jobs.pruned_to')
    between extract(epoch from now() - interval '62 s') and extract(epoch from now()),
    'goes on, though nothing was over its time'
);
update app_jobs.finished_jobs set keep_until = now() - interval '3 h'
where id = 7;
select is(app_jobs.prune(), 0::bigint, 'what was committed long after it had finished is passed');
select from app_jobs.sweep();
select is(app_jobs.prune(), 1::bigint, 'until the next sweep');
update app_jobs.finished_jobs set keep_until = now() - interval '30 s'
where id = 8;
select is(app_jobs.prune(), 1::bigint, 'what was committed half a minute late is not');
-- a tick goes on for a while
insert into app_jobs.finished_jobs (
    id, task_identifier, payload, attributes, priority, run_at, attempts, max_attempts, lease,
    created_at, state, keep_until
)
select
    n,
    't',
    '{}',
    '{}',
    0,
    now(),
    1,
    1,
    1,
    now(),
    'completed',
    now()
from generate_series(100, 1299) as n;
select is((app_jobs.tick()).pruned, 1200, 'tick() prunes more than a thousand');
select is(app_jobs.prune('0'), 1::bigint, 'all');
select is_empty('select from app_jobs.job_errors', 'nothing is left');

-- bad input
select pg_temp.refuses(format('select app_jobs.%s', call), state, message)
from (
    values
    ('prune(''-1 s'')', '22023', 'older_than is -00:00:01'),
    ('prune(batch => null)', '22004', 'batch is null'),
    ('prune(batch => 0)', '22023', 'batch is 0'),
    ('prune(batch => 100001)', '22023', 'batch is 100001')
) as c (call, state, message);
select is(pg_temp.callers('select app_jobs.prune()'), 'operator', 'who may prune');

select finish();
rollback;
