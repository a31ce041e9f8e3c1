begin;
\ir include/helpers.sql
select no_plan();

\set tenant '''00000000-0000-0000-0000-00000000000a'''
select is_empty('select from app_jobs.list_jobs()', 'no jobs, no rows');
select is_empty('select from app_jobs.list_finished()', 'none that are finished');
select is_empty('select from app_jobs.list_queues()', 'no queues');
select is_empty('select from app_jobs.list_tasks()', 'no tasks');

-- one of each state
do $$
begin
    perform app_jobs.add_job(identifier => 'held', queue_name => 'q'),
        app_jobs.add_job(identifier => 'processing');
    perform app_jobs.get_jobs('worker-7', null, '1 h', 9);
    update app_jobs.jobs set lease_expires_at = null where task_identifier = 'processing';
    perform app_jobs.add_job(identifier => 'parked', queue_name => 'q');
    perform app_jobs.get_jobs('worker-7', array['parked'], '1 h', 9);
    perform app_jobs.add_job(identifier => 'ready', job_key => 'Order-7'),
        app_jobs.add_job('00000000-0000-0000-0000-00000000000a', 'ready', queue_name => 'tenant'),
        app_jobs.add_job(identifier => 'scheduled', run_at => now() + interval '1 h');
    update app_jobs.jobs set last_error = 'no route' || chr(10) || 'secret'
    where task_identifier = 'scheduled';
    perform app_jobs.set_task('failing', '{"paused": true}'),
        app_jobs.set_queue_limit('other', 3);
end;
$$;
create function pg_temp.listed(filter text) returns text
language plpgsql
as $$
declare
    v_list text;
begin
    execute format(
        'select string_agg(
            coalesce(l.task_identifier || '':'' || l.state, ''…''), '' '' order by n
        )
        from app_jobs.list_jobs(%s) with ordinality as l(
            id, state, task_identifier, queue_name, database_id, key, priority, run_at, attempts,
            max_attempts, created_at, held_by, held_since, finished_at, last_error, n
        )', filter
    ) into v_list;
    return v_list;
end;
$$;
select is(
    pg_temp.listed(''),
    'scheduled:scheduled ready:ready ready:ready parked:parked processing:processing held:running',
    'the newest first, with their states'
);
select is(pg_temp.listed('task => ''parked'''), 'parked:parked', 'of a task');
select is(pg_temp.listed('queue => ''q'''), 'parked:parked held:running', 'of a queue');
select is(
    pg_temp.listed('db_id => ''00000000-0000-0000-0000-00000000000a'''), 'ready:ready',
    'of a tenant'
);
select is(pg_temp.listed('state => ''processing'''), 'processing:processing', 'in a state');
select is(pg_temp.listed('search => ''oRDER'''), 'ready:ready', 'with a part of the key');
select is(pg_temp.listed('search => ''route'''), 'scheduled:scheduled', 'of the error');
select is(
    pg_temp.listed('search => ''worker-7'''), 'processing:processing held:running', 'of the worker'
);
select is(pg_temp.listed('search => ''secret'''), null, 'of an error the first line');
select is(
    (select l.last_error from app_jobs.list_jobs('scheduled') as l), 'no route', 'and shown'
);
select is(
    pg_temp.listed('most => 2'), 'scheduled:scheduled ready:ready …', 'it says that there are more'
);
select is(
    pg_temp.listed(format(
        'most => 2, before => %s',
        (select min(l.id) from app_jobs.list_jobs(most => 2) as l)
    )),
    'ready:ready parked:parked …',
    'and where they begin'
);
select is(
    pg_temp.listed('most => 6'),
    'scheduled:scheduled ready:ready ready:ready parked:parked processing:processing held:running',
    'but not that there are none'
);
select is(
    pg_temp.listed('before => ' || (select min(j.id) + 1 from app_jobs.jobs as j)), 'held:running',
    'the last one'
);

-- a long look: it ends after 20,000 jobs, or sooner where the machine is busy
select count(*) from app_jobs.add_jobs('many', array_fill(json '{}', array[20001]));
create function pg_temp.looks(task text) returns setof app_jobs.listed_job
language plpgsql
as $$
declare
    v_job app_jobs.listed_job;
    v_before bigint;
begin
    loop
        select l.* into v_job
        from app_jobs.list_jobs(looks.task, before => v_before) as l limit 1;
        return next v_job;
        exit when v_job.state is not null;
        v_before := v_job.id;
    end loop;
end;
$$;
select cmp_ok((select count(*) from pg_temp.looks('held')), '>', 1::bigint, 'a look ends');
select is(
    (select string_agg(l.state, ' ') from pg_temp.looks('held') as l), 'running',
    'and goes on from there'
);
delete from app_jobs.jobs
where task_identifier = 'many';
select cmp_ok(
    (select count(*) from pg_temp.looks('held')), '<', 4::bigint,
    'ids that are gone are passed quickly'
);

