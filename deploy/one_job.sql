-- Deploy app_jobs:one_job to pg
-- requires: release_jobs

begin;

set local lock_timeout = '5s';

create type app_jobs.job_detail as (
    id bigint,
    task_identifier text,
    state text,
    payload json,
    attributes jsonb,
    run_at timestamptz,
    started_at timestamptz,
    created_at timestamptz,
    retry_after interval,
    database_id uuid,
    queue_name text,
    key text,
    priority integer,
    attempts integer,
    max_attempts integer,
    lease integer,
    last_error text,
    locked_by text,
    lease_expires_at timestamptz,
    finished_at timestamptz,
    finished_by text,
    result json
);

create function app_jobs.job_details(job_id bigint) returns app_jobs.job_detail
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_job app_jobs.job_detail;
begin
    perform app_jobs.check_not_null(
        'job_id', job_details.job_id is null, 'Give the id of the job to look at.'
    );
    select
        j.id, j.task_identifier,
        case
            when j.locked_by is null then 'created'
            when j.lease_expires_at is null then 'processing'
            else 'active'
        end,
        j.payload, j.attributes, j.run_at, j.locked_at, j.created_at, j.retry_after, j.database_id,
        j.queue_name, j.key, j.priority, j.attempts, j.max_attempts, j.lease, j.last_error,
        j.locked_by, j.lease_expires_at, null::timestamptz, null::text, null::json
    into v_job
    from app_jobs.jobs as j
    where j.id = job_details.job_id;
    if not found then
        select
            f.id, f.task_identifier, f.state, f.payload, f.attributes, f.run_at, f.started_at,
            f.created_at, f.retry_after, f.database_id, f.queue_name, f.key, f.priority,
            f.attempts, f.max_attempts, f.lease, f.last_error, null::text, null::timestamptz,
            f.finished_at, f.finished_by, f.result
        into v_job
        from app_jobs.finished_jobs as f
        where f.id = job_details.job_id;
    end if;
    return v_job;
end;
$$;

create function app_jobs.set_attributes(job_id bigint, attributes jsonb) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_merged jsonb;
begin
    perform app_jobs.check_not_null(
        'job_id', set_attributes.job_id is null, 'Give the id of the job to change.'
    );
    perform app_jobs.check_not_null(
        'attributes', set_attributes.attributes is null, 'Give a json object.'
    );
    if jsonb_typeof(set_attributes.attributes) <> 'object' then
        raise exception 'attributes is of type %', jsonb_typeof(set_attributes.attributes)
            using errcode = '22023', hint = 'Give a json object: its members are set.';
    end if;
    select j.attributes || set_attributes.attributes into v_merged
    from app_jobs.jobs as j where j.id = set_attributes.job_id for update;
    if not found then
        return false;
    end if;
    perform app_jobs.check_sizes(null, v_merged);
    update app_jobs.jobs as j
    set attributes = v_merged, updated_at = clock_timestamp()
    where j.id = set_attributes.job_id;
    return true;
end;
$$;

create function app_jobs.set_retry_after(job_id bigint, retry_after interval) returns boolean
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
        'job_id', set_retry_after.job_id is null, 'Give the id of the job to change.'
    );
    perform app_jobs.check_not_null(
        'retry_after', set_retry_after.retry_after is null,
        'Give a positive interval, like ''1 minute''.'
    );
    perform app_jobs.check_positive('retry_after', set_retry_after.retry_after);
    select j.* into v_job from app_jobs.jobs as j where j.id = set_retry_after.job_id for update;
    if not found then
        return false;
    end if;
    if v_job.lease_expires_at is not null then
        v_job.slot := app_jobs.enter_slot();
        v_job.lease_expires_at := clock_timestamp() + set_retry_after.retry_after;
        perform app_jobs.note_arrivals(1);
    end if;
    update app_jobs.jobs as j
    set
        retry_after = set_retry_after.retry_after,
        lease_expires_at = v_job.lease_expires_at,
        slot = v_job.slot,
        updated_at = clock_timestamp()
    where j.id = v_job.id;
    return true;
end;
$$;

