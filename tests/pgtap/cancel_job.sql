begin;
\ir include/helpers.sql
select no_plan();

\set tenant '''00000000-0000-0000-0000-00000000000a'''

select is((app_jobs.cancel_job('k')).id, null, 'no live job has the key');

-- waiting
select from app_jobs.add_job(identifier => 't', job_key => 'k', payload => '{"a":  1}');
select from app_jobs.add_job(:tenant, 't', job_key => 'k');
select
    is(
        (app_jobs.cancel_job('k', reason => 'enough')).payload::text,
        '{"a":  1}',
        'a waiting job, as it was'
    );
select row_eq(
    $$select state, last_error, payload::text, attempts, finished_by, started_at
    from app_jobs.finished_jobs$$,
    row('cancelled'::text, 'enough'::text, '{"a":  1}'::text, 0, null::text, null::timestamptz),
    'it is cancelled, with the reason'
);
select isnt(
    (app_jobs.find_job('k', :tenant)).id, null, 'another tenant''s job under this key stays'
);
select is((app_jobs.cancel_job('k', :tenant)).key, 'k', 'until it is cancelled');
select results_eq(
    'select last_error from app_jobs.finished_jobs where database_id is not null',
    array['cancelled'],
    'a reason is not required'
);
select is_empty('select from app_jobs.jobs', 'both are gone');

-- scheduled, and parked
select from app_jobs.add_job(identifier => 't', job_key => 'later', run_at => '2100-01-01');
select is((app_jobs.cancel_job('later')).key, 'later', 'a scheduled job');
select from app_jobs.add_job(identifier => 't', job_key => 'first', queue_name => 'q');
select from app_jobs.add_job(identifier => 't', job_key => 'parked', queue_name => 'q');
select from app_jobs.get_jobs('w', job_limit => 2);
select is((app_jobs.cancel_job('parked')).line, ':q', 'a parked job');

-- running: marked; let_go.sql shows what becomes of it
select is((app_jobs.cancel_job('first', reason => 'stop')).locked_by, 'w', 'a running job');
select is((app_jobs.find_job('first')).cancel_reason, 'stop', 'it is marked');
select is((app_jobs.find_job('first')).locked_by, 'w', 'and runs on');
select is_empty('select app_jobs.heartbeat(''w'')', 'its worker''s heartbeat leaves it out');

-- processing: cancelled at once, and its queue moves on
select from app_jobs.add_job(identifier => 't', job_key => 'next', queue_name => 'q');
select from app_jobs.get_job('w2');
update app_jobs.jobs set lease_expires_at = null, cancel_reason = null
where key = 'first';
select is((app_jobs.cancel_job('first')).key, 'first', 'a processing job');
select is((app_jobs.find_job('first')).id, null, 'is gone');
select is((app_jobs.get_job('w2')).key, 'next', 'and the next one of its queue is ready');

-- ready, on its way to the seat that is free: the next one takes its turn
select from app_jobs.add_job(identifier => 't', job_key => 'third', queue_name => 'q');
select from app_jobs.add_job(identifier => 't', job_key => 'fourth', queue_name => 'q');
select from app_jobs.get_jobs('w2', job_limit => 2);
select from app_jobs.complete_job('w2', (app_jobs.find_job('next')).id);
select is((app_jobs.cancel_job('third')).line, '', 'a ready job');
select is((app_jobs.find_job('fourth')).line, '', 'the one behind it is ready now');

select pg_temp.refuses('select app_jobs.cancel_job(null)', '22004', 'job_key is null');
select is(
    pg_temp.callers('select app_jobs.cancel_job(''k'')'), 'producer operator', 'who may cancel'
);

select finish();
rollback;
