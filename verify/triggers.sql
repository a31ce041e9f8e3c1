-- Verify app_jobs:triggers on pg

begin;

select set_config('plpgsql.check_asserts', 'on', true);
set local search_path = pg_catalog;

-- functions: arguments, result, who else than the owner may call them; those are pinned
do $$
declare
    v_wrong text;
begin
    select string_agg(e.signature, ', ') into v_wrong
    from (
        values
        ('is_built_in(type oid)', 'boolean', ''),
        ('json_expression(type oid, value text)', 'text', ''),
        ('json_columns(relation oid, value text)', 'text', ''),
        ('has_built_in_columns(relation oid)', 'boolean', ''),
        ('field_as_json(row_given record, type oid, name text)', 'json', ''),
        ('row_as_json(row_given record, relation oid)', 'json', ''),
        ('column_type(relation oid, trigger_name text, argument text, name text)', 'oid', ''),
        ('tenant_column(relation oid, trigger_name text, tenant text)', 'text', ''),
        (
            'check_trigger(relation oid, trigger_name text, arguments text[], level text, '
            'wanted_level text, fewest integer, most integer, form text)',
            'void', ''
        ),
        (
            'add_job_for_row(row_given record, relation oid, trigger_name text, arguments '
            'text[], payload json)',
            'void', ''
        ),
        ('tg_add_job_with_row_id()', 'trigger', 'producer'),
        ('tg_add_job_with_row()', 'trigger', 'producer'),
        ('tg_add_job_with_fields()', 'trigger', 'producer'),
        ('tg_add_jobs_with_rows()', 'trigger', 'producer')
    ) as e(signature, result, callers)
    where not exists (
        select
        from pg_proc as p
        where
            p.pronamespace = 'app_jobs'::regnamespace
            and format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)) = e.signature
            and pg_get_function_result(p.oid) = e.result
            and e.callers = coalesce((
                select string_agg(replace(g.role, 'app_jobs_', ''), ' ' order by g.role)
                from (
                    select a.grantee::regrole::text
                    from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
                ) as g(role)
                where g.role ~ '^(-|app_jobs_(producer|worker|operator|monitor))$'
            ), '')
            and (
                e.callers = ''
                or (p.prosecdef and p.proconfig @> array['search_path=pg_catalog, pg_temp'])
            )
    );
    assert v_wrong is null, format('missing or changed: %s', v_wrong);
end;
$$;

rollback;
