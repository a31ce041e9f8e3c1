-- At REPEATABLE READ jobs without a queue can be claimed, jobs of a queue cannot. The level can
-- only be set at the start of a transaction: so this one stands before the tests, and raises.
begin;
set local transaction_isolation = 'repeatable read';
do $$
begin
    perform app_jobs.add_job(identifier => 't', queue_name => 'q');
    perform app_jobs.get_job('w');
    assert false, 'a job of a queue was claimed';
exception when sqlstate 'JQ002' then
    perform app_jobs.add_job(identifier => 't');
    assert (app_jobs.get_job('w')).id is not null, 'no job was claimed';
end;
$$;
rollback;

begin;
\ir include/helpers.sql
select no_plan();

select pass('at REPEATABLE READ: no job of a queue, but others');

-- a claim
select is((app_jobs.get_job('w')).id, null, 'nothing to do: a row of nulls');
select is_empty('select app_jobs.get_jobs(''w'', job_limit => 10)', 'or none');
select from app_jobs.add_job(identifier => 't', payload => '{"a":  1}', job_key => 'k');
select row_eq(
    $$select
        payload::text, attempts, lease, locked_by, line, seat, lease_length,
        locked_at between now() and clock_timestamp(), lease_expires_at - locked_at
    from app_jobs.get_job('w')$$,
    row(
        '{"a":  1}'::text, 1, 1, 'w'::text, null::text, null::integer, interval '4 hours',
        true, interval '4 hours'
    ),
    'a claim counts an attempt, takes the next lease, and lasts four hours'
);
select is((app_jobs.get_job('w2')).id, null, 'nobody else gets the job');
select is((select updated_at > now() from app_jobs.find_job('k')), true, 'updated_at follows');

-- the length of a lease: the job's, the task's, the worker's
insert into app_jobs.tasks (task_identifier, retry_after) values ('quick', '1 min');
select from app_jobs.add_job(identifier => 'quick', priority => 1);
select from app_jobs.add_job(identifier => 'quick', priority => 2, retry_after => '2 min');
select from app_jobs.add_job(identifier => 't', priority => 3);
select results_eq(
    $$select lease_expires_at - locked_at
    from app_jobs.get_jobs('w', job_expiry => '3 min', job_limit => 9)$$,
    array[interval '1 min', interval '2 min', interval '3 min'],
    'how long leases last'
);
insert into app_jobs.tasks (task_identifier, timeout) values ('short', '5 s');
select from app_jobs.add_job(identifier => 'short', retry_after => '2 min');
select
    results_eq(
        'select lease_expires_at - locked_at, lease_length from app_jobs.get_job(''w'')',
        $$values (interval '5 s', interval '2 min')$$,
        'none is longer than the timeout of its task'
    );

-- tasks
select from app_jobs.add_job(identifier => 'a');
select from app_jobs.add_job(identifier => 'b');
select is((app_jobs.get_job('w', '{c}')).id, null, 'a worker that serves another task');
select is((app_jobs.get_job('w', '{}')).id, null, 'a worker that serves none');
select is((app_jobs.get_job('w', '{b,c}')).task_identifier, 'b', 'a worker of two tasks');
select from app_jobs.add_job(identifier => 'C');
select is(
    (app_jobs.get_job('w', '{b,C}')).task_identifier, 'C',
    'of two that a dictionary and the index have in different order'
);
insert into app_jobs.tasks (task_identifier, paused) values ('a', true);
select is((app_jobs.get_job('w')).id, null, 'a paused task is not served');
select is((app_jobs.get_job('w', '{a}')).id, null, 'nor to those who ask for it');
update app_jobs.tasks set paused = false
where task_identifier = 'a';
select is((app_jobs.get_job('w')).task_identifier, 'a', 'until it goes on');

-- order: tasks, priorities, times, slots that are open or closed, queues of one job each
delete from app_jobs.jobs;
do $$
begin
    perform app_jobs.add_jobs((
        select json_agg(json_build_object(
            'identifier', (array['a', 'b', 'c'])[1 + n % 3],
            'priority', n * 7 % 11,
            'run_at', timestamptz '2020-01-01' + n * 13 % 17 * interval '1 min',
            'queue_name', case when n % 10 = 0 then 'q' || n end
        ))
        from generate_series(1, size) as g(n)
    ))
    from unnest(array[1200, 300, 1100, 300]) as s(size);
end;
$$;
create temporary table expected on commit drop as
select
    row_number() over (order by j.priority, j.run_at, j.id) as n,
    j.id,
    j.task_identifier
from app_jobs.jobs as j
where
    j.queue_name is null
    or j.id = (
        select q.id from app_jobs.jobs as q
        where q.queue_name = j.queue_name
        order by q.priority, q.run_at, q.id
        limit 1
    );
create temporary table claimed (n bigint generated always as identity, id bigint) on commit drop;
create function pg_temp.claim(tasks text[], size integer, most integer) returns void
language plpgsql
as $$
begin
    for i in 1..most loop
        insert into claimed (id) select j.id from app_jobs.get_jobs('w', tasks, job_limit => size) as j;
        exit when not found;
    end loop;
end;
$$;
select lives_ok('select pg_temp.claim(''{a,c}'', 37, 5)', 'some of two tasks');
select results_eq(
    'select id from claimed order by n',
    $$select id from expected where task_identifier in ('a', 'c') order by n limit 185$$,
    'are the first of those tasks, in order'
);
select lives_ok('select pg_temp.claim(null, 1, 20)', 'some, one by one');
select lives_ok('select pg_temp.claim(null, 193, 100)', 'all others');
select results_eq(
    'select id from claimed where n > 185 order by n',
    $$select id from expected where id not in (select id from claimed where n <= 185) order by n$$,
    'are the rest, in order'
);
select is(
    (select count(*) from claimed), (select count(*) from expected), 'each job is claimed once'
);

