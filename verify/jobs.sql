-- Verify app_jobs:jobs on pg

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
        'jobs.id bigint not null',
        'jobs.database_id uuid',
        'jobs.queue_name text',
        'jobs.task_identifier text not null',
        'jobs.payload json not null',
        'jobs.attributes jsonb not null',
        'jobs.priority integer not null',
        'jobs.run_at timestamp with time zone not null',
        'jobs.attempts integer not null',
        'jobs.max_attempts integer not null',
        'jobs.lease integer not null',
        'jobs.key text',
        'jobs.last_error text',
        'jobs.retry_after interval',
        'jobs.locked_by text',
        'jobs.locked_at timestamp with time zone',
        'jobs.lease_expires_at timestamp with time zone',
        'jobs.created_at timestamp with time zone not null',
        'jobs.updated_at timestamp with time zone not null',
        'jobs.slot integer not null',
        'jobs.line text',
        'jobs.seat integer',
        'jobs.lease_length interval',
        'jobs.superseded boolean not null',
        'jobs.cancel_reason text',
        'jobs.has_effects boolean not null',
        'constraint jobs_retry_after_in_range',
        'constraint jobs_run_at_in_range',
        'constraint jobs_held_since',
        'constraint jobs_lease_is_held',
        'constraint jobs_held_out_of_line',
        'constraint jobs_seat_is_held',
        'constraint jobs_pkey',
        'index jobs_line',
        'index jobs_scheduled',
        'index jobs_leased',
        'index jobs_processing',
        'unique index jobs_seats',
        'unique index jobs_key',
        'unique index jobs_tenant_key',
        'jobs for app_jobs_operator select'
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
        ('queue_line(database_id uuid, queue_name text)', 'text', '')
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
