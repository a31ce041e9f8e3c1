begin;
\ir include/helpers.sql
select no_plan();

\set tenant_a '''00000000-0000-0000-0000-00000000000a'''
\set tenant_b '''00000000-0000-0000-0000-00000000000b'''

-- what a job gets
select row_eq(
    $$select
        database_id, queue_name, task_identifier collate "default", payload::text, attributes, priority, run_at, attempts,
        max_attempts, lease, key, last_error, retry_after, locked_by, locked_at, lease_expires_at
    from app_jobs.add_job(identifier => 't')$$,
    row(
        null::uuid, null::text, 't'::text, '{}'::text, '{}'::jsonb, 0, now(), 0,
        25,
        0,
        null::text,
        null::text,
        null::interval,
        null::text,
        null::timestamptz,
        null::timestamptz
    ),
    'the defaults'
);
select row_eq(
    $$select
        database_id::text, queue_name, task_identifier collate "default", payload::text, attributes, priority, run_at,
        max_attempts, key, retry_after
    from app_jobs.add_job(
        '00000000-0000-0000-0000-00000000000a', 't', '{"b":  1, "a": 2, "b": 3}', 'k', 'q', '2100-01-01', 3, -7,
        'keep', '{"x": [1]}', '1 min'
    )$$,
    row(
        '00000000-0000-0000-0000-00000000000a'::text,
        'q'::text,
        't'::text,
        '{"b":  1, "a": 2, "b": 3}'::text,
        '{"x": [1]}'::jsonb, -7, '2100-01-01'::timestamptz, 3, 'k'::text, interval '1 min'
    ),
    'all arguments, the payload byte for byte'
);
select row_eq(
    $$select payload::text, attributes, priority, run_at, max_attempts
    from app_jobs.add_job(null, 't', null, null, null, null, null, null, null, null, null)$$,
    row('{}'::text, '{}'::jsonb, 0, now(), 25),
    'null means the default'
);
insert into app_jobs.tasks (task_identifier, max_attempts) values ('thrice', 3);
select is(
    (app_jobs.add_job(identifier => 'thrice')).max_attempts, 3, 'max_attempts is the task''s'
);
select is(
    (app_jobs.add_job(identifier => 'thrice', max_attempts => 9)).max_attempts, 9, 'unless given'
);
select lives_ok(
    format(
        'select app_jobs.add_job(identifier => %L, job_key => %L)',
        repeat('ü', 126),
        repeat('ü', 512)
    ),
    'the longest names'
);
select is(
    length(
        (
            app_jobs.add_job(identifier => 't', payload => to_json(repeat('x', 2000000)))
        ).payload::text
    ),
    2000002, 'a payload of two megabytes'
);
delete from app_jobs.jobs;

-- A job under a key, and a second add_job() in each mode. The first one waits, was tried, runs, or
-- has ended.
create function pg_temp.second(mode text, first text) returns text
language plpgsql
as $$
declare
    v_first app_jobs.jobs;
    v_second app_jobs.jobs;
    v_place tid;
begin
    delete from app_jobs.jobs;
    delete from app_jobs.finished_jobs;
    delete from app_jobs.tasks;
    insert into app_jobs.tasks (task_identifier, keep_completed) values ('t', '1 h');
    if second.first <> 'none' then
        v_first := app_jobs.add_job(
            identifier => 't', payload => '1', job_key => 'k', run_at => now() - interval '1 min'
        );
        if second.first <> 'waiting' then
            perform app_jobs.get_job('w');
        end if;
        case second.first
            when 'tried' then perform app_jobs.fail_job('w', v_first.id, 'no', retry_in => '1 h');
            when 'completed' then perform app_jobs.complete_job('w', v_first.id);
            when 'failed' then perform app_jobs.fail_job('w', v_first.id, permanent => true);
            else null;
        end case;
    end if;
    select j.* into v_first from app_jobs.jobs as j;
    v_second := app_jobs.add_job(
        identifier => 't2', payload => '2', job_key => 'k', priority => 3, run_at => '2100-01-01',
        job_key_mode => second.mode
    );
    return concat_ws(
        ' ',
        case
            when v_second.id = v_first.id then 'same'
            when not exists (select from app_jobs.jobs as j where j.id = v_second.id) then 'finished'
            else 'new'
        end,
        v_second.task_identifier, v_second.payload, v_second.priority,
        case v_second.run_at
            when '2100-01-01' then 'its'
            when now() - interval '1 min' then 'old'
            else 'retry'
        end,
        v_second.attempts, coalesce(v_second.last_error, '-'), v_second.key
    );
