-- Verify app_jobs:schema on pg

begin;

select set_config('plpgsql.check_asserts', 'on', true);

do $$
begin
    assert to_regnamespace('app_jobs') is not null, 'schema app_jobs is missing';
    assert not exists (
        select
        from pg_namespace as n
        cross join aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) as g
        where n.nspname = 'app_jobs' and g.grantee = 0
    ), 'everybody has a right on schema app_jobs';
end;
$$;

rollback;
