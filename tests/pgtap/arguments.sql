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
from unnest(array['1 microsecond', '1 month', null]) as v (value);
select pg_temp.refuses('select app_jobs.check_positive(''a'', ''0'')', '22023', 'a is 00:00:00');
select pg_temp.refuses(
    'select app_jobs.check_positive(''a'', ''-1 day'')', '22023', 'a is -1 days'
);

select lives_ok(
    format(
        'select app_jobs.check_job(%L, %L, %L, 1, ''1 s'')',
        repeat('t', 126), repeat('k', 512), repeat('q', 200)
    ),
    'a job at its limits'
);
select lives_ok('select app_jobs.check_job(''t'', null, null, null, null)', 'a plain job');
select
    pg_temp.refuses(
        format('select app_jobs.check_job(%s)', arguments), state, message
    )
from (
    values
    ('null, null, null, null, null', '22004', 'identifier is null'),
    (''''', null, null, null, null', '22023', 'identifier has 0 characters: ""'),
    ('''t'', '''', null, null, null', '22023', 'job_key has 0 characters: ""'),
    ('''t'', null, '''', null, null', '22023', 'queue_name has 0 characters: ""'),
    ('''t'', null, null, 0, null', '22023', 'max_attempts is 0'),
    ('''t'', null, null, null, ''0''', '22023', 'retry_after is 00:00:00')
) as c (arguments, state, message);

select finish();
rollback;
