-- A transaction that has notified cannot be prepared: that this one can shows the setting at work.
begin;
do $$
begin
    -- its turn, as in include/helpers.sql
    perform pg_advisory_xact_lock(hashtextextended('app_jobs tests', 0));
    perform set_config('app_jobs.notify', 'off', true);
    perform app_jobs.set_worker_idle('idler', true);
    perform app_jobs.add_job(identifier => 't');
    perform app_jobs.add_jobs('t', array['{}', '{}']::json[]);
end;
$$;
prepare transaction 'app_jobs_silent'; -- noqa: PRS
rollback prepared 'app_jobs_silent'; -- noqa: PRS

begin;
\ir include/helpers.sql
select no_plan();

select pass('app_jobs.notify = off: no notification in a transaction to be prepared');

-- register_worker
select row_eq(
    $$select worker_id, host, pid, task_identifiers, idle, running
    from app_jobs.register_worker('w', 'host', 42, '{a,b}')$$,
    row('w'::text, 'host'::text, 42, '{a,b}'::text[], false, 0),
    'a worker registers'
);
update app_jobs.workers set running = 7, started_at = '2000-01-01', last_seen_at = '2000-01-01';
select row_eq(
    $$select host, pid, task_identifiers, running, started_at > '2001-01-01', last_seen_at > '2001-01-01'
    from app_jobs.register_worker('w')$$,
    row(null::text, null::integer, null::text[], 0, true, true),
    'another process under its name starts anew'
);

-- set_worker_idle
create function pg_temp.idle() returns bigint
language sql
as $$
    select pg_sequence_last_value('app_jobs.went_idle') - pg_sequence_last_value('app_jobs.went_busy')
$$;
select is(setval('app_jobs.went_idle', 5), setval('app_jobs.went_busy', 5), 'nobody is idle');
select is((select idle from app_jobs.workers), false, 'busy at first');
select lives_ok($$select app_jobs.set_worker_idle('w', true)$$, 'it goes idle');
select is((select idle from app_jobs.workers), true, 'idle');
select is(pg_temp.idle(), 1::bigint, 'one is');
select lives_ok($$select app_jobs.set_worker_idle('w', true)$$, 'it says so again');
select is(pg_temp.idle(), 1::bigint, 'still one');
select lives_ok($$select app_jobs.set_worker_idle('w', false)$$, 'it goes busy');
select is((select idle from app_jobs.workers), false, 'busy');
select is(pg_temp.idle(), 0::bigint, 'nobody is idle');
select lives_ok($$select app_jobs.set_worker_idle('new', true)$$, 'an unknown worker goes idle');
select is((select idle from app_jobs.workers where worker_id = 'new'), true, 'and is known then');

-- idle_peers: of the same tasks, seen of late
delete from app_jobs.workers;
insert into app_jobs.workers (worker_id, task_identifiers, idle, last_seen_at)
values
('w', '{a,b}', true, clock_timestamp()),
('same tasks', '{a,b}', true, clock_timestamp() - interval '30 seconds'),
('busy', '{a,b}', false, clock_timestamp()),
('gone', '{a,b}', true, clock_timestamp() - interval '2 minutes'),
('other tasks', '{a}', true, clock_timestamp()),
('all tasks', null, true, clock_timestamp());
select is(app_jobs.idle_peers('w'), 2, 'it and another wait for the same tasks');
select is(app_jobs.idle_peers('busy'), 2, 'two wait for what a busy one does');
select is(app_jobs.idle_peers('all tasks'), 1, 'one that serves all tasks has no peer');
select is(app_jobs.idle_peers('nobody'), 0, 'an unknown worker has none');

-- bad input, and who may call
select pg_temp.refuses('select app_jobs.register_worker(null)', '22004', 'worker_id is null');
select pg_temp.refuses(
    'select app_jobs.register_worker('''')', '22023', 'worker_id has 0 characters: ""'
);
select pg_temp.refuses('select app_jobs.set_worker_idle(null, true)', '22004', 'worker_id is null');
select pg_temp.refuses('select app_jobs.set_worker_idle(''w'', null)', '22004', 'idle is null');
select pg_temp.refuses('select app_jobs.idle_peers(null)', '22004', 'worker_id is null');
select is(
    pg_temp.callers($$select app_jobs.register_worker('w')$$), 'worker operator', 'who may register'
);
select is(
    pg_temp.callers($$select app_jobs.set_worker_idle('w', true)$$), 'worker operator',
    'who may go idle'
);
select is(
    pg_temp.callers($$select app_jobs.idle_peers('w')$$), 'worker operator',
    'who may ask for idle peers'
);

select finish();
rollback;
