begin;
\ir include/helpers.sql
select no_plan();

\set tenant '''00000000-0000-0000-0000-00000000000a'''
set local timezone = 'UTC';
-- of the job under a key: the sentence, with digits of ids and times left out
create function pg_temp.said(job_key text) returns text
language sql
as $$
    select regexp_replace(
        regexp_replace(e.said, '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC', 'T', 'g'), j.id::text, 'N', 'g'
    )
    from app_jobs.jobs as j
    cross join lateral app_jobs.explain_job(j.id) as e(said)
    where j.key = said.job_key
$$;
create function pg_temp.add(job_key text, queue_name text default null) returns void
language sql
as $$
    select from app_jobs.add_job(identifier => 't', job_key => job_key, queue_name => queue_name)
$$;

select pg_temp.refuses('select app_jobs.explain_job(null)', '22004', 'job_id is null');
select is(
    app_jobs.explain_job(-1),
    'There is no job -1: it was never added or not yet committed, or it is finished and not kept '
    'any more; tasks.keep_completed and keep_failed say how long jobs are kept.',
    'nothing is known of it'
);

-- ready
select pg_temp.add('ready');
select is(
    pg_temp.said('ready'),
    'Job N is ready since T, but no live worker is known to serve task "t": start one (workers '
    'are known by heartbeat() or register_worker()).',
    'nobody serves the task'
);
do $$
begin
    perform app_jobs.register_worker('other', task_identifiers => array['other']);
    perform app_jobs.register_worker('gone', task_identifiers => array['t']);
    update app_jobs.workers set last_seen_at = now() - interval '6 min' where worker_id = 'gone';
end;
$$;
select alike(
    pg_temp.said('ready'), '%but no live worker is known to serve task "t"%',
    'one that serves another task, and one that is gone, do not count'
);
do $$
begin
    perform app_jobs.register_worker('all'), app_jobs.register_worker('t', null, null, array['t']),
        app_jobs.set_worker_idle('t', true);
end;
$$;
select is(
    pg_temp.said('ready'),
    'Job N is ready since T, but 2 live workers serve task "t", 1 of them idle, and about 1 of its '
    'jobs are ready, this one with priority 0: wait, start more workers, or call '
    'app_jobs.reschedule_jobs(array[N], priority => -1).',
    'somebody does'
);
insert into app_jobs.tasks (task_identifier, paused) values ('t', true);
select is(
    pg_temp.said('ready'),
    'Job N is ready since T, but its task is paused: call app_jobs.resume_task(''t'').',
    'the task is paused'
);
update app_jobs.tasks set paused = false;

-- running
do $$
begin
    perform app_jobs.get_job('w', job_expiry => '1 h');
end;
$$;
select is(
    pg_temp.said('ready'),
    'Job N is running, attempt 1 of 25: worker "w" holds it since T until T and may renew that by '
    'heartbeat().',
    'it runs'
);
update app_jobs.jobs set cancel_reason = 'enough';
select alike(
    pg_temp.said('ready'), '%until T, and is to cancel it: its next heartbeat() says so.',
    'it is to be cancelled'
);
update app_jobs.jobs set lease_expires_at = now();
select matches(
    pg_temp.said('ready'),
    '^Job N was held by worker "w" until its lease ended at T: the next app_jobs.tick\(\) takes it '
    'back; the last one was [\d.]+ (s|min|h|days) ago.$',
    'the lease is over'
);
update app_jobs.jobs set lease_expires_at = null;
select is(
    pg_temp.said('ready'),
    'Job N is processing since T, with no lease that could end: whoever works on it calls '
    'app_jobs.move_job_to_done(N) or app_jobs.move_job_to_failed(N).',
    'it has no lease'
);
delete from app_jobs.jobs;

-- scheduled
do $$
begin
    perform pg_temp.add('later');
    perform app_jobs.fail_job('w', j.id, E'no route\nto host', retry_in => '10 min')
    from app_jobs.get_jobs('w') as j;
end;
$$;
select is(
    pg_temp.said('later'),
    'Job N is scheduled for T, in 10 min, after attempt 1 of 25, which failed with "no route": '
    'wait, or call app_jobs.reschedule_jobs(array[N], run_at => now()).',
    'it waits for its retry'
);
update app_jobs.jobs set run_at = now() - interval '3 days', attempts = 0;
select is(
    pg_temp.said('later'),
    'Job N is scheduled for T, 3 days ago: the next app_jobs.get_jobs() or app_jobs.tick() makes '
    'it ready.',
    'it is due'
);
delete from app_jobs.jobs;

