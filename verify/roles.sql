-- Verify app_jobs:roles on pg

begin;

select set_config('plpgsql.check_asserts', 'on', true);

do $$
declare
    v_role text;
begin
    foreach v_role in array array[
        'app_jobs_producer', 'app_jobs_worker', 'app_jobs_operator', 'app_jobs_monitor'
    ] loop
        assert to_regrole(v_role) is not null, format('role %s is missing', v_role);
        -- its own right, not the one that it may have through another role
        assert exists (
            select
            from pg_namespace as n
            cross join aclexplode(n.nspacl) as g
            where
                n.nspname = 'app_jobs'
                and g.grantee = v_role::regrole
                and g.privilege_type = 'USAGE'
        ), format('role %s may not use schema app_jobs', v_role);
        assert pg_has_role('app_jobs_operator', v_role, 'usage'),
            format('app_jobs_operator may not do what %s may', v_role);
    end loop;
end;
$$;

rollback;
