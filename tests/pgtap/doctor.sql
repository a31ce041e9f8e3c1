begin;
\ir include/helpers.sql
select no_plan();

-- one test's findings; the rest is what the server of the day is like
create function pg_temp.finds(severity text, finding text, figure text, remedy text) returns text
language sql
as $$
    select is_empty(
        format(
            'select %L, %L, %L, %L except '
            'select d.severity, d.finding, d.figure, d.remedy '
            'from app_jobs.doctor() as d',
            finds.severity, finds.finding, finds.figure, finds.remedy
        ),
        finds.finding
    )
$$;

do $$
begin
    perform app_jobs.tick();
end;
$$;
select row_eq(
    'select severity, finding, figure, remedy from app_jobs.doctor()',
    row('ok'::text, 'nothing found'::text, ''::text, ''::text),
    'all is well'
);

-- jobs
do $$
begin
    perform app_jobs.add_job(identifier => 'old', run_at => now() - interval '6 min');
    perform app_jobs.add_job(identifier => 'older', run_at => now() - interval '3 h');
    perform app_jobs.add_job(identifier => 'paused', run_at => now() - interval '3 h');
    perform app_jobs.add_job(identifier => 'young');
    perform app_jobs.add_job(identifier => 'later', run_at => now() + interval '1 h');
    insert into app_jobs.tasks (task_identifier, paused) values ('paused', true);
end;
$$;
select pg_temp.finds(
    'critical', 'no live worker is known', '4 jobs are ready',
    'start workers; those that are no app-jobs workers are known by heartbeat() or '
    'register_worker()'
);
select pg_temp.finds(
    'warning', 'jobs of task "old" wait', '1 ready, the oldest for 6 min',
    'start more workers; app_jobs.explain_job() tells what keeps one of them'
);
select pg_temp.finds(
    'critical', 'jobs of task "older" wait', '1 ready, the oldest for 3 h',
    'start more workers; app_jobs.explain_job() tells what keeps one of them'
);
select pg_temp.finds(
    'info', 'task "paused" is paused', '1 jobs wait',
    'when it is time: app_jobs.resume_task(''paused'')'
);
select set_eq(
    $$select finding from app_jobs.doctor()$$,
    array[
        'no live worker is known', 'jobs of task "old" wait', 'jobs of task "older" wait',
        'task "paused" is paused'
    ],
    'nothing else: not of paused tasks, young and scheduled jobs'
);
select results_eq(
    'select severity from app_jobs.doctor()',
    array['critical', 'critical', 'warning', 'info'],
    'the worst first'
);
do $$
begin
    perform app_jobs.register_worker('w', task_identifiers => array['older', 'young', 'paused']);
    perform app_jobs.register_worker('gone');
    update app_jobs.workers set last_seen_at = now() - interval '6 min' where worker_id = 'gone';
end;
$$;
select pg_temp.finds(
    'critical', 'no live worker is known to serve task "old"', '1 jobs are ready, 1 live workers',
    'start a worker that serves it'
);
select is(
    (
        select count(*) from app_jobs.doctor() as d
        where d.finding like 'no live worker%'
    ),
    1::bigint, 'other tasks are served'
);
do $$
begin
    perform app_jobs.register_worker('all');
    perform app_jobs.get_jobs('w', array['old', 'older', 'young'], '1 h', 9);
    update app_jobs.jobs set lease_expires_at = now() - interval '2 min' where task_identifier = 'old';
    update app_jobs.jobs set lease_expires_at = now() where task_identifier = 'older';
end;
$$;
select alike(
    (
        select d.figure from app_jobs.doctor() as d
        where d.finding = 'leases are over and nobody has taken the jobs back'
    ),
    '1, the first 2 min ago', 'one lease is over for long'
);
delete from app_jobs.jobs;
insert into app_jobs.queue_settings (line, database_id, queue_name, paused) values
(':a', null, 'a', true),
(
    '00000000-0000-0000-0000-00000000000a:b''',
    '00000000-0000-0000-0000-00000000000a',
    'b''',
    true
);
do $$
begin
    perform app_jobs.add_job(identifier => 't', queue_name => 'a', run_at => now() + interval '1 h');