create function app_jobs.set_run_at(job_id bigint, run_at timestamptz) returns boolean
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
        'job_id', set_run_at.job_id is null, 'Give the id of the job to change.'
    );
    perform app_jobs.check_not_null(
        'run_at', set_run_at.run_at is null, 'Give a time, or now() to run it at once.'
    );
    perform app_jobs.check_time('run_at', set_run_at.run_at);
    select j.* into v_job from app_jobs.jobs as j where j.id = set_run_at.job_id for update;
    if not found or (v_job.locked_by is not null and v_job.lease_expires_at is null) then
        return false;
    end if;
    if v_job.locked_by is null then
        -- Whatever line it stood in: a claim parks it again if its queue is full.
        v_job.slot := app_jobs.enter_slot();
        v_job.line := case when set_run_at.run_at <= clock_timestamp() then '' end;
        perform app_jobs.note_arrivals(1);
        -- as add_job() does
        if set_run_at.run_at < clock_timestamp() + interval '1 minute' then
            perform app_jobs.wake_workers();
        end if;
    end if;
    update app_jobs.jobs as j
    set
        run_at = set_run_at.run_at,
        line = v_job.line,
        slot = v_job.slot,
        updated_at = clock_timestamp()
    where j.id = v_job.id;
    return true;
end;
$$;

create function app_jobs.move_job_to_processing(job_id bigint) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    perform app_jobs.check_not_null(
        'job_id', move_job_to_processing.job_id is null, 'Give the id of the job to move.'
    );
    -- One that is to be cancelled stays leased, since nothing would cancel it any more.
    update app_jobs.jobs as j
    set lease_expires_at = null, updated_at = clock_timestamp()
    where
        j.id = move_job_to_processing.job_id
        and coalesce(j.locked_by, '') <> ''
        and j.cancel_reason is null;
    return found;
end;
$$;

create function app_jobs.end_job(job_id bigint, state text, keep interval) returns boolean
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_tid tid;
begin
    -- Waits for whoever else has it: a claim, an expiry, a producer that moves its key.
    select j.ctid into v_tid from app_jobs.jobs as j where j.id = end_job.job_id for update;
    if not found then
        return false;
    end if;
    perform app_jobs.end_jobs(array[v_tid], end_job.state, null, end_job.keep);
    return true;
end;
$$;

create function app_jobs.move_job_to_done(
    job_id bigint,
    delete_on_complete boolean default false
) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_keep interval;
begin
    perform app_jobs.check_not_null(
        'job_id', move_job_to_done.job_id is null, 'Give the id of the job to move.'
    );
    if move_job_to_done.delete_on_complete then
        v_keep := interval '0';
    else
        -- Its application still wants to look at it, so it stays as long as a failed one, at least.
        select greatest(t.keep_completed, coalesce(t.keep_failed, interval '30 days')) into v_keep
        from app_jobs.jobs as j
        left join app_jobs.tasks as t on t.task_identifier = j.task_identifier
        where j.id = move_job_to_done.job_id;
    end if;
    return app_jobs.end_job(move_job_to_done.job_id, 'completed', v_keep);
end;
$$;

create function app_jobs.move_job_to_failed(
    job_id bigint,
    delete_on_fail boolean default false
) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    perform app_jobs.check_not_null(
        'job_id', move_job_to_failed.job_id is null, 'Give the id of the job to move.'
    );
    return app_jobs.end_job(
        move_job_to_failed.job_id, 'failed',
        case when move_job_to_failed.delete_on_fail then interval '0' end
    );
end;
$$;

create function app_jobs.delete_job(job_id bigint) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_tid tid;
begin
    perform app_jobs.check_not_null(
        'job_id', delete_job.job_id is null, 'Give the id of the job to delete.'
    );
    if app_jobs.end_job(delete_job.job_id, 'cancelled', interval '0') then
        return true;
    end if;
    -- A new statement: one that has ended while we waited for its row is seen here.
    select f.ctid into v_tid
    from app_jobs.finished_jobs as f where f.id = delete_job.job_id
    for update;
    if not found then
        return false;
    end if;
    perform app_jobs.forget_finished(array[v_tid]);
    return true;
end;
$$;

