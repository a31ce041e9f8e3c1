-- Deploy app_jobs:add_job to pg
-- requires: let_go

begin;

set local lock_timeout = '5s';

create function app_jobs.find_job(job_key text, db_id uuid default null) returns app_jobs.jobs
language plpgsql
stable
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
        'job_key', find_job.job_key is null, 'Give the key that the job was added with.'
    );
    if find_job.db_id is null then
        select j.* into v_job from app_jobs.jobs as j
        where j.key = find_job.job_key and j.database_id is null;
    else
        select j.* into v_job from app_jobs.jobs as j
        where j.key = find_job.job_key and j.database_id = find_job.db_id;
    end if;
    return v_job;
end;
$$;

create function app_jobs.with_trace(attributes jsonb) returns jsonb
language sql
stable
parallel safe
as $$
    select case
        when
            current_setting('app_jobs.traceparent', true)
            ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
            and jsonb_typeof(coalesce(attributes, '{}')) = 'object'
            then
                jsonb_build_object('traceparent', current_setting('app_jobs.traceparent', true))
                || coalesce(attributes, '{}')
        else coalesce(attributes, '{}')
    end
$$;

create function app_jobs.lock_key_holder(job_key text, db_id uuid) returns app_jobs.jobs
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_job app_jobs.jobs;
begin
    if lock_key_holder.db_id is null then
        select j.* into v_job from app_jobs.jobs as j
        where j.key = lock_key_holder.job_key and j.database_id is null
        for update;
    else
        select j.* into v_job from app_jobs.jobs as j
        where j.key = lock_key_holder.job_key and j.database_id = lock_key_holder.db_id
        for update;
    end if;
    return v_job;
end;
$$;

create function app_jobs.finished_with_key(job_key text, db_id uuid) returns app_jobs.jobs
language plpgsql
stable
as $$
#variable_conflict use_column
declare
    v_kept app_jobs.finished_jobs;
    v_job app_jobs.jobs;
begin
    select f.* into v_kept
    from app_jobs.finished_jobs as f
    where
        f.key = finished_with_key.job_key
        and f.database_id is not distinct from finished_with_key.db_id
    order by f.finished_at desc
    limit 1;
    v_job.id := v_kept.id;
    v_job.database_id := v_kept.database_id;
    v_job.queue_name := v_kept.queue_name;
    v_job.task_identifier := v_kept.task_identifier;
    v_job.payload := v_kept.payload;
    v_job.attributes := v_kept.attributes;
    v_job.priority := v_kept.priority;
    v_job.run_at := v_kept.run_at;
    v_job.attempts := v_kept.attempts;
    v_job.max_attempts := v_kept.max_attempts;
    v_job.lease := v_kept.lease;
    v_job.key := v_kept.key;
    v_job.last_error := v_kept.last_error;
    v_job.retry_after := v_kept.retry_after;
    v_job.created_at := v_kept.created_at;
    v_job.updated_at := v_kept.finished_at;
    return v_job;
end;
$$;

