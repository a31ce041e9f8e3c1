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
