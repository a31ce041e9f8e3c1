begin;
\ir include/helpers.sql
select no_plan();

create function pg_temp.claim(worker text, jobs integer) returns bigint[]
language plpgsql
as $$
begin
    perform app_jobs.add_jobs('t', array_fill('{}'::json, array[claim.jobs]));
    return array(select j.id from app_jobs.get_jobs(claim.worker, job_limit => claim.jobs) as j);
end;
$$;
select pg_temp.claim('w', 6) as ids \gset

-- the fence
select is_empty(
    format('select app_jobs.complete_jobs(''other'', %L)', :'ids'),
    'another worker completes nothing'
);
select is_empty(
    format('select app_jobs.complete_jobs(''w'', %L, %L)', :'ids', '{2,2,2,2,2,2}'),
    'nor does a stale lease'
);
select is(
    (app_jobs.complete_job('w', (:'ids'::bigint[])[1], 2)).id,
    null,
    'complete_job() with a stale lease'
);
select is(
    (app_jobs.complete_job('other', (:'ids'::bigint[])[1])).id, null, 'and for another worker'
);
select is((select count(*) from app_jobs.jobs), 6::bigint, 'they are all still there');
select set_eq(
    format('select app_jobs.complete_jobs(''w'', %L, %L)', (:'ids'::bigint[])[1:3], '{1,7,1}'),
    array[(:'ids'::bigint[])[1], (:'ids'::bigint[])[3]],
    'those with the right lease are completed, and returned'
);
select row_eq(
    format(
        'select id, locked_by, lease, attempts from app_jobs.complete_job(''w'', %s, 1)',
        (:'ids'::bigint[])[2]
    ),
    row((:'ids'::bigint[])[2], 'w'::text, 1, 1),
    'complete_job() returns the job as it was'
);
select
    is(
        (app_jobs.complete_job('w', (:'ids'::bigint[])[2], 1)).id,
        null,
        'a second time: a row of nulls'
    );
select set_eq(
    format('select app_jobs.complete_jobs(''w'', %L)', (:'ids'::bigint[])[4:6] || 0::bigint),
    (:'ids'::bigint[])[4:6],
    'without leases: whichever the worker holds; unknown ids are left out'
);
select is_empty('select from app_jobs.jobs', 'nothing is left');
select is_empty('select from app_jobs.finished_jobs', 'and nothing is kept, by default');
select is_empty('select app_jobs.complete_jobs(''w'', ''{}'')', 'no ids');

-- what is kept: as long as the task says, with results and errors
insert into app_jobs.tasks (task_identifier, keep_completed) values ('t', '2 h');
select
from
    app_jobs.add_job(
        '00000000-0000-0000-0000-00000000000a', 't', '{"a":  1}', 'k', 'q', priority => 3
    );
select from app_jobs.get_job('w');
select id from app_jobs.find_job('k', '00000000-0000-0000-0000-00000000000a') \gset
select from app_jobs.fail_job('w', :id, 'no', retry_in => '0');
select id from app_jobs.get_job('w') \gset
select
    is(
        (app_jobs.complete_job('w', :id, result => '{"r":  1}')).id,
        :id::bigint,
        'completed at its second attempt'
    );
select row_eq(
    $$select
        id, database_id::text, queue_name, task_identifier collate "default", payload::text, priority, attempts, lease, key,
        last_error, state, finished_by, result::text, started_at <= finished_at
    from app_jobs.finished_jobs$$,
    row(
        :id::bigint,
        '00000000-0000-0000-0000-00000000000a'::text,
        'q'::text,
        't'::text,
        '{"a":  1}'::text,
        3,
        2,
        2,
        'k'::text, 'no'::text, 'completed'::text, 'w'::text, '{"r":  1}'::text, true
    ),
    'it is kept, with its result'
);
select
    ok(
        keep_until - finished_at between interval '01:59:59' and interval '2 h', 'for two hours'
    )
from app_jobs.finished_jobs;
select
    results_eq(
        'select job_id from app_jobs.job_errors', array[:id::bigint], 'and so are its errors'
    );
delete from app_jobs.finished_jobs;
delete from app_jobs.job_errors;
select pg_temp.claim('w', 3) as ids \gset
select lives_ok(
    format(
        'select app_jobs.complete_jobs(''w'', %L, null, array[''1'', null, ''3'']::json[])', :'ids'
    ),
    'results of several'
);
select results_eq(
    'select result::text from app_jobs.finished_jobs order by id',
    array['1', null, '3'],
    'each has its own'
);

-- where nothing is kept, errors go with their job
delete from app_jobs.tasks;
select pg_temp.claim('w', 1) as ids \gset
select from app_jobs.fail_job('w', (:'ids'::bigint[])[1], 'no', retry_in => '0');
select is((select count(*) from app_jobs.job_errors), 1::bigint, 'an error is noted');
select from app_jobs.get_job('w');
select isnt((app_jobs.complete_job('w', (:'ids'::bigint[])[1])).id, null, 'the job ends well');
select is_empty('select from app_jobs.job_errors', 'and the error is forgotten');

-- bad input, and who may call
select pg_temp.refuses(format('select app_jobs.%s', call), state, message)
from (
    values
    ('complete_job(null, 1)', '22004', 'worker_id is null'),
    ('complete_job('''', 1)', '22023', 'worker_id has 0 characters: ""'),
    ('complete_job(''w'', null)', '22004', 'job_id is null'),
    ('complete_jobs(null, ''{1}'')', '22004', 'worker_id is null'),
    ('complete_jobs(''w'', null)', '22004', 'job_ids is null'),
    ('complete_jobs(''w'', ''{1,2}'', ''{1}'')', '22023', '2 job_ids, 1 leases, no results'),
    (
        'complete_jobs(''w'', ''{1}'', ''{1}'', array[''1'', ''2'']::json[])', '22023',
        '1 job_ids, 1 leases, 2 results'
    )
) as c (call, state, message);
select
    is(
        pg_temp.callers('select app_jobs.complete_job(''w'', 1)'),
        'worker operator',
        'who may complete'
    );
select is(
    pg_temp.callers('select app_jobs.complete_jobs(''w'', array[1])'),
    'worker operator',
    'several, too'
);

select finish();
rollback;
