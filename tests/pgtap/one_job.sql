begin;
\ir include/helpers.sql
select no_plan();

-- A job in each state that there is; one whose attributes say which.
create function pg_temp.job_in(state text) returns bigint
language plpgsql
as $$
declare
    v_id bigint;
begin
    delete from app_jobs.jobs;
    delete from app_jobs.finished_jobs;
    delete from app_jobs.job_errors;
    if state in ('parked', 'the only seat') then
        perform app_jobs.add_job(identifier => 'first', queue_name => 'q', priority => -1);
        perform app_jobs.get_job('w', job_expiry => '1 h');
    end if;
    v_id := (app_jobs.add_job(
        identifier => 't', attributes => '{"a": 1, "b": {"c": 2}}', job_key => 'k',
        run_at => case job_in.state when 'scheduled' then now() + interval '1 h' end,
        queue_name => case when job_in.state in ('parked', 'seated') then 'q' end
    )).id;
    if state in ('parked', 'active', 'seated', 'marked', 'processing', 'completed', 'failed') then
        perform app_jobs.get_job('w', job_expiry => '1 h');
    end if;
    case state
        when 'marked' then perform app_jobs.cancel_job('k');
        when 'cancelled' then perform app_jobs.cancel_job('k');
        when 'processing' then perform app_jobs.move_job_to_processing(v_id);
        when 'completed' then
            insert into app_jobs.tasks (task_identifier, keep_completed) values ('t', '1 h');
            perform app_jobs.complete_job('w', v_id, result => '{"r":  1}');
            delete from app_jobs.tasks;
        when 'failed' then perform app_jobs.fail_job('w', v_id, 'no', permanent => true);
        when 'unknown' then delete from app_jobs.jobs;
        else null;
    end case;
    return v_id;
end;
$$;
create function pg_temp.state_of(id bigint) returns text
language sql
as $$
    select coalesce(
        (
            select case
                when j.line = '' then 'ready'
                when j.line is not null then 'parked'
                when j.locked_by is null then 'scheduled'
                when j.lease_expires_at is null then 'processing'
                else 'active'
            end
            from app_jobs.jobs as j where j.id = state_of.id
        ),
        (select f.state from app_jobs.finished_jobs as f where f.id = state_of.id),
        'gone'
    )
$$;
-- what a call answers, and in what state it leaves the job
create function pg_temp.after(state text, call text) returns text
language plpgsql
as $$
declare
    v_id bigint := pg_temp.job_in(after.state);
    v_answer boolean;
begin
    execute 'select app_jobs.' || replace(call, '$', v_id::text) into v_answer;
    return v_answer || ' ' || pg_temp.state_of(v_id);
end;
$$;

-- states and functions: answer and state after it
select is(pg_temp.after(state, call), after, format('%s: %s', state, call))
from (
    values
    ('set_attributes($, ''{"x": 1}'')', array[
        'true ready', 'true scheduled', 'true parked', 'true active', 'true active',
        'true processing', 'false completed', 'false failed', 'false cancelled', 'false gone'
    ]),
    ('set_retry_after($, ''1 day'')', array[
        'true ready', 'true scheduled', 'true parked', 'true active', 'true active',
        'true processing', 'false completed', 'false failed', 'false cancelled', 'false gone'
    ]),
    ('set_run_at($, now() - interval ''1 h'')', array[
        'true ready', 'true ready', 'true ready', 'true active', 'true active',
        'false processing', 'false completed', 'false failed', 'false cancelled', 'false gone'
    ]),
    ('set_run_at($, now() + interval ''1 h'')', array[
        'true scheduled', 'true scheduled', 'true scheduled', 'true active', 'true active',
        'false processing', 'false completed', 'false failed', 'false cancelled', 'false gone'
    ]),
    ('move_job_to_processing($)', array[
        'false ready', 'false scheduled', 'false parked', 'true processing', 'false active',
        'true processing', 'false completed', 'false failed', 'false cancelled', 'false gone'
    ]),
    ('move_job_to_done($)', array[
        'true completed', 'true completed', 'true completed', 'true completed', 'true completed',
        'true completed', 'false completed', 'false failed', 'false cancelled', 'false gone'
    ]),
    ('move_job_to_done($, true)', array[
        'true gone', 'true gone', 'true gone', 'true gone', 'true gone',
        'true gone', 'false completed', 'false failed', 'false cancelled', 'false gone'
    ]),
    ('move_job_to_failed($)', array[
        'true failed', 'true failed', 'true failed', 'true failed', 'true failed',
        'true failed', 'false completed', 'false failed', 'false cancelled', 'false gone'
    ]),
    ('move_job_to_failed($, true)', array[
        'true gone', 'true gone', 'true gone', 'true gone', 'true gone',
        'true gone', 'false completed', 'false failed', 'false cancelled', 'false gone'
    ]),
    ('delete_job($)', array[
        'true gone', 'true gone', 'true gone', 'true gone', 'true gone',
        'true gone', 'true gone', 'true gone', 'true gone', 'false gone'
    ])
) as c (call, afters)
cross join unnest(
    array[
        'ready', 'scheduled', 'parked', 'active', 'marked',
        'processing', 'completed', 'failed', 'cancelled', 'unknown'
    ],
    afters
) as s (state, after);

