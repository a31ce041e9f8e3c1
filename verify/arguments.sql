-- Verify app_jobs:arguments on pg

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
        ('check_worker_id(worker_id text)', 'void', ''),
        ('check_not_null(argument text, is_null boolean, hint text)', 'void', ''),
        ('check_length(argument text, value text, most integer)', 'void', ''),
        ('check_positive(argument text, value interval)', 'void', ''),
        ('check_delay(argument text, value interval)', 'void', ''),
        ('check_time(argument text, value timestamp with time zone)', 'void', ''),
        ('check_objects(argument text, value json, hint text)', 'void', ''),
        ('check_sizes(payload json, attributes jsonb)', 'void', ''),
        (
            'check_job(identifier text, job_key text, queue_name text, max_attempts integer, '
            'retry_after interval, run_at timestamp with time zone)',
            'void', ''
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

-- types
do $$
declare
    v_wrong text;
begin
    select string_agg(e.part, ', ') into v_wrong
    from (
        values
        ('task_name text task_name_length'),
        ('queue_name text queue_name_length'),
        ('job_payload json job_payload_size'),
        ('job_attributes jsonb job_attributes_size'),
        ('due_time timestamp with time zone due_time_in_range'),
        ('lease_term interval lease_term_in_range'),
        ('attempt_limit integer attempt_limit_positive')
    ) as e(part)
    where e.part not in (
        select concat_ws(' ', t.typname, format_type(t.typbasetype, t.typtypmod), c.conname)
        from pg_type as t
        inner join pg_constraint as c on c.contypid = t.oid and c.convalidated
        where t.typnamespace = 'app_jobs'::regnamespace
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
        ('check_worker_id(null)', '22004'),
        ('check_worker_id('''')', '22023'),
        ('check_not_null(''argument'', true, ''hint'')', '22004'),
        ('check_length(''argument'', '''', 1)', '22023'),
        ('check_positive(''argument'', ''0'')', '22023'),
        ('check_delay(''argument'', ''-1 s'')', '22023'),
        ('check_time(''argument'', ''infinity'')', '22023'),
        ('check_objects(''argument'', ''[1]'', ''hint'')', '22023'),
        ('check_job('''', null, null, null, null, null)', '22023')
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
