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

-- what they may do: catalog.sql; that it is so: tests/hostile/test_roles.py
select finish();
rollback;
