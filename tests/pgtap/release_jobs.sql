begin;
\ir include/helpers.sql
select no_plan();

do $$
begin
    perform app_jobs.add_job(identifier => 't', job_key => key) from unnest(array['a', 'b', 'c']) as k(key);
    perform app_jobs.get_jobs('w', job_limit => 3);
    perform app_jobs.add_job(identifier => 't', job_key => 'foreign');
    perform app_jobs.get_job('other');
    -- one in a closed slot
    update app_jobs.jobs set slot = -1 where key = 'c';
    perform app_jobs.close_slot(-1);
end;
$$;
select set_eq(
    'select j.key
    from app_jobs.release_jobs(''w'') as r(id) join app_jobs.jobs as j on j.id = r.id',
    array['a', 'b', 'c'], 'all that the worker has leased'
);
select results_eq(
    $$select key, line, attempts, lease, locked_by, locked_at, lease_expires_at from app_jobs.jobs
    where key <> 'foreign' order by key$$,
    $$values
        ('a', '' collate "C", 0, 1, null, null::timestamptz, null::timestamptz),
        ('b', '', 0, 1, null, null, null),
        ('c', '', 0, 1, null, null, null)$$,
    'are ready again, no attempt is counted, and the fence stays'
);
select is((app_jobs.find_job('foreign')).locked_by, 'other', 'another worker''s job runs on');
select is_empty('select app_jobs.release_jobs(''w'')', 'a second time there is nothing');
select results_eq(
    $$select j.key from app_jobs.get_jobs('w2', job_limit => 9) as j$$, array['a', 'b', 'c'],
    'another worker gets them'
);
select
    is(
        (app_jobs.complete_job('w', (app_jobs.find_job('a')).id)).id,
        null,
        'the first one no longer can'
    );

select pg_temp.refuses('select app_jobs.release_jobs(null)', '22004', 'worker_id is null');
select
    pg_temp.refuses(
        'select app_jobs.release_jobs('''')', '22023', 'worker_id has 0 characters: ""'
    );
select
    is(
        pg_temp.callers('select app_jobs.release_jobs(''w'')'), 'worker operator', 'who may release'
    );

select finish();
rollback;
