begin;
\ir include/helpers.sql
select no_plan();

-- lines of jobs of queue q, by id: ready, parked, or the worker
create function pg_temp.places() returns text
language sql
as $$
    select string_agg(
        case when j.line = '' then 'ready' when j.line > '' then 'parked' else j.locked_by end,
        ' ' order by j.id
    )
    from app_jobs.jobs as j where j.queue_name = 'q' and j.database_id is null
$$;

-- the settings
select row_eq(
    $$select database_id, queue_name, max_running, paused from app_jobs.set_queue_limit('q', 3)$$,
    row(null::uuid, 'q'::text, 3, false), 'a limit'
);
select row_eq(
    $$select database_id, queue_name, max_running, paused from app_jobs.pause_queue('q')$$,
    row(null::uuid, 'q'::text, 3, true), 'paused, with the limit it has'
);
select row_eq(
    $$select database_id, queue_name, max_running, paused from app_jobs.set_queue_limit('q', 1)$$,
    row(null::uuid, 'q'::text, 1, true), 'a limit, still paused'
);
select row_eq(
    $$select database_id, queue_name, max_running, paused from app_jobs.resume_queue('q')$$,
    row(null::uuid, 'q'::text, 1, false), 'resumed'
);
select row_eq(
    $$select queue_name, max_running, paused
    from app_jobs.pause_queue('q', '00000000-0000-0000-0000-00000000000a')$$,
    row('q'::text, 1, true), 'the same name under a tenant is another queue'
);
select is((app_jobs.resume_queue('other')).max_running, 1, 'a queue that nobody has heard of');

-- a higher limit is used at once
select from app_jobs.add_jobs('t', array_fill('{}'::json, array[6]), queue_name => 'q');
select from app_jobs.get_jobs('w', job_limit => 6);
select is(pg_temp.places(), 'w parked parked parked parked parked', 'one at a time');
select from app_jobs.set_queue_limit('q', 3);
select is(pg_temp.places(), 'w ready ready parked parked parked', 'three at a time: two more');
select is((select count(*) from app_jobs.get_jobs('w', job_limit => 6)), 2::bigint, 'are claimed');
-- a lower one lets those run that do
select from app_jobs.set_queue_limit('q', 2);
select is(pg_temp.places(), 'w w w parked parked parked', 'two at a time: three run on');
select from app_jobs.complete_jobs('w', array(
    select id from app_jobs.jobs
    where seat = 1
));
select is(pg_temp.places(), 'w w parked parked parked', 'one ends: none is claimed');
select from app_jobs.complete_jobs('w', array(
    select id from app_jobs.jobs
    where seat = 2
));
select is(pg_temp.places(), 'w ready parked parked', 'two have ended: the next');

-- a paused queue
select from app_jobs.pause_queue('q');
select is((app_jobs.get_job('w')).id, null, 'no job of a paused queue is claimed');
select is(pg_temp.places(), 'w parked parked parked', 'nor stands in the way');
select from app_jobs.complete_jobs('w', array(
    select id from app_jobs.jobs
    where seat > 0
));
select is(pg_temp.places(), 'parked parked parked', 'what runs may end');
select from app_jobs.tick();
select is(pg_temp.places(), 'parked parked parked', 'nothing moves');
select from app_jobs.resume_queue('q');
select is(pg_temp.places(), 'ready ready parked', 'resumed: it moves at once');

-- bad input
select pg_temp.refuses(format('select app_jobs.%s', call), state, message)
from (
    values
    ('pause_queue(null)', '22004', 'queue_name is null'),
    ('pause_queue('''')', '22023', 'queue_name has 0 characters: ""'),
    ('resume_queue(null)', '22004', 'queue_name is null'),
    (
        'resume_queue(repeat(''q'', 201))', '22023',
        'queue_name has 201 characters: "' || repeat('q', 60) || '"'
    ),
    ('set_queue_limit(null, 1)', '22004', 'queue_name is null'),
    ('set_queue_limit(''q'', null)', '22004', 'max_running is null'),
    ('set_queue_limit(''q'', 0)', '22023', 'max_running is 0'),
    ('set_queue_limit(''q'', 10001)', '22023', 'max_running is 10001')
) as c (call, state, message);

-- who may call
select is(pg_temp.callers(format('select app_jobs.%s', call)), 'operator', 'who may call ' || call)
from unnest(
    array['pause_queue(''q'')', 'resume_queue(''q'')', 'set_queue_limit(''q'', 2)']
) as c (call);

select finish();
rollback;