-- parked
do $$
begin
    perform pg_temp.add('first', 'a'), pg_temp.add('second', 'a');
    perform app_jobs.get_jobs('w', null, '1 h', 9);
end;
$$;
select is(
    replace(pg_temp.said('second'), (app_jobs.find_job('first')).id::text, 'M'),
    'Job N is parked since T, but queue "a" runs 1 at a time, now job M, which worker "w" holds '
    'until T: wait, or call app_jobs.set_queue_limit(''a'', 2).',
    'it stands behind a running job'
);
select pg_temp.add('third', 'a');
select alike(
    pg_temp.said('third'), 'Job N is ready since T, but queue "a" runs 1 at a time, now job%',
    'so does one that no claim has met'
);
insert into app_jobs.queue_settings (line, queue_name, max_running) values (':a', 'a', 2);
select is(
    pg_temp.said('second'),
    'Job N is parked since T, but others of its queue went first: the next app_jobs.tick() lets '
    'the queue move.',
    'a seat is free'
);
do $$
begin
    perform app_jobs.tick();
    perform app_jobs.get_jobs('w', null, '1 h', 9);
    update app_jobs.jobs set lease_expires_at = null where key = 'first';
end;
$$;
select is(
    replace(pg_temp.said('third'), (app_jobs.find_job('first')).id::text, 'M'),
    'Job N is parked since T, but queue "a" runs 2 at a time, now job M, which worker "w" holds '
    'without an end, and 1 more: wait, or call app_jobs.set_queue_limit(''a'', 3).',
    'two run'
);
update app_jobs.queue_settings set paused = true;
select alike(
    pg_temp.said('third'),
    'Job N is parked since T, but its queue "a" is paused: call app_jobs.resume_queue(''a'').',
    'the queue is paused'
);
insert into app_jobs.queue_settings (line, database_id, queue_name, paused) values (
    '00000000-0000-0000-0000-00000000000a:b''', :tenant, 'b''', true
);
select from app_jobs.add_job(:tenant, 't', job_key => 'tenant', queue_name => 'b''');
select alike(
    pg_temp.said('tenant'),
    format('%% is paused: call app_jobs.resume_queue(%L, %L).', 'b''', :tenant),
    'names are quoted, the tenant is given'
);
delete from app_jobs.jobs;

-- finished
do $$
begin
    perform pg_temp.add('failed');
    perform app_jobs.fail_job('w', j.id, E'no route\nto host', permanent => true)
    from app_jobs.get_jobs('w') as j;
    perform pg_temp.add('cancelled'), app_jobs.cancel_job('cancelled', reason => 'too late');
    update app_jobs.tasks set keep_completed = '1 day';
    perform pg_temp.add('completed');
    perform app_jobs.complete_job('w', j.id) from app_jobs.get_jobs('w') as j;
end;
$$;
create function pg_temp.ended(job_key text) returns text
language sql
as $$
    select regexp_replace(
        regexp_replace(e.said, '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC', 'T', 'g'), f.id::text, 'N', 'g'
    )
    from app_jobs.finished_jobs as f
    cross join lateral app_jobs.explain_job(f.id) as e(said)
    where f.key = ended.job_key
$$;
select is(
    pg_temp.ended('failed'),
    'Job N failed for good at T by worker "w", after 1 of 25 attempts, with "no route": call '
    'app_jobs.retry_jobs(array[N]) to try again.',
    'it failed'
);
select is(
    pg_temp.ended('cancelled'),
    'Job N was cancelled at T (too late): call app_jobs.retry_jobs(array[N]) to run it after all.',
    'it was cancelled'
);
select is(
    pg_temp.ended('completed'),
    'Job N was completed at T by worker "w", and is kept until T.',
    'it was completed'
);

select results_eq(
    $$select app_jobs.in_words(s.span)
    from unnest(array['99 s', '-100 s', '99 min', '100 min', '47 h', '72 h']::interval[]) as s(span)$$,
    array['99 s', '2 min', '99 min', '2 h', '47 h', '3 days'],
    'spans in words'
);

-- who may ask
select is(pg_temp.callers('select app_jobs.explain_job(1)'), 'operator monitor', 'who may ask');

select finish();
rollback;