revoke all on type app_jobs.job_detail from public;
revoke all on function app_jobs.job_details(bigint) from public;
revoke all on function app_jobs.set_attributes(bigint, jsonb) from public;
revoke all on function app_jobs.set_retry_after(bigint, interval) from public;
revoke all on function app_jobs.set_run_at(bigint, timestamptz) from public;
revoke all on function app_jobs.move_job_to_processing(bigint) from public;
revoke all on function app_jobs.end_job(bigint, text, interval) from public;
revoke all on function app_jobs.move_job_to_done(bigint, boolean) from public;
revoke all on function app_jobs.move_job_to_failed(bigint, boolean) from public;
revoke all on function app_jobs.delete_job(bigint) from public;
grant execute on function app_jobs.job_details(bigint) to app_jobs_worker;
grant execute on function app_jobs.set_attributes(bigint, jsonb) to app_jobs_worker;
grant execute on function app_jobs.set_retry_after(bigint, interval) to app_jobs_worker;
grant execute on function app_jobs.set_run_at(bigint, timestamptz) to app_jobs_worker;
grant execute on function app_jobs.move_job_to_processing(bigint) to app_jobs_worker;
grant execute on function app_jobs.move_job_to_done(bigint, boolean) to app_jobs_worker;
grant execute on function app_jobs.move_job_to_failed(bigint, boolean) to app_jobs_worker;
grant execute on function app_jobs.delete_job(bigint) to app_jobs_worker;

comment on type app_jobs.job_detail is
'A job, live or finished. state is created (it waits), active (leased), processing (held with no
expiry), completed, failed or cancelled; started_at is when its last run was claimed.';
comment on function app_jobs.job_details(bigint) is
'Look at a job, live or finished.

job_id  the job

Returns: the job; a row of nulls if there is none (any more). Errors: 22004. Roles:
app_jobs_worker.';
comment on function app_jobs.set_attributes(bigint, jsonb) is
'Set attributes of a live job. Those that are not named stay.

job_id      the job
attributes  a json object, merged into the top level of the job''s

Returns: true; false if no live job has the id. Errors: 22004, 22023. Locks: the job; waits for it.
Roles: app_jobs_worker.';
comment on function app_jobs.set_retry_after(bigint, interval) is
'Set the length of a live job''s leases. If it is active, its lease lasts that long from now.

job_id       the job
retry_after  positive

Returns: true; false if no live job has the id. Errors: 22004, 22023. Locks: the job; waits for it;
the current slot, shared. Roles: app_jobs_worker.';
comment on function app_jobs.set_run_at(bigint, timestamptz) is
'Set the time before which a job does not run. An active one goes on; it counts when that job waits
again without a delay of its own.

job_id  the job
run_at  in the past: at once

Returns: true; false if it is processing, or no live job has the id. Errors: 22004. Locks: the job;
waits for it; the current slot, shared. Roles: app_jobs_worker.';
comment on function app_jobs.move_job_to_processing(bigint) is
'Let the lease of an active job never end: whoever processes it moves it on by itself. It keeps its
seat of a queue.

job_id  the job

Returns: true, also if it is processing already; false if it is not held (claim it first), or to be
cancelled, or no live job has the id. Errors: 22004. Locks: the job; waits for it. Roles:
app_jobs_worker.';
comment on function app_jobs.end_job(bigint, text, interval) is
'End a live job, whatever its state and whoever holds it. Its queue moves on.

job_id  the job
state   completed, failed or cancelled
keep    as in finish_jobs()

Returns: true; false if no live job has the id. Locks: the job; waits for it; its queue. Roles:
internal; the caller pins the plans.';
comment on function app_jobs.move_job_to_done(bigint, boolean) is
'Complete a live job, whatever its state and whoever holds it.

job_id              the job
delete_on_complete  true: nothing of it is kept; false: as long as the task''s keep_completed or
                    keep_failed, whichever is longer

Returns: true; false if no live job has the id. Errors: 22004. Locks: the job; waits for it; its
queue. Roles: app_jobs_worker.';
comment on function app_jobs.move_job_to_failed(bigint, boolean) is
'Fail a live job for good, whatever its state and whoever holds it.

job_id          the job
delete_on_fail  true: nothing of it is kept; false: as long as the task''s keep_failed

Returns: true; false if no live job has the id. Errors: 22004. Locks: the job; waits for it; its
queue. Roles: app_jobs_worker.';
comment on function app_jobs.delete_job(bigint) is
'Delete a job, live or finished, with its errors and effects.

job_id  the job

Returns: true; false if no job has the id. Errors: 22004. Locks: the job; waits for it; its queue.
Roles: app_jobs_worker.';

commit;
