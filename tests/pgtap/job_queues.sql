begin;
\ir include/helpers.sql
select no_plan();

\set tenant '''00000000-0000-0000-0000-00000000000a'''
select is_empty('select * from app_jobs.job_queues', 'no jobs, no queues');

select from app_jobs.add_job(identifier => 't', queue_name => 'q');
select from app_jobs.add_job(identifier => 't', queue_name => 'q');
select from app_jobs.add_job(:tenant, 't', queue_name => 'q');
select from app_jobs.add_job(identifier => 't');
select from app_jobs.get_job('w', job_expiry => '1 h');
insert into app_jobs.queue_settings (line, queue_name, max_running, paused) values (
    ':idle', 'idle', 7, true
);
select results_eq(
    $$select
        database_id::text, queue_name, job_count, locked_by, locked_at is not null, max_running, paused
    from app_jobs.job_queues order by database_id nulls first, queue_name$$,
    $$values
        (null, 'idle', 0::bigint, null, false, 7, true),
        (null, 'q', 2, 'w', true, 1, false),
        ('00000000-0000-0000-0000-00000000000a', 'q', 1, null, false, 1, false)$$,
    'a row per queue that has jobs or settings; a name under two tenants is two queues'
);
select throws_ok(
    $$insert into app_jobs.queue_settings (line, queue_name) values (':q', 'p')$$, '23514', null,
    'a line is its queue''s own'
);
select
    throws_ok(
        format(
            'insert into app_jobs.queue_settings (line, queue_name, max_running)
            values ('':q'', ''q'', %s)',
            n
        ),
        '23514', null, format('max_running %s is refused', n)
    )
from unnest(array[0, 10001]) as m (n);

select is(
    pg_temp.callers('select from app_jobs.job_queues'), 'operator monitor', 'who may look at them'
);
select is(
    pg_temp.callers('delete from app_jobs.queue_settings'), '', 'nobody writes settings by hand'
);

select finish();
rollback;
