begin;
\ir include/helpers.sql
select no_plan();

create function pg_temp.left_of(job_key text) returns interval
language sql
as $$
    select date_trunc('minute', j.lease_expires_at - clock_timestamp() + interval '30 s')
    from app_jobs.find_job(job_key) as j
$$;
do $$
begin
    insert into app_jobs.tasks (task_identifier, retry_after) values ('slow', '20 min');
    perform app_jobs.add_job(identifier => 't', job_key => 'plain');
    perform app_jobs.add_job(identifier => 't', job_key => 'own', retry_after => '10 min');
    perform app_jobs.add_job(identifier => 'slow', job_key => 'task''s');
    perform app_jobs.get_jobs('w', job_expiry => '5 min', job_limit => 3);
    perform app_jobs.add_job(identifier => 't', job_key => 'foreign');
    perform app_jobs.get_job('other', job_expiry => '5 min');
end;
$$;
create function pg_temp.nearly_over() returns void
language sql
as $$
    update app_jobs.jobs set lease_expires_at = clock_timestamp() + interval '1 min'
$$;

-- as long as at the claim
select lives_ok('select pg_temp.nearly_over()', 'leases are nearly over');
select set_eq(
    'select j.key from app_jobs.heartbeat(''w'') as h(id) join app_jobs.jobs as j on j.id = h.id',
    array['plain', 'own', 'task''s'], 'the jobs of the worker'
);
select is(pg_temp.left_of('plain'), interval '5 min', 'renewed by the length of the claim');
select is(pg_temp.left_of('own'), interval '10 min', 'by the job''s own');
select is(pg_temp.left_of('task''s'), interval '20 min', 'by the task''s');
select is(pg_temp.left_of('foreign'), interval '1 min', 'another worker''s is left alone');

-- as long as asked for; some of the jobs
select lives_ok('select pg_temp.nearly_over()', 'leases are nearly over');
select set_eq(
    $$select j.key
    from app_jobs.heartbeat('w', array(
        select id from app_jobs.jobs where key in ('plain', 'own', 'foreign') union all select 0
    ), '30 min') as h(id)
    join app_jobs.jobs as j on j.id = h.id$$,
    array['plain', 'own'], 'those asked for that it holds'
);
select is(pg_temp.left_of('plain'), interval '30 min', 'renewed by job_expiry');
select is(pg_temp.left_of('own'), interval '10 min', 'the job''s own goes first');
select is(pg_temp.left_of('task''s'), interval '1 min', 'not asked for, not renewed');
select is(pg_temp.left_of('foreign'), interval '1 min', 'asked for, but not its own: not renewed');
select lives_ok('select app_jobs.heartbeat(''w'')', 'the next one');
select is(pg_temp.left_of('plain'), interval '30 min', 'renews by as much');

-- a job to be cancelled, one that was taken over, and one that is processing
do $$
begin
    perform pg_temp.nearly_over();
    perform app_jobs.cancel_job('plain');
    update app_jobs.jobs set locked_by = 'other' where key = 'own';
    update app_jobs.jobs set lease_expires_at = null where key = 'task''s';
end;
$$;
select is_empty('select app_jobs.heartbeat(''w'')', 'are left out where it asks for all');
select set_eq(
    $$select j.key
    from app_jobs.heartbeat('w', array(select id from app_jobs.jobs)) as h(id)
    join app_jobs.jobs as j on j.id = h.id$$,
    array['task''s'], 'of those asked for only the processing one is still held'
);
select is(pg_temp.left_of('plain'), interval '1 min', 'a job to be cancelled is not renewed');
select is((app_jobs.find_job('task''s')).lease_expires_at, null, 'a processing one gets no lease');

-- leases that stand in a closed slot are found, too
do $$
begin
    update app_jobs.jobs set slot = -1 where key = 'foreign';
    perform app_jobs.close_slot(-1);
end;
$$;
select
    set_has(
        'select app_jobs.heartbeat(''other'')',
        'select (app_jobs.find_job(''foreign'')).id',
        'in a closed slot'
    );

-- the task's own lease and time limit, also where the worker asks for more
do $$
begin
    delete from app_jobs.jobs;
    insert into app_jobs.tasks (task_identifier, timeout) values ('limited', '10 min');
    perform app_jobs.add_job(identifier => 'limited', job_key => 'limited');
    perform app_jobs.add_job(identifier => 'limited', job_key => 'over');
    perform app_jobs.add_job(identifier => 'slow', job_key => 'task''s');
    perform app_jobs.get_jobs('w', job_limit => 3);
    update app_jobs.jobs set locked_at = locked_at - interval '6 min';
    update app_jobs.jobs set locked_at = locked_at - interval '4 min' where key = 'over';
end;
$$;
select set_eq(
    $$select j.key
    from app_jobs.heartbeat('w', job_expiry => '30 min') as h(id)
    join app_jobs.jobs as j on j.id = h.id$$,
    array['limited', 'task''s'], 'a run that is over its time is not held any more'
);
select is(pg_temp.left_of('task''s'), interval '20 min', 'the task''s lease goes first');
select is(pg_temp.left_of('limited'), interval '4 min', 'no lease is longer than the run may take');
select row_eq(
    $$select locked_by, attempts, last_error from app_jobs.find_job('over')$$,
    row(null::text, 1, 'timed out after 00:10:00'::text), 'it has failed'
);

-- the worker is known by its heartbeat
delete from app_jobs.jobs;
select from app_jobs.add_job(identifier => 't', job_key => 'own');
select from app_jobs.add_job(identifier => 't', job_key => 'foreign');
select from app_jobs.get_jobs('other', job_limit => 2);
select lives_ok('select app_jobs.heartbeat(''other'')', 'a heartbeat');
select row_eq(
    $$select worker_id, idle, running from app_jobs.workers where worker_id = 'other'$$,
    row('other'::text, false, 2), 'who beats is known'
);
update app_jobs.workers set last_seen_at = '2000-01-01', idle = true
where worker_id = 'other';
select lives_ok('select app_jobs.heartbeat(''other'')', 'the next one');
select row_eq(
    $$select idle, last_seen_at > '2001-01-01' from app_jobs.workers where worker_id = 'other'$$,
    row(true, true), 'says that it is alive, and leaves it idle'
);

-- bad input, and who may call
select pg_temp.refuses(format('select app_jobs.%s', call), state, message)
from (
    values
    ('heartbeat(null)', '22004', 'worker_id is null'),
    ('heartbeat('''')', '22023', 'worker_id has 0 characters: ""'),
    ('heartbeat(''w'', job_expiry => ''0'')', '22023', 'job_expiry is 00:00:00')
) as c (call, state, message);
select is(pg_temp.callers('select app_jobs.heartbeat(''w'')'), 'worker operator', 'who may renew');
select is(pg_temp.callers('select app_jobs.held_by(''w'')'), '', 'internal');

select finish();
rollback;
