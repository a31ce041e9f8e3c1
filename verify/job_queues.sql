-- Verify app_jobs:job_queues on pg

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
        'queue_settings.line text not null',
        'queue_settings.database_id uuid',
        'queue_settings.queue_name text not null',
        'queue_settings.max_running integer not null',
        'queue_settings.paused boolean not null',
        'constraint queue_settings_line_named',
        'constraint queue_settings_max_running_positive',
        'constraint queue_settings_pkey',
        'queue_settings for app_jobs_operator select',
        'job_queues.database_id uuid',
        'job_queues.queue_name text',
        'job_queues.job_count bigint',
        'job_queues.locked_by text',
        'job_queues.locked_at timestamp with time zone',
        'job_queues.max_running integer',
        'job_queues.paused boolean',
        'job_queues for app_jobs_monitor select, app_jobs_operator select'
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

rollback;
