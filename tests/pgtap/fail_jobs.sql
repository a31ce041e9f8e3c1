begin;
\ir include/helpers.sql
select no_plan();

create function pg_temp.claim(
    worker text default 'w', job_key text default 'k', task text default 't'
)
returns bigint
language plpgsql
as $$
begin
    perform app_jobs.add_job(identifier => claim.task, job_key => claim.job_key, job_key_mode => 'keep');
    update app_jobs.jobs as j set run_at = now() where j.key = claim.job_key and j.locked_by is null;
    perform app_jobs.get_job(claim.worker, array[claim.task]);
    return (app_jobs.find_job(claim.job_key)).id;
end;
$$;
select pg_temp.claim() as id \gset

-- the fence
select is((app_jobs.fail_job('other', :id, 'no')).id, null, 'another worker fails nothing');
select is((app_jobs.fail_job('w', :id, 'no', 7)).id, null, 'nor does a stale lease');
select is_empty('select from app_jobs.job_errors', 'nothing is noted');

-- one attempt
select row_eq(
    format('select id, attempts, lease, last_error, locked_by, locked_at, lease_expires_at, line
    from app_jobs.fail_job(''w'', %s, ''no such host'', 1, detail => ''line 7'')', :id),
    row(
        :id::bigint,
        1,
        1,
        'no such host'::text,
        null::text,
        null::timestamptz,
        null::timestamptz,
        null::text
    ),
    'a failed attempt: the job waits'
);
select
    ok(
        run_at
        - updated_at between make_interval(secs => exp(1) - 1) and make_interval(
            secs => exp(1) * 1.1
        ),
        'about exp(1) seconds'
    )
from app_jobs.jobs;
select row_eq(
    'select job_id, lease, attempt, worker_id, error_message, detail from app_jobs.job_errors',
    row(:id::bigint, 1, 1, 'w'::text, 'no such host'::text, 'line 7'::text),
    'the error is noted'
);
select is((app_jobs.fail_job('w', :id, 'no')).id, null, 'a second time: a row of nulls');

-- the delay: the argument, the task's backoff
select from pg_temp.claim();
select
    ok(
        run_at between now() + interval '1 day' and clock_timestamp() + interval '1 day',
        'retry_in, exactly'
    )
from app_jobs.fail_job('w', :id, retry_in => '1 day');
select is((app_jobs.find_job('k')).last_error, null, 'a failure without a message');
select from pg_temp.claim();
select is((app_jobs.fail_job('w', :id, retry_in => '0')).line, '', 'retry_in 0: at once');
insert into app_jobs.tasks (task_identifier, backoff)
values ('t', '{"type": "linear", "base": "1 h", "jitter": 0}');
select from pg_temp.claim();
select is(
    date_trunc('minute', (app_jobs.fail_job('w', :id)).run_at - now() + interval '1 s'),
    interval '4 h',
    'the task''s backoff, at the fourth attempt'
);
select is((select count(*) from app_jobs.job_errors), 4::bigint, 'a row for each failed attempt');

-- the last attempt, and a failure for good
update app_jobs.jobs set max_attempts = 5;
select from pg_temp.claim();
select row_eq(
    format(
        'select id, attempts, last_error, locked_by from app_jobs.fail_job(''w'', %s, ''the end'')',
        :id
    ),
    row(:id::bigint, 5, 'the end'::text, 'w'::text),
    'the last attempt: the job as it was, with its error'
);
select row_eq(
    'select state, attempts, last_error, finished_by, key from app_jobs.finished_jobs',
    row('failed'::text, 5, 'the end'::text, 'w'::text, 'k'::text), 'it is a dead letter'
);
select is((select count(*) from app_jobs.job_errors), 5::bigint, 'whose errors are kept');
select is((app_jobs.find_job('k')).id, null, 'its key is free');
select pg_temp.claim(job_key => 'bad') as id \gset
select
    is(
        (app_jobs.fail_job('w', :id, 'hopeless', permanent => true)).id,
        :id::bigint,
        'permanent: no other attempt'
    );
select results_eq(
    $$select state, attempts from app_jobs.finished_jobs where key = 'bad'$$,
    $$values ('failed', 1)$$, 'it failed at its first'
);

-- several
select
    pg_temp.claim(job_key => '1') as one,
    pg_temp.claim(job_key => '2') as two,
    pg_temp.claim(job_key => '3') as three,
    pg_temp.claim('other', '4') as four
\gset
select set_eq(
    format(
        'select app_jobs.fail_jobs(''w'', %L)', json_build_array(
            json_build_object(
                'job_id',
                :one,
                'error_message',
                'one',
                'lease',
                1,
                'retry_in',
                '1 h',
                'detail',
                'more'
            ),
            json_build_object('job_id', :two, 'permanent', true),
            json_build_object('job_id', :three, 'lease', 2),
            json_build_object('job_id', :four)
        )
    ),
    array[:one, :two]::bigint[],
    'fail_jobs(): those that the worker holds under that lease'
);
select row_eq(
    $$select attempts, last_error, locked_by, run_at > now() + interval '59 min'
    from app_jobs.find_job('1')$$,
    row(1, 'one'::text, null::text, true), 'one waits'
);
select results_eq(
    'select error_message, detail from app_jobs.job_errors where job_id = ' || :one,
    $$values ('one', 'more')$$, 'with its error'
);
select is((app_jobs.find_job('2')).id, null, 'one has failed');
select is((app_jobs.find_job('3')).locked_by, 'w', 'the one with a stale lease runs on');
select is((app_jobs.find_job('4')).locked_by, 'other', 'and that of another worker');
select is_empty('select app_jobs.fail_jobs(''w'', ''[]'')', 'no failures');

-- bad input
select pg_temp.refuses(format('select app_jobs.%s', call), state, message)
from (
    values
    ('fail_job(null, 1)', '22004', 'worker_id is null'),
    ('fail_job('''', 1)', '22023', 'worker_id has 0 characters: ""'),
    ('fail_job(''w'', null)', '22004', 'job_id is null'),
    ('fail_jobs(null, ''[]'')', '22004', 'worker_id is null'),
    ('fail_jobs(''w'', null)', '22004', 'failures is null'),
    ('fail_jobs(''w'', ''{}'')', '22023', 'failures is of type object'),
    (
        'fail_jobs(''w'', ''[{"job_id": 1}, {"job": 2}]'')',
        '22023',
        'failures has an unknown key: "job"'
    ),
    (
        'fail_jobs(''w'', ''[{"job_id": 1}, {"error_message": "no"}]'')', '22023',
        'failures[1] has job_id null and retry_in null'
    ),
    (
        'fail_jobs(''w'', ''[{"job_id": 1, "retry_in": "-1 s"}]'')', '22023',
        'failures[0] has job_id 1 and retry_in -00:00:01'
    )
) as c (call, state, message);
select throws_ok(
    'select app_jobs.fail_job(''w'', 1, retry_in => ''-1 s'')', '22023', null, 'a negative retry_in'
);
select throws_ok(
    'select app_jobs.fail_jobs(''w'', ''[1]'')', '22023', null, 'an element that is no object'
);

-- who may call
select is(pg_temp.callers('select app_jobs.fail_job(''w'', 1)'), 'worker operator', 'who may fail');
select
    is(
        pg_temp.callers('select app_jobs.fail_jobs(''w'', ''[]'')'),
        'worker operator',
        'several, too'
    );

select finish();
rollback;
