-- The level can only be set at the start of a transaction.
begin;
set local transaction_isolation = 'repeatable read';
do $$
begin
    perform app_jobs.run_due_schedules();
    assert false, 'run_due_schedules() ran at REPEATABLE READ';
exception when sqlstate 'JQ002' then
    null;
end;
$$;
rollback;

begin;
\ir include/helpers.sql
-- a schedule that cannot be computed any more warns
set local client_min_messages = error;
select no_plan();

select pass('at REPEATABLE READ run_due_schedules() refuses');

-- One schedule that is behind.
create procedure pg_temp.behind(
    how_far interval, every text default '1 minute', missed text default 'once',
    overlap text default 'allow'
)
language plpgsql
as $$
begin
    delete from app_jobs.jobs;
    delete from app_jobs.scheduled_jobs;
    insert into app_jobs.scheduled_jobs (
        task_identifier, schedule_info, missed, overlap, next_run_at
    )
    values (
        't', json_build_object('every', every), missed, overlap,
        app_jobs.next_run_at(json_build_object('every', every), clock_timestamp() - how_far)
    );
end;
$$;

-- It is run. Which of its due times got a job? The clock goes on, so: first, last, how many.
create function pg_temp.run(
    how_far interval, every text, missed text, overlap text default 'allow'
) returns text
language plpgsql
as $$
declare
    v_now timestamptz;
    v_first timestamptz;
    v_from timestamptz;
    v_until timestamptz;
    v_jobs bigint;
    v_all bigint;
    v_schedule app_jobs.scheduled_jobs;
begin
    call pg_temp.behind(how_far, every, missed, overlap);
    select s.next_run_at into v_first from app_jobs.scheduled_jobs as s;
    v_now := clock_timestamp();
    perform app_jobs.run_due_schedules();
    select s.* into v_schedule from app_jobs.scheduled_jobs as s;
    select count(*), min(j.run_at), max(j.run_at) into v_jobs, v_from, v_until
    from app_jobs.jobs as j;
    select count(*) into v_all
    from generate_series(v_first, v_schedule.last_scheduled, every::interval);
    return concat_ws(
        ', ',
        case
            when v_jobs = v_all and v_jobs = 100 then 'the first hundred'
            when v_jobs = v_all and v_jobs > 1 then 'all'
            when v_jobs = 1 and v_from = v_schedule.last_scheduled then 'the last'
            when v_jobs = 1 and v_from = v_first then 'the first'
            when v_jobs = 0 then 'none'
            else format('%s of %s', v_jobs, v_all)
        end,
        case
            when v_schedule.next_run_at - v_schedule.last_scheduled <> every::interval
                then 'out of step'
            when v_schedule.next_run_at <= v_now then 'to be continued'
        end,
        case
            when (
                select max(j.id) from app_jobs.jobs as j
            ) is distinct from v_schedule.last_scheduled_id then 'not noted'
        end
    );
end;
$$;

select is_empty('select app_jobs.run_due_schedules()', 'nothing is due');

-- a due time
insert into app_jobs.scheduled_jobs (
    task_identifier, schedule_info, database_id, queue_name, payload, attributes, priority,
    max_attempts, next_run_at
)
values (
    't', '{"every": "1 hour"}', '11111111-1111-1111-1111-111111111111', 'q', '{"n":  1}',
    '{"a": 1}', 7, 3, clock_timestamp() - interval '1 s'
);
create temporary table due on commit drop as
select
    id,
    schedule_info,
    next_run_at
from app_jobs.scheduled_jobs;
create temporary table first_job on commit drop as
select
    id,
    database_id,
    queue_name,
    task_identifier,
    payload,
    attributes,
    priority,
    run_at,
    max_attempts,
    key,
    line
