-- Deploy app_jobs:vital_signs to pg
-- requires: doctor

begin;

set local lock_timeout = '5s';

create function app_jobs.vital_signs(
    out ticked_ago interval,
    out schedules_behind bigint,
    out schedule_delay interval,
    out oldest_transaction interval,
    out transactions_behind bigint,
    out sees_sessions boolean
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
begin
    ticked_ago := v_now - to_timestamp(
        nullif(pg_sequence_last_value('app_jobs.ticked_at'), 0) / 1000.0
    );

    -- lateral, and offset 0: slot by slot, whatever the statistics say
    select count(*), coalesce(v_now - min(l.due_at), interval '0')
    into schedules_behind, schedule_delay
    from app_jobs.schedule_slots(v_now - interval '1 minute') as p
    cross join lateral (
        select w.due_at
        from app_jobs.scheduled_jobs as w
        where w.slot = p.slot and w.due_at < v_now - interval '1 minute'
        offset 0
    ) as l;

    select
        coalesce(max(v_now - s.since), interval '0'),
        coalesce(max(age(s.xid)), 0)
    into oldest_transaction, transactions_behind
    from (
        select a.xact_start as since, coalesce(a.backend_xmin, a.backend_xid) as xid
        from pg_stat_activity as a
        where
            (a.datname = current_database() or a.backend_type = 'walsender')
            and a.pid <> pg_backend_pid()
            and a.backend_type <> 'autovacuum worker'
            and coalesce(a.backend_xmin, a.backend_xid) is not null
        union all
        select p.prepared, p.transaction
        from pg_prepared_xacts as p
        where p.database = current_database()
        union all
        select null, r.xmin
        from pg_replication_slots as r
        where r.xmin is not null
    ) as s;
    sees_sessions := pg_has_role('pg_read_all_stats', 'usage');
end;
$$;

revoke all on function app_jobs.vital_signs() from public;
grant execute on function app_jobs.vital_signs() to app_jobs_monitor;

comment on function app_jobs.vital_signs() is
'Tell in figures what doctor() looks at and metrics does not show: for alarms. Costs the same however
many jobs wait.

Returns: ticked_ago, time since tick() ran (null: never); schedules_behind, more than a minute late
(those in slots that are due: at least one if there is any), and schedule_delay, of the first of
them; oldest_transaction, age of the oldest one that keeps dead rows, and transactions_behind, how many
transactions have begun since the oldest snapshot of a session, a prepared transaction or a
replication slot; sees_sessions, whether the schema''s owner has pg_read_all_stats: without it only
his own sessions count. Roles: app_jobs_monitor.';

commit;
