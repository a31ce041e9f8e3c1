-- Deploy app_jobs:doctor to pg
-- requires: explain_job
-- requires: run_schedules

begin;

set local lock_timeout = '5s';

create type app_jobs.finding as (severity text, finding text, figure text, remedy text);

create function app_jobs.diagnose_jobs() returns setof app_jobs.finding
language plpgsql
volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_listed constant integer := 20;
    c_counted constant integer := 1000;
    v_now constant timestamptz := clock_timestamp();
    v_metrics constant app_jobs.metrics[] := array(select m from app_jobs.metrics as m);
    v_workers constant bigint := (
        select count(*) from app_jobs.workers as w
        where w.last_seen_at > v_now - interval '5 minutes'
    );
    v_idle_for constant interval := v_now - to_timestamp(
        coalesce(pg_sequence_last_value('app_jobs.ticked_at'), 0) / 1000.0
    );
begin
    -- what waits too long
    return query
    select
        case when max(m.oldest_ready_age) > interval '1 hour' then 'critical' else 'warning' end,
        format('jobs of task "%s" wait', m.task_identifier),
        format('%s ready, the oldest for %s', sum(m.ready),
        app_jobs.in_words(max(m.oldest_ready_age))),
        'start more workers; app_jobs.explain_job() tells what keeps one of them'
    from unnest(v_metrics) as m
    where
        m.ready > 0
        and m.task_identifier not in (
            select t.task_identifier from app_jobs.tasks as t where t.paused
        )
    group by m.task_identifier
    having max(m.oldest_ready_age) > interval '5 minutes'
    order by max(m.oldest_ready_age) desc
    limit c_listed;

    -- what nobody serves
    if v_workers = 0 then
        return query
        select
            'critical', 'no live worker is known', format('%s jobs are ready', sum(m.ready)),
            'start workers; those that are no app-jobs workers are known by heartbeat() or '
            'register_worker()'
        from unnest(v_metrics) as m
        where m.ready > 0
        having count(*) > 0;
    else
        return query
        select
            'critical', format('no live worker is known to serve task "%s"', m.task_identifier),
            format('%s jobs are ready, %s live workers', sum(m.ready), v_workers),
            'start a worker that serves it'
        from unnest(v_metrics) as m
        where
            m.ready > 0
            and not exists (
                select from app_jobs.workers as w
                where
                    w.last_seen_at > v_now - interval '5 minutes'
                    and (
                        w.task_identifiers is null
                        or m.task_identifier = any(w.task_identifiers)
                    )
            )
        group by m.task_identifier
        order by sum(m.ready) desc
        limit c_listed;
    end if;

    -- leases that are over; those of the last seconds wait for the next tick()
    return query
    select
        'warning', 'leases are over and nobody has taken the jobs back',
        format('%s, the first %s ago', count(*), app_jobs.in_words(v_now - min(l.ended_at))),
        'call app_jobs.tick(), and see that workers do'
    from app_jobs.due_slots('lease', v_now - interval '10 seconds', 0) as s(slot)
    -- lateral, and offset 0: slot by slot, whatever the statistics say
    cross join lateral (
        select j.lease_expires_at as ended_at
        from app_jobs.jobs as j
        where j.slot = s.slot and j.lease_expires_at < v_now - interval '10 seconds'
        offset 0
    ) as l
    having count(*) > 0;

    return query
    select
        'warning', 'schedules are behind time',
        format('%s, the first for %s', count(*), app_jobs.in_words(v_now - min(l.due_at))),
        'call app_jobs.tick(), and see that workers do'
    from app_jobs.schedule_slots(v_now - interval '1 minute') as p
    cross join lateral (
        select w.due_at
        from app_jobs.scheduled_jobs as w
        where w.slot = p.slot and w.due_at < v_now - interval '1 minute'
        offset 0
    ) as l
    having count(*) > 0;

    -- housekeeping
    return query
    select
        case when v_idle_for > interval '10 minutes' then 'critical' else 'warning' end,
        'nobody keeps house: due jobs, ended leases and queues wait',
        case
            when v_idle_for > interval '1000 days' then 'app_jobs.tick() has never run'
            else format('app_jobs.tick() ran %s ago', app_jobs.in_words(v_idle_for))
        end,
        'start a worker, or call app_jobs.tick() about once a second, from pg_cron, say'
    where
        v_idle_for > interval '1 minute'
        and exists (
            select from unnest(v_metrics) as m
            where m.ready + m.scheduled + m.running + m.parked > 0
        );

    -- what is paused
    return query
    select
        'info', format('task "%s" is paused', t.task_identifier),
        format('%s jobs wait', coalesce(sum(m.ready + m.parked + m.scheduled), 0)),
        format('when it is time: app_jobs.resume_task(%L)', t.task_identifier)
    from app_jobs.tasks as t
    left join unnest(v_metrics) as m on m.task_identifier = t.task_identifier
    where t.paused
    group by t.task_identifier
    order by t.task_identifier
    limit c_listed;

    return query
    select
        'info', 'schedules are paused: by an operator, or since they cannot be read any more',
        count(*) || case when count(*) = c_counted then ' or more' else '' end,
        'when they are right: update app_jobs.scheduled_jobs set paused = false where paused'
    from (
        select s.id from app_jobs.scheduled_jobs as s where s.paused limit c_counted
    ) as d
    having count(*) > 0;

    return query
    select
        'info',
        format(
            'queue "%s" is paused%s', q.queue_name, ' (tenant ' || q.database_id || ')'
        ),
        format('%s jobs wait', coalesce(sum(m.ready + m.parked + m.scheduled), 0)),
        format('when it is time: app_jobs.resume_queue(%s)', concat_ws(
            ', ', quote_literal(q.queue_name), quote_literal(q.database_id)
        ))
    from app_jobs.queue_settings as q
    left join unnest(v_metrics) as m
        on m.queue_name = q.queue_name and m.database_id is not distinct from q.database_id
    where q.paused
    group by q.queue_name, q.database_id
    order by q.queue_name, q.database_id
    limit c_listed;

    -- dead letters
    return query
    select
        'warning', format('jobs of task "%s" have failed for good', m.task_identifier),
        format('%s within the last hour', sum(m.failed_1h)),
        'app_jobs.finished_jobs.last_error says why; app_jobs.retry_jobs() tries again'
    from unnest(v_metrics) as m
    where m.failed_1h > 0
    group by m.task_identifier
    order by sum(m.failed_1h) desc
    limit c_listed;

    return query
    select
        'info', 'dead letters are kept',
        count(*) || case when count(*) = c_counted then ' or more' else '' end,
        'app_jobs.retry_jobs() tries again; tasks.keep_failed says how long they are kept'
    from (
        select f.id from app_jobs.finished_jobs as f
        where f.state = 'failed'
        order by f.finished_at
        limit c_counted
    ) as d
    having count(*) > 0;
