-- The rules of the house, for every object of the schema, those not yet written included.
begin;
\ir include/helpers.sql
select no_plan();

create temporary view functions as
select
    p.oid,
    p.proname as name,
    p.prosrc as body,
    p.provolatile as volatility,
    p.prosecdef as is_definer,
    p.proisstrict as is_strict,
    l.lanname as language,
    format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)) as signature,
    p.prorettype = 'trigger'::regtype as is_trigger,
    coalesce(p.proconfig, '{}') as settings,
    coalesce((
        select string_agg(replace(g.role, 'app_jobs_', ''), ' ' order by g.role)
        from (
            select a.grantee::regrole::text
            from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
            where a.grantee <> p.proowner
        ) as g (role)
    ), '') as callers
from pg_proc as p
inner join pg_language as l on p.prolang = l.oid
where p.pronamespace = 'app_jobs'::regnamespace;

create temporary view relations as
select
    c.oid,
    c.relname as name,
    c.relkind as kind,
    c.relacl as acl,
    c.relowner as owner
from pg_class as c
where
    c.relnamespace = 'app_jobs'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S')
    and not exists (
    -- the sequence of an identity column is part of its table
        select from pg_depend as d
        where d.objid = c.oid and d.deptype = 'i' and c.relkind = 'S'
    );

create temporary view grants as
select
    r.name::text as object,
    a.grantee::regrole::text as role,
    a.privilege_type as privilege
from relations as r
cross join
    aclexplode(
        coalesce(
            r.acl,
            case r.kind when 'S' then acldefault('s', r.owner) else acldefault('r', r.owner) end
        )
    ) as a
where a.grantee <> r.owner
union all
select
    format('%s.%s', r.name, t.attname),
    a.grantee::regrole::text,
    a.privilege_type
from relations as r
inner join pg_attribute as t on r.oid = t.attrelid
cross join aclexplode(t.attacl) as a
union all
select
    t.typname,
    a.grantee::regrole::text,
    a.privilege_type
from pg_type as t
cross join aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) as a
left join pg_class as c on t.typrelid = c.oid
where
    t.typnamespace = 'app_jobs'::regnamespace
    and (t.typtype in ('d', 'e', 'r') or c.relkind = 'c')
    and a.grantee <> t.typowner
union all
select
    f.signature,
    r.role,
    'EXECUTE'
from functions as f
cross join unnest(string_to_array(f.callers, ' ')) as r (role);

-- comments: \df+ and \d+ are the manual
select
    isnt(
        obj_description('app_jobs'::regnamespace, 'pg_namespace'), null, 'the schema is commented'
    );
select is_empty(
    $$select r.rolname from pg_roles as r
    where r.rolname ~ '^app_jobs_' and shobj_description(r.oid, 'pg_authid') is null$$,
    'so are roles'
);
select is_empty(
    $$select r.name from relations as r where obj_description(r.oid, 'pg_class') is null$$,
    'and tables, views and sequences'
);
select is_empty(
    $$select r.name, a.attname
    from relations as r inner join pg_attribute as a on a.attrelid = r.oid
    where r.kind <> 'S' and a.attnum > 0 and not a.attisdropped and col_description(r.oid, a.attnum) is null$$,
    'and their columns'
);
select is_empty(
    $$select c.relname
    from relations as r
    inner join pg_index as i on i.indrelid = r.oid
    inner join pg_class as c on c.oid = i.indexrelid
    where
        not exists (select from pg_constraint as n where n.conindid = c.oid)
        and obj_description(c.oid, 'pg_class') is null$$,
    'and indexes that are no constraints'
);
select is_empty(
    $$select t.typname
    from pg_type as t left join pg_class as c on c.oid = t.typrelid
    where
        t.typnamespace = 'app_jobs'::regnamespace
        and (t.typtype in ('d', 'e', 'r') or c.relkind = 'c')
        and obj_description(t.oid, 'pg_type') is null$$,
    'and types'
);
select is_empty(
    $$select f.signature from functions as f where obj_description(f.oid, 'pg_proc') is null$$,
    'and functions'
);
select is_empty(
    $$select f.signature, a.name
    from functions as f
    inner join pg_proc as p on p.oid = f.oid
    cross join unnest(p.proargnames[:p.pronargs]) as a(name)
    where
        obj_description(f.oid, 'pg_proc') !~ ('\m' || a.name || '\M')
        and obj_description(f.oid, 'pg_proc') !~ 'the rest'$$,
    'whose comments name each argument'
);
select is_empty(
    $$select f.signature from functions as f
    where obj_description(f.oid, 'pg_proc') !~ '\mRoles:\s.+\.$'$$,
    'and end with the roles that may call them'
);

