begin;
\ir include/helpers.sql
select no_plan();

select has_schema('app_jobs');
select is(
    (
        select count(*)
        from pg_namespace as n
        cross join aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) as g
        where n.nspname = 'app_jobs' and g.grantee = 0
    ),
    0::bigint,
    'the schema is closed to the public'
);
select throws_ok(
    $$
    set local role pg_signal_backend;
    select app_jobs.version()
    $$,
    '42501', 'permission denied for schema app_jobs', 'others cannot even look a name up'
);

select finish();
rollback;