-- the better job stands in the newer one of two open slots
delete from app_jobs.jobs;
select from app_jobs.add_job(identifier => 't', job_key => 'worse');
select from app_jobs.add_job(identifier => 't', job_key => 'better', priority => -1);
insert into app_jobs.open_slots (slot) values (1000000);
update app_jobs.jobs set slot = 1000000
where key = 'better';
select is((app_jobs.get_job('w', '{t}')).key, 'better', 'the better one, in a slot of its own');
select is((app_jobs.get_job('w', '{t}')).key, 'worse', 'then the other one');

-- what is due or expired is seen to without tick(): here, since nobody has kept house for a second
create function pg_temp.get_job_later() returns text
language plpgsql
as $$
begin
    perform setval('app_jobs.ticked_at', 0);
    return (app_jobs.get_job('w2', '{t}')).key;
end;
$$;
delete from app_jobs.jobs;
select from app_jobs.add_job(identifier => 't', job_key => 'due', run_at => now() + interval '1 h');
select is(pg_temp.get_job_later(), null, 'not before its time');
update app_jobs.jobs set run_at = now() - interval '1 s';
select is(pg_temp.get_job_later(), 'due', 'a scheduled job whose time has come');
update app_jobs.jobs set lease_expires_at = now() - interval '1 s', locked_by = 'w1';
select is(pg_temp.get_job_later(), 'due', 'a job whose lease is over');
select row_eq(
    $$select locked_by, attempts, lease, last_error from app_jobs.find_job('due')$$,
    row('w2'::text, 2, 2, 'lease expired'::text), 'the expiry counted as an attempt'
);
update app_jobs.jobs set lease_expires_at = now() - interval '1 s', attempts = max_attempts;
select is(pg_temp.get_job_later(), null, 'no attempt is left');
select row_eq(
    $$select state, last_error from app_jobs.finished_jobs where key = 'due'$$,
    row('failed'::text, 'lease expired'::text), 'it has failed'
);

-- due jobs come in their order among those that have been ready before
select from app_jobs.add_job(identifier => 't', job_key => '2');
select from app_jobs.add_job(identifier => 't', job_key => '1', run_at => now() + interval '1 h');
select from app_jobs.add_job(
    identifier => 't', job_key => '3', run_at => now() + interval '1 h', priority => 1
);
update app_jobs.jobs set run_at = now() - interval '1 min'
where key in ('1', '3');
select results_eq(
    $$select j.key from app_jobs.get_jobs('w', job_limit => 9) as j$$, array['1', '2', '3'], 'order'
);

-- of what has fallen due, a claim for one job takes the best that it may take
select lives_ok('delete from app_jobs.jobs', 'done');
select
    app_jobs.add_job(
        identifier => task,
        job_key => key,
        priority => priority,
        run_at => now() + interval '1 hour'
    )
from (
    values ('t', 'due 1', 5), ('t', 'due 2', 3), ('other', 'due 3', 1)
) as d (task, key, priority);
update app_jobs.jobs set run_at = now() - priority * interval '1 minute';
select is((app_jobs.get_job('w', array['t'])).key, 'due 2', 'the better one, though due later');
select is((app_jobs.get_job('w', array['t'])).key, 'due 1', 'then the other one');
select is((app_jobs.get_job('w')).key, 'due 3', 'others'' are left for others');
select
    app_jobs.add_job(
        identifier => 'many',
        job_key => 'many ' || n,
        priority => n,
        run_at => now() + interval '1 hour'
    )
from generate_series(1, 150) as n;
update app_jobs.jobs set run_at = now()
where task_identifier = 'many';
select is((app_jobs.get_job('w', array['many'])).key, 'many 1', 'the best of very many');

-- bad input
select pg_temp.refuses(format('select app_jobs.%s', call), state, message)
from (
    values
    ('get_job(null)', '22004', 'worker_id is null'),
    ('get_job('''')', '22023', 'worker_id has 0 characters: ""'),
    ('get_job(''w'', job_expiry => null)', '22004', 'job_expiry is null'),
    ('get_job(''w'', job_expiry => ''0'')', '22023', 'job_expiry is 00:00:00'),
    ('get_job(''w'', job_expiry => ''-1 s'')', '22023', 'job_expiry is -00:00:01'),
    ('get_jobs(null)', '22004', 'worker_id is null'),
    ('get_jobs(''w'', job_expiry => null)', '22004', 'job_expiry is null'),
    ('get_jobs(''w'', job_limit => null)', '22004', 'job_limit is null'),
    ('get_jobs(''w'', job_limit => 0)', '22023', 'job_limit is 0'),
    ('get_jobs(''w'', job_limit => -1)', '22023', 'job_limit is -1'),
    ('get_jobs(''w'', job_limit => 10001)', '22023', 'job_limit is 10001')
) as c (call, state, message);
select lives_ok(
    'select app_jobs.get_jobs(repeat(''w'', 200), job_limit => 10000)', 'the most there is'
);

-- who may call
select is(pg_temp.callers('select app_jobs.get_job(''w'')'), 'worker operator', 'who may claim');
select is(pg_temp.callers('select app_jobs.get_jobs(''w'')'), 'worker operator', 'several, too');

select finish();
rollback;
