-- Verify app_jobs:error_codes on pg

begin;

select set_config('plpgsql.check_asserts', 'on', true);
set local search_path = pg_catalog;

-- columns, constraints, indexes, sequences; who else than the owner may do what
do $$
declare
    v_wrong text;
begin
    select string_agg(e.part, ', ') into v_wrong
    from unnest(array[
        'error_codes.sqlstate text not null',
        'error_codes.condition text not null',
        'error_codes.meaning text not null',
        'constraint error_codes_sqlstate_form',
        'constraint error_codes_pkey',
        'error_codes for app_jobs_monitor select, app_jobs_operator select, app_jobs_producer '
        'select, app_jobs_worker select'
    ]) as e(part)
    where e.part not in (
        select concat_ws(' ',
            c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod),
            case when a.attnotnull then 'not null' end
        )
        from pg_class as c
        inner join pg_attribute as a on a.attrelid = c.oid
        where
            c.relnamespace = 'app_jobs'::regnamespace
            and a.attnum > 0
            and c.relkind in ('r', 'v', 'c')
        union all
        select 'constraint ' || n.conname
        from pg_constraint as n
        where n.connamespace = 'app_jobs'::regnamespace and n.convalidated
        union all
        select concat_ws(' ', case when i.indisunique then 'unique' end, 'index', c.relname)
        from pg_index as i
        inner join pg_class as c on c.oid = i.indexrelid
        where c.relnamespace = 'app_jobs'::regnamespace and i.indisvalid
        union all
        select format('%s for %s', c.relname, coalesce((
            select string_agg(g.role || ' ' || g.privilege, ', ' order by g.role, g.privilege)
            from (
                select a.grantee::regrole::text, lower(a.privilege_type)
                from aclexplode(c.relacl) as a
            ) as g(role, privilege)
            where g.role ~ '^(-|app_jobs_(producer|worker|operator|monitor))$'
        ), 'nobody'))
        from pg_class as c
        where c.relnamespace = 'app_jobs'::regnamespace and c.relkind in ('r', 'v', 'S')
    );
    assert v_wrong is null, format('missing or changed: %s', v_wrong);
end;
$$;

do $$
begin
    assert (
        select count(*) >= 11 and bool_and(e.condition <> '' and e.meaning <> '')
        from app_jobs.error_codes as e
    ), 'codes are missing';
end;
$$;

rollback;
