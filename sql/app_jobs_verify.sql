-- Check app_jobs 0.1.0, writing nothing: psql -f app_jobs_verify.sql
-- Made by `make generate`: do not edit.
\set ON_ERROR_STOP on

-- Verify app_jobs:schema on pg

begin;

select set_config('plpgsql.check_asserts', 'on', true);

do $$
begin
    assert to_regnamespace('app_jobs') is not null, 'schema app_jobs is missing';
    assert not exists (
        select
        from pg_namespace as n
        cross join aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) as g
        where n.nspname = 'app_jobs' and g.grantee = 0
    ), 'everybody has a right on schema app_jobs';
end;
$$;

rollback;

-- Verify app_jobs:roles on pg

begin;

select set_config('plpgsql.check_asserts', 'on', true);

do $$
declare
    v_role text;
begin
    foreach v_role in array array[
        'app_jobs_producer', 'app_jobs_worker', 'app_jobs_operator', 'app_jobs_monitor'
    ] loop
        assert to_regrole(v_role) is not null, format('role %s is missing', v_role);
        -- its own right, not the one that it may have through another role
        assert exists (
            select
            from pg_namespace as n
            cross join aclexplode(n.nspacl) as g
            where
                n.nspname = 'app_jobs'
                and g.grantee = v_role::regrole
                and g.privilege_type = 'USAGE'
        ), format('role %s may not use schema app_jobs', v_role);
        assert pg_has_role('app_jobs_operator', v_role, 'usage'),
            format('app_jobs_operator may not do what %s may', v_role);
    end loop;
end;
$$;

rollback;

-- Verify app_jobs:error_codes on pg

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
        'error_codes.sqlstate text not null',
        'error_codes.condition text not null',
        'error_codes.meaning text not null',
        'constraint error_codes_sqlstate_form',
        'constraint error_codes_pkey',
        'error_codes for app_jobs_monitor select, app_jobs_operator select, app_jobs_producer '
        'select, app_jobs_worker select'
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

do $$
begin
    assert (
        select count(*) >= 11 and bool_and(e.condition <> '' and e.meaning <> '')
        from app_jobs.error_codes as e
    ), 'codes are missing';
end;
$$;

rollback;

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

-- Verify app_jobs:tasks on pg

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
        'tasks.task_identifier text not null',
        'tasks.max_attempts integer',
        'tasks.retry_after interval',
        'tasks.timeout interval',
        'tasks.backoff json',
        'tasks.keep_completed interval not null',
        'tasks.keep_failed interval not null',
        'tasks.paused boolean not null',
        'constraint tasks_task_identifier_length',
        'constraint tasks_max_attempts_positive',
        'constraint tasks_retry_after_in_range',
        'constraint tasks_timeout_in_range',
        'constraint tasks_backoff_valid',
        'constraint tasks_keep_completed_in_range',
        'constraint tasks_keep_failed_in_range',
        'constraint tasks_pkey',
        'tasks for app_jobs_operator delete, app_jobs_operator insert, app_jobs_operator '
        'select, app_jobs_operator update'
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
        ('backoff_delay(backoff json, attempts integer)', 'interval', 'operator'),
        ('retry_delay(identifier text, attempts integer)', 'interval', '')
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
        ('backoff_delay(''{"type": "none"}'', 1)', '22023')
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