-- job_details()
create function pg_temp.details_in(state text) returns app_jobs.job_detail
language plpgsql
as $$
declare
    v_id bigint := pg_temp.job_in(details_in.state);
begin
    return app_jobs.job_details(v_id);
end;
$$;
select is((pg_temp.details_in(state)).state, expected, 'details: ' || state)
from (
    values
    ('ready', 'created'), ('scheduled', 'created'), ('parked', 'created'), ('active', 'active'),
    ('processing', 'processing'), ('completed', 'completed'), ('failed', 'failed'),
    ('cancelled', 'cancelled'), ('unknown', null)
) as c (state, expected);
select row_eq(
    $$select
        task_identifier, state, payload::text, attributes, started_at is not null,
        run_at <= started_at, created_at = now(), retry_after, key, priority, attempts,
        max_attempts, lease, locked_by, lease_expires_at > now(), finished_at
    from pg_temp.details_in('active')$$,
    row(
        't'::text, 'active'::text, '{}'::text, '{"a": 1, "b": {"c": 2}}'::jsonb, true,
        true, true, null::interval, 'k'::text, 0, 1, 25, 1, 'w'::text, true, null::timestamptz
    ),
    'details of an active job'
);
select row_eq(
    $$select
        task_identifier, state, payload::text, attributes, started_at is not null, key, attempts,
        lease, locked_by, finished_at >= started_at, finished_by, result::text, last_error
    from pg_temp.details_in('completed')$$,
    row(
        't'::text, 'completed'::text, '{}'::text, '{"a": 1, "b": {"c": 2}}'::jsonb, true, 'k'::text,
        1, 1, null::text, true, 'w'::text, '{"r":  1}'::text, null::text
    ),
    'details of a finished one'
);

-- set_attributes(): merged into the top level
select pg_temp.job_in('active') as id \gset
select app_jobs.set_attributes(:id, '{"b": 3, "x": null}');
select is(
    (app_jobs.job_details(:id)).attributes, '{"a": 1, "b": 3, "x": null}'::jsonb, 'merged'
);

-- set_retry_after(): now, on an active job; and at each further renewal
select pg_temp.job_in('active') as id \gset
select app_jobs.set_retry_after(:id, '1 day');
select
    ok(
        lease_expires_at between now() + interval '1 day' and clock_timestamp() + interval '1 day',
        'the lease is renewed'
    )
from app_jobs.jobs
where id = :id;
select from app_jobs.heartbeat('w', job_expiry => '1 s');
select
    ok(
        lease_expires_at > now() + interval '1 day' and retry_after = '1 day',
        'a heartbeat keeps to it'
    )
from app_jobs.jobs
where id = :id;
-- it may come to stand in a slot that is closed later: then an alarm goes off
select is(slot, pg_sequence_last_value('app_jobs.slot_current')::integer, 'in the current slot')
from app_jobs.jobs
where id = :id;
update app_jobs.jobs set lease_expires_at = now() - interval '1 s'
where id = :id;
select is((app_jobs.tick()).expired, 1, 'and still ends');

-- set_run_at(): of an active job, when it waits again without a delay of its own
select pg_temp.job_in('active') as id \gset
select app_jobs.set_run_at(:id, now() + interval '1 h');
select from app_jobs.release_jobs('w');
select is(pg_temp.state_of(:id), 'scheduled', 'given back, it waits for its time');
select app_jobs.set_run_at(:id, now());
select is((app_jobs.get_job('w')).id, :id::bigint, 'due now, it is claimed');
select pg_temp.job_in('parked') as id \gset
select app_jobs.set_run_at(:id, now());
select is((app_jobs.get_job('v')).id, null, 'a queue stays full');
select is(pg_temp.state_of(:id), 'parked', 'so the job is parked again');

-- processing: left alone by everybody but us, still on its seat
select pg_temp.job_in('seated') as id \gset
select app_jobs.move_job_to_processing(:id);
select is_empty('select app_jobs.release_jobs(''w'')', 'not released');
select results_eq('select app_jobs.heartbeat(''w'')', array[]::bigint[], 'not renewed');
select is((app_jobs.tick()).expired, 0, 'not expired');
select from app_jobs.add_job(identifier => 'next', queue_name => 'q');
select is((app_jobs.get_job('v')).id, null, 'its queue waits');
select app_jobs.move_job_to_done(:id);
select is((app_jobs.get_job('v')).task_identifier, 'next', 'and moves on when it is done');

