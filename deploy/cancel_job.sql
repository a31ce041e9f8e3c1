-- Deploy app_jobs:cancel_job to pg
-- requires: add_jobs

begin;

set local lock_timeout = '5s';

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
as $$
#variable_conflict use_column
declare
    v_job app_jobs.jobs;
    v_tid tid;
    v_lines text[];
    v_tasks text[];
begin
    perform app_jobs.check_not_null(
        'job_key', cancel_job.job_key is null, 'Give the key that the job was added with.'
    );
    v_job := app_jobs.lock_key_holder(cancel_job.job_key, cancel_job.db_id);
    if v_job.id is null then
        return v_job;
    end if;
    if v_job.lease_expires_at is not null then
        -- It runs: mark it, so that the next heartbeat tells its worker.
        update app_jobs.jobs as j
        set cancel_reason = coalesce(cancel_job.reason, 'cancelled'), updated_at = clock_timestamp()
        where j.id = v_job.id
        returning j.* into v_job;
        return v_job;
    end if;
    select j.ctid into v_tid from app_jobs.jobs as j where j.id = v_job.id;
    select q.queue_lines, q.tasks into v_lines,
    v_tasks from app_jobs.queues_left(array[v_tid]) as q;
    perform app_jobs.finish_jobs(
        array[v_tid], 'cancelled', null, array[coalesce(cancel_job.reason, 'cancelled')]
    );
    if v_lines is not null then
        perform app_jobs.advance_queues(v_lines, v_tasks, true);
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.cancel_job(text, uuid, text) from public;
grant execute on function app_jobs.cancel_job(text, uuid, text) to app_jobs_producer;

comment on function app_jobs.cancel_job(text, uuid, text) is
'Cancel the live job that has a key. One that waits is finished as cancelled; one that runs is
marked, and its worker learns of it at the next heartbeat: if it completes all the same it is
completed, otherwise it is cancelled, not retried.

job_key  the key
db_id    its tenant; null: none
reason   kept as last_error; null: "cancelled"

Returns: the job as it was, or as it is if it runs; a row of nulls if no live job has the key.
Errors: 22004. Locks: the job; waits for it. Roles: app_jobs_producer.';

commit;