end;
$$;
select is(pg_temp.second(mode, first), outcome, format('%s: %s', mode, first))
from (
    values
    ('replace', 'none', 'new t2 2 3 its 0 - k'),
    ('replace', 'waiting', 'same t2 2 3 its 0 - k'),
    ('replace', 'tried', 'same t2 2 3 its 0 - k'),
    ('replace', 'running', 'new t2 2 3 its 0 - k'),
    ('replace', 'completed', 'new t2 2 3 its 0 - k'),
    ('replace', 'failed', 'new t2 2 3 its 0 - k'),
    ('preserve_run_at', 'none', 'new t2 2 3 its 0 - k'),
    ('preserve_run_at', 'waiting', 'same t2 2 3 old 0 - k'),
    ('preserve_run_at', 'tried', 'same t2 2 3 retry 0 - k'),
    ('preserve_run_at', 'running', 'new t2 2 3 its 0 - k'),
    ('preserve_run_at', 'completed', 'new t2 2 3 its 0 - k'),
    ('keep', 'none', 'new t2 2 3 its 0 - k'),
    ('keep', 'waiting', 'same t 1 0 old 0 - k'),
    ('keep', 'tried', 'same t 1 0 retry 1 no k'),
    ('keep', 'running', 'same t 1 0 old 1 - k'),
    ('keep', 'completed', 'new t2 2 3 its 0 - k'),
    ('once', 'none', 'new t2 2 3 its 0 - k'),
    ('once', 'waiting', 'same t 1 0 old 0 - k'),
    ('once', 'tried', 'same t 1 0 retry 1 no k'),
    ('once', 'running', 'same t 1 0 old 1 - k'),
    ('once', 'completed', 'finished t 1 0 old 1 - k'),
    ('once', 'failed', 'finished t 1 0 old 1 - k')
) as c (mode, first, outcome);

-- a replaced running job gives up its key and goes on
select is(
    pg_temp.second('replace', 'running'), 'new t2 2 3 its 0 - k', 'a running job is replaced'
);
select row_eq(
    $$select key, locked_by, payload::text from app_jobs.jobs where task_identifier = 't'$$,
    row(null::text, 'w'::text, '1'::text), 'it runs on, without the key'
);
-- a replaced job keeps its lease number
select is(pg_temp.second('replace', 'tried'), 'same t2 2 3 its 0 - k', 'a tried job is replaced');
select is((app_jobs.find_job('k')).lease, 1, 'its fence stays');

-- a replace that changes nothing writes nothing
delete from app_jobs.jobs;
create function pg_temp.add_again(mode text) returns void
language sql
as $$
    select from app_jobs.add_job(
        identifier => 't', payload => '{"a": 1}', job_key => 'same', queue_name => 'q', run_at => '2100-01-01',
        max_attempts => 5, priority => 2, job_key_mode => mode, attributes => '{"b": 2}', retry_after => '1 min'
    )
$$;
do $$
begin
    perform pg_temp.add_again('replace');
end;
$$;
create temporary table before on commit drop as select
    ctid as place,
    updated_at
from app_jobs.jobs;
do $$
begin
    perform pg_temp.add_again(mode)
    from unnest(array['replace', 'preserve_run_at', 'keep', 'once']) as m(mode);
end;
$$;
select
    results_eq(
        'select ctid, updated_at from app_jobs.jobs', 'select * from before', 'nothing is written'
    );
select
from
    app_jobs.add_job(
        identifier => 't', job_key => 'same', payload => '{"a":1}', run_at => '2100-01-01'
    );
select results_ne('select ctid from app_jobs.jobs', 'select place from before', 'a change is');