-- rights
select is_empty($$select * from grants where role = '-'$$, 'nothing is granted to the public');
select set_eq(
    $$select concat_ws(
        ' ', g.object || ':', replace(g.role, 'app_jobs_', ''),
        string_agg(lower(g.privilege), ' ' order by g.privilege)
    )
    from grants as g where g.privilege <> 'EXECUTE' group by g.object, g.role$$,
    array[
        'depth_figures: operator select',
        'effects: operator select',
        'error_codes: monitor select',
        'error_codes: operator select',
        'error_codes: producer select',
        'error_codes: worker select',
        'finished_jobs: operator select',
        'job_errors: operator select',
        'job_queues: monitor select',
        'job_queues: operator select',
        'jobs: operator select',
        'metrics: monitor select',
        'operator_actions: operator select',
        'queue_settings: operator select',
        'scheduled_jobs: operator delete insert select update',
        'stat_reports: operator select',
        'task_figures: operator select',
        'tasks: operator delete insert select update',
        'workers: monitor select',
        'workers: operator select'
    ],
    'what roles may do with tables, views, sequences, columns and types: this and nothing else'
);
select is_empty(
    $$select f.signature, f.settings from functions as f
    where f.callers <> '' and not (f.is_definer and 'search_path=pg_catalog, pg_temp' = any(f.settings))$$,
    'who calls a function does so with our rights, on our path'
);
select is_empty(
    $$select f.signature from functions as f
    where f.callers = '' and f.is_definer and f.name <> 'tg_place_schedule'$$,
    'internal functions have no rights of their own, but for the trigger of a table of ours'
);
select is_empty(
    $$select r.name from relations as r where r.owner <> (
        select n.nspowner from pg_namespace as n where n.nspname = 'app_jobs'
    )$$,
    'all has one owner'
);

