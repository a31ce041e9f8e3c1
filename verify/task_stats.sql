-- Verify app_jobs:task_stats on pg

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
        'task_figures.minutes integer not null',
        'task_figures.at timestamp with time zone not null',
        'task_figures.task_identifier text not null',
        'task_figures.lot bigint not null',
        'task_figures.completed bigint not null',
        'task_figures.failed bigint not null',
        'task_figures.retried bigint not null',
        'task_figures.wait_histogram bigint[] not null',
        'task_figures.run_histogram bigint[] not null',
        'task_figures.wait_seconds double precision not null',
        'task_figures.run_seconds double precision not null',
        'constraint task_figures_minutes_known',
        'constraint task_figures_pkey',
        'task_figures for app_jobs_operator select',
        'stat_reports.at timestamp with time zone not null',
        'stat_reports.id bigint not null',
        'stat_reports.worker_id text not null',
        'stat_reports.figures app_jobs.task_figures[] not null',
        'constraint stat_reports_pkey',
        'stat_reports for app_jobs_operator select',
        'depth_figures.at timestamp with time zone not null',
        'depth_figures.kind text not null',
        'depth_figures.name text not null',
        'depth_figures.ready bigint not null',
        'depth_figures.scheduled bigint not null',
        'depth_figures.running bigint not null',
        'depth_figures.parked bigint not null',
        'depth_figures.oldest_ready_age interval',
        'constraint depth_figures_kind_known',
        'constraint depth_figures_pkey',
        'depth_figures for app_jobs_operator select',
        'stats_merged_to for nobody',
        'stats_pruned_to for nobody'
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
        ('histogram_bounds()', 'double precision[]', 'monitor worker'),
        (
            'histogram_quantile(histogram bigint[], quantile double precision)',
            'double precision', 'monitor'
        ),
        (
            'sum_stats(step interval, tens tstzrange, minutes tstzrange, reports tstzrange, '
            'report_ids bigint[])',
            'SETOF app_jobs.task_figures', ''
        ),
        ('record_stats(worker_id text, stats json)', 'void', 'worker'),
        ('record_depths(at timestamp with time zone)', 'void', ''),
        ('merge_stats(reports integer, rows integer)', 'integer', ''),
        (
            'whole_steps("from" timestamp with time zone, "to" timestamp with time zone, step '
            'interval)',
            'tstzrange', ''
        ),
        (
            'task_stats("from" timestamp with time zone, "to" timestamp with time zone, step '
            'interval)',
            'TABLE(at timestamp with time zone, task_identifier text, completed bigint, failed '
            'bigint, retried bigint, wait_histogram bigint[], run_histogram bigint[], wait_seconds '
            'double precision, run_seconds double precision)',
            'monitor'
        ),
        (
            'depths("from" timestamp with time zone, "to" timestamp with time zone, step interval)',
            'TABLE(at timestamp with time zone, kind text, name text, ready bigint, scheduled '
            'bigint, running bigint, parked bigint, oldest_ready_age interval)',
            'monitor'
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