-- Verify app_jobs:finished_jobs on pg

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
        'finished_jobs.id bigint not null',
        'finished_jobs.database_id uuid',
        'finished_jobs.queue_name text',
        'finished_jobs.task_identifier text not null',
        'finished_jobs.payload json not null',
        'finished_jobs.attributes jsonb not null',
        'finished_jobs.priority integer not null',
        'finished_jobs.run_at timestamp with time zone not null',
        'finished_jobs.attempts integer not null',
        'finished_jobs.max_attempts integer not null',
        'finished_jobs.lease integer not null',
        'finished_jobs.key text',
        'finished_jobs.last_error text',
        'finished_jobs.retry_after interval',
        'finished_jobs.created_at timestamp with time zone not null',
        'finished_jobs.started_at timestamp with time zone',
        'finished_jobs.state text not null',
        'finished_jobs.finished_at timestamp with time zone not null',
        'finished_jobs.finished_by text',
        'finished_jobs.result json',
        'finished_jobs.keep_until timestamp with time zone not null',
        'constraint finished_jobs_state_known',
        'constraint finished_jobs_pkey',
        'index finished_jobs_key',
        'index finished_jobs_keep_until',
        'index finished_jobs_finished_at',
        'index finished_jobs_failed',
        'finished_jobs for app_jobs_operator select',
        'job_errors.job_id bigint not null',
        'job_errors.lease integer not null',
        'job_errors.attempt integer not null',
        'job_errors.worker_id text',
        'job_errors.failed_at timestamp with time zone not null',
        'job_errors.error_message text',
        'job_errors.detail text',
        'constraint job_errors_pkey',
        'job_errors for app_jobs_operator select'
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

