-- Verify app_jobs:add_job on pg

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
        ('find_job(job_key text, db_id uuid)', 'app_jobs.jobs', 'producer'),
        ('with_trace(attributes jsonb)', 'jsonb', ''),
        ('lock_key_holder(job_key text, db_id uuid)', 'app_jobs.jobs', ''),
        ('finished_with_key(job_key text, db_id uuid)', 'app_jobs.jobs', ''),
        (
            'add_job(db_id uuid, identifier text, payload json, job_key text, queue_name '
            'text, run_at timestamp with time zone, max_attempts integer, priority integer, '
            'job_key_mode text, attributes jsonb, retry_after interval)',
            'app_jobs.jobs', 'producer'
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

-- what a bad argument is answered with
do $$
declare
    v_call text;
    v_expected text;
    v_state text;
begin
    for v_call, v_expected in
        values
        ('find_job(null)', '22004'),
        ('add_job()', '22004'),
        ('add_job(identifier => ''verify'', job_key_mode => ''none'')', '22023')
    loop
        begin
            execute 'select app_jobs.' || v_call;
            v_state := '00000';
        exception when others then
            v_state := sqlstate;
        end;
        assert v_state = v_expected, format('%s answers %s, not %s', v_call, v_state, v_expected);
    end loop;
end;
$$;

rollback;
