begin;
\ir include/helpers.sql
select no_plan();

-- Jobs in every state: 1 scheduled, 2 ready, 3 active, 4 processing; in queue q: 5 active, 6 and 7
-- parked behind it; in queue p: 8 processing, 9 parked behind it.
create function pg_temp.fill() returns void
language plpgsql
as $$
begin
    perform setval(pg_get_serial_sequence('app_jobs.jobs', 'id'), 1, false);
    delete from app_jobs.jobs;
    delete from app_jobs.finished_jobs;
    delete from app_jobs.job_errors;
    perform app_jobs.add_job(identifier => 't', run_at => '2100-01-01');
    perform app_jobs.add_job(identifier => 'later');
    perform app_jobs.add_jobs('t', array_fill('{}'::json, array[2]));
    perform app_jobs.add_jobs('t', array_fill('{}'::json, array[3]), queue_name => 'q');
    perform app_jobs.add_jobs('t', array_fill('{}'::json, array[2]), queue_name => 'p');
    perform app_jobs.get_jobs('w', array['t'], '1 h', 9);
    update app_jobs.jobs set lease_expires_at = null where id in (4, 8);
end;
$$;
create function pg_temp.state_of(job_id bigint) returns text
language sql
as $$
    select coalesce(
        (
            select concat_ws(
                ' ',
                case
                    when j.line = '' then 'ready'
                    when j.line > '' then 'parked'
                    when j.locked_by is null then 'scheduled'
                    when j.lease_expires_at is null then 'processing'
                    else 'active'
                end,
                j.cancel_reason
            )
            from app_jobs.jobs as j where j.id = job_id
        ),
        (select concat_ws(' ', f.state, f.last_error) from app_jobs.finished_jobs as f where f.id = job_id),
        'gone'
    )
$$;
create function pg_temp.states() returns text
language sql
as $$
    select string_agg(pg_temp.state_of(n), ', ' order by n) from generate_series(1, 9) as n
$$;
-- Steer all jobs, and some that there are not: which are returned, and the states.
create function pg_temp.steer(call text) returns text
language plpgsql
as $$
declare
    v_ids text;
begin
    perform pg_temp.fill();
    execute format(
        'select string_agg(s.id::text, '' '') from app_jobs.%s as s',
        replace(steer.call, 'all', 'array[9, 8, 7, 6, 5, 4, 3, 2, 1, 1, null, 99]')
    ) into v_ids;
    return concat_ws(': ', v_ids, pg_temp.states());
end;
$$;

select pg_temp.fill();
select is(
    pg_temp.states(),
    'scheduled, ready, active, processing, active, parked, parked, processing, parked',
    'jobs in every state'
);

-- complete_jobs()
select is(
    pg_temp.steer('complete_jobs(all)'),
    '1 2 4 6 7 8 9: gone, gone, active, gone, active, gone, gone, gone, gone',
    'complete_jobs(): those that nobody has leased, in order of id'
);
select is_empty('select from app_jobs.complete_jobs(''{}'')', 'no jobs');
select from app_jobs.set_task('t', '{"keep_completed": "1 day"}');
select is(
    pg_temp.steer('complete_jobs(all)'),
    '1 2 4 6 7 8 9: completed, gone, active, completed, active, completed, completed, completed, '
    'completed',
    'they are kept if the task''s are'
);
select row_eq(
    $$select state, finished_by, started_at is not null, keep_until > now() + interval '23 h'
    from app_jobs.finished_jobs where id = 8$$,
    row('completed'::text, 'w'::text, true, true), 'a processing one, as its holder''s'
);
select from app_jobs.set_task('t', '{"keep_completed": null}');
select pg_temp.fill();
select from app_jobs.fail_job('w', 3, 'no', retry_in => '1 h');
select from app_jobs.complete_jobs('{3}');
select is_empty('select from app_jobs.job_errors', 'errors of a job that is not kept go with it');
select pg_temp.fill();
select from app_jobs.complete_jobs('{8}');
select is(pg_temp.state_of(9), 'ready', 'a seat is free: the queue moves on');
select is((app_jobs.get_job('w', array['t'])).id, 9::bigint, 'its job can be claimed');

-- permanently_fail_jobs()
select is(
    pg_temp.steer('permanently_fail_jobs(all, ''no use'')'),
    '1 2 4 6 7 8 9: failed no use, failed no use, active, failed no use, active, failed no use, '
    'failed no use, failed no use, failed no use',
    'permanently_fail_jobs(): those that nobody has leased'
);
select pg_temp.fill();
select from app_jobs.fail_job('w', 3, 'no', retry_in => '1 h');
select from app_jobs.permanently_fail_jobs('{3, 8}');
select is(pg_temp.state_of(3), 'failed no', 'without a message: its own');
select is((select count(*) from app_jobs.job_errors), 1::bigint, 'its errors are kept');
select is(pg_temp.state_of(8), 'failed', 'it may have none');
select is(pg_temp.state_of(9), 'ready', 'the queue moves on');

