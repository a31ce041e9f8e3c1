begin;
\ir include/helpers.sql
select no_plan();

-- a plain insert is a live schedule
insert into app_jobs.scheduled_jobs (task_identifier, schedule_info) values
('report', '{"every": "1 hour"}');
select row_eq(
    $$select
        database_id, queue_name, task_identifier collate "default", payload::text, attributes,
        priority, max_attempts, key, time_zone, missed, overlap, paused, locked_at, locked_by,
        last_scheduled, last_scheduled_id, next_run_at
    from app_jobs.scheduled_jobs$$,
    row(
        null::uuid, null::text, 'report'::text, '{}'::text, '{}'::jsonb, 0, null::integer,
        null::text, 'UTC'::text, 'once'::text, 'allow'::text, false, null::timestamptz,
        null::text, null::timestamptz, null::bigint,
        app_jobs.next_run_at('{"every": "1 hour"}', clock_timestamp())
    ),
    'task and rule are enough'
);
select row_eq(
    'select due_at, slot from app_jobs.scheduled_jobs',
    row(
        app_jobs.next_run_at('{"every": "1 hour"}', clock_timestamp()),
        pg_sequence_last_value('app_jobs.slot_current')::integer
    ),
    'it stands in the current slot'
);
insert into app_jobs.scheduled_jobs (database_id, task_identifier, schedule_info) values
('11111111-1111-1111-1111-111111111111', 'report', '{"every": "1 hour"}');
select is(
    count(*), 2::bigint, 'the same with a tenant'
) from app_jobs.scheduled_jobs
where next_run_at > now();

-- what is refused, by field and value
select
    pg_temp.refuses(
        format(
            'insert into app_jobs.scheduled_jobs (%s, %s) values (%s, %s)',
            case field when 'task_identifier' then 'schedule_info' else 'task_identifier' end,
            case
                when field in ('task_identifier', 'schedule_info')
                    then field
                else 'schedule_info, ' || field
            end,
            case field when 'task_identifier' then '''{"every": "1 h"}''' else '''t''' end,
            case
                when field in ('task_identifier', 'schedule_info') then given
                else '''{"every": "1 h"}'', ' || given
            end
        ),
        state, message
    )
from (
    values
    ('task_identifier', 'null', '22004', 'task_identifier is null'),
    ('task_identifier', '''''', '22023', 'task_identifier has 0 characters: ""'),
    (
        'task_identifier', 'repeat(''t'', 127)', '22023',
        format('task_identifier has 127 characters: "%s"', repeat('t', 60))
    ),
    ('queue_name', '''''', '22023', 'queue_name has 0 characters: ""'),
    ('key', '''''', '22023', 'key has 0 characters: ""'),
    ('max_attempts', '0', '22023', 'max_attempts is 0'),
    ('next_run_at', '''infinity''', '22023', 'next_run_at is infinity'),
    ('missed', '''none''', '22023', 'missed is "none"'),
    ('overlap', '''none''', '22023', 'overlap is "none"'),
    ('attributes', '''[1]''', '22023', 'attributes is of type array'),
    ('time_zone', 'null', '22004', 'time_zone is null'),
    ('schedule_info', 'null', '22004', 'schedule_info is null')
) as c (field, given, state, message);
select
    throws_ok(
        format(
            'insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, time_zone) '
            'values (''t'', %L, %L)', info, zone
        ),
        '22023', null, format('%s in %s is refused', info, zone)
    )
from (
    values ('{"every": "1 hour"}', 'Europe/Atlantis'), ('{"evry": "1 hour"}', 'UTC')
) as c (info, zone);
select throws_ok(
    $$update app_jobs.scheduled_jobs set schedule_info = '{"evry": "1 hour"}'$$, '22023', null,
    'by an update, too'
);
select is(count(*), 2::bigint, 'nothing of that was stored') from app_jobs.scheduled_jobs;

-- next_run_at follows the rule, and nothing else
delete from app_jobs.scheduled_jobs;
create temporary view schedule as
select
    paused,
    next_run_at,
    due_at,
    slot
from app_jobs.scheduled_jobs;
insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, next_run_at) values
('t', '{"every": "1 hour"}', now() - interval '1 s');
select is(next_run_at, now() - interval '1 s', 'a due time that is given stays') from schedule;
update app_jobs.scheduled_jobs set slot = -7;
select isnt(slot, -7, 'where it stands is ours to say') from schedule;
update app_jobs.scheduled_jobs
set payload = '[]', schedule_info = '{"every": "1 hour"}', time_zone = 'UTC';
select is(next_run_at, now() - interval '1 s', 'the same rule again: the same due time')
from schedule;
update app_jobs.scheduled_jobs set schedule_info = '{"every": "2 hours"}';
select is(
    next_run_at, app_jobs.next_run_at('{"every": "2 hours"}', clock_timestamp()),
    'another rule: another due time'
) from schedule;
update app_jobs.scheduled_jobs set schedule_info = '{"every": "1 hour"}', next_run_at = now();
select is(next_run_at, now(), 'both at once: what is written counts') from schedule;
update app_jobs.scheduled_jobs set paused = true;
select row_eq(
    'select next_run_at, due_at, slot from schedule',
    row(null::timestamptz, null::timestamptz, null::integer), 'paused: no due time'
);
update app_jobs.scheduled_jobs set last_scheduled = now() + interval '1 day', paused = false;
select is(
    next_run_at, app_jobs.next_run_at('{"every": "1 hour"}', now() + interval '1 day'),
    'resumed after the clock was set back: behind the last due time'
) from schedule;
select throws_ok(
    'update app_jobs.scheduled_jobs set next_run_at = null, due_at = now(), locked_by = ''w''',
    '23514', null, 'what makes no sense cannot be stored'
);
update app_jobs.scheduled_jobs
set next_run_at = now(), locked_by = 'w', locked_at = now() - interval '10 s';
select is(due_at, now() + interval '50 s', 'held: looked at when the hold is over') from schedule;
update app_jobs.scheduled_jobs set schedule_info = json_build_object('at', now() - interval '1 s');
select is(next_run_at, null, 'never again') from schedule;

-- a restore into an extension inserts rows as they were, slots included
delete from app_jobs.scheduled_jobs;
insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, next_run_at, due_at, slot)
values ('t', '{"every": "1 hour"}', now(), now(), -7);
select is(slot, -7, 'a slot that is given stays') from schedule;