-- keys belong to tenants
delete from app_jobs.jobs;
select from app_jobs.add_job(:tenant_a, 't', '1', 'k');
select from app_jobs.add_job(:tenant_b, 't', '2', 'k');
select from app_jobs.add_job(identifier => 't', payload => '0', job_key => 'k');
select from app_jobs.add_job(:tenant_b, 't', '3', 'k');
select from app_jobs.add_job(identifier => 't', payload => '4', job_key => 'k');
select is((select count(*) from app_jobs.jobs), 3::bigint, 'three jobs under one key');
select is((app_jobs.find_job('k')).payload::text, '4', 'without tenant');
select is((app_jobs.find_job('k', :tenant_a)).payload::text, '1', 'one tenant''s');
select is((app_jobs.find_job('k', :tenant_b)).payload::text, '3', 'the other''s');
insert into app_jobs.tasks (task_identifier, keep_completed) values ('once', '1 h')
on conflict do nothing;
select from app_jobs.add_job(:tenant_a, 'once', '1', 'once', job_key_mode => 'once');
select app_jobs.complete_job('w', j.id) from app_jobs.get_job('w', array['once']) as j;
select
    is(
        (app_jobs.add_job(tenant, 'once', '2', 'once', job_key_mode => 'once')).payload::text,
        payload, format('once means once for tenant %s', tenant)
    )
from (
    values (:tenant_a::uuid, '1'), (:tenant_b::uuid, '2'), (null, '2')
) as t (tenant, payload);
select is((app_jobs.find_job('nobody''s')).id, null, 'no such key');

-- a scheduled job does not stand in the ready line; one that is due does
select is(
    (app_jobs.add_job(identifier => 't', run_at => now() + interval '1 h')).line, null, 'later'
);
select is((app_jobs.add_job(identifier => 't', run_at => now() - interval '1 h')).line, '', 'due');

-- bad input
select pg_temp.refuses(format('select app_jobs.add_job(%s)', arguments), state, message)
from (
    values
    ('', '22004', 'identifier is null'),
    ('identifier => ''''', '22023', 'identifier has 0 characters: ""'),
    (
        'identifier => repeat(''t'', 127)', '22023',
        format('identifier has 127 characters: "%s"', repeat('t', 60))
    ),
    (
        'identifier => ''t'', job_key => repeat(''k'', 513)', '22023',
        format('job_key has 513 characters: "%s"', repeat('k', 60))
    ),
    ('identifier => ''t'', job_key => ''''', '22023', 'job_key has 0 characters: ""'),
    ('identifier => ''t'', queue_name => ''''', '22023', 'queue_name has 0 characters: ""'),
    ('identifier => ''t'', max_attempts => 0', '22023', 'max_attempts is 0'),
    ('identifier => ''t'', max_attempts => -1', '22023', 'max_attempts is -1'),
    ('identifier => ''t'', retry_after => ''0''', '22023', 'retry_after is 00:00:00'),
    ('identifier => ''t'', retry_after => ''101 years''', '22023', 'retry_after is 101 years'),
    ('identifier => ''t'', run_at => ''-infinity''', '22023', 'run_at is -infinity'),
    ('identifier => ''t'', job_key_mode => ''upsert''', '22023', 'job_key_mode is "upsert"')
) as c (arguments, state, message);
select throws_ok(
    $$select app_jobs.add_job(identifier => 't', payload => '{"a": }')$$, '22P02', null,
    'a payload that is not JSON'
);
select pg_temp.refuses('select app_jobs.find_job(null)', '22004', 'job_key is null');

-- who may call
select is(pg_temp.callers('select app_jobs.add_job()'), 'producer operator', 'who may add');
select is(pg_temp.callers('select app_jobs.find_job(''k'')'), 'producer operator', 'who may find');
select is(pg_temp.callers('select app_jobs.lock_key_holder(''k'', null)'), '', 'internal');

-- the trace that a setting names
\set trace '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
select set_config('app_jobs.traceparent', :'trace', true);
select
    is(
        array[
            (app_jobs.add_job(identifier => 'a')).attributes,
            (app_jobs.add_job(identifier => 'a', attributes => '{"b": 1}')).attributes,
            (app_jobs.add_job(identifier => 'a', attributes => '{"traceparent": 1}')).attributes,
            (app_jobs.add_job(identifier => 'a', attributes => '[1]')).attributes
        ],
        array[
            jsonb_build_object('traceparent', :'trace'),
            jsonb_build_object('traceparent', :'trace', 'b', 1), '{"traceparent": 1}', '[1]'
        ],
        'the setting app_jobs.traceparent goes into the attributes, unless they have one'
    );
select set_config('app_jobs.traceparent', 'no trace', true);
select is((app_jobs.add_job(identifier => 'a')).attributes, '{}', 'what is none is passed over');

select finish();
rollback;