end;
$$;

create function app_jobs.diagnose_slots() returns setof app_jobs.finding
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_current constant integer := pg_sequence_last_value('app_jobs.slot_current');
begin
    perform from app_jobs.open_slots as o where o.slot = v_current;
    if not found then
        return next row(
            'critical', 'the current slot is not listed', coalesce(v_current::text, 'null'),
            'sequences were not restored with the tables: call app_jobs.sweep()'
        )::app_jobs.finding;
    end if;

    -- slots that cannot be closed, since a transaction that has entered them is still open
    return query
    select
        'warning', 'an open transaction has added or changed jobs: each claim looks there, too',
        format(
            'slot %s, open for %s; %s', o.slot, app_jobs.in_words(v_now - o.opened_at),
            coalesce(
                'session ' || l.pid || ' of ' || a.usename || coalesce(
                    ', ' || a.state || ' since ' || app_jobs.at_time(a.state_change), ''
                ),
                'a prepared transaction, or nobody keeps house'
            )
        ),
        coalesce(
            'end the transaction: select pg_terminate_backend(' || l.pid || ')',
            'see pg_prepared_xacts, and that app_jobs.tick() is called'
        )
    from app_jobs.open_slots as o
    left join pg_locks as l
        on
            l.locktype = 'advisory'
            and (l.classid::bigint << 32 | l.objid::bigint)
            = app_jobs.lock_key('slot', o.slot::text)
            and l.pid is not null
            and l.granted
    left join pg_stat_activity as a on a.pid = l.pid
    where o.slot < v_current and o.opened_at < v_now - interval '5 minutes'
    order by o.opened_at;