-- the contract: whatever a role may call stands here, with its arguments, result and callers
select set_eq(
    $$select concat_ws(
        ' ', f.callers || ':', f.name || '(' || pg_get_function_arguments(f.oid) || ')',
        pg_get_function_result(f.oid)
    )
    from functions as f where f.callers <> ''$$,
    array[
        'monitor operator producer worker: version() text',
        'monitor: metrics() TABLE('
        'database_id uuid, task_identifier text, queue_name text, ready bigint, scheduled bigint, '
        'running bigint, parked bigint, expired bigint, oldest_ready_age interval, '
        'failed_1h bigint)',
        'monitor: running_jobs() TABLE('
        'worker_id text, task_identifier text, jobs bigint, since timestamp with time zone)',
        'monitor: histogram_quantile(histogram bigint[], quantile double precision) '
        'double precision',
        'monitor: task_stats('
        '"from" timestamp with time zone, "to" timestamp with time zone, '
        'step interval DEFAULT ''00:01:00''::interval) TABLE('
        'at timestamp with time zone, task_identifier text, completed bigint, failed bigint, '
        'retried bigint, wait_histogram bigint[], run_histogram bigint[], '
        'wait_seconds double precision, run_seconds double precision)',
        'monitor: depths('
        '"from" timestamp with time zone, "to" timestamp with time zone, '
        'step interval DEFAULT ''00:01:00''::interval) TABLE('
        'at timestamp with time zone, kind text, name text, ready bigint, scheduled bigint, '
        'running bigint, parked bigint, oldest_ready_age interval)',
        'monitor worker: histogram_bounds() double precision[]',
        'monitor: explain_job(job_id bigint) text',
        'monitor producer: next_run_at('
        'schedule_info json, after timestamp with time zone DEFAULT now(), '
        'time_zone text DEFAULT ''UTC''::text) timestamp with time zone',
        'monitor producer: preview_schedule('
        'schedule_info json, count integer DEFAULT 10, '
        'after timestamp with time zone DEFAULT now(), '
        'time_zone text DEFAULT ''UTC''::text) SETOF timestamp with time zone',
        'monitor: doctor() SETOF app_jobs.finding',
        'monitor: vital_signs('
        'OUT ticked_ago interval, OUT schedules_behind bigint, OUT schedule_delay interval, '
        'OUT oldest_transaction interval, OUT transactions_behind bigint, '
        'OUT sees_sessions boolean) record',
        'monitor: list_jobs('
        'task text DEFAULT NULL::text, queue text DEFAULT NULL::text, '
        'db_id uuid DEFAULT NULL::uuid, state text DEFAULT NULL::text, '
        'search text DEFAULT NULL::text, before bigint DEFAULT NULL::bigint, '
        'most integer DEFAULT 50) SETOF app_jobs.listed_job',
        'monitor: list_finished('
        'task text DEFAULT NULL::text, queue text DEFAULT NULL::text, '
        'db_id uuid DEFAULT NULL::uuid, state text DEFAULT NULL::text, '
        'search text DEFAULT NULL::text, '
        'since timestamp with time zone DEFAULT NULL::timestamp with time zone, '
        'before timestamp with time zone DEFAULT NULL::timestamp with time zone, '
        'before_id bigint DEFAULT NULL::bigint, '
        'most integer DEFAULT 50) SETOF app_jobs.listed_job',
        'monitor: list_queues('
        'search text DEFAULT NULL::text, most integer DEFAULT 100) TABLE('
        'database_id uuid, queue_name text, ready bigint, scheduled bigint, running bigint, '
        'parked bigint, oldest_ready_age interval, max_running integer, paused boolean)',
        'monitor: list_tasks() TABLE('
        'task_identifier text, ready bigint, scheduled bigint, running bigint, parked bigint, '
        'expired bigint, oldest_ready_age interval, failed_1h bigint, workers bigint, '
        'paused boolean, max_attempts integer, retry_after interval, timeout interval, '
        'keep_completed interval, keep_failed interval)',
        'operator: redrive_jobs('
        'task text DEFAULT NULL::text, queue text DEFAULT NULL::text, '
        'db_id uuid DEFAULT NULL::uuid, search text DEFAULT NULL::text, '
        'since timestamp with time zone DEFAULT NULL::timestamp with time zone, '
        'before timestamp with time zone DEFAULT NULL::timestamp with time zone, '
        'before_id bigint DEFAULT NULL::bigint, most integer DEFAULT 1000, '
        'per_second numeric DEFAULT NULL::numeric, '
        'dry_run boolean DEFAULT false) SETOF app_jobs.listed_job',
        'operator: record_action('
        'actor text, action text, details jsonb DEFAULT ''{}''::jsonb) bigint',
        'worker: set_progress(worker_id text, reports json) void',
        'monitor: progress() TABLE('
        'worker_id text, id bigint, task_identifier text, done real, note text, '
        'since timestamp with time zone)',
        'operator: backoff_delay(backoff json, attempts integer) interval',
        'operator: sweep() integer',
        'operator: pause_queue(queue_name text, db_id uuid DEFAULT NULL::uuid) '
        'app_jobs.queue_settings',
        'operator: resume_queue(queue_name text, db_id uuid DEFAULT NULL::uuid) '
        'app_jobs.queue_settings',
        'operator: set_queue_limit('
        'queue_name text, max_running integer, db_id uuid DEFAULT NULL::uuid) '
        'app_jobs.queue_settings',
        'operator: complete_jobs(job_ids bigint[]) SETOF app_jobs.jobs',
        'operator: permanently_fail_jobs('
        'job_ids bigint[], error_message text DEFAULT NULL::text) SETOF app_jobs.jobs',
        'operator: cancel_jobs('
        'job_ids bigint[], reason text DEFAULT NULL::text) SETOF app_jobs.jobs',
        'operator: reschedule_jobs('
        'job_ids bigint[], run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, '
        'priority integer DEFAULT NULL::integer, attempts integer DEFAULT NULL::integer, '
        'max_attempts integer DEFAULT NULL::integer) SETOF app_jobs.jobs',
        'operator: retry_jobs(finished_job_ids bigint[]) SETOF app_jobs.jobs',
        'operator: prune('
        'older_than interval DEFAULT NULL::interval, batch integer DEFAULT 10000) bigint',
        'operator: set_task(task text, settings json) app_jobs.tasks',
        'operator: pause_task(task text) app_jobs.tasks',
        'operator: resume_task(task text) app_jobs.tasks',
        'producer: add_job('
        'db_id uuid DEFAULT NULL::uuid, identifier text DEFAULT NULL::text, '
        'payload json DEFAULT ''{}''::json, '
        'job_key text DEFAULT NULL::text, queue_name text DEFAULT NULL::text, '
        'run_at timestamp with time zone DEFAULT now(), '
        'max_attempts integer DEFAULT NULL::integer, '
        'priority integer DEFAULT 0, job_key_mode text DEFAULT ''replace''::text, '
        'attributes jsonb DEFAULT ''{}''::jsonb, '
        'retry_after interval DEFAULT NULL::interval) app_jobs.jobs',
        'producer: add_jobs(specs json) SETOF bigint',
        'producer: add_jobs('
        'identifier text, payloads json[], db_id uuid DEFAULT NULL::uuid, '
        'queue_name text DEFAULT NULL::text, '
        'run_at timestamp with time zone DEFAULT now(), '
        'max_attempts integer DEFAULT NULL::integer, '
        'priority integer DEFAULT 0, attributes jsonb DEFAULT ''{}''::jsonb, '
        'retry_after interval DEFAULT NULL::interval) SETOF bigint',
        'producer: find_job(job_key text, db_id uuid DEFAULT NULL::uuid) app_jobs.jobs',
        'producer: cancel_job('
        'job_key text, db_id uuid DEFAULT NULL::uuid, '
        'reason text DEFAULT NULL::text) app_jobs.jobs',
        'producer: tg_add_job_with_row_id() trigger',
        'producer: tg_add_job_with_row() trigger',
        'producer: tg_add_job_with_fields() trigger',
        'producer: tg_add_jobs_with_rows() trigger',
        'worker: register_worker('
        'worker_id text, host text DEFAULT NULL::text, pid integer DEFAULT NULL::integer, '
        'task_identifiers text[] DEFAULT NULL::text[]) app_jobs.workers',
        'worker: set_worker_idle(worker_id text, idle boolean) void',
        'worker: idle_peers(worker_id text) integer',
        'worker: record_stats(worker_id text, stats json) void',
        'worker: get_job('
        'worker_id text, task_identifiers text[] DEFAULT NULL::text[], '
        'job_expiry interval DEFAULT ''04:00:00''::interval) app_jobs.jobs',
        'worker: get_jobs('
        'worker_id text, task_identifiers text[] DEFAULT NULL::text[], '
        'job_expiry interval DEFAULT ''04:00:00''::interval, '
        'job_limit integer DEFAULT 1) SETOF app_jobs.jobs',
        'worker: complete_job('
        'worker_id text, job_id bigint, lease integer DEFAULT NULL::integer, '
        'result json DEFAULT NULL::json) app_jobs.jobs',
        'worker: complete_jobs('
        'worker_id text, job_ids bigint[], leases integer[] DEFAULT NULL::integer[], '
        'results json[] DEFAULT NULL::json[]) SETOF bigint',
        'worker: fail_job('
        'worker_id text, job_id bigint, error_message text DEFAULT NULL::text, '
        'lease integer DEFAULT NULL::integer, retry_in interval DEFAULT NULL::interval, '
        'detail text DEFAULT NULL::text, permanent boolean DEFAULT false) app_jobs.jobs',
        'worker: fail_jobs(worker_id text, failures json) SETOF bigint',
        'worker: snooze_job('
        'worker_id text, job_id bigint, delay interval, '
        'lease integer DEFAULT NULL::integer) app_jobs.jobs',
        'worker: heartbeat('
        'worker_id text, job_ids bigint[] DEFAULT NULL::bigint[], '
        'job_expiry interval DEFAULT NULL::interval) SETOF bigint',
        'worker: release_jobs(worker_id text) SETOF bigint',
        'worker: hold_job('
        'worker_id text, job_id bigint, lease integer DEFAULT NULL::integer) boolean',
        'worker: begin_once('
        'worker_id text, job_id bigint, effect_key text, lease integer DEFAULT NULL::integer, '
        'OUT run boolean, OUT result json) record',
        'worker: finish_once('
        'worker_id text, job_id bigint, effect_key text, result json DEFAULT NULL::json, '
        'lease integer DEFAULT NULL::integer) void',
        'worker: forget_once('
        'job_id bigint, effect_key text, lease integer DEFAULT NULL::integer) boolean',
        'worker: job_details(job_id bigint) app_jobs.job_detail',
        'worker: set_attributes(job_id bigint, attributes jsonb) boolean',
        'worker: set_retry_after(job_id bigint, retry_after interval) boolean',
        'worker: set_run_at(job_id bigint, run_at timestamp with time zone) boolean',
        'worker: move_job_to_processing(job_id bigint) boolean',
        'worker: move_job_to_done('
        'job_id bigint, delete_on_complete boolean DEFAULT false) boolean',
        'worker: move_job_to_failed('
        'job_id bigint, delete_on_fail boolean DEFAULT false) boolean',
        'worker: delete_job(job_id bigint) boolean',
        'worker: add_scheduled_job('
        'db_id uuid DEFAULT NULL::uuid, identifier text DEFAULT NULL::text, '
        'payload json DEFAULT ''{}''::json, schedule_info json DEFAULT ''{}''::json, '
        'job_key text DEFAULT NULL::text, queue_name text DEFAULT NULL::text, '
        'max_attempts integer DEFAULT NULL::integer, priority integer DEFAULT 0, '
        'time_zone text DEFAULT ''UTC''::text, missed text DEFAULT ''once''::text, '
        'attributes jsonb DEFAULT ''{}''::jsonb, '
        'overlap text DEFAULT ''allow''::text) app_jobs.scheduled_jobs',
        'worker: list_scheduled_jobs('
        'key_prefix text DEFAULT NULL::text) SETOF app_jobs.scheduled_jobs',
        'worker: run_due_schedules() SETOF app_jobs.jobs',
        'worker: run_scheduled_job('
        'scheduled_job_id bigint, '
        'job_expiry interval DEFAULT ''01:00:00''::interval) app_jobs.jobs',
        'worker: get_scheduled_job('
        'worker_id text, '
        'task_identifiers text[] DEFAULT NULL::text[]) app_jobs.scheduled_jobs',
        'worker: release_scheduled_jobs('
        'worker_id text, ids bigint[] DEFAULT NULL::bigint[]) SETOF bigint',
        'worker: tick('
        'every interval DEFAULT NULL::interval, '
        'OUT next_due_at timestamp with time zone, OUT made_ready integer, OUT expired integer, '
        'OUT moved integer, OUT closed integer, OUT relisted integer, OUT pruned integer) record'
    ],
    'what roles may call'
);

