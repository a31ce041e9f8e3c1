-- Verify app_jobs:lines on pg

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
        'place.tid tid',
        'place.priority integer',
        'place.run_at timestamp with time zone',
        'place.id bigint',
        'place.queue_line text',
        'found.tids tid[]',
        'found.queued app_jobs.place[]',
        'found.last_id bigint',
        'found.used_slots integer[]'
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

-- functions: arguments, result, who else than the owner may call them; those are pinned
do $$
declare
    v_wrong text;
begin
    select string_agg(e.signature, ', ') into v_wrong
    from (
        values
        ('raise_bounds(slot integer, line text)', 'boolean', ''),
        ('task_range(tasks text[])', 'TABLE(low text, high text)', ''),
        ('only_slot(line text, tasks text[], first integer)', 'SETOF integer', ''),
        (
            'lock_jobs(slot integer, line text, tasks text[], low text, high text, paused text[], '
            || 'after app_jobs.place, until app_jobs.place, most integer, of_queues boolean)',
            'app_jobs.found', ''
        ),
        (
            'look(line text, tasks text[], paused text[], wanted integer, after '
            'app_jobs.place)',
            'app_jobs.found', ''
        )
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