from app_jobs.run_due_schedules();
select row_eq(
    $$select
        j.database_id, j.queue_name, j.task_identifier collate "default", j.payload::text,
        j.attributes, j.priority, j.run_at, j.max_attempts, j.key, j.line collate "default"
    from first_job as j$$,
    row(
        '11111111-1111-1111-1111-111111111111'::uuid, 'q'::text, 't'::text, '{"n":  1}'::text,
        (
            select
                jsonb_build_object(
                    'a', 1, 'schedule', jsonb_build_object(
                        'id', d.id,
                        'due_at', (to_json(d.next_run_at at time zone 'UTC') #>> '{}') || '+00:00'
                    )
                )
            from due as d
        ),
        7, (select d.next_run_at from due as d), 3, null::text, ''::text
    ),
    'the job is what the schedule says, and carries the due time'
);
select row_eq(
    'select last_scheduled, last_scheduled_id, next_run_at from app_jobs.scheduled_jobs',
    row(
        (select d.next_run_at from due as d), (select j.id from first_job as j),
        (select app_jobs.next_run_at(d.schedule_info, d.next_run_at) from due as d)
    ),
    'it is noted, and the next due time follows from this one'
);
select is_empty('select app_jobs.run_due_schedules()', 'it is due once');
insert into app_jobs.tasks (task_identifier, max_attempts) values ('t', 9);
call pg_temp.behind(interval '1 minute');
select is(j.max_attempts, 9, 'attempts: the task''s') from app_jobs.run_due_schedules() as j;
delete from app_jobs.scheduled_jobs;
insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, next_run_at)
select
    't',
    json_build_object('at', now()),
    now();
select is(count(*), 1::bigint, 'a schedule of one time') from app_jobs.run_due_schedules();
select is(next_run_at, null, 'never again') from app_jobs.scheduled_jobs;

-- up to a minute late; more than a minute behind; far behind
select is(pg_temp.run(how_far, every, missed), expected, format('%s, %s behind', missed, how_far))
from (
    values
    ('skip', interval '30 s', '5 s', 'all'),
    ('once', interval '30 s', '5 s', 'all'),
    ('all', interval '30 s', '5 s', 'all'),
    ('skip', interval '1 h', '1 min', 'none'),
    ('once', interval '1 h', '1 min', 'the last'),
    ('all', interval '1 h', '1 min', 'all'),
    ('skip', interval '10 days', '1 s', 'none'),
    ('once', interval '10 days', '1 s', 'the last'),
    ('all', interval '10 days', '1 min', 'the first hundred, to be continued')
) as c (missed, how_far, every, expected);

-- the last job still waits or runs
select is(pg_temp.run('30 s', '5 s', 'all', 'skip'), 'the first', 'no second one while one waits');
call pg_temp.behind(interval '30 s', '30 s', 'once', 'skip');
update app_jobs.scheduled_jobs
set last_scheduled_id = (app_jobs.add_job(identifier => 'last')).id;
select is_empty('select app_jobs.run_due_schedules()', 'overlap skip: nothing while it waits');
select row_eq(
    $$select s.last_scheduled > now() - interval '31 s', s.next_run_at - s.last_scheduled,
        j.task_identifier collate "default"
    from app_jobs.scheduled_jobs as s inner join app_jobs.jobs as j on j.id = s.last_scheduled_id$$,
    row(true, interval '30 s', 'last'::text), 'the due time is seen to'
);
update app_jobs.scheduled_jobs set next_run_at = clock_timestamp();
delete from app_jobs.jobs;
select is(count(*), 1::bigint, 'once it has ended the next one is added')
from app_jobs.run_due_schedules();

-- many at once, each with its own last job
delete from app_jobs.scheduled_jobs;
delete from app_jobs.jobs;
insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, missed, next_run_at)
select
    't' || n,
    '{"every": "5 s"}',
    'all',
    app_jobs.next_run_at('{"every": "5 s"}', now() - n * interval '5 s')
from generate_series(1, 3) as g (n);
select is(count(*) >= 6, true, 'jobs of three schedules') from app_jobs.run_due_schedules();
select results_eq(
    $$select s.task_identifier, s.last_scheduled
    from app_jobs.scheduled_jobs as s order by s.id$$,
    $$select j.task_identifier, j.run_at
    from app_jobs.scheduled_jobs as s inner join app_jobs.jobs as j on j.id = s.last_scheduled_id
    order by s.id$$,
    'each has noted the job of its last due time'
);
delete from app_jobs.scheduled_jobs;
insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, next_run_at)
select
    't',
    '{"every": "1000 years"}',
    now() - n * interval '1 ms'
from generate_series(1, 150) as g (n);
select is(cardinality(app_jobs.fire_schedules(100)), 100, 'as many as are wanted');
select is(
    min(now() - next_run_at) < interval '0.1 s', true, 'those that have waited longest'
) from app_jobs.scheduled_jobs
where next_run_at < now();
select is(cardinality(app_jobs.fire_schedules(100)), 50, 'then the rest');

