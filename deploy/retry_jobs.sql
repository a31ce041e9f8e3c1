-- Deploy app_jobs:retry_jobs to pg
-- requires: steer_jobs

begin;

set local lock_timeout = '5s';

create function app_jobs.retry_jobs(finished_job_ids bigint[]) returns setof app_jobs.jobs
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
    v_jobs integer;
    v_slots integer[];
    v_closed boolean;
    v_ids bigint[];
    v_in_use text;
begin
    perform app_jobs.check_not_null(
        'finished_job_ids', retry_jobs.finished_job_ids is null,
        'Give the ids of the finished jobs to retry.'
    );
    -- in the order of ids, so that no two who retry jobs wait for each other
    perform from (
        select distinct g.id from unnest(retry_jobs.finished_job_ids) as g(id) order by g.id
    ) as given
    cross join lateral (
        select from app_jobs.finished_jobs as w where w.id = given.id for update
    ) as f;
    select count(*) into v_jobs
    from app_jobs.finished_jobs as f where f.id = any(retry_jobs.finished_job_ids);
    if v_jobs = 0 then
        return;
    end if;

    select s.slots, s.closed into v_slots, v_closed from app_jobs.slots_for(v_jobs) as s;
    with gone as materialized (
        delete from app_jobs.finished_jobs as f
        where f.id = any(retry_jobs.finished_job_ids)
        returning f.*
    ),

    back as (
        insert into app_jobs.jobs as j (
            id, database_id, queue_name, task_identifier, payload, attributes, priority, run_at,
            max_attempts, lease, key, retry_after, created_at, slot, line, has_effects
        ) overriding system value
        select
            g.id, g.database_id, g.queue_name, g.task_identifier, g.payload, g.attributes,
            g.priority, now(), g.max_attempts, g.lease, g.key, g.retry_after, g.created_at,
            v_slots[1 + (g.n - 1) * cardinality(v_slots) / v_jobs], '',
            -- scalar: by index, whatever the statistics say
            (select e.job_id from app_jobs.effects as e where e.job_id = g.id limit 1) is not null
        from (select w.*, row_number() over (order by w.id) as n from gone as w) as g
        order by g.id
        on conflict do nothing
        returning j.id
    )

    select
        array_agg(g.id),
        string_agg(format('job %s has key "%s"', g.id, g.key), ', ' order by g.id)
            filter (where g.id not in (select b.id from back as b))
    into v_ids, v_in_use
    from gone as g;
    if v_in_use is not null then
        raise exception 'another live job has the same key: %', left(v_in_use, 1000)
            using errcode = 'JQ005', detail = 'No job was retried.',
                hint = 'Leave these out, or cancel the live jobs first.';
    end if;

    if v_closed then
        perform app_jobs.close_slot(s.slot) from unnest(v_slots) as s(slot);
    end if;
    perform app_jobs.wake_workers();
    return query select j.* from app_jobs.jobs as j where j.id = any(v_ids) order by j.id;
end;
$$;

revoke all on function app_jobs.retry_jobs(bigint[]) from public;
grant execute on function app_jobs.retry_jobs(bigint[]) to app_jobs_operator;

comment on function app_jobs.retry_jobs(bigint[]) is
'Put finished jobs, dead letters above all, back to work: ready now, with no attempts counted and no
error. Their leases count on, and job_errors keeps what failed before. All or none.

finished_job_ids  rows of finished_jobs, in whatever state

Returns: the jobs as they are now; an id that is not in finished_jobs is left out. Errors: 22004,
JQ005. Locks: the rows of finished_jobs, in the order of their ids; waits for other transactions
that have them locked or have added a job with the same key. Roles: app_jobs_operator.';

commit;
