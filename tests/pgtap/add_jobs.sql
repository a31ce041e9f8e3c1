begin;
\ir include/helpers.sql
select no_plan();

-- specs: ids in input order, values as in add_job()
create temporary table added on commit drop as
select
    i.id,
    i.n
from app_jobs.add_jobs($$[
    {"identifier": "b", "payload": {"y":  1, "x": 2}, "priority": 9, "queue_name": "q", "retry_after": "1 min"},
    {"identifier": "a", "db_id": "00000000-0000-0000-0000-00000000000a", "run_at": "2100-01-01 00:00+00"},
    {"identifier": "c", "max_attempts": 2, "attributes": {"z": 3}, "payload": null}
]$$) with ordinality as i (id, n);
select results_eq(
    $$select
        j.task_identifier, j.payload::text, j.priority, j.queue_name, j.retry_after, j.database_id::text,
        j.run_at, j.max_attempts, j.attributes, j.line
    from added as a join app_jobs.jobs as j on j.id = a.id order by a.n$$,
    $$values
        (
            'b' collate "C", '{"y":  1, "x": 2}', 9, 'q', interval '1 min', null,
            now(), 25, jsonb '{}', '' collate "C"
        ),
        (
            'a', '{}', 0, null, null, '00000000-0000-0000-0000-00000000000a',
            '2100-01-01 00:00+00', 25, '{}', null
        ),
        ('c', '{}', 0, null, null, null, now(), 2, '{"z": 3}', '')$$,
    'three jobs'
);
select results_eq(
    'select id from added order by n', 'select id from added order by id', 'ids grow'
);

-- payloads: the same options for all
create temporary table added_too on commit drop as
select
    i.id,
    i.n
from app_jobs.add_jobs(
    't',
    array['1', '{"a":  2}', null]::json[],
    '00000000-0000-0000-0000-00000000000a',
    'q',
    '2100-01-01',
    3,
    4,
    '{"x": 1}', '5 min'
) with ordinality as i (id, n);
select results_eq(
    $$select
        j.task_identifier, j.payload::text, j.database_id::text, j.queue_name, j.run_at, j.max_attempts,
        j.priority, j.attributes, j.retry_after
    from added_too as a join app_jobs.jobs as j on j.id = a.id order by a.n$$,
    $$select
        't' collate "C", p, '00000000-0000-0000-0000-00000000000a', 'q', timestamptz '2100-01-01', 3, 4,
        jsonb '{"x": 1}', interval '5 min'
    from unnest(array['1', '{"a":  2}', '{}']) as p$$,
    'three jobs of one task'
);
insert into app_jobs.tasks (task_identifier, max_attempts) values ('thrice', 3);
select from app_jobs.add_jobs('thrice', array['1']::json[]);
select is(
    (
        select j.max_attempts from app_jobs.jobs as j
        where j.task_identifier = 'thrice'
    ), 3,
    'max_attempts is the task''s'
);

-- none at all
select is_empty('select app_jobs.add_jobs(json ''[]'')', 'no specs');
select is_empty('select app_jobs.add_jobs(''t'', array[]::json[])', 'no payloads');

-- large additions bring slots of their own
delete from app_jobs.jobs;
select results_eq(
    $$select count(*), bool_and(i.id > i.before)
    from (
        select a.id, lag(a.id, 1, 0::bigint) over (order by a.n) as before
        from app_jobs.add_jobs('t', (
            select array_agg(to_json(g.n)) from generate_series(1, 3500) as g(n)
        )) with ordinality as a(id, n)
    ) as i$$,
    $$values (3500::bigint, true)$$,
    '3500 payloads, ids growing'
);
select is_empty(
    $$select from (
        select j.payload::text::integer as given, row_number() over (order by j.id) as n from app_jobs.jobs as j
    ) as j where j.given <> j.n$$,
    'in input order'
);
select is(
    (
        select count(*) from app_jobs.streams
        where task_identifier = 't'
    ), 4::bigint,
    'in four slots, which are closed from the first'
);
select is((app_jobs.get_job('w')).payload::text, '1', 'the first one comes first');
delete from app_jobs.jobs;
delete from app_jobs.streams;
select is(
    (select count(*) from app_jobs.add_jobs((
        select json_agg(json_build_object('identifier', 't', 'run_at', now() + n * interval '1 h'))
        from generate_series(1, 1500) as g (n)
    ))),
    1500::bigint, '1500 specs, all for later'
);
select results_eq(
    $$select due_at from app_jobs.alarms order by slot$$,
    $$values (now() + interval '1 h'), (now() + interval '1001 h')$$,
    'their slots have an alarm'
);
select is((app_jobs.tick()).next_due_at, now() + interval '1 h', 'which tick() knows');

-- keys
delete from app_jobs.jobs;
delete from app_jobs.alarms;
create temporary table keyed on commit drop as
select
    i.id,
    i.n
