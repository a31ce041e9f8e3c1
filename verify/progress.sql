-- Verify app_jobs:progress on pg

begin;

select set_config('plpgsql.check_asserts', 'on', true);
set local search_path = pg_catalog;

do $$
begin
    assert exists (
        select
        from pg_attribute as a
        where
            a.attrelid = 'app_jobs.workers'::regclass
            and a.attname = 'progress'
            and a.atttypid = 'jsonb'::regtype
    ), 'workers.progress is missing or changed';
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
        ('set_progress(worker_id text, reports json)', 'void', 'worker'),
        (
            'progress()',
            'TABLE(worker_id text, id bigint, task_identifier text, done real, note text, '
            'since timestamp with time zone)',
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