end;
$$;

create function app_jobs.diagnose_server(patience interval) returns setof app_jobs.finding
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_usage constant double precision := pg_notification_queue_usage();
begin
    -- The session that pins the oldest snapshot: what has gone since stays, in tables and indexes.
    return query
    select
        case when a.xact_start < v_now - interval '1 hour' then 'critical' else 'warning' end,
        'an open transaction keeps dead rows',
        format(
            'session %s of %s%s, %s, since %s, for %s', a.pid, a.usename,
            ' (' || nullif(a.application_name, '') || ')', coalesce(a.state, a.backend_type),
            app_jobs.at_time(a.xact_start), app_jobs.in_words(v_now - a.xact_start)
        ),
        case a.backend_type
            when 'walsender' then 'end what runs on the standby, or set hot_standby_feedback = off '
                'there'
            else format('select pg_terminate_backend(%s)', a.pid)
        end
    from pg_stat_activity as a
    where
        (a.datname = current_database() or a.backend_type = 'walsender')
        and a.pid <> pg_backend_pid()
        and a.backend_type <> 'autovacuum worker'
        and coalesce(a.backend_xmin, a.backend_xid) is not null
        and a.xact_start <= v_now - diagnose_server.patience
    order by greatest(age(a.backend_xmin), age(a.backend_xid)) desc
    limit 1;

    return query
    select
        case when p.prepared < v_now - interval '1 hour' then 'critical' else 'warning' end,
        'a prepared transaction keeps dead rows and locks',
        format('%L, for %s', p.gid, app_jobs.in_words(v_now - p.prepared)),
        format('commit prepared %L, or rollback prepared %L', p.gid, p.gid)
    from pg_prepared_xacts as p
    where p.database = current_database() and p.prepared <= v_now - diagnose_server.patience
    order by p.prepared
    limit 5;

    return query
    select
        'warning', 'a replication slot keeps dead rows',
        format(
            '%s, %s, %s transactions behind', r.slot_name,
            case when r.active then 'active' else 'not active' end, age(r.xmin)
        ),
        case
            when r.active then 'set hot_standby_feedback = off there, or end what runs there'
            else format('select pg_drop_replication_slot(%L), if nobody needs it', r.slot_name)
        end
    from pg_replication_slots as r
    where r.xmin is not null and (not r.active or age(r.xmin) > 1000000)
    order by age(r.xmin) desc
    limit 5;

    if v_usage > 0.1 then
        return next row(
            case when v_usage > 0.5 then 'critical' else 'warning' end,
            'the queue of notifications fills: full, every NOTIFY fails',
            format('%s %%', round((100 * v_usage)::numeric)),
            'a session that listens is in a long transaction: end it'
        )::app_jobs.finding;
    end if;

    return query
    select
        case when d.age > 1500000000 then 'critical' else 'warning' end,
        'transaction ids of this database run out: nothing has frozen them',
        format('%s million old', d.age / 1000000),
        'vacuum (freeze) the oldest tables; what keeps dead rows keeps these, too'
    from (
        select age(b.datfrozenxid) as age from pg_database as b
        where b.datname = current_database()
    ) as d
    where d.age > greatest(2 * current_setting('autovacuum_freeze_max_age')::bigint, 500000000);

    if not pg_has_role('pg_read_all_stats', 'usage') then
        return next row(
            'info', 'other users'' sessions are not seen', current_user::text,
            format('grant pg_read_all_stats to %I', current_user)
        )::app_jobs.finding;
    end if;
    if not current_setting('track_activities')::boolean then
        return next row(
            'info', 'what sessions do is not seen', 'track_activities = off',
            'set track_activities = on in postgresql.conf'
        )::app_jobs.finding;
    end if;
