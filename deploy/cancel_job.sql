-- Deploy app_jobs:cancel_job to pg
-- requires: add_jobs

begin;

set local lock_timeout = '5s';

create function app_jobs.cancel_locked(tids tid[], reason text) returns void
language plpgsql
volatile
as $$
declare
    v_reason constant text := coalesce(cancel_locked.reason, 'cancelled');
    v_not_leased constant tid[] := array(
        select j.ctid from app_jobs.jobs as j
        where j.ctid = any(cancel_locked.tids) and j.lease_expires_at is null
    );
begin
    -- One that runs is marked, so that the next heartbeat tells its worker.
    update app_jobs.jobs as j
    set cancel_reason = v_reason, updated_at = clock_timestamp()
    where
        j.ctid = any(cancel_locked.tids)
        -- said in a way that no partial index can serve: by address, whatever the statistics say
        and coalesce(j.lease_expires_at, '-infinity') > '-infinity';
    perform app_jobs.end_jobs(v_not_leased, 'cancelled', v_reason);
end;
$$;

create function app_jobs.cancel_job(
    job_key text,
    db_id uuid default null,
    reason text default null
) returns app_jobs.jobs
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
    v_job app_jobs.jobs;
begin
    perform app_jobs.check_not_null(
        'job_key', cancel_job.job_key is null, 'Give the key that the job was added with.'
    );
    v_job := app_jobs.lock_key_holder(cancel_job.job_key, cancel_job.db_id);
    if v_job.id is not null then
        perform app_jobs.cancel_locked(
            array(select j.ctid from app_jobs.jobs as j where j.id = v_job.id), cancel_job.reason
        );
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.cancel_locked(tid[], text) from public;
revoke all on function app_jobs.cancel_job(text, uuid, text) from public;
grant execute on function app_jobs.cancel_job(text, uuid, text) to app_jobs_producer;

comment on function app_jobs.cancel_locked(tid[], text) is
'Cancel jobs: those that are leased are marked, the others finished. Their queues move on.

tids    jobs, locked by the caller
reason  kept as last_error; null: "cancelled"

Locks: the jobs'' queues; waits for them. Roles: internal; the caller pins the plans.';
comment on function app_jobs.cancel_job(text, uuid, text) is
'Cancel the live job that has a key. One that waits is finished as cancelled; one that runs is
marked, and its worker learns of it at the next heartbeat: if it completes all the same it is
completed, otherwise it is cancelled, not retried.

job_key  the key
db_id    its tenant; null: none
reason   kept as last_error; null: "cancelled"

Returns: the job as it was (lease_expires_at not null: it runs); a row of nulls if no live job has
the key. Errors: 22004. Locks: the job; waits for it; its queue. Roles: app_jobs_producer.';

commit;