-- bodies
select
    is_empty(
        $$select f.signature from functions as f where f.is_strict$$,
        'a null argument never vanishes'
    );
select is_empty(
    $$select f.signature from functions as f where f.body ~* 'when\s+others'$$,
    'no error is swallowed'
);
select is_empty(
    $$select f.signature, s.code
    from functions as f
    cross join regexp_matches(f.body, 'errcode = ([^,;]*)', 'g') as e(clause)
    cross join regexp_matches(e.clause[1], '''(\w{5})''', 'g') as c(match)
    cross join lateral (select c.match[1]) as s(code)
    where s.code not in (select e.sqlstate from app_jobs.error_codes as e)$$,
    'SQLSTATEs raised stand in error_codes'
);
select is_empty(
    $$select f.signature
    from functions as f
    cross join regexp_matches(f.body, 'raise exception [^;]*;', 'g') as r(statement)
    where r.statement[1] !~ 'errcode = ' or r.statement[1] !~ 'hint = '$$,
    'each refusal has a SQLSTATE and a hint'
);
select is_empty(
    $$select f.signature
    from functions as f
    where
        f.volatility <> 'v'
        and (
            f.body ~* '\m(insert into|delete from|update app_jobs|for update|nextval|setval|pg_notify|advisory)\M'
            or f.body ~ (
                select 'app_jobs\.(' || string_agg(distinct v.name, '|') || ')\('
                from functions as v where v.volatility = 'v' and not v.is_trigger
            )
        )$$,
    'what writes or locks is volatile'
);
select is_empty(
    $$select f.signature from functions as f
    where f.volatility = 'i' and f.body ~* '\m(from|join)\s+(app_jobs|pg_catalog)\.'$$,
    'what reads a table is not immutable'
);
select is_empty(
    $$select h.name
    from unnest(array[
        'run_due_schedules', 'get_jobs', 'complete_jobs', 'fail_jobs', 'heartbeat', 'release_jobs', 'tick', 'keep_house', 'let_go',
        'advance_queues', 'turn_slots'
    ]) as h(name)
    where not exists (
        select from functions as f
        where f.name = h.name and f.settings @> array[
            'jit=off', 'enable_seqscan=off', 'enable_bitmapscan=off', 'enable_hashjoin=off',
            'enable_mergejoin=off', 'plan_cache_mode=force_generic_plan'
        ]
    )$$,
    'plans of hot functions are pinned'
);

