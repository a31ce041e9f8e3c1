begin;
\ir include/helpers.sql
select no_plan();

select is_empty('select from app_jobs.running_jobs()', 'nothing runs');

do $$
begin
    perform app_jobs.add_jobs('a', array['1', '2', '3', '4']::json[]);
    perform app_jobs.add_job(identifier => 'b');
    perform app_jobs.get_jobs('w1', array['a'], '1 h', 2);
    perform app_jobs.get_jobs('w2', null, '1 h', 2);
    perform app_jobs.get_jobs('w1', array['b'], '1 h', 2);
    -- one is processing, one is held in a closed slot, one in a slot that has an alarm only
    update app_jobs.jobs set lease_expires_at = null where task_identifier = 'b';
    update app_jobs.jobs set locked_at = now() - interval '5 min'
    where id = (select min(j.id) from app_jobs.jobs as j where j.locked_by = 'w2');
    update app_jobs.jobs set slot = -7
    where id = (select max(j.id) from app_jobs.jobs as j where j.locked_by = 'w2');
    insert into app_jobs.alarms (slot, kind, due_at) values (-7, 'lease', now() + interval '1 h');
end;
$$;
select results_eq(
    $$select
        worker_id collate "default", task_identifier collate "default", jobs,
        date_trunc('minute', clock_timestamp() - since)
    from app_jobs.running_jobs()$$,
    $$values
        ('w1', 'a', 2::bigint, interval '0'),
        ('w1', 'b', 1, interval '0'),
        ('w2', 'a', 2, interval '5 min')$$,
    'workers with what they hold'
);

select finish();
rollback;