end;
$$;

create function app_jobs.diagnose_tables() returns setof app_jobs.finding
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    -- as in the table's definition
    c_options constant text[] := array[
        'autovacuum_vacuum_scale_factor=0.01', 'autovacuum_vacuum_threshold=5000',
        'autovacuum_vacuum_insert_scale_factor=0.2', 'autovacuum_analyze_scale_factor=0.2',
        'autovacuum_analyze_threshold=50000'
    ];
    v_setting text;
begin
    foreach v_setting in array array['autovacuum', 'track_counts'] loop
        if not current_setting(v_setting)::boolean then
            return next row(
                'critical', 'autovacuum does not run', v_setting || ' = off',
                format('set %s = on in postgresql.conf', v_setting)
            )::app_jobs.finding;
        end if;
    end loop;

    return query
    select
        'critical', format('autovacuum leaves table %s out', c.relname), o.option,
        format('alter table app_jobs.%I reset (autovacuum_enabled)', c.relname)
    from pg_class as c
    cross join unnest(c.reloptions) as o(option)
    where
        c.relnamespace = 'app_jobs'::regnamespace
        and c.relkind = 'r'
        and o.option ~* '^autovacuum_enabled=(off|false|no|0|f|n)$';

    return query
    select
        'info', 'settings of table jobs differ from those deployed', d.differences,
        'measured with fillfactor 100 and: ' || array_to_string(c_options, ', ')
    from (
        select string_agg(concat_ws(' ', case when g.option is null then 'without' end,
        coalesce(g.option, w.option)), ', ') as differences
        from (
            select u.option
            from pg_class as c
            cross join unnest(c.reloptions) as u(option)
            where c.oid = 'app_jobs.jobs'::regclass
        ) as g
        full join unnest(c_options) as w(option) on w.option = g.option
        where g.option is null or w.option is null
    ) as d
    where d.differences is not null;

    -- one that is starved, or that a snapshot keeps from its work
    return query
    select
        'warning', format('table %s is full of dead rows', s.relname),
        format(
            '%s dead, %s live, vacuumed %s', s.n_dead_tup, s.n_live_tup,
            coalesce(
                app_jobs.in_words(clock_timestamp() - greatest(s.last_autovacuum, s.last_vacuum))
                || ' ago', 'never'
            )
        ),
        format('vacuum app_jobs.%I; see what else is said of dead rows and autovacuum', s.relname)
    from pg_stat_all_tables as s
    where
        s.schemaname = 'app_jobs'
        and s.n_dead_tup > 50000
        and s.n_dead_tup > s.n_live_tup / 2
    order by s.n_dead_tup desc;
end;
$$;