-- add_scheduled_job
delete from app_jobs.scheduled_jobs;
select row_eq(
    $$select
        database_id, queue_name, task_identifier collate "default", payload::text, attributes,
        priority, max_attempts, key, schedule_info::text, time_zone, missed, overlap
    from app_jobs.add_scheduled_job(
        '11111111-1111-1111-1111-111111111111', 't', '{"n":  1}', '{"every": "1 hour"}', 'k', 'q',
        3, -1, 'Europe/Berlin', 'all', '{"a": 1}', 'skip'
    )$$,
    row(
        '11111111-1111-1111-1111-111111111111'::uuid, 'q'::text, 't'::text, '{"n":  1}'::text,
        '{"a": 1}'::jsonb, -1, 3, 'k'::text, '{"every": "1 hour"}'::text, 'Europe/Berlin'::text,
        'all'::text, 'skip'::text
    ),
    'all arguments'
);
select row_eq(
    $$select payload::text, priority, time_zone, missed, attributes, overlap
    from app_jobs.add_scheduled_job(
        identifier => 't', job_key => 'k', schedule_info => '{"every": "1 hour"}', payload => null,
        priority => null, time_zone => null, missed => null, attributes => null, overlap => null
    )$$,
    row('{}'::text, 0, 'UTC'::text, 'once'::text, '{}'::jsonb, 'allow'::text),
    'nulls mean the defaults; another tenant''s key is another key'
);
select is(count(*), 2::bigint, 'two') from app_jobs.scheduled_jobs;

-- the same again writes nothing; what differs is changed, and the due time only with the rule
update app_jobs.scheduled_jobs set next_run_at = now() - interval '1 s'
where database_id is null;
create temporary table before on commit drop as
select
    ctid as place,
    id,
    next_run_at
