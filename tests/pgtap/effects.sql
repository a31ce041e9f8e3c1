begin;
\ir include/helpers.sql
select no_plan();

create function pg_temp.claim(worker text, key text default null) returns bigint
language plpgsql
as $$
begin
    perform app_jobs.add_job(identifier => 't', job_key => claim.key, max_attempts => 2);
    return (app_jobs.get_job(claim.worker, array['t'])).id;
end;
$$;
-- "run", or the result of an effect that has happened
create function pg_temp.begun(worker text, id bigint, key text, lease integer default null)
returns text
language sql
as $$
    select case when b.run then 'run' else coalesce(b.result::text, 'null') end
    from app_jobs.begin_once(worker, id, key, lease) as b
$$;
-- the same whatever the time is
create function pg_temp.detail(call text) returns text
language plpgsql
as $$
declare
    v_detail text;
begin
    execute call;
exception when others then
    get stacked diagnostics v_detail = pg_exception_detail;
    return regexp_replace(v_detail, ' at .*,', ' at …,');
end;
$$;
create function pg_temp.hint(call text) returns text
language plpgsql
as $$
declare
    v_hint text;
begin
    execute call;
exception when others then
    get stacked diagnostics v_hint = pg_exception_hint;
    return v_hint;
end;
$$;

-- once
select pg_temp.claim('w') as id \gset
select is(pg_temp.begun('w', :id, 'email'), 'run', 'the first call: perform it');
select is((
    select has_effects from app_jobs.jobs
    where id = :id
), true, 'the job is marked');
select lives_ok(
    format($$select app_jobs.finish_once('w', %s, 'email', '{"no":  7}')$$, :id), 'it has happened'
);
select is(pg_temp.begun('w', :id, 'email'), '{"no":  7}', 'then: the result, byte for byte');
select lives_ok(
    format($$select app_jobs.finish_once('w', %s, 'email', '8', 1)$$, :id),
    'it may be said twice'
);
select is(pg_temp.begun('w', :id, 'email'), '{"no":  7}', 'which changes nothing');
select is(pg_temp.begun('w', :id, 'sms', 1), 'run', 'another effect');
select lives_ok(format($$select app_jobs.finish_once('w', %s, 'sms')$$, :id), 'without a result');
select is(pg_temp.begun('w', :id, 'sms'), 'null', 'is answered with null');

-- the next attempt, by another worker
select from app_jobs.fail_job('w', :id, 'no', retry_in => '0');
select lease from app_jobs.get_job('v') \gset
select is(:lease, 2, 'the job is claimed again');
select is(pg_temp.begun('v', :id, 'email'), '{"no":  7}', 'what has happened is not repeated');

-- the fence
select pg_temp.refuses(format('select app_jobs.begin_once(%s)', arguments), 'JQ002', message)
from (
    values
    (format('%L, %s, %L', 'w', :id, 'x'), format('job %s is not held by worker "w"', :id)),
    (
        format('%L, %s, %L, 1', 'v', :id, 'x'),
        format('job %s is not held by worker "v" under lease 1', :id)
    )
) as c (arguments, message);
select is(
    pg_temp.detail(format('select app_jobs.begin_once(''w'', %s, ''x'')', :id)),
    'It is held by worker "v".',
    'who holds it is told'
);
select from app_jobs.snooze_job('v', :id, '0');
select is(
    pg_temp.detail(format('select app_jobs.begin_once(''w'', %s, ''x'')', :id)),
    'It is held by nobody.',
    'or that nobody does'
);
select pg_temp.refuses(
    'select app_jobs.begin_once(''w'', 0, ''x'')', 'JQ001', 'there is no live job 0'
);
select is_empty('select from app_jobs.effects where effect_key = ''x''', 'nothing is noted');

