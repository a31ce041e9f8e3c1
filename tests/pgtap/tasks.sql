begin;
\ir include/helpers.sql
select no_plan();

-- defaults of a task that has a row
insert into app_jobs.tasks (task_identifier) values ('plain');
select row_eq(
    $$select keep_completed, keep_failed, paused from app_jobs.tasks$$,
    row(interval '0', interval '30 days', false),
    'completed jobs are deleted, failed ones kept for 30 days'
);

-- delays
select
    is(
        extract(epoch from app_jobs.backoff_delay(null, attempts))::numeric(12, 3),
        exp(least(attempts, 10))::numeric(12, 3),
        format('no backoff: attempt %s', attempts)
    )
from unnest(array[1, 2, 10, 11, 1000]) as a (attempts);
select
    is(
        app_jobs.backoff_delay(backoff::json, attempts),
        delay,
        format('%s: attempt %s', backoff, attempts)
    )
from (
    values
    ('{}', 1, interval '1 s'),
    ('{}', 4, interval '8 s'),
    ('{}', 100, interval '6 h'),
    ('{"base": "1 year", "cap": "2 years"}', 100, interval '2 years'),
    ('{"base": "10 s"}', 3, interval '40 s'),
    ('{"type": "linear", "base": "10 s"}', 3, interval '30 s'),
    ('{"type": "linear", "base": "10 s", "cap": "25 s"}', 3, interval '25 s'),
    ('{"type": "constant", "base": "10 s"}', 9, interval '10 s'),
    ('{"type": "exponential", "cap": "1 min"}', 7, interval '1 min')
) as c (backoff, attempts, delay);

-- jitter
insert into app_jobs.tasks (task_identifier, backoff) values
('exact', '{"type": "constant", "base": "10 s", "jitter": 0}'),
('vague', '{"type": "constant", "base": "10 s", "jitter": 0.5}');
create temporary table delays on commit drop as
select
    t.task,
    app_jobs.retry_delay(t.task, 1) as delay
from unnest(array['exact', 'vague', 'unknown']) as t (task)
cross join generate_series(1, 200);
select is(
    array(
        select distinct delay from delays
        where task = 'exact'
    ),
    array[interval '10 s'],
    'no jitter: the delay itself'
);
select
    ok(
        min(d.delay) between interval '10 s' and interval '11 s'
        and max(d.delay) between interval '13 s' and interval '15 s',
        'jitter 0.5: up to half as much more'
    )
from delays as d
where d.task = 'vague';
select
    ok(
        min(d.delay) >= make_interval(secs => exp(1))
        and max(d.delay) <= make_interval(secs => exp(1) * 1.1)
        and count(distinct d.delay) > 100,
        'a task without a row: exp(1) seconds and up to 10 % more'
    )
from delays as d
where d.task = 'unknown';

-- what cannot be stored
select
    pg_temp.refuses(
        format('insert into app_jobs.tasks (task_identifier, backoff) values (''t'', %L)', backoff),
        '22023', message
    )
from (
    values
    ('{"type": "random"}', 'backoff has type "random"'),
    ('{"base": "0 s"}', 'backoff has base 00:00:00 and cap 06:00:00'),
    ('{"cap": "101 years"}', 'backoff has base 00:00:01 and cap 101 years'),
    ('[1]', 'backoff is of type array'),
    ('{"cap": "-1 s"}', 'backoff has base 00:00:01 and cap -00:00:01'),
    ('{"jitter": 1.5}', 'backoff has jitter 1.5'),
    ('{"jitter": "NaN"}', 'backoff has jitter NaN'),
    ('{"factor": 2}', 'backoff has an unknown key: "factor"')
) as c (backoff, message);
select
    throws_ok(
        format(
            'insert into app_jobs.tasks (task_identifier, %s) values (%L, %L)', name, task, value
        ),
        '23514', null, format('%s: %s is refused', task, name)
    )
from (
    values
    ('', 'paused', 'false'),
    (repeat('t', 127), 'paused', 'false'),
    ('t', 'max_attempts', '0'),
    ('t', 'retry_after', '0'),
    ('t', 'timeout', '0'),
    ('t', 'keep_completed', '-1 s'),
    ('t', 'keep_failed', '-1 s')
) as c (task, name, value);

select is(
    pg_temp.callers($$select app_jobs.backoff_delay('{}', 1)$$), 'operator', 'who may try a backoff'
);
select
    is(
        pg_temp.callers($$select app_jobs.retry_delay('t', 1)$$),
        '',
        'nobody may call retry_delay()'
    );

select finish();
rollback;
