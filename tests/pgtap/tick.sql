-- The level can only be set at the start of a transaction, so this one stands before the tests,
-- and raises.
begin;
set local transaction_isolation = 'repeatable read';
do $$
begin
    perform app_jobs.tick();
    assert false, 'tick() ran at REPEATABLE READ';
exception when sqlstate 'JQ002' then
    null;
end;
$$;
rollback;

begin;
\ir include/helpers.sql
-- a sweep that finds something warns
set local client_min_messages = error;
select no_plan();

select pass('at REPEATABLE READ tick() refuses');

-- A restore without sequences: what is enqueued then would be lost, so it is refused until a sweep.
alter sequence app_jobs.slot_current restart with 1;
alter sequence app_jobs.slot_number restart with 2;
alter sequence app_jobs.activity restart with 1;
select pg_temp.refuses(
    'select app_jobs.add_job(identifier => ''t'')',
    'JQ090',
    'sequence app_jobs.slot_current has no value'
);
insert into app_jobs.jobs (task_identifier, slot, line, key) values ('t', 9000, '', 'restored');
create function pg_temp.last_id() returns bigint
language sql
as $$
    select pg_sequence_last_value(pg_get_serial_sequence('app_jobs.jobs', 'id')::regclass)
$$;
insert into app_jobs.finished_jobs (
    id, task_identifier, payload, attributes, priority, run_at, attempts, max_attempts, lease,
    created_at, state, keep_until
)
values (pg_temp.last_id() + 70, 't', '{}', '{}', 0, now(), 1, 25, 1, now(), 'completed', now());
select cmp_ok(
    pg_temp.last_id(), '<', (select max(f.id) from app_jobs.finished_jobs as f),
    'the last job that finished had an id far ahead'
);
select cmp_ok(app_jobs.sweep(), '>=', 1, 'a sweep lists what holds jobs');
select is(
    pg_temp.last_id(), (select max(f.id) from app_jobs.finished_jobs as f),
    'ids go on behind it'
);
delete from app_jobs.finished_jobs;
insert into app_jobs.jobs (id, task_identifier, slot, line, key)
overriding system value values (pg_temp.last_id() + 70, 't', 9000, '', 'ahead');
select cmp_ok(app_jobs.sweep(), '>=', 0, 'another sweep');
select is(pg_temp.last_id(), (select max(j.id) from app_jobs.jobs as j), 'or behind a waiting one');
delete from app_jobs.jobs
where key = 'ahead';
select
    lives_ok(
        'select app_jobs.add_job(identifier => ''t'', job_key => ''new'')',
        'jobs can be added again'
    );
select cmp_ok(
    pg_sequence_last_value('app_jobs.slot_number'),
    '>=',
    9000::bigint,
    'slot numbers go on where they were'
);
select set_eq(
    $$select j.key from app_jobs.get_jobs('w', job_limit => 9) as j$$, array['restored', 'new'],
    'and both jobs are found'
);

-- nothing is lost if lists are: jobs of each kind in slots that nobody knows
delete from app_jobs.jobs;
insert into app_jobs.jobs (task_identifier, slot, line, key, run_at) values
('t', 8001, '', 'ready', now()), ('t', 8002, null, 'due', now());
insert into app_jobs.jobs (
    task_identifier, slot, key, locked_by, locked_at, lease_expires_at
) values
('t', 8003, 'expired', 'w', now(), now());
insert into app_jobs.jobs (
    task_identifier, slot, key, queue_name, seat, locked_by, locked_at
) values
('t', 8004, 'seated', 'q', 1, 'w', now());
delete from app_jobs.open_slots;
delete from app_jobs.streams;
delete from app_jobs.alarms;
select cmp_ok(app_jobs.sweep(), '>=', 5, 'the slots of four jobs, and the current one');
select isnt(app_jobs.tick(), null, 'a tick');
select
from app_jobs.add_job(identifier => 't', job_key => 'behind', queue_name => 'q', priority => 9);
select set_eq(
    $$select j.key from app_jobs.get_jobs('w', job_limit => 9) as j$$,
    array['ready', 'due', 'expired'],
    'ready, due and expired jobs are found, and a seat is known to be taken'
);
select is(app_jobs.sweep(), 0, 'a second sweep finds nothing to do');
delete from app_jobs.open_slots;
select is((app_jobs.tick()).relisted > 0, true, 'a tick sweeps if the current slot is not listed');
insert into app_jobs.jobs (id, task_identifier, slot, line, key) overriding system value
select
    max(id) + 1000000,
    't',
    8001,
    '',
    'high'
from app_jobs.jobs;
select is(app_jobs.sweep() is not null, true, 'a job with a high id was restored');
select cmp_ok(
    (app_jobs.add_job(identifier => 't')).id,
    '>',
    (app_jobs.find_job('high')).id,
    'ids go on behind it'
);
delete from app_jobs.jobs;
delete from app_jobs.job_errors;