create function app_jobs.diagnose_rights() returns setof app_jobs.finding
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_path constant text := 'search_path=pg_catalog, pg_temp';
begin
    return query
    select
        'critical', 'the public has a right on schema app_jobs', string_agg(g.privilege_type, ', '),
        'revoke all on schema app_jobs from public'
    from pg_namespace as n
    cross join aclexplode(n.nspacl) as g
    where n.nspname = 'app_jobs' and g.grantee = 0
    having count(*) > 0;

    return query
    select
        'critical', 'the public may call a function', p.oid::regprocedure::text,
        format('revoke all on function %s from public', p.oid::regprocedure)
    from pg_proc as p
    cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as g
    where p.pronamespace = 'app_jobs'::regnamespace and g.grantee = 0;

    return query
    select
        'critical', 'the public has a right on a table', format('%s: %s', c.relname,
        string_agg(g.privilege_type, ', ')),
        format('revoke all on app_jobs.%I from public', c.relname)
    from pg_class as c
    cross join aclexplode(c.relacl) as g
    where c.relnamespace = 'app_jobs'::regnamespace and g.grantee = 0
    group by c.relname;

    -- Our rights on somebody else's path, or the caller's rights: neither works safely.
    return query
    select
        'critical', 'a function that others call has lost its definer''s rights or its path',
        p.oid::regprocedure::text,
        format(
            'alter function %s security definer set search_path = pg_catalog, pg_temp',
            p.oid::regprocedure
        )
    from pg_proc as p
    where
        p.pronamespace = 'app_jobs'::regnamespace
        and not (p.prosecdef and c_path = any(coalesce(p.proconfig, '{}')))
        and exists (
            select from aclexplode(p.proacl) as g where g.grantee not in (0, p.proowner)
        );

    return query
    select
        'warning', 'a function or table has another owner than the schema', o.name,
        format('let %s own it', n.nspowner::regrole)
    from pg_namespace as n
    cross join lateral (
        select p.oid::regprocedure::text as name, p.proowner as owner
        from pg_proc as p where p.pronamespace = n.oid
        union all
        select c.oid::regclass::text, c.relowner
        from pg_class as c where c.relnamespace = n.oid and c.relkind in ('r', 'v', 'S')
    ) as o
    where n.nspname = 'app_jobs' and o.owner <> n.nspowner;
end;
$$;

create function app_jobs.doctor() returns setof app_jobs.finding
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
    return query
    select f.severity, f.finding, f.figure, f.remedy
    from (
        select j.*, 1 as part from app_jobs.diagnose_jobs() as j
        union all
        select s.*, 2 from app_jobs.diagnose_slots() as s
        union all
        select v.*, 3 from app_jobs.diagnose_server(interval '5 minutes') as v
        union all
        select t.*, 4 from app_jobs.diagnose_tables() as t
        union all
        select r.*, 5 from app_jobs.diagnose_rights() as r
    ) as f
    order by array_position(array['critical', 'warning', 'info'], f.severity), f.part;
    if not found then
        return next row('ok', 'nothing found', '', '')::app_jobs.finding;
    end if;
end;
$$;

revoke all on type app_jobs.finding from public;
revoke all on function app_jobs.diagnose_jobs() from public;
revoke all on function app_jobs.diagnose_slots() from public;
revoke all on function app_jobs.diagnose_server(interval) from public;
revoke all on function app_jobs.diagnose_tables() from public;
revoke all on function app_jobs.diagnose_rights() from public;
revoke all on function app_jobs.doctor() from public;
grant execute on function app_jobs.doctor() to app_jobs_monitor;

comment on type app_jobs.finding is
'What doctor() finds: severity critical, warning, info or ok; what; how much; what to do.';
comment on function app_jobs.diagnose_jobs() is
'Find jobs that wait too long or for nobody, ended leases and schedules that nobody has seen to,
that nobody calls tick(), paused tasks and queues, dead letters.

Returns: findings. Roles: internal.';
comment on function app_jobs.diagnose_slots() is
'Find slots that cannot be closed and sequences that are off.

Returns: findings. Roles: internal.';
comment on function app_jobs.diagnose_server(interval) is
'Find what keeps dead rows or lets the server run out of notifications or transaction ids.

patience  age of a transaction from which it is one

Returns: findings. Roles: internal.';
comment on function app_jobs.diagnose_tables() is
'Find tables that autovacuum does not keep clean.

Returns: findings. Roles: internal.';
comment on function app_jobs.diagnose_rights() is
'Find rights, owners and paths that are not those deployed.

Returns: findings. Roles: internal.';
comment on function app_jobs.doctor() is
'Look for trouble: jobs that nobody takes, what keeps dead rows, housekeeping, autovacuum, rights.
Costs the same however many jobs wait; counts are those of metrics.

Returns: a row per finding, the worst first: severity (critical, warning, info), finding, figure,
remedy; one row of severity ok if there is none. Roles: app_jobs_monitor.';

commit;
