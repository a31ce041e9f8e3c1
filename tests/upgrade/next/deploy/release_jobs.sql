-- Deploy app_jobs:release_jobs to pg
-- requires: release_jobs@vTHIS

begin;

set local lock_timeout = '5s';

-- Dropped, or there would be two, and old calls ambiguous.
drop function app_jobs.release_jobs(text);

create function app_jobs.release_jobs(
    worker_id text, most integer default null
) returns setof bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
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
            and coalesce(j.lease_expires_at, '-infinity') > '-infinity'
        limit release_jobs.most
        for update skip locked
    ) as h;
    if v_tids is not null then
        perform app_jobs.let_go(v_tids, null, null, null, false, true);
        return query select i.id from unnest(v_ids) as i(id);
    end if;
end;
$$;

revoke all on function app_jobs.release_jobs(text, integer) from public;
grant execute on function app_jobs.release_jobs(text, integer) to app_jobs_worker;

comment on function app_jobs.release_jobs(text, integer) is
'Give back jobs that a worker has leased.

worker_id  the holder
most       jobs at most; null: all

Returns: their ids. Errors: 22004, 22023. Locks: the jobs, skipping locked ones; their queues.
Roles: app_jobs_worker.';

commit;