-- Verify app_jobs:effects on pg

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
        'effects.job_id bigint not null',
        'effects.effect_key text not null',
        'effects.lease integer not null',
        'effects.worker_id text not null',
        'effects.started_at timestamp with time zone not null',
        'effects.finished_at timestamp with time zone',
        'effects.result json',
        'constraint effects_effect_key_length',
        'constraint effects_result_is_finished',
        'constraint effects_pkey',
        'effects for app_jobs_operator select'
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
        ('check_effect(job_id bigint, effect_key text)', 'void', ''),
        ('hold_job(worker_id text, job_id bigint, lease integer)', 'boolean', 'worker'),
        (
            'begin_once(worker_id text, job_id bigint, effect_key text, lease integer, '
            'OUT run boolean, OUT result json)',
            'record', 'worker'
        ),
        (
            'finish_once(worker_id text, job_id bigint, effect_key text, result json, lease '
            'integer)',
            'void', 'worker'
        ),
        ('forget_once(job_id bigint, effect_key text, lease integer)', 'boolean', 'worker')
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
        ('hold_job(''verify'', null)', '22004'),
        ('begin_once(''verify'', 1, '''')', '22023'),
        ('begin_once(''verify'', 0, ''e'')', 'JQ001'),
        ('finish_once(''verify'', 0, ''e'')', 'JQ001'),
        ('forget_once(1, null)', '22004')
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

-- Verify app_jobs:workers on pg

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
        'workers.worker_id text not null',
        'workers.host text',
        'workers.pid integer',
        'workers.started_at timestamp with time zone not null',
        'workers.last_seen_at timestamp with time zone not null',
        'workers.task_identifiers text[]',
        'workers.idle boolean not null',
        'workers.running integer not null',
        'constraint workers_running_not_negative',
        'constraint workers_pkey',
        'workers for app_jobs_monitor select, app_jobs_operator select',
        'went_idle for nobody',
        'went_busy for nobody'
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
        ('wake_workers()', 'void', ''),
        (
            'register_worker(worker_id text, host text, pid integer, task_identifiers text[])',
            'app_jobs.workers', 'worker'
        ),
        ('set_worker_idle(worker_id text, idle boolean)', 'void', 'worker'),
        ('idle_peers(worker_id text)', 'integer', 'worker')
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
        ('register_worker(null)', '22004'),
        ('set_worker_idle(''verify'', null)', '22004'),
        ('idle_peers(null)', '22004')
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

-- Verify app_jobs:counts on pg

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
        'slot_counts.slot integer not null',
        'slot_counts.state text not null',
        'slot_counts.task_identifier text not null',
        'slot_counts.queue_line text not null',
        'slot_counts.jobs bigint not null',
        'slot_counts.oldest timestamp with time zone not null',
        'constraint slot_counts_state_known',
        'constraint slot_counts_pkey',
        'index slot_counts_oldest',
        'slot_counts for nobody',
        'totals.id bigint not null',
        'totals.state text not null',
        'totals.task_identifier text not null',
        'totals.queue_line text not null',
        'totals.jobs bigint not null',
        'totals.merged boolean not null',
        'constraint totals_pkey',
        'index totals_merged',
        'totals for nobody',
        'counted_to for nobody',
        'counted_at for nobody'
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
        ('groups_at_most()', 'integer', ''),
        (
            'waiting_in(slot integer)',
            'TABLE(state text, task_identifier text, queue_line text, jobs bigint, oldest '
            'timestamp with time zone)',
            ''
        ),
        ('note_counts(counts app_jobs.slot_counts[])', 'void', ''),
        (
            'forget_counts(slots integer[], state text, tasks text[], queue_line text)',
            'void', ''
        ),
        ('count_again(slots integer)', 'integer', '')
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

-- Verify app_jobs:slots on pg

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
        'slot_number for nobody',
        'slot_current for nobody',
        'slot_first for nobody',
        'activity for nobody',
        'open_slots.slot integer not null',
        'open_slots.opened_by xid8 not null',
        'open_slots.opened_at timestamp with time zone not null',
        'constraint open_slots_pkey',
        'open_slots for nobody',
        'streams.slot integer not null',
        'streams.line text not null',
        'streams.task_identifier text not null',
        'streams.priority integer not null',
        'streams.run_at timestamp with time zone not null',
        'streams.id bigint not null',
        'constraint streams_pkey',
        'index streams_order',
        'index streams_parked',
        'streams for nobody',
        'alarms.slot integer not null',
        'alarms.kind text not null',
        'alarms.due_at timestamp with time zone not null',
        'constraint alarms_kind_known',
        'constraint alarms_pkey',
        'index alarms_due',
        'alarms for nobody'
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
        ('lock_key(kind text, name text)', 'bigint', ''),
        ('seat_line(queue_line text)', 'text', ''),
        ('first_slot()', 'integer', ''),
        ('find_first_slot()', 'integer', ''),
        ('enter_slot()', 'integer', ''),
        ('note_arrivals(jobs integer)', 'bigint', ''),
        ('close_slot(slot integer)', 'void', ''),
        ('turn_slots()', 'integer', '')
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

-- Verify app_jobs:queues on pg

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
        'seated.tid tid',
        'seated.seat integer'
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
        ('queues_at_most()', 'integer', ''),
        ('free_seats(queue_line text, wanted integer)', 'integer[]', ''),
        (
            'take_seats(slot integer, tasks text[], paused text[], places app_jobs.place[])',
            'SETOF app_jobs.seated', ''
        ),
        ('advance_queues(queue_lines text[], tasks text[], wait boolean)', 'integer', '')
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

-- Verify app_jobs:let_go on pg

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
        ('queues_left(tids tid[], OUT queue_lines text[], OUT tasks text[])', 'record', ''),
        (
            'finish_jobs(tids tid[], state text, finished_by text, reasons text[], results json[], '
            'keep interval)', 'SETOF bigint', ''
        ),
        ('end_jobs(tids tid[], state text, reason text, keep interval)', 'void', ''),
        (
            'let_go(tids tid[], run_ats timestamp with time zone[], errors text[], permanent '
            'boolean[], counted boolean, wait boolean)',
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

rollback;

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

-- Verify app_jobs:add_jobs on pg

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
        ('check_spec(spec json)', 'void', ''),
        ('check_specs(specs json)', 'void', ''),
        (
            'insert_jobs(specs json, identifier text, payloads json[], db_ids uuid[], jobs '
            'integer, queue_name text, run_at timestamp with time zone, max_attempts integer, '
            'priority integer, attributes jsonb, retry_after interval)',
            'bigint[]', ''
        ),
        ('add_jobs(specs json)', 'SETOF bigint', 'producer'),
        (
            'add_jobs(identifier text, payloads json[], db_id uuid, queue_name text, run_at '
            'timestamp with time zone, max_attempts integer, priority integer, attributes '
            'jsonb, retry_after interval)',
            'SETOF bigint', 'producer'
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
        ('add_jobs(null::json)', '22004'),
        ('add_jobs(''{}''::json)', '22023'),
        ('add_jobs(''[{}]''::json)', '22004'),
        ('add_jobs(''verify'', null)', '22004')
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

-- Verify app_jobs:cancel_job on pg

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
        ('cancel_locked(tids tid[], reason text)', 'void', ''),
        ('cancel_job(job_key text, db_id uuid, reason text)', 'app_jobs.jobs', 'producer')
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
        ('cancel_job(null)', '22004')
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

-- Verify app_jobs:schedule_times on pg

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
        'parsed_schedule.time_zone text',
        'parsed_schedule.start_at timestamp with time zone',
        'parsed_schedule.end_at timestamp with time zone',
        'parsed_schedule.run_at timestamp with time zone',
        'parsed_schedule.every interval',
        'parsed_schedule.seconds bit varying',
        'parsed_schedule.minutes bit varying',
        'parsed_schedule.hours bit varying',
        'parsed_schedule.dates bit varying',
        'parsed_schedule.months bit varying',
        'parsed_schedule.weekdays bit varying',
        'parsed_schedule.years bit varying',
        'parsed_schedule.either_day boolean',
        'parsed_schedule.names_hour boolean'
    ]) as e(part)
    where e.part not in (
        select concat_ws(' ', c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod))
        from pg_class as c
        inner join pg_attribute as a on a.attrelid = c.oid
        where
            c.relnamespace = 'app_jobs'::regnamespace
            and a.attnum > 0
            and c.relkind = 'c'
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
        ('next_bit(bits bit varying, first integer)', 'integer', ''),
        ('check_time_zone(argument text, time_zone text)', 'void', ''),
        (
            'clock_change(time_zone text, since timestamp with time zone, '
            'until timestamp with time zone)',
            'timestamp with time zone', ''
        ),
        (
            'first_reading(wall timestamp without time zone, time_zone text)',
            'timestamp with time zone', ''
        ),
        ('read_moment(key text, value json, time_zone text)', 'timestamp with time zone', ''),
        ('read_every(value json)', 'interval', ''),
        ('cron_number(value text, names text[], first_name integer)', 'integer', ''),
        (
            'cron_field(field text, value text, low integer, high integer, names text[])',
            'bit varying', ''
        ),
        (
            'calendar_field(key text, value json, low integer, high integer, shift integer)',
            'bit varying', ''
        ),
        (
            'read_schedule(schedule_info json, time_zone text)',
            'app_jobs.parsed_schedule', ''
        ),
        (
            'next_match(schedule app_jobs.parsed_schedule, wall timestamp without time zone)',
            'timestamp without time zone', ''
        ),
        (
            'next_step(schedule app_jobs.parsed_schedule, after timestamp with time zone)',
            'timestamp with time zone', ''
        ),
        (
            'next_time(schedule app_jobs.parsed_schedule, after timestamp with time zone)',
            'timestamp with time zone', ''
        ),
        ('check_schedule(schedule_info json, time_zone text)', 'void', ''),
        (
            'next_run_at(schedule_info json, after timestamp with time zone, time_zone text)',
            'timestamp with time zone', 'monitor producer'
        ),
        (
            'preview_schedule(schedule_info json, count integer, after timestamp with time zone, '
            'time_zone text)',
            'SETOF timestamp with time zone', 'monitor producer'
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
        ('next_run_at(null)', '22004'),
        ('next_run_at(''{"hour": 24}'')', '22023'),
        ('next_run_at(''{"hour": 9}'', time_zone => ''none'')', '22023'),
        ('preview_schedule(''{"hour": 9}'', 0)', '22023'),
        ('check_schedule(null, ''UTC'')', '22004'),
        ('check_schedule(''{"rule": "@reboot"}'', ''UTC'')', '22023')
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

-- and a good one
do $$
begin
    assert app_jobs.next_run_at('{"rule": "30 2 * * *"}', '2026-03-28 12:00+00', 'Europe/Berlin')
        = '2026-03-29 01:00+00', 'a skipped time does not run after the gap';
end;
$$;

rollback;

-- Verify app_jobs:scheduled_jobs on pg

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
        'scheduled_jobs.id bigint not null',
        'scheduled_jobs.database_id uuid',
        'scheduled_jobs.queue_name text',
        'scheduled_jobs.task_identifier text not null',
        'scheduled_jobs.payload json not null',
        'scheduled_jobs.attributes jsonb not null',
        'scheduled_jobs.priority integer not null',
        'scheduled_jobs.max_attempts integer',
        'scheduled_jobs.key text',
        'scheduled_jobs.schedule_info json not null',
        'scheduled_jobs.time_zone text not null',
        'scheduled_jobs.missed text not null',
        'scheduled_jobs.overlap text not null',
        'scheduled_jobs.paused boolean not null',
        'scheduled_jobs.locked_at timestamp with time zone',
        'scheduled_jobs.locked_by text',
        'scheduled_jobs.last_scheduled timestamp with time zone',
        'scheduled_jobs.last_scheduled_id bigint',
        'scheduled_jobs.next_run_at timestamp with time zone',
        'scheduled_jobs.due_at timestamp with time zone',
        'scheduled_jobs.slot integer',
        'constraint scheduled_jobs_pkey',
        'constraint scheduled_jobs_task_identifier_length',
        'constraint scheduled_jobs_queue_name_length',
        'constraint scheduled_jobs_key_length',
        'constraint scheduled_jobs_attributes_object',
        'constraint scheduled_jobs_max_attempts_positive',
        'constraint scheduled_jobs_missed_known',
        'constraint scheduled_jobs_overlap_known',
        'constraint scheduled_jobs_held_since',
        'constraint scheduled_jobs_paused_without_time',
        'constraint scheduled_jobs_placed',
        'index scheduled_jobs_due',
        'index scheduled_jobs_paused',
        'unique index scheduled_jobs_key',
        'unique index scheduled_jobs_tenant_key',
        'scheduled_jobs for app_jobs_operator delete, app_jobs_operator insert, app_jobs_operator '
        'select, app_jobs_operator update'
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
        ('tg_place_schedule()', 'trigger', ''),
        (
            'add_scheduled_job(db_id uuid, identifier text, payload json, schedule_info json, '
            'job_key text, queue_name text, max_attempts integer, priority integer, '
            'time_zone text, missed text, attributes jsonb, overlap text)',
            'app_jobs.scheduled_jobs', 'worker'
        ),
        (
            'list_scheduled_jobs(key_prefix text)', 'SETOF app_jobs.scheduled_jobs', 'worker'
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

-- the trigger, which has our rights
do $$
begin
    assert exists (
        select
        from pg_trigger as t
        inner join pg_proc as p on p.oid = t.tgfoid
        where
            t.tgrelid = 'app_jobs.scheduled_jobs'::regclass
            and p.oid = 'app_jobs.tg_place_schedule()'::regprocedure
            and t.tgtype = 23 -- before insert or update, for each row
            and t.tgenabled = 'O'
            and p.prosecdef
            and p.proconfig @> array['search_path=pg_catalog, pg_temp']
    ), 'the trigger is missing or changed';
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
        ('add_scheduled_job()', '22004'),
        ('add_scheduled_job(identifier => ''verify'', missed => ''none'')', '22023')
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

-- Verify app_jobs:metrics on pg

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
        'metrics.database_id uuid',
        'metrics.task_identifier text',
        'metrics.queue_name text',
        'metrics.ready bigint',
        'metrics.scheduled bigint',
        'metrics.running bigint',
        'metrics.parked bigint',
        'metrics.expired bigint',
        'metrics.oldest_ready_age interval',
        'metrics.failed_1h bigint',
        'metrics for app_jobs_monitor select'
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
        (
            'metrics()',
            'TABLE(database_id uuid, task_identifier text, queue_name text, ready bigint, '
            'scheduled bigint, running bigint, parked bigint, expired bigint, '
            'oldest_ready_age interval, failed_1h bigint)',
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

-- Verify app_jobs:tick on pg

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
        'ticked_at for nobody',
        'swept_at for nobody',
        'pruned_to for nobody',
        'moved_to for nobody'
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
        ('due_slots(kind text, now timestamp with time zone, first integer)', 'SETOF integer', ''),
        ('anything_due(now timestamp with time zone, first integer)', 'SETOF integer', ''),
        ('make_due_ready(tasks text[], paused text[], most integer)', 'integer', ''),
        ('end_leases(tids tid[])', 'void', ''),
        ('end_expired_leases(most integer)', 'integer', ''),
        ('move_queues(most integer)', 'integer', ''),
        ('sweep()', 'integer', 'operator'),
        ('forget_finished(tids tid[])', 'void', ''),
        ('prune_finished(most integer)', 'integer', ''),
        ('count_idle()', 'void', ''),
        (
            'keep_house(most integer, OUT made_ready integer, OUT expired integer, OUT moved '
            'integer, OUT closed integer, OUT relisted integer, OUT pruned integer)',
            'record', ''
        ),
        (
            'tick(every interval, OUT next_due_at timestamp with time zone, OUT made_ready '
            'integer, OUT expired integer, OUT moved integer, OUT closed integer, OUT relisted '
            'integer, OUT pruned integer)',
            'record', 'worker'
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

-- Verify app_jobs:get_jobs on pg

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
            'get_jobs(worker_id text, task_identifiers text[], job_expiry interval, job_limit '
            'integer)',
            'SETOF app_jobs.jobs', 'worker'
        ),
        (
            'get_job(worker_id text, task_identifiers text[], job_expiry interval)',
            'app_jobs.jobs', 'worker'
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
        ('get_jobs(null)', '22004'),
        ('get_jobs(''verify'', job_limit => 0)', '22023'),
        ('get_job(''verify'', job_expiry => ''0'')', '22023')
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

-- Verify app_jobs:complete_jobs on pg

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
            'complete_jobs(worker_id text, job_ids bigint[], leases integer[], results '
            'json[])',
            'SETOF bigint', 'worker'
        ),
        (
            'complete_job(worker_id text, job_id bigint, lease integer, result json)',
            'app_jobs.jobs', 'worker'
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
        ('complete_jobs(''verify'', null)', '22004'),
        ('complete_jobs(''verify'', ''{1}'', ''{}'')', '22023'),
        ('complete_job(''verify'', null)', '22004')
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

-- Verify app_jobs:fail_jobs on pg

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
        ('fail_jobs(worker_id text, failures json)', 'SETOF bigint', 'worker'),
        (
            'fail_job(worker_id text, job_id bigint, error_message text, lease integer, '
            'retry_in interval, detail text, permanent boolean)',
            'app_jobs.jobs', 'worker'
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
        ('fail_jobs(''verify'', null)', '22004'),
        ('fail_jobs(''verify'', ''{}'')', '22023'),
        ('fail_job(''verify'', null)', '22004'),
        ('fail_job(''verify'', 1, retry_in => ''-1 s'')', '22023')
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

-- Verify app_jobs:snooze_job on pg

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
            'snooze_job(worker_id text, job_id bigint, delay interval, lease integer)',
            'app_jobs.jobs', 'worker'
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
        ('snooze_job(''verify'', 1, null)', '22004'),
        ('snooze_job(''verify'', 1, ''-1 s'')', '22023')
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

-- Verify app_jobs:heartbeat on pg

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
        ('held_by(worker_id text)', 'SETOF bigint', ''),
        (
            'heartbeat(worker_id text, job_ids bigint[], job_expiry interval)',
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
        ('heartbeat(null)', '22004'),
        ('heartbeat(''verify'', job_expiry => ''0'')', '22023')
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

-- Verify app_jobs:release_jobs on pg

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
        ('release_jobs(worker_id text)', 'SETOF bigint', 'worker')
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
        ('release_jobs(null)', '22004'),
        ('release_jobs('''')', '22023')
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

