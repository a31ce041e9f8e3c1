-- Deploy app_jobs:fail_jobs to pg
-- requires: complete_jobs

begin;

set local lock_timeout = '5s';

create function app_jobs.fail_jobs(worker_id text, failures json) returns setof bigint
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
    v_now constant timestamptz := clock_timestamp();
    v_unknown text;
    v_bad text;
    v_tids tid[];
    v_ids bigint[];
    v_leases integer[];
    v_attempts integer[];
    v_run_ats timestamptz[];
    v_errors text[];
    v_details text[];
    v_permanent boolean[];
begin
    perform app_jobs.check_worker_id(fail_jobs.worker_id);
    perform app_jobs.check_objects(
        'failures', fail_jobs.failures,
        'Give an array of objects whose keys are fail_job()''s argument names.'
    );
    select k.key into v_unknown
    from json_array_elements(fail_jobs.failures) as e(failure),
    json_object_keys(e.failure) as k(key)
    where k.key not in ('job_id', 'error_message', 'lease', 'retry_in', 'detail', 'permanent');
    if found then
        raise exception 'failures has an unknown key: "%"', v_unknown
            using errcode = '22023', hint = 'Its keys are fail_job()''s argument names.';
    end if;
    -- not the whole of it: what a handler raised belongs into no log of the server's
    select format(
        'failures[%s] has job_id %s and retry_in %s',
        f.n - 1, coalesce(f.job_id::text, 'null'), coalesce(f.retry_in::text, 'null')
    )
    into v_bad
    from rows from (
        json_to_recordset(fail_jobs.failures) as (job_id bigint, retry_in interval)
    ) with ordinality as f(job_id, retry_in, n)
    where f.job_id is null or not f.retry_in between interval '0' and interval '100 years'
    limit 1;
    if found then
        raise exception '%', v_bad
            using errcode = '22023',
                hint = 'Each needs a job_id, and a retry_in from 0 to 100 years, or none.';
    end if;

    -- the fence, and skipping what others have locked: as in complete_jobs()
    select
        array_agg(h.ctid), array_agg(h.id), array_agg(h.lease), array_agg(h.attempts),
        array_agg(v_now + coalesce(h.retry_in, app_jobs.retry_delay(h.task_identifier,
        h.attempts))),
        array_agg(h.error_message), array_agg(h.detail), array_agg(h.permanent)
    into v_tids, v_ids, v_leases, v_attempts, v_run_ats, v_errors, v_details, v_permanent
    from (
        select
            j.ctid, j.id, j.lease, j.attempts, j.task_identifier, f.retry_in, f.error_message,
            f.detail,
            f.permanent
        from json_to_recordset(fail_jobs.failures) as f(
            job_id bigint, error_message text, lease integer, retry_in interval, detail text,
            permanent boolean
        )
        cross join lateral (
            select w.ctid, w.id, w.lease, w.attempts, w.task_identifier
            from app_jobs.jobs as w
            where
                w.id = f.job_id
                and w.locked_by = fail_jobs.worker_id
                and (f.lease is null or w.lease = f.lease)
            for update skip locked
        ) as j
    ) as h;
    if v_tids is not null then
        insert into app_jobs.job_errors (job_id, lease, attempt, worker_id, failed_at,
        error_message, detail)
        select e.id, e.lease, e.attempt, fail_jobs.worker_id, v_now, e.message, e.detail
        from unnest(v_ids, v_leases, v_attempts, v_errors, v_details) as e(id, lease, attempt,
        message, detail);
        perform app_jobs.let_go(v_tids, v_run_ats, v_errors, v_permanent, true, true);
        return query select i.id from unnest(v_ids) as i(id);
    end if;
end;
$$;

create function app_jobs.fail_job(
    worker_id text,
    job_id bigint,
    error_message text default null,
    lease integer default null,
    retry_in interval default null,
    detail text default null,
    permanent boolean default false
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
begin
    perform app_jobs.check_not_null(
        'job_id', fail_job.job_id is null, 'Give the id of the job that failed.'
    );
    select j.* into v_before from app_jobs.jobs as j where j.id = fail_job.job_id;
    perform app_jobs.fail_jobs(fail_job.worker_id, json_build_array(json_build_object(
        'job_id', fail_job.job_id,
        'error_message', fail_job.error_message,
        'lease', fail_job.lease,
        'retry_in', fail_job.retry_in,
        'detail', fail_job.detail,
        'permanent', fail_job.permanent
    )));
    if found then
        select j.* into v_job from app_jobs.jobs as j where j.id = fail_job.job_id;
        if not found then
            v_job := v_before;
            v_job.last_error := fail_job.error_message;
        end if;
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.fail_jobs(text, json) from public;
revoke all on function app_jobs.fail_job(text, bigint, text, integer, interval, text, boolean)
from public;
grant execute on function app_jobs.fail_jobs(text, json) to app_jobs_worker;
grant execute on function app_jobs.fail_job(text, bigint, text, integer, interval, text, boolean)
to app_jobs_worker;

comment on function app_jobs.fail_jobs(text, json) is
'Fail attempts of jobs that this worker holds: each is retried later, or finished as failed if it
has no attempt left.

worker_id  the holder, as given to get_jobs()
failures   array of objects whose keys are fail_job()''s argument names

Returns: the ids of those really failed; for one that is missing see complete_jobs(). Errors:
22004, 22023. Locks: the jobs, skipping locked ones; their queues. Roles: app_jobs_worker.';
comment on function app_jobs.fail_job(text, bigint, text, integer, interval, text, boolean) is
'Fail the attempt of a job that this worker holds: it is retried later, or finished as failed if it
has no attempt left.

worker_id      the holder, as given to get_job()
job_id         the job
error_message  why; kept as last_error and in job_errors
lease          the lease that failed (jobs.lease at the claim); null: whichever the worker holds
retry_in       delay before the next attempt, 0 to 100 years; null: the task''s backoff, or
               exp(least(attempts, 10)) seconds plus up to 10 %
detail         more: a stack trace, say; kept in job_errors
permanent      true: no further attempt

Returns: the job as it waits now, or as it was if it is finished; a row of nulls if the worker does
not hold it, or another transaction has its row locked. Errors: 22004, 22023. Locks: the job,
skipping a locked one; its queue. Roles: app_jobs_worker.';

commit;
