begin;
\ir include/helpers.sql
select no_plan();

select is(
    array(
        select r.rolname::text
        from pg_roles as r
        where r.rolname ~ '^app_jobs_' and not r.rolcanlogin and not r.rolsuper
        order by 1
    ),
    '{app_jobs_monitor,app_jobs_operator,app_jobs_producer,app_jobs_worker}'::text[],
    'the roles exist, and nobody can log in as one'
);
select
    is_member_of(
        role, array['app_jobs_operator'], format('an operator may do what an %s may', role)
    )
from unnest(array['app_jobs_producer', 'app_jobs_worker', 'app_jobs_monitor']) as r (role);

select is(pg_temp.callers('select * from app_jobs.jobs'), 'operator', 'who may read payloads');
select is(
    pg_temp.callers('select * from app_jobs.finished_jobs'), 'operator', 'who may read history'
);
select is(pg_temp.callers('select * from app_jobs.job_errors'), 'operator', 'who may read errors');
select is(pg_temp.callers('select * from app_jobs.tasks'), 'operator', 'who may read settings');
select is(
    pg_temp.callers($$insert into app_jobs.tasks values ('mail')$$), 'operator', 'who may set them'
);
select is(
    pg_temp.callers('select * from app_jobs.job_queues'), 'operator monitor', 'who may watch queues'
);
select is(
    pg_temp.callers('select * from app_jobs.workers'), 'operator monitor', 'who may watch workers'
);
select
    is(
        pg_temp.callers(statement), '', 'nobody but the owner may: ' || statement
    )
from unnest(array[
    'insert into app_jobs.jobs (task_identifier, slot) values (''mail'', 1)',
    'delete from app_jobs.jobs',
    'update app_jobs.finished_jobs set state = ''failed''',
    'delete from app_jobs.workers',
    'select * from app_jobs.streams',
    'insert into app_jobs.error_codes values (''JQ999'', ''x'', ''x'')',
    'select nextval(''app_jobs.slot_number'')'
]) as s (statement);

select finish();
rollback;