-- the queue moves on, too, after the other ways to end
select pg_temp.job_in('parked') as id \gset
select is(app_jobs.move_job_to_failed(id), true, 'the first of the queue fails')
from app_jobs.jobs
where task_identifier = 'first';
select is(pg_temp.state_of(:id), 'ready', 'the second is ready');
select pg_temp.job_in('parked') as id \gset
select is(app_jobs.delete_job(id), true, 'the first of the queue is deleted')
from app_jobs.jobs
where task_identifier = 'first';
select is(pg_temp.state_of(:id), 'ready', 'the second is ready, too');

-- what is kept: as long as keep_failed, at least
select pg_temp.job_in('active') as id \gset
select app_jobs.move_job_to_done(:id);
select row_eq(
    format('select state, finished_by, attempts, keep_until - finished_at between
        ''29 days 23:59:59'' and ''30 days'' from app_jobs.finished_jobs where id = %s', :id),
    row('completed'::text, 'w'::text, 1, true),
    'done: thirty days without a row of tasks'
);
create function pg_temp.kept(call text, keep_completed interval, keep_failed interval)
returns interval
language plpgsql
as $$
declare
    v_id bigint := pg_temp.job_in('active');
    v_kept interval;
begin
    delete from app_jobs.tasks;
    insert into app_jobs.tasks (task_identifier, keep_completed, keep_failed)
    values ('t', kept.keep_completed, kept.keep_failed);
    execute 'select app_jobs.' || replace(call, '$', v_id::text);
    delete from app_jobs.tasks;
    select date_trunc('minute', f.keep_until - f.finished_at + interval '1 s') into v_kept
    from app_jobs.finished_jobs as f where f.id = v_id;
    return v_kept;
end;
$$;
select is(pg_temp.kept(call, keep_completed, keep_failed), kept, format('%s: %s', call, kept))
from (
    values
    ('move_job_to_done($)', '0'::interval, '2 days'::interval, '2 days'::interval),
    ('move_job_to_done($)', '3 days', '2 days', '3 days'),
    ('move_job_to_failed($)', '3 days', '2 days', '2 days'),
    ('move_job_to_done($, true)', '3 days', '2 days', null),
    ('move_job_to_failed($, true)', '3 days', '2 days', null),
    ('move_job_to_failed($)', '3 days', '0', null)
) as c (call, keep_completed, keep_failed, kept);

-- delete_job(): errors and effects go with it
select pg_temp.job_in('active') as id \gset
select from app_jobs.begin_once('w', :id, 'e');
select from app_jobs.fail_job('w', :id, 'no', permanent => true);
select app_jobs.delete_job(:id);
select is_empty('select from app_jobs.job_errors', 'errors');
select is_empty('select from app_jobs.effects', 'effects');

-- bad input, and who may call
select pg_temp.refuses(format('select app_jobs.%s', call), state, message)
from (
    values
    ('job_details(null)', '22004', 'job_id is null'),
    ('set_attributes(null, ''{}'')', '22004', 'job_id is null'),
    ('set_attributes(1, null)', '22004', 'attributes is null'),
    ('set_attributes(1, ''[1]'')', '22023', 'attributes is of type array'),
    ('set_retry_after(null, ''1 s'')', '22004', 'job_id is null'),
    ('set_retry_after(1, null)', '22004', 'retry_after is null'),
    ('set_run_at(1, ''infinity'')', '22023', 'run_at is infinity'),
    ('set_retry_after(1, ''101 years'')', '22023', 'retry_after is 101 years'),
    ('set_retry_after(1, ''0'')', '22023', 'retry_after is 00:00:00'),
    ('set_run_at(null, now())', '22004', 'job_id is null'),
    ('set_run_at(1, null)', '22004', 'run_at is null'),
    ('move_job_to_processing(null)', '22004', 'job_id is null'),
    ('move_job_to_done(null)', '22004', 'job_id is null'),
    ('move_job_to_failed(null)', '22004', 'job_id is null'),
    ('delete_job(null)', '22004', 'job_id is null')
) as c (call, state, message);
select is(pg_temp.callers(format('select app_jobs.%s', call)), 'worker operator', call)
from (
    values
    ('job_details(1)'),
    ('set_attributes(1, ''{}'')'),
    ('set_retry_after(1, ''1 s'')'),
    ('set_run_at(1, now())'),
    ('move_job_to_processing(1)'),
    ('move_job_to_done(1)'),
    ('move_job_to_failed(1)'),
    ('delete_job(1)')
) as c (call);

select finish();
rollback;
