-- Deploy app_jobs:get_jobs to pg
-- requires: tick

begin;

set local lock_timeout = '5s';

create function app_jobs.get_jobs(
    worker_id text,
    task_identifiers text[] default null,
    job_expiry interval default '4 hours',
    job_limit integer default 1
) returns setof app_jobs.jobs
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
    v_read_committed constant boolean
        := current_setting('transaction_isolation') = 'read committed';
    v_started constant timestamptz := clock_timestamp();
    v_now timestamptz := v_started;
    v_at_most constant integer := app_jobs.queues_at_most();
    v_left integer := get_jobs.job_limit;
    v_asked integer := get_jobs.job_limit;
    v_due integer := 0;
    v_wanted integer;
    v_queues integer := 0;
    v_paused text[];
    v_leases jsonb;
    v_timeouts jsonb;
    v_low text;
    v_high text;
    v_first integer;
    v_only integer;
    v_is_due boolean;
    v_slot integer;
    v_met app_jobs.found;
    v_found integer;
    v_after app_jobs.place;
    v_tids tid[];
    v_seats app_jobs.seated[];
    v_used integer;
    v_count integer;
    v_claimed integer := 0;
begin
    perform
        app_jobs.check_worker_id(get_jobs.worker_id),
        app_jobs.check_not_null(
            'job_expiry', get_jobs.job_expiry is null,
            'Give the length of the lease, like ''1 minute''.'
        ),
        app_jobs.check_positive('job_expiry', get_jobs.job_expiry);
    if get_jobs.job_limit is null or get_jobs.job_limit not between 1 and 10000 then
        raise exception 'job_limit is %', coalesce(get_jobs.job_limit::text, 'null')
            using errcode = case when get_jobs.job_limit is null then '22004' else '22023' end,
                hint = 'Ask for 1 to 10000 jobs.';
    end if;

    if v_read_committed then
        -- What is done here stays locked till the end of the transaction, which may be a long one:
        -- so no more than is asked for, or a hundred where nobody has kept house for a second.
        if pg_sequence_last_value('app_jobs.ticked_at')
            < extract(epoch from v_now) * 1000 - 1000
        then
            perform app_jobs.keep_house(greatest(get_jobs.job_limit, 100));
        elsif pg_sequence_last_value('app_jobs.activity') >= 1000 then
            perform app_jobs.turn_slots();
        end if;
    end if;

    v_first := app_jobs.first_slot();
    -- All that a claim has to know first, in one statement: to begin one costs more than to run it.
    select
        t.paused, t.leases, t.timeouts, r.low, r.high,
        (select o from app_jobs.only_slot('', get_jobs.task_identifiers, v_first) as o),
        exists (select from app_jobs.anything_due(v_now, v_first))
    into v_paused, v_leases, v_timeouts, v_low, v_high, v_only, v_is_due
    from
        app_jobs.task_range(get_jobs.task_identifiers) as r,
        (
            select
                coalesce(array_agg(s.task_identifier) filter (where s.paused), '{}') as paused,
                jsonb_object_agg(s.task_identifier, s.retry_after)
                filter (where s.retry_after is not null) as leases,
                jsonb_object_agg(s.task_identifier, s.timeout)
                filter (where s.timeout is not null) as timeouts
            from app_jobs.tasks as s
        ) as t;
    if v_is_due and v_read_committed then
        v_due := app_jobs.make_due_ready(get_jobs.task_identifiers, v_paused, v_asked);
        v_only := null;  -- what was due stands in the current slot now
    end if;

    v_slot := app_jobs.enter_slot();

    loop
        v_wanted := least(v_left, v_at_most);
        if v_only is null then
            v_met := app_jobs.look('', get_jobs.task_identifiers, v_paused, v_wanted, v_after);
        else
            v_met := app_jobs.lock_jobs(
                v_only, '', get_jobs.task_identifiers, v_low, v_high, v_paused, v_after, null,
                v_wanted, true
            );
        end if;
        v_tids := v_met.tids;
        v_found := cardinality(v_tids) + cardinality(v_met.queued);
        if v_found = 0 then
            -- What was due first may be of full queues: there may be more.
            exit when v_due < v_asked or clock_timestamp() > v_started + interval '1 second';
            v_asked := greatest(v_left, 100);
            v_due := app_jobs.make_due_ready(get_jobs.task_identifiers, v_paused, v_asked);
            v_after := null;
            v_only := null;
            continue;
        end if;

        v_seats := null;
        if v_met.queued <> '{}' then
            v_seats := array(
                select s
                from app_jobs.take_seats(
                    v_slot, get_jobs.task_identifiers, v_paused, v_met.queued
                ) as s
            );
            v_tids := v_tids || array(select s.tid from unnest(v_seats) as s);
        end if;

        v_now := clock_timestamp();
        return query
        with claimed as (
            update app_jobs.jobs as j
            set
                attempts = j.attempts + 1,
                lease = j.lease + 1,
                locked_by = get_jobs.worker_id,
                locked_at = v_now,
                lease_expires_at = v_now + least(
                    coalesce(
                        j.retry_after, (v_leases ->> j.task_identifier)::interval,
                        get_jobs.job_expiry
                    ),
                    (v_timeouts ->> j.task_identifier)::interval
                ),
                lease_length = coalesce(
                    j.retry_after, (v_leases ->> j.task_identifier)::interval, get_jobs.job_expiry
                ),
                updated_at = v_now,
                slot = v_slot,
                line = null,
                seat = case
                    when v_seats is not null
                        then (select s.seat from unnest(v_seats) as s where s.tid = j.ctid)
                end
            where j.ctid = any(v_tids)
            returning j.*
        )

        select c.* from claimed as c
        order by c.priority, c.run_at, c.id;
        get diagnostics v_count = row_count;
        -- Write down how far a slot has been used up, so that nobody passes over these again; look()
        -- says where that pays.
        if v_read_committed then
            foreach v_used in array v_met.used_slots loop
                perform app_jobs.raise_bounds(v_used, '');
            end loop;
        end if;
        v_claimed := v_claimed + v_count;
        v_left := v_left - v_count;
        -- Each queue met costs an advisory lock. And to park very many jobs takes a while: what a
        -- second has done is kept.
        exit when v_left = 0;
        exit when v_found < v_wanted and not v_met.left_out and v_due < v_asked;
        v_queues := v_queues + (
            select count(distinct q.queue_line) from unnest(v_met.queued) as q
        );
        exit when v_queues >= v_at_most;
        exit when clock_timestamp() > v_started + interval '1 second';
        -- More are wanted: look behind the last one met.
        if v_met.last_id is not null then
            select null::tid, j.priority, j.run_at, j.id, null::text into v_after
            from app_jobs.jobs as j where j.id = v_met.last_id;
        end if;
    end loop;

    if v_claimed > 0 then
        perform app_jobs.note_arrivals((v_claimed + 3) / 4);
    end if;