-- tasks and queues
select results_eq(
    $$select
        l.database_id::text, l.queue_name, l.ready, l.running, l.parked, l.max_running, l.paused
    from app_jobs.list_queues() as l$$,
    $$values
        (null, 'q', 0::bigint, 1::bigint, 1::bigint, 1, false),
        ('00000000-0000-0000-0000-00000000000a', 'tenant', 1, 0, 0, 1, false),
        (null, 'other', 0, 0, 0, 3, false)$$,
    'queues with jobs or settings'
);
select is((select l.queue_name from app_jobs.list_queues('THE') as l), 'other', 'by a part of it');
select is((select count(*) from app_jobs.list_queues(most => 2)), 2::bigint, 'so many queues');
select app_jobs.register_worker('server', task_identifiers => array['ready', 'idle']);
select results_eq(
    $$select
        l.task_identifier collate "default", l.ready, l.running, l.parked, l.scheduled, l.workers,
        l.paused
    from app_jobs.list_tasks() as l where l.task_identifier <> 'many'$$,
    $$values
        ('ready', 2::bigint, 0::bigint, 0::bigint, 0::bigint, 1::bigint, false),
        ('parked', 0, 0, 1, 0, 0, false),
        ('held', 0, 1, 0, 0, 0, false),
        ('processing', 0, 1, 0, 0, 0, false),
        ('failing', 0, 0, 0, 0, 0, true),
        ('idle', 0, 0, 0, 0, 1, false),
        ('scheduled', 0, 0, 0, 1, 0, false)$$,
    'tasks with jobs, settings or workers'
);
select app_jobs.register_worker('of all tasks');
select app_jobs.register_worker('twice', task_identifiers => array['idle', 'idle']);
select results_eq(
    $$select l.task_identifier collate "default", l.workers
    from app_jobs.list_tasks() as l where l.task_identifier in ('held', 'idle')
    order by l.task_identifier$$,
    $$values ('held', 1::bigint), ('idle', 3)$$,
    'a worker of all tasks serves each, one that names a task twice counts once'
);

-- finished jobs: job n ended n minutes ago
insert into app_jobs.finished_jobs (
    id, task_identifier, payload, attributes, priority, run_at, attempts, max_attempts, lease,
    created_at, state, finished_at, finished_by, keep_until, last_error, queue_name, database_id
)
select
    n,
    't' || n % 2,
    '{}',
    '{}',
    0,
    now(),
    1,
    1,
    1,
    now(),
    (array['completed', 'failed', 'cancelled'])[1 + n % 3],
    now() - n / 2 * interval '1 min',
    'w' || n,
    now(),
    'error ' || n,
    case when n = 3 then 'q' end,
    case when n = 4 then :tenant::uuid end
from generate_series(1, 9) as n;
create function pg_temp.finished(filter text) returns text
language plpgsql
as $$
declare
    v_list text;
begin
    execute format(
        'select string_agg(
            case when l.state is null then ''…'' else l.id::text end, '' '' order by n
        )
        from app_jobs.list_finished(%s) with ordinality as l(
            id, state, task_identifier, queue_name, database_id, key, priority, run_at, attempts,
            max_attempts, created_at, held_by, held_since, finished_at, last_error, n
        )', filter
    ) into v_list;
    return v_list;
end;
$$;
select is(pg_temp.finished(''), '1 3 2 5 4 7 6 9 8', 'those that ended last first');
select is(pg_temp.finished('state => ''failed'''), '1 4 7', 'dead letters');
select is(
    pg_temp.finished('state => ''cancelled'', task => ''t0'''), '2 8', 'in a state, of a task'
);
select is(pg_temp.finished('queue => ''q'''), '3', 'of a queue');
select is(
    pg_temp.finished('db_id => ''00000000-0000-0000-0000-00000000000a'''), '4', 'of a tenant'
);
select is(pg_temp.finished('search => ''ERROR 5'''), '5', 'with a part of the error');
select is(
    pg_temp.finished('since => now() - interval ''2 min'', before => now()'), '3 2 5 4',
    'that ended within a time'
);
select is(pg_temp.finished('most => 2'), '1 3 …', 'there are more');
select
    is(
        pg_temp.finished(
            format('most => 2, before => %L, before_id => %s', l.finished_at, l.id)
        ),
        '2 5 …',
        'and where they begin, also among those that ended together'
    )
from app_jobs.list_finished(most => 2) as l
where l.state is null;
select is(pg_temp.finished('state => ''failed'', most => 3'), '1 4 7', 'no more');

select pg_temp.refuses(
    'select app_jobs.list_jobs(state => ''failed'')', '22023', 'state is "failed"'
);
select pg_temp.refuses(
    'select app_jobs.list_finished(state => ''ready'')', '22023', 'state is "ready"'
);
select pg_temp.refuses('select app_jobs.list_jobs(most => 0)', '22023', 'most is 0');
select pg_temp.refuses('select app_jobs.list_finished(most => 10001)', '22023', 'most is 10001');
select pg_temp.refuses('select app_jobs.list_queues(most => null)', '22004', 'most is null');

select finish();
rollback;