end;
$$;
select pg_temp.finds(
    'info', 'queue "a" is paused', '1 jobs wait', 'when it is time: app_jobs.resume_queue(''a'')'
);
select pg_temp.finds(
    'info', 'queue "b''" is paused (tenant 00000000-0000-0000-0000-00000000000a)', '0 jobs wait',
    'when it is time: app_jobs.resume_queue(''b'''''', ''00000000-0000-0000-0000-00000000000a'')'
);
do $$
begin
    for n in 1 .. 3 loop
        perform app_jobs.add_job(identifier => 'bad');
        perform app_jobs.fail_job('w', j.id, permanent => true)
        from app_jobs.get_jobs('w', array['bad']) as j;
    end loop;
    update app_jobs.finished_jobs set finished_at = now() - interval '2 h'
    where id = (select f.id from app_jobs.finished_jobs as f order by f.id limit 1);
end;
$$;
select pg_temp.finds(
    'warning', 'jobs of task "bad" have failed for good', '2 within the last hour',
    'app_jobs.finished_jobs.last_error says why; app_jobs.retry_jobs() tries again'
);
select pg_temp.finds(
    'info', 'dead letters are kept', '3',
    'app_jobs.retry_jobs() tries again; tasks.keep_failed says how long they are kept'
);

select from app_jobs.add_scheduled_job(
    identifier => 'nightly', schedule_info => '{"every": "1000 years"}'
);
update app_jobs.scheduled_jobs
set next_run_at = now() - interval '2 h', due_at = now() - interval '2 h';
select pg_temp.finds(
    'warning', 'schedules are behind time', '1, the first for 2 h',
    'call app_jobs.tick(), and see that workers do'
);
update app_jobs.scheduled_jobs set paused = true;
select pg_temp.finds(
    'info', 'schedules are paused: by an operator, or since they cannot be read any more', '1',
    'when they are right: update app_jobs.scheduled_jobs set paused = false where paused'
);

-- slots
select setval('app_jobs.ticked_at', (extract(epoch from now() - interval '5 min') * 1000)::bigint);
select pg_temp.finds(
    'warning', 'nobody keeps house: due jobs, ended leases and queues wait',
    'app_jobs.tick() ran 5 min ago',
    'start a worker, or call app_jobs.tick() about once a second, from pg_cron, say'
);
select setval('app_jobs.ticked_at', 0);
select pg_temp.finds(
    'critical', 'nobody keeps house: due jobs, ended leases and queues wait',
    'app_jobs.tick() has never run',
    'start a worker, or call app_jobs.tick() about once a second, from pg_cron, say'
);
delete from app_jobs.jobs;
select is_empty(
    $$select from app_jobs.doctor() where finding like 'nobody keeps house%'$$,
    'which does no harm if there is no job'
);
insert into app_jobs.open_slots (slot, opened_at) values (-1, now() - interval '7 min');
select pg_temp.finds(
    'warning', 'an open transaction has added or changed jobs: each claim looks there, too',
    'slot -1, open for 7 min; a prepared transaction, or nobody keeps house',
    'see pg_prepared_xacts, and that app_jobs.tick() is called'
);
select pg_advisory_xact_lock_shared(app_jobs.lock_key('slot', '-1'));
select alike(
    (
        select d.figure from app_jobs.doctor() as d
        where d.finding like 'an open transaction has added%'
    ),
    format(
        'slot -1, open for 7 min; session %s of %s, active since 2%%',
        pg_backend_pid(), current_user
    ),
    'whose it is'
);
delete from app_jobs.open_slots;
select pg_temp.finds(
    'critical', 'the current slot is not listed',
    pg_sequence_last_value('app_jobs.slot_current')::text,
    'sequences were not restored with the tables: call app_jobs.sweep()'
);
insert into app_jobs.open_slots (slot)
values (pg_sequence_last_value('app_jobs.slot_current'));

-- tables
alter table app_jobs.jobs set (autovacuum_vacuum_threshold = 50, fillfactor = 70);
alter table app_jobs.jobs reset (autovacuum_vacuum_scale_factor);
alter table app_jobs.streams set (autovacuum_enabled = off);
set local track_counts = off;
select pg_temp.finds(
    'critical', 'autovacuum does not run', 'track_counts = off',
    'set track_counts = on in postgresql.conf'
);
select pg_temp.finds(
    'critical', 'autovacuum leaves table streams out', 'autovacuum_enabled=off',
    'alter table app_jobs.streams reset (autovacuum_enabled)'
);
select is(
    (
        select
            array(
                select unnest(string_to_array(d.figure, ', ')) as option
                order by 1
            )
        from app_jobs.doctor() as d
        where d.finding = 'settings of table jobs differ from those deployed'
    ),
    array[
        'autovacuum_vacuum_threshold=50', 'fillfactor=70',
        'without autovacuum_vacuum_scale_factor=0.01',
        'without autovacuum_vacuum_threshold=5000'
    ],
    'settings that differ'
);

-- rights
grant usage on schema app_jobs to public;
grant execute on function app_jobs.sweep() to public;
grant select on app_jobs.jobs to public;
alter function app_jobs.get_job(text, text[], interval) reset search_path;
alter function app_jobs.version() security invoker;
alter function app_jobs.tick(interval) owner to pg_signal_backend;
select pg_temp.finds(
    'critical', 'the public has a right on schema app_jobs', 'USAGE',
    'revoke all on schema app_jobs from public'
);
select pg_temp.finds(
    'critical', 'the public may call a function', 'app_jobs.sweep()',
    'revoke all on function app_jobs.sweep() from public'
);
select pg_temp.finds(
    'critical', 'the public has a right on a table', 'jobs: SELECT',
    'revoke all on app_jobs.jobs from public'
);
select
    pg_temp.finds(
        'critical',
        'a function that others call has lost its definer''s rights or its path',
        f.name,
        format('alter function %s security definer set search_path = pg_catalog, pg_temp', f.name)
    )
from unnest(array['app_jobs.get_job(text,text[],interval)', 'app_jobs.version()']) as f (name);
select pg_temp.finds(
    'warning', 'a function or table has another owner than the schema', 'app_jobs.tick(interval)',
    format('let %s own it', current_user::regrole)
);

-- an owner who is no superuser sees less, and says so
grant execute on function app_jobs.diagnose_server(interval), app_jobs.at_time(timestamptz),
app_jobs.in_words(interval) to app_jobs_worker;
set local role app_jobs_worker;
create temporary table seen on commit drop as
select
    d.severity,
    d.finding,
    d.figure,
    d.remedy
from app_jobs.diagnose_server('5 min') as d;
reset role;
select row_eq(
    $$select severity, finding, figure, remedy from seen where severity = 'info'$$,
    row(
        'info'::text, 'other users'' sessions are not seen'::text, 'app_jobs_worker'::text,
        'grant pg_read_all_stats to app_jobs_worker'::text
    ),
    'whose sessions are not seen'
);

-- who may ask
select is(pg_temp.callers('select app_jobs.doctor()'), 'operator monitor', 'who may ask');
select is(pg_temp.callers('select app_jobs.diagnose_jobs()'), '', 'internal');

select finish();
rollback;
