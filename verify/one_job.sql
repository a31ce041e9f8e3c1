-- Verify app_jobs:one_job on pg

begin;

select set_config('plpgsql.check_asserts', 'on', true);
set local search_path = pg_catalog;

-- columns
do $$
declare
    v_wrong text;
begin
    select string_agg(e.part, ', ') into v_wrong
    from unnest(array[
        'job_detail.id bigint',
        'job_detail.task_identifier text',
        'job_detail.state text',
        'job_detail.payload json',
        'job_detail.attributes jsonb',
        'job_detail.run_at timestamp with time zone',
        'job_detail.started_at timestamp with time zone',
        'job_detail.created_at timestamp with time zone',
        'job_detail.retry_after interval',
        'job_detail.database_id uuid',
        'job_detail.queue_name text',
        'job_detail.key text',
        'job_detail.priority integer',
        'job_detail.attempts integer',
        'job_detail.max_attempts integer',
        'job_detail.lease integer',
        'job_detail.last_error text',
        'job_detail.locked_by text',
        'job_detail.lease_expires_at timestamp with time zone',
        'job_detail.finished_at timestamp with time zone',
        'job_detail.finished_by text',
        'job_detail.result json'
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
        ('job_details(job_id bigint)', 'app_jobs.job_detail', 'worker'),
        ('set_attributes(job_id bigint, attributes jsonb)', 'boolean', 'worker'),
        ('set_retry_after(job_id bigint, retry_after interval)', 'boolean', 'worker'),
        (
            'set_run_at(job_id bigint, run_at timestamp with time zone)',
            'boolean', 'worker'
        ),
        ('move_job_to_processing(job_id bigint)', 'boolean', 'worker'),
        ('end_job(job_id bigint, state text, keep interval)', 'boolean', ''),
        ('move_job_to_done(job_id bigint, delete_on_complete boolean)', 'boolean', 'worker'),
        ('move_job_to_failed(job_id bigint, delete_on_fail boolean)', 'boolean', 'worker'),
        ('delete_job(job_id bigint)', 'boolean', 'worker')
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
        ('job_details(null)', '22004'),
        ('set_attributes(1, ''[]'')', '22023'),
        ('set_retry_after(1, ''0'')', '22023'),
        ('set_run_at(1, null)', '22004'),
        ('move_job_to_processing(null)', '22004'),
        ('move_job_to_done(null)', '22004'),
        ('move_job_to_failed(null)', '22004'),
        ('delete_job(null)', '22004')
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
