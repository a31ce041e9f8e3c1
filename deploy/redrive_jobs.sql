-- Deploy app_jobs:redrive_jobs to pg
-- requires: lists
-- requires: retry_jobs

begin;

set local lock_timeout = '5s';

create function app_jobs.redrive_jobs(
    task text default null,
    queue text default null,
    db_id uuid default null,
    search text default null,
    since timestamptz default null,
    before timestamptz default null,
    before_id bigint default null,
    most integer default 1000,
    per_second numeric default null,
    dry_run boolean default false
) returns setof app_jobs.listed_job
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_steps constant integer := 200;
    v_listed app_jobs.listed_job[];
    v_ids bigint[];
    v_jobs integer;
    v_steps integer;
begin
    perform app_jobs.check_not_null(
        'dry_run', redrive_jobs.dry_run is null, 'Give true to look, false to retry.'
    );
    if redrive_jobs.per_second not between 0.001 and 1000000 then
        raise exception 'per_second is %', redrive_jobs.per_second
            using errcode = '22023', hint = 'Give 0.001 to 1000000 jobs, or null for all at once.';
    end if;
    v_listed := array(
        select l
        from app_jobs.list_finished(
            redrive_jobs.task, redrive_jobs.queue, redrive_jobs.db_id, 'failed',
            redrive_jobs.search, redrive_jobs.since, redrive_jobs.before, redrive_jobs.before_id,
            redrive_jobs.most
        ) as l
    );
    -- of several with one key the last, and none whose key a live job has
    v_ids := array(
        select g.id
        from (
            select
                l.id, l.key, l.database_id,
                row_number() over (partition by l.database_id, l.key order by l.id desc) as n
            from unnest(v_listed) as l
            where l.state is not null
        ) as g
        where
            g.key is null
            or g.n = 1 and (
                select j.id from app_jobs.jobs as j
                where j.key = g.key and j.database_id is null and g.database_id is null
            ) is null and (
                select j.id from app_jobs.jobs as j
                where j.key = g.key and j.database_id = g.database_id
            ) is null
        order by g.id
    );
    if not redrive_jobs.dry_run then
        -- another operator may have been faster
        v_ids := array(select r.id from app_jobs.retry_jobs(v_ids) as r order by r.id);
        v_jobs := cardinality(v_ids);
        -- The first step runs now. All is one transaction, so nobody sees the others ready.
        v_steps := case
            when redrive_jobs.per_second is null then 1
            else greatest(least(v_jobs, c_steps, ceil(v_jobs / redrive_jobs.per_second)), 1)
        end;
        perform from generate_series(1, v_steps - 1) as s(n)
        cross join lateral app_jobs.reschedule_jobs(
            v_ids[1 + s.n * v_jobs / v_steps:(s.n + 1) * v_jobs / v_steps],
            now() + s.n * make_interval(
                secs => (v_jobs / redrive_jobs.per_second / v_steps)::double precision
            )
        );
    end if;
    return query
    select l.*
    from unnest(v_listed) as l
    where l.state is null or l.id = any(v_ids);
end;
$$;

revoke all on function app_jobs.redrive_jobs(
    text, text, uuid, text, timestamptz, timestamptz, bigint, integer, numeric, boolean
) from public;
grant execute on function app_jobs.redrive_jobs(
    text, text, uuid, text, timestamptz, timestamptz, bigint, integer, numeric, boolean
) to app_jobs_operator;

comment on function app_jobs.redrive_jobs(
    text, text, uuid, text, timestamptz, timestamptz, bigint, integer, numeric, boolean
) is
'Put dead letters back to work by filter, as retry_jobs() does by id: those that list_finished()
lists as failed for the same arguments. Left out are those whose key a live job has, or a later one
of them.

task        only of this task
queue       only of this queue
db_id       only of this tenant; null: all
search      only with this in task, queue, key, worker or the error''s first line
since       only those that failed then or later
before      only those that failed before this
before_id   to go on: with finished_at as before, only ids below this among those that failed then
most        jobs at most, 1 to 10000
per_second  spread them: so many are due per second, from now on; null: all at once
dry_run     true: only list them

Returns: the dead letters as they were; a last row with nothing but finished_at and id: there may be
more, go on from there. Errors: 22004, 22023, JQ005 if a job with the same key is added meanwhile.
Locks: as retry_jobs() and reschedule_jobs(). Roles: app_jobs_operator.';

commit;
