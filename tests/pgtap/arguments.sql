begin;
\ir include/helpers.sql
select no_plan();

select lives_ok(format('select app_jobs.check_worker_id(%L)', id), 'a good worker id')
from unnest(array['w', repeat('ü', 200)]) as w (id);
select pg_temp.refuses('select app_jobs.check_worker_id(null)', '22004', 'worker_id is null');
select pg_temp.refuses(
    'select app_jobs.check_worker_id('''')', '22023', 'worker_id has 0 characters: ""'
);
select pg_temp.refuses(
    format('select app_jobs.check_worker_id(%L)', repeat('w', 201)),
    '22023', format('worker_id has 201 characters: "%s"', repeat('w', 60))
);

select lives_ok('select app_jobs.check_not_null(''a'', false, ''hint'')', 'not null passes');
select pg_temp.refuses(
    'select app_jobs.check_not_null(''a'', true, ''hint'')', '22004', 'a is null'
);

select lives_ok(format('select app_jobs.check_length(''a'', %L, 3)', value), 'a good length')
from unnest(array['x', 'äöü', null]) as v (value);
select pg_temp.refuses(
    'select app_jobs.check_length(''a'', '''', 3)', '22023', 'a has 0 characters: ""'
);
select pg_temp.refuses(
    'select app_jobs.check_length(''a'', ''abcd'', 3)', '22023', 'a has 4 characters: "abcd"'
);

select lives_ok(format('select app_jobs.check_positive(''a'', %L)', value), 'a positive interval')
from unnest(array['1 microsecond', '100 years', null]) as v (value);
select pg_temp.refuses('select app_jobs.check_positive(''a'', ''0'')', '22023', 'a is 00:00:00');
select pg_temp.refuses(
    'select app_jobs.check_positive(''a'', ''-1 day'')', '22023', 'a is -1 days'
);
select pg_temp.refuses(
    'select app_jobs.check_positive(''a'', ''101 years'')', '22023', 'a is 101 years'
);

select lives_ok(format('select app_jobs.check_delay(''a'', %L)', value), 'a good delay')
from unnest(array['0', '100 years', null]) as v (value);
select pg_temp.refuses('select app_jobs.check_delay(''a'', ''-1 s'')', '22023', 'a is -00:00:01');
select pg_temp.refuses(
    'select app_jobs.check_delay(''a'', ''101 years'')', '22023', 'a is 101 years'
);

set local timezone = 'UTC';
select lives_ok(format('select app_jobs.check_time(''a'', %L)', value), 'a good time')
from unnest(array['1900-01-01', '9998-12-31', null]) as v (value);
select
    pg_temp.refuses(
        format('select app_jobs.check_time(''a'', %L)', value), '22023', 'a is ' || value
    )
from unnest(array['infinity', '-infinity', '9999-01-01 00:00:00+00']) as v (value);

select lives_ok(
    format(
        'select app_jobs.check_sizes(%L, jsonb_build_object(''a'', repeat(''x'', 1048500)))',
        to_json(repeat('x', 67108862))
    ),
    'a payload and attributes at their limits'
);
select lives_ok('select app_jobs.check_sizes(null, null)', 'none of them');
select pg_temp.refuses(
    'select app_jobs.check_sizes(to_json(repeat(''x'', 67108863)), null)',
    '22023', 'payload has 67108865 bytes'
);
select throws_ok(
    'select app_jobs.check_sizes(null, to_jsonb(repeat(''x'', 1048576)))', '22023', null,
    'attributes beyond it'
);

-- the same limits as types
select lives_ok(format('select %L::app_jobs.%I', value, type), format('%s: a good one', type))
from (
    values
    ('task_name', repeat('ü', 126)),
    ('queue_name', repeat('q', 200)),
    ('job_payload', to_json(repeat('x', 67108862))::text),
    ('job_attributes', to_json(repeat('x', 1048500))::text),
    ('due_time', '1900-01-01 00:00+00'),
    ('due_time', '9998-12-31 23:59:59+00'),
    ('lease_term', '1 microsecond'),
    ('lease_term', '100 years'),
    ('attempt_limit', '1')
) as g (type, value);
select
    throws_ok(
        format('select %L::app_jobs.%I', value, type),
        '23514', null, format('%s: %s is refused', type, left(value, 30))
    )
from (
    values
    ('task_name', ''),
    ('task_name', repeat('t', 127)),
    ('queue_name', ''),
    ('queue_name', repeat('q', 201)),
    ('job_payload', to_json(repeat('x', 67108863))::text),
    ('job_attributes', to_json(repeat('x', 1048576))::text),
    ('due_time', '1899-12-31 23:59:59+00'),
    ('due_time', '9999-01-01 00:00+00'),
    ('due_time', 'infinity'),
    ('lease_term', '0'),
    ('lease_term', '101 years'),
    ('attempt_limit', '0')
) as b (type, value);

select lives_ok(format('select app_jobs.check_objects(''a'', %L, ''h'')', value), 'objects')
from unnest(array['[]', '[{}, {"a": 1}]']) as v (value);
select pg_temp.refuses('select app_jobs.check_objects(''a'', null, ''h'')', '22004', 'a is null');
select
    pg_temp.refuses(
        format('select app_jobs.check_objects(''a'', %L, ''h'')', value), '22023', message
    )
from (
    values
    ('null', 'a is of type null'), ('{}', 'a is of type object'),
    ('[{}, 1]', 'a[1] is of type number'), ('[[]]', 'a[0] is of type array')
) as c (value, message);

select lives_ok(
    format(
        'select app_jobs.check_job(%L, %L, %L, 1, ''1 s'', now())',
        repeat('t', 126), repeat('k', 512), repeat('q', 200)
    ),
    'a job at its limits'
);
select lives_ok('select app_jobs.check_job(''t'', null, null, null, null, null)', 'a plain job');
select
    pg_temp.refuses(
        format('select app_jobs.check_job(%s)', arguments), state, message
    )
from (
    values
    ('null, null, null, null, null, null', '22004', 'identifier is null'),
    (''''', null, null, null, null, null', '22023', 'identifier has 0 characters: ""'),
    ('''t'', '''', null, null, null, null', '22023', 'job_key has 0 characters: ""'),
    ('''t'', null, '''', null, null, null', '22023', 'queue_name has 0 characters: ""'),
    ('''t'', null, null, 0, null, null', '22023', 'max_attempts is 0'),
    ('''t'', null, null, null, ''0'', null', '22023', 'retry_after is 00:00:00'),
    ('''t'', null, null, null, null, ''infinity''', '22023', 'run_at is infinity')
) as c (arguments, state, message);

select finish();
rollback;
