-- Verify app_jobs:run_schedules on pg

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
        (
            'schedule_slots(now timestamp with time zone, OUT slot integer, OUT since timestamp '
            'with time zone)',
            'SETOF record', ''
        ),
        ('next_schedule_at(now timestamp with time zone)', 'timestamp with time zone', ''),
        (
            'last_due(schedule app_jobs.scheduled_jobs, now timestamp with time zone)',
            'timestamp with time zone', ''
        ),
        (
            'due_times(schedule app_jobs.scheduled_jobs, now timestamp with time zone, OUT due '
            'timestamp with time zone[], OUT last_due timestamp with time zone, OUT next_due '
            'timestamp with time zone)',
            'record', ''
        ),
        (
            'job_spec(schedule app_jobs.scheduled_jobs, due_at timestamp with time zone)',
            'json', ''
        ),
        ('fire_schedules(most integer)', 'bigint[]', ''),
        ('run_due_schedules()', 'SETOF app_jobs.jobs', 'worker'),
        (
            'run_scheduled_job(scheduled_job_id bigint, job_expiry interval)',
            'app_jobs.jobs', 'worker'
        ),
        (
            'get_scheduled_job(worker_id text, task_identifiers text[])',
            'app_jobs.scheduled_jobs', 'worker'
        ),
        (
            'release_scheduled_jobs(worker_id text, ids bigint[])',
            'SETOF bigint', 'worker'
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
        ('run_scheduled_job(null)', '22004'),
        ('run_scheduled_job(-1)', 'JQ001'),
        ('get_scheduled_job(null)', '22004'),
        ('release_scheduled_jobs(null)', '22004')
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