-- in doubt
select lease from app_jobs.get_job('v') \gset
select is(pg_temp.begun('v', :id, 'fax'), 'run', 'begun');
select pg_temp.refuses(
    format('select app_jobs.begin_once(''v'', %s, ''fax'')', :id),
    'JQ003',
    format('effect "fax" of job %s was begun and never finished', :id)
);
select is(
    pg_temp.detail(format('select app_jobs.begin_once(''v'', %s, ''fax'')', :id)),
    'Worker "v" began it at …, under lease 3.',
    'by whom and when is told'
);
select matches(
    pg_temp.hint(format('select app_jobs.begin_once(''v'', %s, ''fax'')', :id)),
    format(
        $$app_jobs\.forget_once\(%s, 'fax'\);.* app_jobs\.finish_once\('v', %1$s, 'fax'\)$$,
        :id
    ),
    'and what to do'
);
select pg_temp.refuses(format('select app_jobs.finish_once(%s)', arguments), 'JQ002', message)
from (
    values
    (
        format('%L, %s, %L', 'w', :id, 'fax'),
        format('effect "fax" of job %s was not begun by worker "w"', :id)
    ),
    (
        format('%L, %s, %L, null, 2', 'v', :id, 'fax'),
        format('effect "fax" of job %s was not begun by worker "v" under lease 2', :id)
    ),
    (
        format('%L, %s, %L', 'v', :id, 'x'),
        format('effect "x" of job %s was not begun by worker "v"', :id)
    )
) as c (arguments, message);
select pg_temp.refuses(
    'select app_jobs.finish_once(''w'', 0, ''x'')', 'JQ001', 'there is no live job 0'
);
select is(app_jobs.forget_once(:id, 'fax', 2), false, 'forgotten under its own lease alone');
select is(app_jobs.forget_once(:id, 'fax', 3), true, 'so');
select is(app_jobs.forget_once(:id, 'fax'), false, 'it is gone');
select is(pg_temp.begun('v', :id, 'fax'), 'run', 'and may be performed again');
select is(app_jobs.forget_once(:id, 'sms'), true, 'one that has happened can be forgotten, too');

-- who began an effect knows that it happened, though the job was taken over, and has failed since
update app_jobs.jobs set lease_expires_at = now() - interval '1 s'
where id = :id;
select from app_jobs.tick();
select is_empty(
    format('select from app_jobs.jobs where id = %s', :id), 'its last attempt has expired'
);
select lives_ok(
    format($$select app_jobs.finish_once('v', %s, 'fax', '"sent"', 3)$$, :id), 'it was sent'
);
select set_eq(
    format('select effect_key collate "default" from app_jobs.effects where job_id = %s', :id),
    array['email', 'fax'],
    'a dead letter keeps its effects'
);

-- a dead letter that is back at work without the mark gets it, so that its effects go with it
insert into app_jobs.jobs (id, task_identifier, slot, line, lease)
overriding system value
select
    id,
    task_identifier,
    pg_sequence_last_value('app_jobs.slot_current'),
    '',
    lease
from app_jobs.finished_jobs
where id = :id;
delete from app_jobs.finished_jobs
where id = :id;
select from app_jobs.get_job('u');
select is(pg_temp.begun('u', :id, 'fax'), '"sent"', 'it is not sent again');
select from app_jobs.complete_job('u', :id);
select is_empty('select from app_jobs.effects', 'they end with it');

-- effects go with their job, whichever way it goes
create function pg_temp.left_after(how text) returns integer
language plpgsql
as $$
declare
    v_id bigint;
begin
    delete from app_jobs.jobs;
    delete from app_jobs.finished_jobs;
    delete from app_jobs.effects;
    delete from app_jobs.tasks;
    v_id := pg_temp.claim('w', 'k');
    perform app_jobs.begin_once('w', v_id, 'e');
    case how
        when 'complete' then perform app_jobs.complete_job('w', v_id);
        when 'complete, keep' then
            insert into app_jobs.tasks (task_identifier, keep_completed) values ('t', '1 h');
            perform app_jobs.complete_job('w', v_id);
        when 'fail' then perform app_jobs.fail_job('w', v_id, permanent => true);
        when 'fail, do not keep' then
            insert into app_jobs.tasks (task_identifier, keep_failed) values ('t', '0');
            perform app_jobs.fail_job('w', v_id, permanent => true);
        when 'prune' then
            perform app_jobs.fail_job('w', v_id, permanent => true);
            update app_jobs.finished_jobs set keep_until = now() - interval '1 s';
            perform app_jobs.tick();
        when 'replace' then
            perform app_jobs.snooze_job('w', v_id, '0');
            perform app_jobs.add_job(identifier => 't', job_key => 'k', payload => '{"a": 1}');
        when 'replace with the same' then
            perform app_jobs.snooze_job('w', v_id, '0');
            perform app_jobs.add_job(
                identifier => 't', job_key => 'k', max_attempts => 2,
                job_key_mode => 'preserve_run_at'
            );
        when 'snooze' then perform app_jobs.snooze_job('w', v_id, '0');
        when 'keep' then
            perform app_jobs.snooze_job('w', v_id, '0');
            perform app_jobs.add_job(identifier => 't', job_key => 'k', job_key_mode => 'keep');
    end case;
    return count(*) from app_jobs.effects;