-- Verify app_jobs:set_queue on pg

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
            'set_queue(queue_name text, db_id uuid, max_running integer, paused boolean)',
            'app_jobs.queue_settings', ''
        ),
        ('pause_queue(queue_name text, db_id uuid)', 'app_jobs.queue_settings', 'operator'),
        ('resume_queue(queue_name text, db_id uuid)', 'app_jobs.queue_settings', 'operator'),
        (
            'set_queue_limit(queue_name text, max_running integer, db_id uuid)',
            'app_jobs.queue_settings', 'operator'
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
        ('pause_queue(null)', '22004'),
        ('resume_queue('''')', '22023'),
        ('set_queue_limit(''q'', null)', '22004'),
        ('set_queue_limit(''q'', 0)', '22023')
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

-- Verify app_jobs:set_task on pg

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
        ('set_task(task text, settings json)', 'app_jobs.tasks', 'operator'),
        ('pause_task(task text)', 'app_jobs.tasks', 'operator'),
        ('resume_task(task text)', 'app_jobs.tasks', 'operator')
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
        ('set_task(''t'', null)', '22004'),
        ('set_task(''t'', ''{"no": 1}'')', '22023'),
        ('pause_task(null)', '22004'),
        ('resume_task('''')', '22023')
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

-- Verify app_jobs:steer_jobs on pg

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
        ('lock_jobs(job_ids bigint[], leased boolean)', 'tid[]', ''),
        ('slots_for(jobs integer, OUT slots integer[], OUT closed boolean)', 'record', ''),
        ('complete_jobs(job_ids bigint[])', 'SETOF app_jobs.jobs', 'operator'),
        (
            'permanently_fail_jobs(job_ids bigint[], error_message text)',
            'SETOF app_jobs.jobs', 'operator'
        ),
        ('cancel_jobs(job_ids bigint[], reason text)', 'SETOF app_jobs.jobs', 'operator'),
        (
            'reschedule_jobs(job_ids bigint[], run_at timestamp with time zone, priority '
            'integer, attempts integer, max_attempts integer)',
            'SETOF app_jobs.jobs', 'operator'
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
        ('complete_jobs(null)', '22004'),
        ('permanently_fail_jobs(null)', '22004'),
        ('cancel_jobs(null)', '22004'),
        ('reschedule_jobs(null)', '22004'),
        ('reschedule_jobs(array[1], attempts => -1)', '22023'),
        ('reschedule_jobs(array[1], max_attempts => 0)', '22023')
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

-- Verify app_jobs:retry_jobs on pg

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
        ('retry_jobs(finished_job_ids bigint[])', 'SETOF app_jobs.jobs', 'operator')
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
        ('retry_jobs(null)', '22004')
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

-- Verify app_jobs:prune on pg

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
        ('prune(older_than interval, batch integer)', 'bigint', 'operator')
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
        ('prune(batch => null)', '22004'),
        ('prune(batch => 0)', '22023'),
        ('prune(''-1 s'')', '22023')
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

-- Verify app_jobs:running_jobs on pg

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
            'running_jobs()',
            'TABLE(worker_id text, task_identifier text, jobs bigint, '
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

-- Verify app_jobs:explain_job on pg

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
        ('in_words(span interval)', 'text', ''),
        ('at_time(moment timestamp with time zone)', 'text', ''),
        ('first_line(message text)', 'text', ''),
        ('explain_queue(job app_jobs.jobs)', 'text', ''),
        ('explain_finished(job_id bigint)', 'text', ''),
        ('explain_ready(job app_jobs.jobs)', 'text', ''),
        ('explain_job(job_id bigint)', 'text', 'monitor')
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

-- Verify app_jobs:doctor on pg

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
        ('diagnose_jobs()', 'SETOF app_jobs.finding', ''),
        ('diagnose_slots()', 'SETOF app_jobs.finding', ''),
        ('diagnose_server(patience interval)', 'SETOF app_jobs.finding', ''),
        ('diagnose_tables()', 'SETOF app_jobs.finding', ''),
        ('diagnose_rights()', 'SETOF app_jobs.finding', ''),
        ('doctor()', 'SETOF app_jobs.finding', 'monitor')
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

-- Verify app_jobs:vital_signs on pg

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
            'vital_signs(OUT ticked_ago interval, OUT schedules_behind bigint, OUT schedule_delay '
            'interval, OUT oldest_transaction interval, OUT transactions_behind bigint, OUT '
            'sees_sessions boolean)',
            'record', 'monitor'
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

-- Verify app_jobs:lists on pg

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
        'listed_job.id bigint',
        'listed_job.state text',
        'listed_job.task_identifier text',
        'listed_job.queue_name text',
        'listed_job.database_id uuid',
        'listed_job.key text',
        'listed_job.priority integer',
        'listed_job.run_at timestamp with time zone',
        'listed_job.attempts integer',
        'listed_job.max_attempts integer',
        'listed_job.created_at timestamp with time zone',
        'listed_job.held_by text',
        'listed_job.held_since timestamp with time zone',
        'listed_job.finished_at timestamp with time zone',
        'listed_job.last_error text'
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
        (
            'check_list(state text, states text[], most integer, most_allowed integer)', 'void', ''
        ),
        (
            'is_wanted(job app_jobs.listed_job, task text, queue text, db_id uuid, state text, '
            'search text)',
            'boolean', ''
        ),
        (
            'list_jobs(task text, queue text, db_id uuid, state text, search text, before bigint, '
            'most integer)',
            'SETOF app_jobs.listed_job', 'monitor'
        ),
        (
            'list_finished(task text, queue text, db_id uuid, state text, search text, '
            'since timestamp with time zone, before timestamp with time zone, before_id bigint, '
            'most integer)',
            'SETOF app_jobs.listed_job', 'monitor'
        ),
        (
            'list_queues(search text, most integer)',
            'TABLE(database_id uuid, queue_name text, ready bigint, scheduled bigint, '
            'running bigint, parked bigint, oldest_ready_age interval, max_running integer, '
            'paused boolean)',
            'monitor'
        ),
        (
            'list_tasks()',
            'TABLE(task_identifier text, ready bigint, scheduled bigint, running bigint, '
            'parked bigint, expired bigint, oldest_ready_age interval, failed_1h bigint, '
            'workers bigint, paused boolean, max_attempts integer, retry_after interval, '
            'timeout interval, keep_completed interval, keep_failed interval)',
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

-- Verify app_jobs:redrive_jobs on pg

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
            'redrive_jobs(task text, queue text, db_id uuid, search text, '
            'since timestamp with time zone, before timestamp with time zone, before_id bigint, '
            'most integer, per_second numeric, dry_run boolean)',
            'SETOF app_jobs.listed_job', 'operator'
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

-- Verify app_jobs:operator_actions on pg

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
        'operator_actions.id bigint not null',
        'operator_actions.at timestamp with time zone not null',
        'operator_actions.actor text not null',
        'operator_actions.role text not null',
        'operator_actions.action text not null',
        'operator_actions.details jsonb not null',
        'constraint operator_actions_pkey',
        'operator_actions for app_jobs_operator select'
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
        (
            'record_action(actor text, action text, details jsonb)', 'bigint', 'operator'
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

-- Verify app_jobs:version on pg

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
        ('version()', 'text', 'monitor operator producer worker')
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

do $$
begin
    assert app_jobs.version() ~ '^[0-9]+[.][0-9]+[.][0-9]+$', 'this is no version';
end;
$$;

rollback;
