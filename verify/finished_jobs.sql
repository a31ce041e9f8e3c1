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
