begin;
\ir include/helpers.sql
select no_plan();

select is(
    array(
        select a.attname::text
        from pg_attribute as a
        where a.attrelid = 'app_jobs.jobs'::regclass and a.attnum between 1 and 19
        order by a.attnum
    ),
    array[
        'id', 'database_id', 'queue_name', 'task_identifier', 'payload', 'attributes', 'priority',
        'run_at',
        'attempts',
        'max_attempts',
        'lease',
        'key',
        'last_error',
        'retry_after',
        'locked_by',
        'locked_at', 'lease_expires_at', 'created_at', 'updated_at'
    ],
    'the contract''s columns come first, in its order'
);
insert into app_jobs.jobs (task_identifier, slot) values ('t', 1);
select row_eq(
    $$select payload::text, attributes, priority, attempts, max_attempts, lease
    from app_jobs.jobs$$,
    row('{}'::text, '{}'::jsonb, 0, 0, 25, 0),
    'the defaults'
);

-- what cannot be stored
select
    throws_ok(
        format(
            'insert into app_jobs.jobs (slot, task_identifier, %s) values (1, %s)', columns, given
        ),
        '23514', null, format('(%s) = (%s) is refused', columns, left(given, 60))
    )
from (
    values
    ('retry_after', '''t'', ''0'''),
    ('run_at', '''t'', ''infinity'''),
    ('locked_by', '''t'', ''w'''),
    ('lease_expires_at', '''t'', now()'),
    ('locked_by, locked_at, line', '''t'', ''w'', now(), '''''),
    ('queue_name, seat', '''t'', ''q'', 1'),
    ('locked_by, locked_at, seat', '''t'', ''w'', now(), 1'),
    ('locked_by, locked_at, queue_name, seat', '''t'', ''w'', now(), ''q'', 0')
) as c (columns, given);

-- one live job per tenant and key; one running job per seat of a queue in each slot
insert into app_jobs.jobs (slot, task_identifier, database_id, key) values
(1, 't', null, 'k'),
(1, 't', '00000000-0000-0000-0000-00000000000a', 'k'),
(1, 't', '00000000-0000-0000-0000-00000000000b', 'k');
select
    throws_ok(
        format(
            'insert into app_jobs.jobs (slot, task_identifier, database_id, key)
            values (1, ''t'', %L, ''k'')',
            id
        ),
        '23505', null, format('a key twice, tenant %s', id)
    )
from unnest(array[null, '00000000-0000-0000-0000-00000000000a']::uuid[]) as t (id);
insert into app_jobs.jobs (
    slot, task_identifier, database_id, queue_name, locked_by, locked_at, seat
) values
(1, 't', null, 'q', 'w', now(), 1),
(1, 't', null, 'q', 'w', now(), 2),
(1, 't', '00000000-0000-0000-0000-00000000000a', 'q', 'w', now(), 1);
select
    throws_ok(
        format(
            'insert into app_jobs.jobs (
                slot, task_identifier, database_id, queue_name, locked_by, locked_at, seat
            )
        values (1, ''t'', %L, ''q'', ''w'', now(), 1)',
            id
        ),
        '23505', null, format('a seat twice, tenant %s', id)
    )
from unnest(array[null, '00000000-0000-0000-0000-00000000000a']::uuid[]) as t (id);

-- a queue's line
select is(app_jobs.queue_line(null, 'q'), ':q', 'without tenant');
select is(
    app_jobs.queue_line('00000000-0000-0000-0000-00000000000a', 'q'),
    '00000000-0000-0000-0000-00000000000a:q', 'of a tenant'
);
select is(app_jobs.queue_line(null, null), null, 'without queue');

select finish();
rollback;