create function app_jobs.add_job(
    db_id uuid default null,
    identifier text default null,
    payload json default '{}',
    job_key text default null,
    queue_name text default null,
    run_at timestamptz default now(),
    max_attempts integer default null,
    priority integer default 0,
    job_key_mode text default 'replace',
    attributes jsonb default '{}',
    retry_after interval default null
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
    v_mode text := coalesce(add_job.job_key_mode, 'replace');
    v_payload json := coalesce(add_job.payload, '{}');
    v_attributes jsonb := app_jobs.with_trace(add_job.attributes);
    v_run_at timestamptz := coalesce(add_job.run_at, now());
    v_priority integer := coalesce(add_job.priority, 0);
    v_max_attempts integer := add_job.max_attempts;
    v_slot integer;
    v_line text;
    v_old app_jobs.jobs;
    v_job app_jobs.jobs;
begin
    perform
        app_jobs.check_job(
            add_job.identifier, add_job.job_key, add_job.queue_name, add_job.max_attempts,
            add_job.retry_after, add_job.run_at
        ),
        app_jobs.check_sizes(add_job.payload, add_job.attributes);
    if v_mode not in ('replace', 'preserve_run_at', 'keep', 'once') then
        raise exception 'job_key_mode is "%"', v_mode
            using errcode = '22023', hint = 'Use replace, preserve_run_at, keep or once.';
    end if;
    if v_max_attempts is null then
        select t.max_attempts into v_max_attempts
        from app_jobs.tasks as t where t.task_identifier = add_job.identifier;
        v_max_attempts := coalesce(v_max_attempts, 25);
    end if;

    loop
        if add_job.job_key is not null then
            -- Waits for another transaction that adds or claims the job under this key, and for
            -- nobody else.
            v_old := app_jobs.lock_key_holder(add_job.job_key, add_job.db_id);
            if v_old.id is not null and v_mode in ('keep', 'once') then
                return v_old;
            elsif v_old.id is null and v_mode = 'once' then
                v_old := app_jobs.finished_with_key(add_job.job_key, add_job.db_id);
                if v_old.id is not null then
                    return v_old;
                end if;
            end if;
            if v_old.locked_by is not null then
                -- It runs: it ends as it ends, without the key, and is not retried.
                update app_jobs.jobs as j
                set key = null, superseded = true, updated_at = clock_timestamp()
                where j.id = v_old.id;
                v_old := null;
            elsif v_old.id is not null then
                if v_mode = 'preserve_run_at' then
                    v_run_at := v_old.run_at;
                end if;
                if (
                    v_old.task_identifier, v_old.queue_name, v_old.payload::text, v_old.attributes,
                    v_old.priority,
                    v_old.run_at, v_old.max_attempts, v_old.retry_after, v_old.attempts,
                    v_old.last_error, v_old.has_effects
                ) is not distinct from (
                    add_job.identifier, add_job.queue_name, v_payload::text, v_attributes,
                    v_priority,
                    v_run_at, v_max_attempts, add_job.retry_after, 0, null::text, false
                ) then
                    return v_old;
                end if;
                -- another request now, whose effects have not happened
                if v_old.has_effects then
                    delete from app_jobs.effects as e where e.job_id = v_old.id;
                end if;
            end if;
        end if;

        v_slot := app_jobs.enter_slot();
        perform nextval('app_jobs.activity');
        v_line := case when v_run_at <= clock_timestamp() then '' end;
        if v_old.id is not null then
            update app_jobs.jobs as j
            set
                task_identifier = add_job.identifier,
                queue_name = add_job.queue_name,
                payload = v_payload,
                attributes = v_attributes,
                priority = v_priority,
                run_at = v_run_at,
                attempts = 0,
                max_attempts = v_max_attempts,
                last_error = null,
                retry_after = add_job.retry_after,
                has_effects = false,
                updated_at = clock_timestamp(),
                slot = v_slot,
                line = v_line
            where j.id = v_old.id
            returning j.* into v_job;
        else
            insert into app_jobs.jobs as j (
                database_id, queue_name, task_identifier, payload, attributes, priority, run_at,
                max_attempts, key,
                retry_after, slot, line
            )
            values (
                add_job.db_id, add_job.queue_name, add_job.identifier, v_payload, v_attributes,
                v_priority, v_run_at,
                v_max_attempts, add_job.job_key, add_job.retry_after, v_slot, v_line
            )
            on conflict do nothing
            returning j.* into v_job;
        end if;
        -- nothing inserted: another transaction has just committed a job under this key, so look
        -- again
        exit when v_job.id is not null;
    end loop;

    -- Workers learn of a later job at their next poll; one that is due before that needs them now.
    if v_run_at < clock_timestamp() + interval '1 minute' then
        perform app_jobs.wake_workers();
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.find_job(text, uuid) from public;
revoke all on function app_jobs.with_trace(jsonb) from public;
revoke all on function app_jobs.lock_key_holder(text, uuid) from public;
revoke all on function app_jobs.finished_with_key(text, uuid) from public;
revoke all on function app_jobs.add_job(
    uuid, text, json, text, text, timestamptz, integer, integer, text, jsonb, interval
) from public;
grant execute on function app_jobs.find_job(text, uuid) to app_jobs_producer;
grant execute on function app_jobs.add_job(
    uuid, text, json, text, text, timestamptz, integer, integer, text, jsonb, interval
) to app_jobs_producer;

comment on function app_jobs.find_job(text, uuid) is
'Find the live job that has a key.

job_key  the key
db_id    its tenant; null: none

Returns: the job; a row of nulls if there is none. Errors: 22004. Roles: app_jobs_producer.';
comment on function app_jobs.with_trace(jsonb) is
'Add the trace that the setting app_jobs.traceparent names (W3C Trace Context) to the attributes of a
job, unless they name one. A setting that is none is passed over.

attributes  of the job; null: none

Returns: the attributes. Roles: internal.';
comment on function app_jobs.lock_key_holder(text, uuid) is
'Lock the live job that has a key.

job_key  the key
db_id    its tenant; null: none

Returns: the job; a row of nulls if there is none. Locks: the job; waits for it. Roles: internal;
the caller pins the plans.';
comment on function app_jobs.finished_with_key(text, uuid) is
'Find the last finished job with a key that is still kept.

job_key  the key
db_id    its tenant; null: none

Returns: the job in the shape of jobs; a row of nulls if there is none. Roles: internal.';
comment on function app_jobs.add_job(
    uuid, text, json, text, text, timestamptz, integer, integer, text, jsonb, interval
) is
'Add a job. It joins the transaction: no commit, no job, and no worker is woken before.

db_id         tenant; null: none
identifier    task to run, 1 to 126 characters; required
payload       what to run it with, up to 64 MB
job_key       unique among live jobs of the tenant, up to 512 characters; null: none
queue_name    jobs of a queue run one after the other, or max_running at a time; null: in parallel
              with everything
run_at        not before this time, in the years 1900 to 9998
max_attempts  1 or more; null: the task''s, or 25
priority      lower runs first
job_key_mode  what to do with the live job under job_key. replace: give it the new task, payload,
              run_at … and start its attempts and effects anew; preserve_run_at: the same, but for
              run_at; keep: leave it and return it; once: the same, and a finished job that is still
              kept counts. If it is running, replace gives the key to a new job, and the running one
              is not retried
attributes    metadata that may change while the job lives, up to 1 MB; the setting app_jobs.traceparent adds
              traceparent
retry_after   length of its leases, up to 100 years; null: the task''s, or else the worker''s

A null argument means its default.

Returns: the job as it stands now. Errors: 22004, 22023. Locks: the current slot, shared; the job
under job_key. Roles: app_jobs_producer.';

commit;
