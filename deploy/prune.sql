-- Deploy app_jobs:prune to pg
-- requires: retry_jobs

begin;

set local lock_timeout = '5s';

create function app_jobs.prune(
    older_than interval default null, batch integer default 10000
) returns bigint
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
    c_age constant interval := interval '1000 years';
    v_before constant timestamptz := clock_timestamp()
        - greatest(least(prune.older_than, c_age), interval '0');
    v_tids tid[];
    v_count integer;
begin
    if prune.older_than < interval '0' then
        raise exception 'older_than is %', prune.older_than
            using errcode = '22023',
                hint = 'Give an interval that is not negative, like ''7 days'', or null.';
    end if;
    perform app_jobs.check_not_null('batch', prune.batch is null, 'Give 1 to 100000 jobs.');
    if prune.batch not between 1 and 100000 then
        raise exception 'batch is %', prune.batch
            using errcode = '22023',
                hint = 'Give 1 to 100000 jobs: one call is one transaction. Call it again for more.';
    end if;

    if prune.older_than is null then
        v_count := app_jobs.prune_finished(prune.batch);
    else
        v_tids := array(
            select f.ctid
            from app_jobs.finished_jobs as f
            where f.finished_at <= v_before
            order by f.finished_at
            limit prune.batch
            for update skip locked
        );
        perform app_jobs.forget_finished(v_tids);
        v_count := cardinality(v_tids);
    end if;
    raise notice 'app_jobs: finished jobs deleted: %; %', v_count,
        case when v_count < prune.batch then 'none left' else 'call prune() again for more' end;
    return v_count;
end;
$$;

revoke all on function app_jobs.prune(interval, integer) from public;
grant execute on function app_jobs.prune(interval, integer) to app_jobs_operator;

comment on function app_jobs.prune(interval, integer) is
'Delete a batch of finished jobs, with their errors, the oldest first. A call is one transaction, so
it is bounded: call it until it returns less than a batch. tick() prunes what is over its time by
itself.

older_than  finished longer ago than this, however long their tasks keep them; 0: all; null: those
            over their time
batch       jobs at most, 1 to 100000

Returns: jobs deleted; a notice says whether there may be more. Errors: 22004, 22023. Locks: those
rows, skipping locked ones; nobody who adds, claims or ends jobs waits. Roles: app_jobs_operator.';

commit;
