begin;
\ir include/helpers.sql
select no_plan();

-- every setting, there and back
select row_eq(
    $$select
        max_attempts, retry_after, timeout, backoff::text, keep_completed, keep_failed, paused
    from app_jobs.set_task('t', '{
        "max_attempts": 3, "retry_after": "1 min", "timeout": "00:00:30",
        "backoff": {"type": "constant"}, "keep_completed": "P1D", "keep_failed": 60, "paused": true
    }')$$,
    row(
        3, interval '1 min', interval '30 s', '{"type": "constant"}'::text, interval '1 day',
        interval '1 min', true
    ),
    'all settings'
);
select row_eq(
    $$select max_attempts, timeout, paused from app_jobs.set_task('t', '{"max_attempts": 4}')$$,
    row(4, interval '30 s', true), 'one: the others stay as they are'
);
select is(
    app_jobs.set_task('t', '{}')::text, (select t::text from app_jobs.tasks as t),
    'none; what is returned is what is stored'
);
insert into app_jobs.tasks (task_identifier) values ('plain');
select is(
    app_jobs.set_task('t', '{
        "max_attempts": null, "retry_after": null, "timeout": null, "backoff": null,
        "keep_completed": null, "keep_failed": null, "paused": null
    }')::text,
    (
        select replace(t::text, 'plain', 't') from app_jobs.tasks as t
        where t.task_identifier = 'plain'
    ),
    'null: back to the default'
);

-- they hold at once
select from app_jobs.set_task(
    't', '{"max_attempts": 2, "retry_after": "1 h", "keep_completed": "1 day"}'
);
select is((app_jobs.add_job(identifier => 't')).max_attempts, 2, 'max_attempts, of new jobs');
select app_jobs.pause_task('t');
select is((app_jobs.get_job('w')).id, null, 'paused: not claimed');
select is((app_jobs.resume_task('t')).paused, false, 'resumed');
select is((app_jobs.get_job('w')).lease_length, interval '1 h', 'claimed, with its lease');
select is(
    (app_jobs.pause_task('t')).keep_completed, interval '1 day', 'paused, with what else is set'
);
select isnt(
    (app_jobs.complete_job('w', (select id from app_jobs.jobs))).id, null, 'what runs may end'
);
select is((select count(*) from app_jobs.finished_jobs), 1::bigint, 'and is kept');

-- bad input
select pg_temp.refuses(format('select app_jobs.%s', call), state, message)
from (
    values
    ('set_task(null, ''{}'')', '22004', 'task is null'),
    ('set_task('''', ''{}'')', '22023', 'task has 0 characters: ""'),
    ('set_task(''t'', null)', '22004', 'settings is null'),
    ('set_task(''t'', ''[]'')', '22023', 'settings is of type array'),
    ('set_task(''t'', ''{"keep": 1}'')', '22023', 'settings has an unknown key: "keep"'),
    ('pause_task(null)', '22004', 'task is null'),
    ('resume_task('''')', '22023', 'task has 0 characters: ""')
) as c (call, state, message);
select
    pg_temp.refuses(
        format('select app_jobs.set_task(''t'', %L)', format('{"%s": %s}', key, value)),
        '22023', format('settings: %s is %s', key, value)
    )
from (
    values
    ('max_attempts', '0'),
    ('max_attempts', '1.5'),
    ('max_attempts', '9999999999'),
    ('max_attempts', '{}'),
    ('retry_after', '"0"'),
    ('retry_after', '"soon"'),
    ('retry_after', '"101 years"'),
    ('timeout', '"-1 s"'),
    ('timeout', '"later"'),
    ('backoff', '5'),
    ('backoff', '"fast"'),
    ('backoff', '{"type": "random"}'),
    ('backoff', '{"base": "x"}'),
    ('backoff', '{"base": "1 day", "cap": "200000 years"}'),
    ('keep_completed', '"-1 s"'),
    ('keep_completed', '"300000 years"'),
    ('keep_failed', '"-1 s"'),
    ('keep_failed', 'true'),
    ('paused', '"maybe"')
) as c (key, value);
select is(
    (select count(*) from app_jobs.tasks), 2::bigint, 'a task that is refused is not there'
);

-- who may call
select is(pg_temp.callers(format('select app_jobs.%s', call)), 'operator', 'who may call ' || call)
from unnest(
    array['set_task(''t'', ''{}'')', 'pause_task(''t'')', 'resume_task(''t'')']
) as c (call);

select finish();
rollback;
