-- Deploy app_jobs:heartbeat to pg
-- requires: snooze_job

begin;

set local lock_timeout = '5s';

create function app_jobs.held_by(worker_id text) returns setof bigint
language sql
stable
as $$
    select j.id
    from (
        select o.slot from app_jobs.open_slots as o
        union
        select a.slot from app_jobs.alarms as a where a.kind = 'lease'
    ) as s
    cross join lateral (
        select h.id
        from app_jobs.jobs as h
        where h.slot = s.slot and h.lease_expires_at is not null and h.locked_by = held_by.worker_id
        offset 0
    ) as j
$$;

create function app_jobs.heartbeat(
    worker_id text,
    job_ids bigint[] default null,
    job_expiry interval default null
) returns setof bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_slot integer;
    v_leases jsonb;
    v_timeouts jsonb;
    v_ids bigint[];
    v_tids tid[];
    v_over tid[];
begin
    perform app_jobs.check_worker_id(heartbeat.worker_id);
    perform app_jobs.check_positive('job_expiry', heartbeat.job_expiry);
    v_ids := coalesce(heartbeat.job_ids,
    array(select h.id from app_jobs.held_by(heartbeat.worker_id) as h(id)));

    select
        jsonb_object_agg(t.task_identifier, t.retry_after) filter (where t.retry_after is not null),
        jsonb_object_agg(t.task_identifier, t.timeout) filter (where t.timeout is not null)
    into v_leases, v_timeouts
    from app_jobs.tasks as t;
    v_now := clock_timestamp();

    -- Rows that a producer has locked are skipped: still held, and nobody can take them over
    -- meanwhile.
    select
        array_agg(h.ctid) filter (where not h.over), array_agg(h.ctid) filter (where h.over)
    into v_tids, v_over
    from (
        select
            j.ctid,
            coalesce(
                j.locked_at + (v_timeouts ->> j.task_identifier)::interval <= v_now, false
            ) as over
        from app_jobs.jobs as j
        where
            j.id = any(v_ids)
            and j.locked_by = heartbeat.worker_id
            -- said in a way that no partial index can serve: by id, whatever the statistics say
            and coalesce(j.lease_expires_at, '-infinity') > '-infinity'
            and j.cancel_reason is null
        for update skip locked
    ) as h;
    if v_over is not null then
        perform app_jobs.end_leases(v_over);
    end if;
    if v_tids is not null then
        v_slot := app_jobs.enter_slot();
        v_now := clock_timestamp();
        update app_jobs.jobs as j
        set
            lease_expires_at = least(
                v_now + coalesce(
                    j.retry_after, (v_leases ->> j.task_identifier)::interval,
                    heartbeat.job_expiry, j.lease_length
                ),
                j.locked_at + (v_timeouts ->> j.task_identifier)::interval
            ),
            lease_length = coalesce(
                j.retry_after, (v_leases ->> j.task_identifier)::interval, heartbeat.job_expiry,
                j.lease_length
            ),
            slot = v_slot,
            updated_at = v_now
        where j.ctid = any(v_tids);
        perform app_jobs.note_arrivals((cardinality(v_tids) + 3) / 4);
    end if;

    v_ids := array(
        select j.id
        from app_jobs.jobs as j
        where j.id = any(v_ids) and j.locked_by = heartbeat.worker_id and j.cancel_reason is null
    );
    insert into app_jobs.workers as w (worker_id, running)
    values (heartbeat.worker_id, cardinality(v_ids))
    on conflict on constraint workers_pkey do update set
        last_seen_at = excluded.last_seen_at,
        running = excluded.running;
    return query select i.id from unnest(v_ids) as i(id);
end;
$$;

revoke all on function app_jobs.held_by(text) from public;
revoke all on function app_jobs.heartbeat(text, bigint[], interval) from public;
grant execute on function app_jobs.heartbeat(text, bigint[], interval) to app_jobs_worker;

comment on function app_jobs.held_by(text) is
'List the jobs that a worker has leased.

worker_id  the worker

Returns: their ids. Roles: internal; the caller pins the plans.';
comment on function app_jobs.heartbeat(text, bigint[], interval) is
'Renew the leases of a worker, and learn which jobs it still holds.

worker_id   the holder, as given to get_jobs()
job_ids     jobs to renew; null: all that it holds
job_expiry  new length of the leases from now, positive; null: as long as at the claim. A job''s
            own retry_after goes first, then its task''s

A run that has taken longer than its task''s timeout is ended here, as if its lease had expired.

Returns: the jobs still held; one that is missing was taken over, has timed out or is to be
cancelled: stop its handler. Errors: 22004, 22023. Locks: the jobs, skipping locked ones; the current slot, shared; its
row of workers. Roles: app_jobs_worker.';
commit;
