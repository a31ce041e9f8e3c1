-- Deploy app_jobs:complete_jobs to pg
-- requires: get_jobs

begin;

set local lock_timeout = '5s';

create function app_jobs.complete_jobs(
    worker_id text,
    job_ids bigint[],
    leases integer[] default null,
    results json[] default null
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
    v_tids tid[];
    v_results json[];
    v_queued boolean;
    v_lines text[];
    v_tasks text[];
    v_ids bigint[];
    v_claimed_again boolean;
    v_effects boolean;
begin
    perform
        app_jobs.check_worker_id(complete_jobs.worker_id),
        app_jobs.check_not_null(
            'job_ids', complete_jobs.job_ids is null, 'Give the ids of the jobs to complete.'
        );
    if cardinality(complete_jobs.leases) <> cardinality(complete_jobs.job_ids)
        or cardinality(complete_jobs.results) <> cardinality(complete_jobs.job_ids)
    then
        raise exception '% job_ids, % leases, % results', cardinality(complete_jobs.job_ids),
            coalesce(cardinality(complete_jobs.leases)::text, 'no'),
            coalesce(cardinality(complete_jobs.results)::text, 'no')
            using errcode = '22023',
                hint = 'Give one lease and one result for each job, or none at all.';
    end if;

    -- The fence: whoever does not hold the lease any more ends nothing. Rows that others have
    -- locked are skipped, since a producer may have one locked until the end of a long transaction:
    -- they are not returned, so try them again.
    select array_agg(h.ctid), array_agg(h.result), bool_or(h.seat is not null)
    into v_tids, v_results, v_queued
    from (
        select j.ctid, given.result, j.seat
        from unnest(
            complete_jobs.job_ids, complete_jobs.leases, complete_jobs.results
        ) as given(id, lease, result)
        -- lateral: id by id, whatever the statistics say
        cross join lateral (
            select w.ctid, w.seat
            from app_jobs.jobs as w
            where
                w.id = given.id
                and w.locked_by = complete_jobs.worker_id
                and (given.lease is null or w.lease = given.lease)
            for update skip locked
        ) as j
    ) as h;
    if v_tids is null then
        return;
    end if;
    if v_queued then
        select q.queue_lines, q.tasks into v_lines, v_tasks from app_jobs.queues_left(v_tids) as q;
    end if;

    perform from app_jobs.tasks as t where t.keep_completed > interval '0';
    if found then
        v_ids := array(
            select f.id
            from app_jobs.finish_jobs(v_tids, 'completed', null, null, v_results) as f(id)
        );
    else
        -- Nothing is kept: this is where most jobs end, so it is the bare minimum.
        with gone as (
            delete from app_jobs.jobs as j
            where j.ctid = any(v_tids)
            returning j.id, j.lease, j.has_effects
        )

        select array_agg(g.id), bool_or(g.lease > 1), bool_or(g.has_effects)
        into v_ids, v_claimed_again, v_effects
        from gone as g;
        if v_claimed_again then
            delete from app_jobs.job_errors as e where e.job_id = any(v_ids);
        end if;
        if v_effects then
            delete from app_jobs.effects as e where e.job_id = any(v_ids);
        end if;
    end if;
    if v_lines is not null then
        perform app_jobs.advance_queues(v_lines, v_tasks, true);
    end if;
    return query select i.id from unnest(v_ids) as i(id);
end;
$$;

create function app_jobs.complete_job(
    worker_id text,
    job_id bigint,
    lease integer default null,
    result json default null
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
begin
    perform app_jobs.check_not_null(
        'job_id', complete_job.job_id is null, 'Give the id of the job to complete.'
    );
    select j.* into v_job from app_jobs.jobs as j where j.id = complete_job.job_id;
    perform app_jobs.complete_jobs(
        complete_job.worker_id, array[complete_job.job_id], array[complete_job.lease],
        array[complete_job.result]
    );
    if not found then
        v_job := null;
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.complete_jobs(text, bigint[], integer[], json[]) from public;
revoke all on function app_jobs.complete_job(text, bigint, integer, json) from public;
grant execute on function app_jobs.complete_jobs(text, bigint[], integer[], json[])
to app_jobs_worker;
grant execute on function app_jobs.complete_job(text, bigint, integer, json) to app_jobs_worker;

comment on function app_jobs.complete_jobs(text, bigint[], integer[], json[]) is
'Finish jobs that this worker holds. What is kept of them is the task''s keep_completed.

worker_id  the holder, as given to get_jobs()
job_ids    the jobs
leases     the lease of each (jobs.lease at the claim); null: whichever the worker holds
results    the result of each; null: none

Returns: the ids of those really completed. One that is missing was taken over, or another
transaction has its row locked just now: heartbeat() returns it in the second case, then try again.
Errors: 22004, 22023. Locks: the jobs, skipping locked ones; their queues. Roles: app_jobs_worker.';
comment on function app_jobs.complete_job(text, bigint, integer, json) is
'Finish a job that this worker holds.

worker_id  the holder, as given to get_job()
job_id     the job
lease      the lease being finished (jobs.lease at the claim); null: whichever the worker holds
result     kept as long as the task''s keep_completed says

Returns: the job as it was; a row of nulls if the worker does not hold it, or another transaction
has its row locked. Errors: 22004, 22023. Locks: the job, skipping a locked one; its queue. Roles:
app_jobs_worker.';

commit;