-- a schedule that cannot be computed any more does not stop the others
delete from app_jobs.scheduled_jobs;
insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, next_run_at) values
('broken', '{"every": "1000 years"}', now() - interval '1 s'), ('t', '{"every": "1 h"}', now());
alter table app_jobs.scheduled_jobs disable trigger scheduled_jobs_place;
update app_jobs.scheduled_jobs set time_zone = 'Europe/Atlantis'
where task_identifier = 'broken';
alter table app_jobs.scheduled_jobs enable trigger scheduled_jobs_place;
select results_eq(
    'select task_identifier from app_jobs.run_due_schedules()', array['t' collate "C"],
    'the other one runs'
);
select row_eq(
    $$select paused, next_run_at from app_jobs.scheduled_jobs where task_identifier = 'broken'$$,
    row(true, null::timestamptz), 'the broken one is paused'
);

-- closed slots: their alarms are lower bounds of what is due there
delete from app_jobs.scheduled_jobs;
insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, next_run_at) values
('a', '{"every": "1000 years"}', now() - interval '1 s'),
('b', '{"every": "1000 years"}', now() + interval '10 minutes');
alter table app_jobs.scheduled_jobs disable trigger scheduled_jobs_place;
update app_jobs.scheduled_jobs set slot = -1;
alter table app_jobs.scheduled_jobs enable trigger scheduled_jobs_place;
select lives_ok('select app_jobs.close_slot(-1)', 'a slot is closed');
select results_eq(
    'select kind collate "default", due_at from app_jobs.alarms where slot = -1',
    $$values ('schedule', now() - interval '1 s')$$, 'with an alarm for its schedules'
);
select results_eq(
    'select task_identifier from app_jobs.run_due_schedules()', array['a' collate "C"],
    'what is due there is found'
);
select results_eq(
    'select due_at from app_jobs.alarms where slot = -1',
    array[now() + interval '10 minutes'], 'the alarm is set again'
);
select is(
    app_jobs.next_schedule_at(now()), (select min(s.next_run_at) from app_jobs.scheduled_jobs as s),
    'the next due time is known, in open and in closed slots'
);
delete from app_jobs.scheduled_jobs
where task_identifier = 'b';
update app_jobs.alarms set due_at = now()
where slot = -1;
select is_empty('select app_jobs.run_due_schedules()', 'one that was removed');
select is_empty('select from app_jobs.alarms where slot = -1', 'silent then');

-- run_scheduled_job
delete from app_jobs.scheduled_jobs;
delete from app_jobs.jobs;
insert into app_jobs.scheduled_jobs (
    task_identifier, schedule_info, payload, attributes, priority, queue_name, max_attempts
) values ('t', '{"every": "1000 years"}', '[1]', '{"a": 1}', 3, 'q', 2);
create function pg_temp.run_it(expiry interval default '1 hour') returns app_jobs.jobs
language sql
as $$
    select app_jobs.run_scheduled_job((select id from app_jobs.scheduled_jobs), expiry)
$$;
create temporary table before on commit drop as
select
    id,
    next_run_at
from app_jobs.scheduled_jobs;
select row_eq(
    $$select task_identifier collate "default", payload::text, attributes - 'schedule',
        attributes -> 'schedule', priority, queue_name, max_attempts, line collate "default", key
    from pg_temp.run_it()$$,
    row(
        't'::text, '[1]'::text, '{"a": 1}'::jsonb,
        (select jsonb_build_object('id', b.id) from before as b),
        3, 'q'::text, 2, ''::text, null::text
    ),
    'a job now'
);
select row_eq(
    'select last_scheduled, next_run_at, last_scheduled_id from app_jobs.scheduled_jobs',
    row(
        null::timestamptz, (select b.next_run_at from before as b),
        (select j.id from app_jobs.jobs as j)
    ),
    'one more: the due times stay as they are'
);
select pg_temp.refuses(
    'select pg_temp.run_it()', 'JQ004',
    format('the last job of schedule %s still waits', (select b.id from before as b))
);
select is(locked_by, 'w', 'it is claimed') from app_jobs.get_job('w');
select pg_temp.refuses(
    'select pg_temp.run_it()', 'JQ004',
    format('the last job of schedule %s still runs', (select b.id from before as b))
);
update app_jobs.jobs set locked_at = now() - interval '1 hour';
select isnt((pg_temp.run_it()).id, null, 'held for an hour: dead');
select is(locked_by, null, 'it waits') from app_jobs.jobs
where locked_by is null;
delete from app_jobs.jobs;
select isnt((pg_temp.run_it()).id, null, 'its last job has ended');
delete from app_jobs.jobs;
update app_jobs.scheduled_jobs set paused = true;
select isnt((pg_temp.run_it()).id, null, 'a paused one, too');
select pg_temp.refuses(
    'select app_jobs.run_scheduled_job(null)', '22004', 'scheduled_job_id is null'
);
select pg_temp.refuses(
    'select app_jobs.run_scheduled_job(-1)', 'JQ001', 'no schedule has id -1'
);
select pg_temp.refuses(
    'select app_jobs.run_scheduled_job(-1, ''0'')', '22023', 'job_expiry is 00:00:00'
);