-- what plpgsql_check finds; where it is not available the other server has it
select
    exists(
        select from pg_extension
        where extname = 'plpgsql_check'
    ) as can_check,
    current_setting('server_version_num')::integer / 10000 = 15 as must_check
\gset
select ok(:'can_check' or not :'must_check', 'plpgsql_check is installed on PostgreSQL 15');
\if :can_check
create temporary table checked (id integer, tenant uuid);
select is_empty(
    $$select f.signature, c.lineno, c.level, c.message, c.detail
    from functions as f
    cross join lateral plpgsql_check_function_tb(
        f.oid,
        relid => case
            when f.name = 'tg_place_schedule' then 'app_jobs.scheduled_jobs'::regclass
            when f.is_trigger then 'pg_temp.checked'::regclass
            else 0::regclass
        end,
        oldtable => case when f.name = 'tg_add_jobs_with_rows' then 'old_rows' end,
        newtable => case when f.name = 'tg_add_jobs_with_rows' then 'new_rows' end,
        fatal_errors => false, security_warnings => true, compatibility_warnings => true
    ) as c
    where
        f.language = 'plpgsql'
        -- its loop is left by return alone
        and (f.name, c.message) <> ('enter_slot', 'control reached end of function without RETURN')
        -- its columns are quoted by format('%I') within string_agg(), which is not seen through
        and (f.name, c.level) <> ('tg_add_jobs_with_rows', 'security')
        -- quoted wherever they stand
        and not (
            f.name in ('whole_steps', 'task_stats', 'depths')
            and c.message ~ '^name of parameter "(from|to)" is reserved keyword$'
        )$$,
    'plpgsql_check has nothing to say'
);
\endif

select finish();
rollback;
