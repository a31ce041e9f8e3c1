-- Deploy app_jobs:snooze_job to pg
-- requires: fail_jobs

begin;

set local lock_timeout = '5s';

create function app_jobs.snooze_job(
    worker_id text,
    job_id bigint,
    delay interval,
    lease integer default null
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
    v_before app_jobs.jobs;
    v_job app_jobs.jobs;
    v_tid tid;
begin
    perform app_jobs.check_worker_id(snooze_job.worker_id);
    perform app_jobs.check_not_null(
        'job_id', snooze_job.job_id is null, 'Give the id of the job to snooze.'
    );
    perform app_jobs.check_not_null(
        'delay', snooze_job.delay is null, 'Give the time to wait, like ''1 minute''.'
    );
    perform app_jobs.check_delay('delay', snooze_job.delay);
    select j.ctid into v_tid
    from app_jobs.jobs as j
    where
        j.id = snooze_job.job_id
        and j.locked_by = snooze_job.worker_id
        and (snooze_job.lease is null or j.lease = snooze_job.lease)
    for update skip locked;
    if not found then
        return v_job;
    end if;
    select j.* into v_before from app_jobs.jobs as j where j.ctid = v_tid;
    perform app_jobs.let_go(
        array[v_tid], array[clock_timestamp() + snooze_job.delay], array[null::text], null, false,
        true
    );
    select j.* into v_job from app_jobs.jobs as j where j.id = snooze_job.job_id;
    if not found then
        v_job := v_before;
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.snooze_job(text, bigint, interval, integer) from public;
grant execute on function app_jobs.snooze_job(text, bigint, interval, integer) to app_jobs_worker;

comment on function app_jobs.snooze_job(text, bigint, interval, integer) is
'Put a job that this worker holds back for some time. No attempt is counted.

worker_id  the holder, as given to get_job()
job_id     the job
delay      not before this time from now; 0: at once
lease      the lease (jobs.lease at the claim); null: whichever the worker holds

Returns: the job as it waits now, or as it was if it was to be cancelled; a row of nulls if the
worker does not hold it, or another transaction has its row locked. Errors: 22004, 22023. Locks:
the job, skipping a locked one; its queue. Roles: app_jobs_worker.';

commit;
