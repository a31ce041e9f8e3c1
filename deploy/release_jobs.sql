-- Deploy app_jobs:release_jobs to pg
-- requires: heartbeat

begin;

set local lock_timeout = '5s';

create function app_jobs.release_jobs(worker_id text) returns setof bigint
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
    v_ids bigint[];
begin
    perform app_jobs.check_worker_id(release_jobs.worker_id);
    select array_agg(h.ctid), array_agg(h.id) into v_tids, v_ids
    from (
        select j.ctid, j.id
        from app_jobs.jobs as j
        where
            j.id = any(array(select b.id from app_jobs.held_by(release_jobs.worker_id) as b(id)))
            and j.locked_by = release_jobs.worker_id
            -- as in heartbeat()
            and coalesce(j.lease_expires_at, '-infinity') > '-infinity'
        for update skip locked
    ) as h;
    if v_tids is not null then
        perform app_jobs.let_go(v_tids, null, null, null, false, true);
        return query select i.id from unnest(v_ids) as i(id);
    end if;
end;
$$;

revoke all on function app_jobs.release_jobs(text) from public;
grant execute on function app_jobs.release_jobs(text) to app_jobs_worker;

comment on function app_jobs.release_jobs(text) is
'Give back all jobs that a worker has leased, at its shutdown: they are ready again, and no attempt
is counted.

worker_id  the holder

Returns: their ids. Errors: 22004, 22023. Locks: the jobs, skipping locked ones; their queues.
Roles: app_jobs_worker.';

commit;