end;
$$;

create function app_jobs.get_job(
    worker_id text,
    task_identifiers text[] default null,
    job_expiry interval default '4 hours'
) returns app_jobs.jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job app_jobs.jobs;
begin
    select j.* into v_job
    from app_jobs.get_jobs(
        get_job.worker_id, get_job.task_identifiers, get_job.job_expiry, 1
    ) as j;
    return v_job;
end;
$$;

revoke all on function app_jobs.get_jobs(text, text[], interval, integer) from public;
revoke all on function app_jobs.get_job(text, text[], interval) from public;
grant execute on function app_jobs.get_jobs(text, text[], interval, integer) to app_jobs_worker;
grant execute on function app_jobs.get_job(text, text[], interval) to app_jobs_worker;

comment on function app_jobs.get_jobs(text, text[], interval, integer) is
'Claim the next jobs: the first that are ready by priority, run_at, id and that this worker may
take.

worker_id         1 to 200 characters, names one process
task_identifiers  tasks that it serves; null: all
job_expiry        length of the leases, positive, unless the job or its task has its own; no lease
                  is longer than its task''s timeout
job_limit         jobs at most, 1 to 10000

Returns: the jobs, in order, with the lease to finish them by; fewer or none if there are no
more, or if it has met a thousand queues (fewer where the server has few locks) or taken a second:
then the next call goes on.
Errors: 22004, 22023, JQ002 for a job of a queue at another level than READ COMMITTED. Locks: the
jobs, skipping locked ones; queues, trying only; the current slot, shared. Roles: app_jobs_worker.';
comment on function app_jobs.get_job(text, text[], interval) is
'Claim the next job: get_jobs() with a limit of one.

worker_id         1 to 200 characters, names one process
task_identifiers  tasks that it serves; null: all
job_expiry        length of the lease, positive, unless the job or its task has its own

Returns: the job; a row of nulls if there is nothing to do. Errors and locks: as get_jobs(). Roles:
app_jobs_worker.';

commit;