from app_jobs.scheduled_jobs
where database_id is null;
select is(s.id, b.id, 'the same again') from before as b, app_jobs.add_scheduled_job(
    identifier => 't', job_key => 'k', schedule_info => '{"every": "1 hour"}'
) as s;
select is(s.ctid, b.place, 'nothing is written')
from app_jobs.scheduled_jobs as s
inner join before as b on s.id = b.id;
select row_eq(
    $$select s.id = b.id, s.payload::text, s.next_run_at = b.next_run_at
    from before as b, app_jobs.add_scheduled_job(
        identifier => 't', job_key => 'k', schedule_info => '{"every": "1 hour"}', payload => '[1]'
    ) as s$$,
    row(true, '[1]'::text, true), 'another payload: the same due time'
);
create function pg_temp.changes(option text) returns boolean
language plpgsql
as $$
declare
    v_before tid := (select ctid from app_jobs.scheduled_jobs where database_id is null);
begin
    execute format(
        'select app_jobs.add_scheduled_job(job_key => ''k'', '
        'schedule_info => ''{"every": "1 hour"}'', %s%s)',
        case when option !~ '^identifier' then 'identifier => ''t'', ' end, option
    );
    return v_before <> (select ctid from app_jobs.scheduled_jobs where database_id is null);
end;
$$;
select ok(pg_temp.changes(option) and not pg_temp.changes(option), format('%s is changed', option))
from unnest(array[
    'identifier => ''u''', 'queue_name => ''q''', 'payload => ''[2]''',
    'attributes => ''{"b": 1}''', 'priority => 1', 'max_attempts => 2',
    'time_zone => ''Asia/Kolkata''', 'missed => ''skip''', 'overlap => ''skip'''
]) as a (option);
update app_jobs.scheduled_jobs set paused = true;
select ok(
    (app_jobs.add_scheduled_job(
        identifier => 't', job_key => 'k', schedule_info => '{"every": "3 hours"}'
    )).paused,
    'what is paused stays so'
);
select isnt(
    (app_jobs.add_scheduled_job(identifier => 't', schedule_info => '{"every": "1 h"}')).id,
    (app_jobs.add_scheduled_job(identifier => 't', schedule_info => '{"every": "1 h"}')).id,
    'without a key there may be several'
);

select pg_temp.refuses('select app_jobs.add_scheduled_job()', '22004', 'identifier is null');
select
    pg_temp.refuses(
        format(
            'select app_jobs.add_scheduled_job('
            'identifier => ''t'', schedule_info => ''{"every": "1 h"}'', %s => %L)',
            argument, given
        ),
        '22023', message
    )
from (
    values
    ('job_key', '', 'job_key has 0 characters: ""'),
    ('queue_name', '', 'queue_name has 0 characters: ""'),
    ('max_attempts', '0', 'max_attempts is 0'),
    ('missed', 'none', 'missed is "none"'),
    ('overlap', 'none', 'overlap is "none"'),
    ('attributes', '1', 'attributes is of type number')
) as c (argument, given, message);
select throws_ok(
    'select app_jobs.add_scheduled_job(identifier => ''t'', schedule_info => ''{"x": 1}'')',
    '22023', null, 'a rule that is none'
);

-- list_scheduled_jobs
delete from app_jobs.scheduled_jobs;
insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, key) values
('t', '{"every": "1 h"}', 'a_1'), ('t', '{"every": "1 h"}', 'ab1'),
('t', '{"every": "1 h"}', null);
select results_eq(
    'select key from app_jobs.list_scheduled_jobs()', array['a_1', 'ab1', null], 'all'
);
select results_eq(
    'select key from app_jobs.list_scheduled_jobs(''a_'')', array['a_1'], 'by the start of the key'
);

-- who may do what
select is(
    pg_temp.callers($$insert into app_jobs.scheduled_jobs (task_identifier, schedule_info)
        values ('t', '{"every": "1 hour"}')$$),
    'operator', 'who may write the table'
);
select is(
    pg_temp.callers('update app_jobs.scheduled_jobs set paused = true'),
    'operator', 'who may pause'
);
select is(
    pg_temp.callers('select from app_jobs.scheduled_jobs'), 'operator', 'who may read it'
);
select is(
    pg_temp.callers('select app_jobs.add_scheduled_job(identifier => ''t'')'), 'worker operator',
    'who may add'
);
select is(
    pg_temp.callers('select app_jobs.list_scheduled_jobs()'), 'worker operator', 'who may list'
);

select finish();
rollback;
