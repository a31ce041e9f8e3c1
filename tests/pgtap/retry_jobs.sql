begin;
\ir include/helpers.sql
select no_plan();

\set tenant '''00000000-0000-0000-0000-00000000000a'''

-- a dead letter, after two attempts
select from app_jobs.add_job(
    :tenant, 't', '{"a":  1}', 'k', 'q', '2001-01-01', 2, 7, attributes => '{"b": 2}',
    retry_after => '5 min'
);
update app_jobs.jobs set created_at = '2001-01-01';
do $$
begin
    for i in 1..2 loop
        perform app_jobs.get_job('w', array['t']);
        perform app_jobs.fail_job('w', (select j.id from app_jobs.jobs as j), 'no', retry_in => '0');
    end loop;
end;
$$;
select id from app_jobs.finished_jobs
where state = 'failed' \gset
select is_empty('select from app_jobs.retry_jobs(''{}'')', 'no jobs');
select is_empty('select from app_jobs.retry_jobs(array[0, null])', 'nor unknown ones');
select row_eq(
    format(
        'select id, database_id, queue_name, task_identifier, payload::text, attributes, priority,
            run_at = now(), attempts, max_attempts, lease, key, last_error, retry_after, locked_by,
            created_at, line
        from app_jobs.retry_jobs(array[0, %1$s, %1$s])', :id
    ),
    row(
        :id::bigint,
        :tenant::uuid,
        'q'::text,
        't'::text collate "C",
        '{"a":  1}'::text,
        '{"b": 2}'::jsonb,
        7, true, 0, 2, 2, 'k'::text, null::text, interval '5 min', null::text,
        '2001-01-01'::timestamptz, ''::text collate "C"
    ),
    'the job, ready: no attempts, no error; the lease counts on'
);
select is_empty('select from app_jobs.finished_jobs', 'it is no dead letter any more');
select is((select count(*) from app_jobs.job_errors), 2::bigint, 'its errors are kept');
select is((app_jobs.find_job('k', :tenant)).id, :id::bigint, 'it has its key');
select is((app_jobs.get_job('w')).lease, 3, 'it is claimed, with a new lease');
select from app_jobs.fail_job('w', :id, 'no', retry_in => '0');
select is((select max(e.lease) from app_jobs.job_errors as e), 3, 'it fails again: a third error');
select is_empty(format('select app_jobs.retry_jobs(''{%s}'')', :id), 'a live job is left out');

-- cancelled and completed ones
select from app_jobs.set_task('t', '{"keep_completed": "1 day"}');
select from app_jobs.get_job('w');
select from app_jobs.complete_job('w', :id);
select is((app_jobs.retry_jobs(array[:id])).attempts, 0, 'a completed job can run once more');
select from app_jobs.cancel_jobs(array[:id]);
select is((app_jobs.retry_jobs(array[:id])).last_error, null, 'so can a cancelled one');

-- a key in use
select from app_jobs.cancel_jobs(array[:id]);
select a as other from app_jobs.add_jobs('t', '{"{}"}') as a \gset
select from app_jobs.cancel_jobs(array[:other]);
select from app_jobs.add_job(:tenant, 't', job_key => 'k');
select pg_temp.refuses(
    format('select app_jobs.retry_jobs(array[%s, %s])', :id, :other), 'JQ005',
    format('another live job has the same key: job %s has key "k"', :id)
);
select is((select count(*) from app_jobs.finished_jobs), 2::bigint, 'none was retried');
select is((app_jobs.retry_jobs(array[:other])).id, :other::bigint, 'the one without a key can be');
select from app_jobs.cancel_job('k', :tenant);
select pg_temp.refuses(
    'select app_jobs.retry_jobs(array(select f.id from app_jobs.finished_jobs as f))', 'JQ005',
    (
        select format('another live job has the same key: job %s has key "k"', max(f.id))
        from app_jobs.finished_jobs as f
    )
);

-- very many
create temporary table many on commit drop as
select array_agg(a.id) as ids
from app_jobs.add_jobs('many', array_fill('{}'::json, array[2500])) as a (id);
select from app_jobs.permanently_fail_jobs((select m.ids from many as m), 'no');
select is(
    (select count(*) from app_jobs.retry_jobs((select m.ids from many as m))), 2500::bigint,
    'very many'
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

select pg_temp.refuses(
    'select app_jobs.retry_jobs(null)', '22004', 'finished_job_ids is null'
);
select is(pg_temp.callers('select app_jobs.retry_jobs(''{}'')'), 'operator', 'who may retry');

select finish();
rollback;