from app_jobs.add_jobs($$[
    {"identifier": "t", "payload": 1, "job_key": "k"},
    {"identifier": "t", "payload": 2},
    {"identifier": "t", "payload": 3, "job_key": "k"},
    {"identifier": "t", "payload": 4, "job_key": "k", "job_key_mode": "keep"},
    {"identifier": "t", "payload": 5, "\u006aob_key": "l"}
]$$) with ordinality as i (id, n);
select results_eq(
    'select j.key from keyed as k join app_jobs.jobs as j on j.id = k.id order by k.n',
    array['k', null, 'k', 'k', 'l'],
    'specs with keys meet each other'
);
select results_eq(
    'select payload::text, key from app_jobs.jobs order by id',
    $$values ('3', 'k'), ('2', null), ('5', 'l')$$,
    'one job per key, replaced or kept'
);
select from app_jobs.add_jobs('[{"identifier": "t", "\u006aob_key": "m"}]');
select isnt((app_jobs.find_job('m')).id, null, 'a key whose name is written in escapes');

-- all or nothing: the element is named by its index
delete from app_jobs.jobs;
select
    pg_temp.refuses(
        format(
            'select app_jobs.add_jobs(json %L)',
            '[{"identifier": "t"}, ' || element || ', {"identifier": "t"}]'
        ),
        state, 'specs[1]: ' || message
    )
from (
    values
    ('{}', '22004', 'identifier is null'),
    ('{"identifier": null}', '22004', 'identifier is null'),
    ('{"identifier": ""}', '22023', 'identifier has 0 characters: ""'),
    ('{"identifier": "t", "job_key": ""}', '22023', 'job_key has 0 characters: ""'),
    ('{"identifier": "t", "queue_name": ""}', '22023', 'queue_name has 0 characters: ""'),
    ('{"identifier": "t", "max_attempts": 0}', '22023', 'max_attempts is 0'),
    ('{"identifier": "t", "retry_after": "-1 s"}', '22023', 'retry_after is -00:00:01'),
    (
        '{"identifier": "t", "job_key": "k", "job_key_mode": "upsert"}',
        '22023',
        'job_key_mode is "upsert"'
    ),
    ('{"identifier": "t", "retry_after": "101 years"}', '22023', 'retry_after is 101 years'),
    ('{"identifier": "t", "run_at": "infinity"}', '22023', 'run_at is infinity'),
    ('{"identifier": "t", "job_key_mode": "upsert"}', '22023', 'job_key_mode is "upsert"'),
    ('{"identifier": "t", "queue": "q"}', '22023', 'unknown key "queue"'),
    ('{"identifier": "t", "queue": "q", "job_key": "k"}', '22023', 'unknown key "queue"'),
    ('1', '22023', 'it is of type number'),
    ('null', '22023', 'it is of type null'),
    ('[]', '22023', 'it is of type array'),
    ('{"identifier": "t", "db_id": "x"}', '22P02', 'invalid input syntax for type uuid: "x"'),
    (
        '{"identifier": "t", "priority": "high"}',
        '22P02',
        'invalid input syntax for type integer: "high"'
    ),
    (
        '{"identifier": "t", "run_at": "soon"}',
        '22007',
        'invalid input syntax for type timestamp with time zone: "soon"'
    )
) as c (element, state, message);
select is_empty('select from app_jobs.jobs', 'nothing was added');
select pg_temp.refuses(format('select app_jobs.add_jobs(%s)', arguments), state, message)
from (
    values
    ('null::json', '22004', 'specs is null'),
    ('json ''null''', '22023', 'specs is of type null'),
    ('json ''{}''', '22023', 'specs is of type object'),
    ('json ''"text"''', '22023', 'specs is of type string'),
    ('null, array[''1'']::json[]', '22004', 'identifier is null'),
    ('''t'', null', '22004', 'payloads is null'),
    ('''t'', array[''1'']::json[], max_attempts => 0', '22023', 'max_attempts is 0'),
    ('''t'', array[''1'']::json[], queue_name => ''''', '22023', 'queue_name has 0 characters: ""'),
    ('''t'', array[''1'']::json[], run_at => ''infinity''', '22023', 'run_at is infinity'),
    ('''t'', array[''1'']::json[], retry_after => ''0''', '22023', 'retry_after is 00:00:00')
) as c (arguments, state, message);

-- who may call
select is(pg_temp.callers('select app_jobs.add_jobs(json ''[]'')'), 'producer operator', 'specs');
select is(
    pg_temp.callers('select app_jobs.add_jobs(''t'', array[]::json[])'),
    'producer operator',
    'payloads'
);
select is(pg_temp.callers('select app_jobs.check_spec(''{}'')'), '', 'internal');

-- the trace that a setting names
\set trace '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
select set_config('app_jobs.traceparent', :'trace', true);
create temporary table traced as
select app_jobs.add_jobs('[{"identifier": "a"}, {"identifier": "a", "job_key": "traced"}]') as id
union all
select app_jobs.add_jobs('a', array['1']::json[]);
select
    is(
        array_agg(j.attributes ->> 'traceparent'), array_fill(:'trace'::text, array[3]),
        'the setting app_jobs.traceparent goes into the attributes'
    )
from traced as t
inner join app_jobs.jobs as j on t.id = j.id;
select set_config('app_jobs.traceparent', '', true);

select finish();
rollback;