end;
$$;
select is(pg_temp.left_after(how), effects, how)
from (
    values
    ('complete', 0),
    ('complete, keep', 1),
    ('fail', 1),
    ('fail, do not keep', 0),
    ('prune', 0),
    ('replace', 0),
    ('replace with the same', 0),
    ('snooze', 1),
    ('keep', 1)
) as c (how, effects);
select pg_temp.left_after('replace');
select is((app_jobs.find_job('k')).has_effects, false, 'a replaced job has none');

-- hold_job()
delete from app_jobs.jobs;
select pg_temp.claim('w') as id \gset
select is(app_jobs.hold_job('w', :id), true, 'held');
select is(app_jobs.hold_job('w', :id, 1), true, 'under this lease');
select is(app_jobs.hold_job('w', :id, 2), false, 'not under another');
select is(app_jobs.hold_job('v', :id), false, 'nor by another');
select is(app_jobs.hold_job('w', 0), false, 'nor an unknown one');
select is(
    current_setting('idle_in_transaction_session_timeout'), '4h',
    'a transaction that is silent for a lease ends'
);
set local idle_in_transaction_session_timeout = '2s';
select from app_jobs.hold_job('w', :id);
select is(
    current_setting('idle_in_transaction_session_timeout'), '2s', 'or sooner, as the caller has it'
);
set local idle_in_transaction_session_timeout = '1d';
update app_jobs.jobs set lease_length = '1500ms'
where id = :id;
select from app_jobs.hold_job('w', :id);
select is(
    current_setting('idle_in_transaction_session_timeout'), '1500ms', 'but never later'
);

-- what cannot be stored
select throws_ok(
    $$insert into app_jobs.effects (job_id, effect_key, lease, worker_id, result)
    values (1, 'e', 1, 'w', '1')$$,
    '23514', null, 'a result of what has not happened'
);

-- bad input, and who may call
select pg_temp.refuses(format('select app_jobs.%s', call), state, message)
from (
    values
    ('hold_job(null, 1)', '22004', 'worker_id is null'),
    ('hold_job('''', 1)', '22023', 'worker_id has 0 characters: ""'),
    ('hold_job(''w'', null)', '22004', 'job_id is null'),
    ('begin_once(null, 1, ''e'')', '22004', 'worker_id is null'),
    ('begin_once(''w'', null, ''e'')', '22004', 'job_id is null'),
    ('begin_once(''w'', 1, null)', '22004', 'effect_key is null'),
    ('begin_once(''w'', 1, '''')', '22023', 'effect_key has 0 characters: ""'),
    ('finish_once(null, 1, ''e'')', '22004', 'worker_id is null'),
    ('finish_once(''w'', null, ''e'')', '22004', 'job_id is null'),
    ('finish_once(''w'', 1, null)', '22004', 'effect_key is null'),
    ('forget_once(null, ''e'')', '22004', 'job_id is null'),
    ('forget_once(1, null)', '22004', 'effect_key is null'),
    ('forget_once(1, '''')', '22023', 'effect_key has 0 characters: ""')
) as c (call, state, message);
select is(pg_temp.callers(format('select app_jobs.%s', call)), 'worker operator', call)
from (
    values
    ('hold_job(''w'', 1)'),
    ('begin_once(''w'', 1, ''e'')'),
    ('finish_once(''w'', 1, ''e'')'),
    ('forget_once(1, ''e'')')
) as c (call);

select finish();
rollback;