-- cancel_jobs()
select is(
    pg_temp.steer('cancel_jobs(all, ''enough'')'),
    '1 2 3 4 5 6 7 8 9: cancelled enough, cancelled enough, active enough, cancelled enough, '
    'active enough, cancelled enough, cancelled enough, cancelled enough, cancelled enough',
    'cancel_jobs(): those that are leased are marked'
);
select is_empty('select app_jobs.heartbeat(''w'')', 'their worker''s heartbeat leaves them out');
select from app_jobs.fail_job('w', 3, 'no');
select is(pg_temp.state_of(3), 'cancelled enough', 'one that fails is cancelled');
select is((app_jobs.complete_job('w', 5)).id, 5::bigint, 'one that is completed is completed');
select pg_temp.fill();
select is(
    (
        select array_agg(concat_ws(' ', j.id, j.cancel_reason) order by j.id)
        from app_jobs.cancel_jobs('{3, 8}') as j
    ),
    array['3', '8'], 'jobs are returned as they were'
);
select is(pg_temp.state_of(3), 'active cancelled', 'a reason is not required');
select is(pg_temp.state_of(9), 'ready', 'the queue moves on');

-- reschedule_jobs()
select is(
    pg_temp.steer('reschedule_jobs(all)'),
    '1 2 6 7 9: scheduled, ready, active, processing, active, ready, ready, processing, ready',
    'reschedule_jobs(): those that wait; a claim meets the parked ones again'
);
select is((app_jobs.get_job('w', array['t'])).id, null, 'and parks them again');
select is(
    pg_temp.states(),
    'scheduled, ready, active, processing, active, parked, parked, processing, parked',
    'where they were'
);
select is(
    pg_temp.steer('reschedule_jobs(all, ''2100-01-01'')'),
    '1 2 6 7 9: scheduled, scheduled, active, processing, active, scheduled, scheduled, '
    'processing, scheduled',
    'a later time'
);
select is(
    pg_temp.steer('reschedule_jobs(all, now())'),
    '1 2 6 7 9: ready, ready, active, processing, active, ready, ready, processing, ready',
    'now'
);
select is(
    (app_jobs.get_jobs('w', array['t'], job_limit => 9)).id,
    1::bigint,
    'what has a place is claimed'
);
select pg_temp.fill();
select row_eq(
    $$select id, run_at, priority, attempts, max_attempts, line = '' as ready
    from app_jobs.reschedule_jobs('{2}', '2001-01-01', -5, 3, 4)$$,
    row(2::bigint, '2001-01-01'::timestamptz, -5, 3, 4, true), 'all of it'
);
select row_eq(
    $$select id, run_at, priority, attempts, max_attempts, line = '' as ready
    from app_jobs.reschedule_jobs('{2}', attempts => 0)$$,
    row(2::bigint, '2001-01-01'::timestamptz, -5, 0, 4, true), 'what is not given stays'
);
select from app_jobs.set_queue_limit('q', 2);
select is(pg_temp.state_of(6), 'ready', 'a job that is about to take a seat');
select from app_jobs.reschedule_jobs('{6}', '2100-01-01');
select is(pg_temp.state_of(7), 'ready', 'is put off: the one behind it takes its turn');

-- very many: slots of their own, which a claim finds
select pg_temp.fill();
create temporary table many on commit drop as
select array_agg(a.id) as ids
from
    app_jobs.add_jobs('many', array_fill('{}'::json, array[2500]), run_at => '2100-01-01')
        as a (id);
select is(
    (select count(*) from app_jobs.reschedule_jobs((select m.ids from many as m), now(), 7)),
    2500::bigint, 'very many'
);
select is(
    (
        select array_agg(s.jobs order by s.slot)
        from (
            select
                j.slot,
                count(*) as jobs
            from app_jobs.jobs as j
            where j.task_identifier = 'many'
            group by j.slot
        ) as s
    ),
    array[834, 833, 833]::bigint[], 'in slots of their own'
);
select is_empty(
    $$select distinct j.slot from app_jobs.jobs as j
    where j.task_identifier = 'many' and not exists (
        select from app_jobs.streams as s
        where s.slot = j.slot and s.task_identifier = 'many' and s.line = ''
    )$$,
    'closed ones'
);
select is(
    array(select c.id from app_jobs.get_jobs('w', array['many'], job_limit => 2500) as c),
    (select m.ids from many as m), 'all are claimed, in order'
);

-- bad input
select pg_temp.refuses(format('select app_jobs.%s', call), state, message)
from (
    values
    ('complete_jobs(null)', '22004', 'job_ids is null'),
    ('permanently_fail_jobs(null)', '22004', 'job_ids is null'),
    ('cancel_jobs(null)', '22004', 'job_ids is null'),
    ('reschedule_jobs(null)', '22004', 'job_ids is null'),
    ('reschedule_jobs(''{1}'', ''infinity'')', '22023', 'run_at is infinity'),
    ('reschedule_jobs(''{1}'', attempts => -1)', '22023', 'attempts is -1'),
    ('reschedule_jobs(''{1}'', attempts => 1000001)', '22023', 'attempts is 1000001'),
    ('reschedule_jobs(''{1}'', max_attempts => 0)', '22023', 'max_attempts is 0')
) as c (call, state, message);

-- who may call
select is(pg_temp.callers(format('select app_jobs.%s(''{}'')', name)), 'operator', name)
from unnest(
    array['complete_jobs', 'permanently_fail_jobs', 'cancel_jobs', 'reschedule_jobs']
) as f (name);

select finish();
rollback;