-- schedulers outside
delete from app_jobs.scheduled_jobs;
insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, next_run_at, paused) values
('a', '{"every": "1000 years"}', now() - interval '1 s', false),
('b', '{"every": "1000 years"}', now() - interval '1 s', false),
('c', '{"every": "1000 years"}', null, true);
create function pg_temp.take(worker_id text, task text default null) returns text
language sql
as $$
    select (app_jobs.get_scheduled_job(
        worker_id, case when task is not null then array[task] end
    )).task_identifier
$$;
select is(pg_temp.take('w1', 'b'), 'b', 'of these tasks');
select is(pg_temp.take('w1'), 'a', 'one that nobody has');
select is(pg_temp.take('w1'), null, 'no more: the third one is paused');
select is(pg_temp.take('w2'), null, 'nor for another');
select is_empty('select app_jobs.run_due_schedules()', 'what is held is left alone');
update app_jobs.scheduled_jobs set locked_at = now() - interval '31 s'
where locked_by is not null;
select is(pg_temp.take('w2'), null, 'after half a minute: not for another');
select is(pg_temp.take('w1'), 'a', 'but for the holder, to take it again');
select is(due_at > now() + interval '59 s', true, 'for another minute')
from app_jobs.scheduled_jobs
where task_identifier = 'a';
update app_jobs.scheduled_jobs set locked_at = now() - interval '61 s'
where task_identifier = 'a';
select is(pg_temp.take('w2'), 'a', 'after a minute anybody may');
update app_jobs.scheduled_jobs set locked_at = now() - interval '61 s'
where task_identifier = 'a';
select results_eq(
    'select task_identifier from app_jobs.run_due_schedules()', array['a' collate "C"],
    'and its due times are seen to again'
);
select row_eq(
    $$select locked_by, locked_at from app_jobs.scheduled_jobs where task_identifier = 'a'$$,
    row(null::text, null::timestamptz), 'the hold is gone'
);
select is(task_identifier, 'b' collate "C", 'the holder runs one') from app_jobs.run_scheduled_job((
    select id from app_jobs.scheduled_jobs
    where task_identifier = 'b'
));
select is(last_scheduled > now() and next_run_at > now(), true, 'its due time is done with')
from app_jobs.scheduled_jobs
where task_identifier = 'b';
update app_jobs.scheduled_jobs set next_run_at = now()
where task_identifier = 'b';
select is_empty(
    'select app_jobs.release_scheduled_jobs(''w2'')', 'only the holder gives it back'
);
select is_empty(
    'select app_jobs.release_scheduled_jobs(''w1'', array[-1])', 'and what it says'
);
select results_eq(
    'select app_jobs.release_scheduled_jobs(''w1'')',
    'select id from app_jobs.scheduled_jobs where task_identifier = ''b''', 'all that it holds'
);
select results_eq(
    'select task_identifier from app_jobs.run_due_schedules()', array['b' collate "C"],
    'what it has not seen to is due'
);
select pg_temp.refuses('select app_jobs.get_scheduled_job(null)', '22004', 'worker_id is null');
select pg_temp.refuses(
    'select app_jobs.release_scheduled_jobs(null)', '22004', 'worker_id is null'
);

-- who may call
select is(pg_temp.callers('select app_jobs.' || call), 'worker operator', call)
from unnest(array[
    'run_due_schedules()', 'run_scheduled_job(1)', 'get_scheduled_job(''w'')',
    'release_scheduled_jobs(''w'')'
]) as c (call);
select is(pg_temp.callers('select app_jobs.fire_schedules(1)'), '', 'internal');

select finish();
rollback;
