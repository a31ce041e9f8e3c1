begin;
\ir include/helpers.sql
select no_plan();

select from app_jobs.add_job(identifier => 't', job_key => 'k', max_attempts => 1);
select id from app_jobs.get_job('w') \gset

-- the fence
select is((app_jobs.snooze_job('other', :id, '1 h')).id, null, 'another worker snoozes nothing');
select is((app_jobs.snooze_job('w', :id, '1 h', 7)).id, null, 'nor does a stale lease');
select is((app_jobs.snooze_job('w', 0, '1 h')).id, null, 'nor an unknown job');

select row_eq(
    format('select id, attempts, lease, last_error, locked_by, lease_expires_at, line,
        run_at between now() + interval ''1 h'' and clock_timestamp() + interval ''1 h''
    from app_jobs.snooze_job(''w'', %s, ''1 h'', 1)', :id),
    row(:id::bigint, 0, 1, null::text, null::text, null::timestamptz, null::text, true),
    'it waits an hour, and no attempt is counted'
);
select is((app_jobs.get_job('w')).id, null, 'not before');
update app_jobs.jobs set run_at = now();
select is((app_jobs.get_job('w')).attempts, 1, 'then it is at its only attempt');
select is((app_jobs.snooze_job('w', :id, '0')).line, '', 'a delay of 0: ready at once');
select is_empty('select from app_jobs.job_errors', 'a snooze is no failure');

select pg_temp.refuses(format('select app_jobs.%s', call), state, message)
from (
    values
    ('snooze_job(null, 1, ''1 s'')', '22004', 'worker_id is null'),
    ('snooze_job('''', 1, ''1 s'')', '22023', 'worker_id has 0 characters: ""'),
    ('snooze_job(''w'', null, ''1 s'')', '22004', 'job_id is null'),
    ('snooze_job(''w'', 1, null)', '22004', 'delay is null'),
    ('snooze_job(''w'', 1, ''-1 s'')', '22023', 'delay is -00:00:01'),
    ('snooze_job(''w'', 1, ''101 years'')', '22023', 'delay is 101 years')
) as c (call, state, message);
select
    is(
        pg_temp.callers('select app_jobs.snooze_job(''w'', 1, ''1 s'')'),
        'worker operator',
        'who may snooze'
    );

select finish();
rollback;
