-- Deploy app_jobs:progress to pg
-- requires: doctor

begin;

set local lock_timeout = '5s';

-- One row per worker, not one per job: jobs and their indexes are not touched, and nothing is left
-- over when a job ends.
alter table app_jobs.workers add column progress jsonb;

create function app_jobs.set_progress(worker_id text, reports json) returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_bad bigint;
begin
    perform app_jobs.check_worker_id(set_progress.worker_id);
    perform app_jobs.check_objects(
        'reports', set_progress.reports,
        'Give an array of objects with the keys job_id, lease, done and note.'
    );
    select r.n - 1 into v_bad
    from rows from (
        json_to_recordset(set_progress.reports) as (job_id bigint, lease integer, done real)
    ) with ordinality as r(job_id, lease, done, n)
    where r.job_id is null or r.lease is null or coalesce(r.done, -1) not between 0 and 1
    limit 1;
    if found then
        raise exception 'reports[%] is %', v_bad, set_progress.reports -> v_bad::integer
            using errcode = '22023',
                hint = 'Each needs job_id, lease, and done from 0 to 1; note may say more.';
    end if;
    update app_jobs.workers as w
    set progress = (
        select
            jsonb_agg(jsonb_build_object(
                'job_id', r.job_id, 'lease', r.lease, 'done', r.done, 'note', r.note,
                'since', coalesce(o.since, v_now)
            ))
        from json_to_recordset(set_progress.reports) as r(
            job_id bigint, lease integer, done real, note text
        )
        -- what says the same as before has said it since then
        left join jsonb_to_recordset(w.progress) as o(
            job_id bigint, lease integer, done real, note text, since timestamptz
        ) on
            o.job_id = r.job_id
            and o.lease = r.lease
            and o.done = r.done
            and o.note is not distinct from r.note
    )
    where w.worker_id = set_progress.worker_id;
end;
$$;

create function app_jobs.progress() returns table (
    worker_id text,
    id bigint,
    task_identifier text,
    done real,
    note text,
    since timestamptz
)
language plpgsql
stable
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
begin
    return query
    select w.worker_id, p.job_id, j.task_identifier, p.done, p.note, p.since
    from app_jobs.workers as w
    cross join lateral jsonb_to_recordset(w.progress) as p(
        job_id bigint, lease integer, done real, note text, since timestamptz
    )
    cross join lateral (
        select h.task_identifier, h.locked_by, h.lease
        from app_jobs.jobs as h
        where h.id = p.job_id
        offset 0
    ) as j
    where j.locked_by = w.worker_id and j.lease = p.lease
    order by w.worker_id, p.job_id;
end;
$$;

revoke all on function app_jobs.set_progress(text, json) from public;
revoke all on function app_jobs.progress() from public;
grant execute on function app_jobs.set_progress(text, json) to app_jobs_worker;
grant execute on function app_jobs.progress() to app_jobs_monitor;

comment on column app_jobs.workers.progress is
'What its jobs say of their progress: see progress(); null: nothing.';
comment on function app_jobs.set_progress(text, json) is
'Say how far the jobs of a worker are, for operators to see. It changes nothing else.

worker_id  the holder, as given to get_jobs(); one that is not registered is passed over
reports    an array of objects: job_id, lease, done (0 to 1) and note. It replaces what was said
           before, so give all jobs that say something, once a second or less

Returns: nothing. Errors: 22004, 22023. Locks: its row of workers. Roles: app_jobs_worker.';
comment on function app_jobs.progress() is
'Tell how far running jobs are, as their handlers say.

Returns: a row per job that is still held and says something: done is 0 to 1, note its own words,
since when it has said just that. Roles: app_jobs_monitor.';

commit;