-- an idle tick
select row_eq(
    'select next_due_at, made_ready, expired, moved, relisted from app_jobs.tick()',
    row(null::timestamptz, 0, 0, 0, 0), 'nothing to do'
);

-- jobs that are due
do $$
begin
    perform app_jobs.add_job(identifier => 't', job_key => 'soon', run_at => now() + interval '1 h');
    perform app_jobs.add_job(identifier => 't', job_key => 'later', run_at => now() + interval '2 h');
end;
$$;
select is((app_jobs.tick()).next_due_at, now() + interval '1 h', 'when the next one is due');
update app_jobs.jobs set run_at = now() - interval '1 s'
where key = 'soon';
select row_eq(
    'select next_due_at, made_ready from app_jobs.tick()', row(now() + interval '2 h', 1),
    'one was due, the next one is not yet'
);
select is((app_jobs.find_job('soon')).line, '', 'it is ready');

-- leases that are over
do $$
begin
    perform app_jobs.get_job('w');
    update app_jobs.jobs set lease_expires_at = now() where key = 'soon';
end;
$$;
select is((app_jobs.tick()).expired, 1, 'a lease is over');
select row_eq(
    $$select line collate "default", locked_by, attempts, last_error
    from app_jobs.find_job('soon')$$,
    row(''::text, null::text, 1, 'lease expired'::text), 'its job is ready again'
);
select row_eq(
    'select attempt, worker_id, error_message from app_jobs.job_errors',
    row(1, 'w'::text, 'lease expired'::text), 'the failure is noted'
);

-- a run that was over its time, found when its lease was
do $$
begin
    delete from app_jobs.job_errors;
    insert into app_jobs.tasks (task_identifier, timeout) values ('t', '1 min');
    perform app_jobs.get_job('w');
    update app_jobs.jobs set
        locked_at = now() - interval '1 min', lease_expires_at = now()
    where key = 'soon';
    perform app_jobs.tick();
    delete from app_jobs.tasks;
end;
$$;
select is(
    (app_jobs.find_job('soon')).last_error, 'timed out after 00:01:00', 'a run can time out'
);
select results_eq(
    'select attempt, error_message from app_jobs.job_errors',
    $$values (2, 'timed out after 00:01:00')$$, 'and that is noted'
);

-- alarms of closed slots
do $$
begin
    delete from app_jobs.job_errors;
    delete from app_jobs.jobs;
    insert into app_jobs.jobs (task_identifier, slot, key, run_at) values
    ('t', -1, 'd1', now()), ('t', -1, 'd2', now() + interval '1 h');
    insert into app_jobs.jobs (task_identifier, slot, key, locked_by, locked_at, lease_expires_at) values
    ('t', -1, 'e1', 'w', now(), now()), ('t', -1, 'e2', 'w', now(), now() + interval '1 h');
    perform app_jobs.close_slot(-1);
end;
$$;
select row_eq(
    'select next_due_at, made_ready, expired from app_jobs.tick()',
    row(now() + interval '1 h', 1, 1),
    'what was due in a closed slot'
);
select results_eq(
    'select kind collate "default", due_at from app_jobs.alarms where slot = -1 order by kind',
    $$values ('lease', now() + interval '1 h'), ('run', now() + interval '1 h')$$,
    'its alarms are set again'
);
update app_jobs.jobs set run_at = now()
where key = 'd2';
update app_jobs.jobs set lease_expires_at = now()
where key = 'e2';
update app_jobs.alarms set due_at = now()
where slot = -1;
select row_eq(
    'select next_due_at, made_ready, expired from app_jobs.tick()', row(null::timestamptz, 1, 1),
    'the rest'
);
select is_empty('select from app_jobs.alarms where slot = -1', 'silent then');

-- many workers share the work
select
from app_jobs.add_job(identifier => 't', job_key => 'shared', run_at => now() + interval '1 h');
update app_jobs.jobs set run_at = now()
where key = 'shared';
do $$
begin
    perform setval('app_jobs.ticked_at', (extract(epoch from clock_timestamp()) * 1000)::bigint - 2000);
end;
$$;
select row_eq(
    $$select made_ready, moved, next_due_at from app_jobs.tick('1 h')$$,
    row(0, 0, now()), 'somebody has ticked within the hour'
);
select is((app_jobs.tick('1 s')).made_ready, 1, 'but not within a second');
update app_jobs.jobs set run_at = now(), line = null
where key = 'shared';
do $$
begin
    perform setval('app_jobs.ticked_at', (extract(epoch from clock_timestamp()) * 1000)::bigint + 9999);
end;
$$;
select is((app_jobs.tick('1 h')).made_ready, 1, 'nor if it was in the future');

-- queues that stand still, in a closed slot: they take turns
do $$
begin
    delete from app_jobs.jobs;
    insert into app_jobs.jobs (task_identifier, queue_name, slot, line)
    select t.task, q.name, -1, ':' || q.name
    from generate_series(1, 9) as q(name) cross join unnest(array['t', 'u']) as t(task);
    perform app_jobs.close_slot(-1);
end;
$$;
create function pg_temp.standing() returns bigint
language sql
as $$
    select count(distinct j.queue_name) from app_jobs.jobs as j
    where not exists (
        select from app_jobs.jobs as r where r.queue_name = j.queue_name and r.line = ''
    )
$$;
select is(app_jobs.move_queues(4), 4, 'two queues at a time');
select is(pg_temp.standing(), 7::bigint, 'the others wait');
select from app_jobs.move_queues(4);
select isnt(pg_temp.standing(), 7::bigint, 'for the next time');
do $$
begin
    for i in 1..7 loop
        perform app_jobs.move_queues(4);
    end loop;
end;
$$;
select is(pg_temp.standing(), 0::bigint, 'until all have had their turn');
select is(app_jobs.move_queues(1), 0, 'then it begins anew');
update app_jobs.jobs set line = ':' || queue_name, slot = -1;
select app_jobs.close_slot(-1);
do $$
begin
    for i in 1..19 loop
        perform app_jobs.move_queues(1);
    end loop;
end;
$$;
select is(pg_temp.standing(), 0::bigint, 'one at a time');
-- schedules
delete from app_jobs.jobs;
insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, next_run_at) values
(
    'scheduled', json_build_object('every', '1 h', 'start', now() + interval '30 min'),
    now() - interval '1 s'
);
select is(
    (app_jobs.tick()).next_due_at, now() + interval '30 min', 'when the next schedule is due'
);
select results_eq(
    'select task_identifier from app_jobs.jobs', array['scheduled' collate "C"],
    'this one was due'
);
update app_jobs.scheduled_jobs set next_run_at = now();
delete from app_jobs.jobs;
select is(setval('app_jobs.ticked_at', 0), 0::bigint, 'nobody has kept house for long');
select is(
    (app_jobs.get_job('w')).task_identifier, 'scheduled' collate "C", 'a claim sees to it, too'
);
alter table app_jobs.scheduled_jobs disable trigger scheduled_jobs_place;
update app_jobs.scheduled_jobs set slot = 8005;
alter table app_jobs.scheduled_jobs enable trigger scheduled_jobs_place;
select is(app_jobs.sweep(), 1, 'a slot with a schedule that nobody knows is listed');
delete from app_jobs.scheduled_jobs;
delete from app_jobs.jobs;

-- pruning
delete from app_jobs.job_errors;
select is(setval('app_jobs.pruned_to', 0), 0::bigint, 'as after a sweep');
insert into app_jobs.finished_jobs (
    id,
    task_identifier,
    payload,
    attributes,
    priority,
    run_at,
    attempts,
    max_attempts,
    lease,
    created_at,
    state,
    keep_until
)
select
    n,
    't',
    '{}',
    '{}',
    0,
    now(),
    1,
    1,
    1,
    now(),
    'failed',
    now() + n * interval '1 min'
from unnest(array[-2, -1, 1]) as k (n);
insert into app_jobs.job_errors (job_id, lease, attempt) values (-2, 1, 1), (1, 1, 1);
select is((app_jobs.tick()).pruned, 2, 'two are over their time');
select results_eq('select id from app_jobs.finished_jobs', array[1::bigint], 'one stays');
select results_eq('select job_id from app_jobs.job_errors', array[1::bigint], 'with its errors');
select is((app_jobs.tick()).pruned, 0, 'nothing more');

-- workers that are gone are forgotten, and the count of idle ones is set right
do $$
begin
    perform app_jobs.register_worker('gone');
    update app_jobs.workers set last_seen_at = clock_timestamp() - interval '6 min';
    perform app_jobs.set_worker_idle('here', true);
    perform setval('app_jobs.went_idle', 77), setval('app_jobs.went_busy', 99), app_jobs.tick();
end;
$$;
select
    results_eq(
        'select worker_id from app_jobs.workers',
        array['here'],
        'a worker is gone after five minutes'
    );
select is(
    pg_sequence_last_value('app_jobs.went_idle') - pg_sequence_last_value('app_jobs.went_busy'),
    1::bigint,
    'one worker is idle'
);
delete from app_jobs.workers;
select isnt(app_jobs.tick(), null, 'no worker at all');
select is(
    pg_sequence_last_value('app_jobs.went_idle') - pg_sequence_last_value('app_jobs.went_busy'),
    0::bigint,
    'none is idle'
);

-- who may call
select is(pg_temp.callers('select app_jobs.tick()'), 'worker operator', 'who may tick');
select is(pg_temp.callers('select app_jobs.sweep()'), 'operator', 'who may sweep');
select is(pg_temp.callers('select app_jobs.keep_house(1)'), '', 'internal');

select finish();
rollback;
