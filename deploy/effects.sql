-- Deploy app_jobs:effects to pg
-- requires: finished_jobs

begin;

set local lock_timeout = '5s';

create table app_jobs.effects (
    job_id bigint not null,
    effect_key text collate "C" not null,
    lease integer not null,
    worker_id text not null,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    result json,
    constraint effects_pkey primary key (job_id, effect_key),
    constraint effects_effect_key_length check (char_length(effect_key) between 1 and 512),
    constraint effects_result_is_finished check (result is null or finished_at is not null)
);

create function app_jobs.check_effect(job_id bigint, effect_key text) returns void
language plpgsql
immutable
as $$
begin
    perform app_jobs.check_not_null(
        'job_id', check_effect.job_id is null, 'Give the id of the job that has the effect.'
    );
    perform app_jobs.check_not_null(
        'effect_key', check_effect.effect_key is null,
        'Name the effect within its job, 1 to 512 characters.'
    );
    perform app_jobs.check_length('effect_key', check_effect.effect_key, 512);
end;
$$;

create function app_jobs.hold_job(
    worker_id text,
    job_id bigint,
    lease integer default null
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
    v_longest interval;
begin
    perform app_jobs.check_worker_id(hold_job.worker_id);
    perform app_jobs.check_not_null(
        'job_id', hold_job.job_id is null, 'Give the id of the job to hold on to.'
    );
    select j.lease_length into v_longest
    from app_jobs.jobs as j
    where
        j.id = hold_job.job_id
        and j.locked_by = hold_job.worker_id
        and (hold_job.lease is null or j.lease = hold_job.lease)
    for update;
    if not found then
        return false;
    end if;
    -- Who is silent for the length of a lease is taken to be dead, here as elsewhere: the server
    -- then ends his transaction, or it would keep the job from the others for as long as it likes.
    v_longest := least(
        v_longest, nullif(current_setting('idle_in_transaction_session_timeout')::interval, '0')
    );
    if v_longest is not null then
        perform set_config(
            'idle_in_transaction_session_timeout',
            least(ceil(extract(epoch from v_longest) * 1000), 2147483647)::bigint::text, true
        );
    end if;
    return true;
end;
$$;

create function app_jobs.begin_once(
    worker_id text,
    job_id bigint,
    effect_key text,
    lease integer default null,
    out run boolean,
    out result json
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_holder text;
    v_effect app_jobs.effects;
begin
    perform app_jobs.check_worker_id(begin_once.worker_id);
    perform app_jobs.check_effect(begin_once.job_id, begin_once.effect_key);
    -- The fence; and while we hold the job it cannot end, which would leave our row behind.
    if not app_jobs.hold_job(begin_once.worker_id, begin_once.job_id, begin_once.lease) then
        select coalesce('worker "' || j.locked_by || '"', 'nobody') into v_holder
        from app_jobs.jobs as j
        where j.id = begin_once.job_id;
        if not found then
            raise exception 'there is no live job %', begin_once.job_id
                using errcode = 'JQ001',
                    hint = 'It has ended, so whoever still works on it should stop.';
        end if;
        raise exception 'job % is not held by worker "%"%', begin_once.job_id,
            begin_once.worker_id, coalesce(' under lease ' || begin_once.lease, '')
            using errcode = 'JQ002',
                detail = format('It is held by %s.', v_holder),
                hint = 'Its lease is over or was taken over: stop working on it.';
    end if;
    update app_jobs.jobs as j
    set has_effects = true, updated_at = clock_timestamp()
    where j.id = begin_once.job_id and not j.has_effects;

    insert into app_jobs.effects (job_id, effect_key, lease, worker_id)
    select j.id, begin_once.effect_key, j.lease, j.locked_by
    from app_jobs.jobs as j
    where j.id = begin_once.job_id
    on conflict on constraint effects_pkey do nothing;
    run := found;
    if run then
        return;
    end if;

    select e.* into v_effect
    from app_jobs.effects as e
    where e.job_id = begin_once.job_id and e.effect_key = begin_once.effect_key;
    if v_effect.finished_at is null then
        raise exception 'effect "%" of job % was begun and never finished',
            begin_once.effect_key, begin_once.job_id
            using errcode = 'JQ003',
                detail = format('Worker "%s" began it at %s, under lease %s.',
                    v_effect.worker_id, v_effect.started_at, v_effect.lease),
                hint = format(
                    'Find out whether it happened. If not: select app_jobs.forget_once(%1$s, %2$L);'
                    ' if so: select app_jobs.finish_once(%3$L, %1$s, %2$L). Then let the job run'
                    ' again.',
                    begin_once.job_id, begin_once.effect_key, v_effect.worker_id
                );
    end if;
    result := v_effect.result;
end;
$$;

create function app_jobs.finish_once(
    worker_id text,
    job_id bigint,
    effect_key text,
    result json default null,
    lease integer default null
) returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    perform app_jobs.check_worker_id(finish_once.worker_id);
    perform app_jobs.check_effect(finish_once.job_id, finish_once.effect_key);
    -- The fence is who began the effect, not who holds the job now: nobody else knows how it ended,
    -- and that has to be kept, though the lease was lost meanwhile. A second time changes nothing.
    update app_jobs.effects as e
    set
        result = case when e.finished_at is null then finish_once.result else e.result end,
        finished_at = coalesce(e.finished_at, clock_timestamp())
    where
        e.job_id = finish_once.job_id
        and e.effect_key = finish_once.effect_key
        and e.worker_id = finish_once.worker_id
        and (finish_once.lease is null or e.lease = finish_once.lease);
    if found then
        return;
    end if;
    perform from app_jobs.jobs as j where j.id = finish_once.job_id;
    if not found then
        raise exception 'there is no live job %', finish_once.job_id
            using errcode = 'JQ001',
                detail = 'Nor is there an effect of it that this worker began.',
                hint = 'It has ended, so whoever still works on it should stop.';
    end if;
    raise exception 'effect "%" of job % was not begun by worker "%"%', finish_once.effect_key,
        finish_once.job_id, finish_once.worker_id, coalesce(' under lease ' || finish_once.lease, '')
        using errcode = 'JQ002', hint = 'Call begin_once() first, and only if it says run.';
end;
$$;

create function app_jobs.forget_once(
    job_id bigint,
    effect_key text,
    lease integer default null
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
    perform app_jobs.check_effect(forget_once.job_id, forget_once.effect_key);
    delete from app_jobs.effects as e
    where
        e.job_id = forget_once.job_id
        and e.effect_key = forget_once.effect_key
        and (forget_once.lease is null or e.lease = forget_once.lease);
    return found;
end;
$$;

revoke all on function app_jobs.check_effect(bigint, text) from public;
revoke all on function app_jobs.hold_job(text, bigint, integer) from public;
revoke all on function app_jobs.begin_once(text, bigint, text, integer) from public;
revoke all on function app_jobs.finish_once(text, bigint, text, json, integer) from public;
revoke all on function app_jobs.forget_once(bigint, text, integer) from public;
grant select on app_jobs.effects to app_jobs_operator;
grant execute on function app_jobs.hold_job(text, bigint, integer) to app_jobs_worker;
grant execute on function app_jobs.begin_once(text, bigint, text, integer) to app_jobs_worker;
grant execute on function app_jobs.finish_once(text, bigint, text, json, integer)
to app_jobs_worker;
grant execute on function app_jobs.forget_once(bigint, text, integer) to app_jobs_worker;

comment on table app_jobs.effects is
'Side effects of jobs that must not be repeated: one row per job and effect, kept as long as the
job is, live or finished.';
comment on column app_jobs.effects.job_id is 'The job.';
comment on column app_jobs.effects.effect_key is 'Names the effect within its job, 1 to 512 characters.';
comment on column app_jobs.effects.lease is 'The claim under which it was begun.';
comment on column app_jobs.effects.worker_id is 'Who began it, and alone may say that it is finished.';
comment on column app_jobs.effects.started_at is 'When it was begun.';
comment on column app_jobs.effects.finished_at is 'When it was said to have happened; null: it is under way, or in doubt.';
comment on column app_jobs.effects.result is 'What came of it, for those who ask again.';
comment on constraint effects_result_is_finished on app_jobs.effects is
'Only what has happened has a result.';
comment on function app_jobs.check_effect(bigint, text) is
'Refuse what cannot name an effect.

job_id      not null
effect_key  1 to 512 characters, not null

Errors: 22004, 22023. Roles: internal.';
comment on function app_jobs.hold_job(text, bigint, integer) is
'Hold on to a job until the end of the transaction: nobody can take it over meanwhile, though its
lease may end, and complete_job() in the same transaction cannot fail to find it. So what the
transaction writes and the end of the job are committed together, or not at all. A transaction that
is idle for longer than a lease lasts is ended by the server (idle_in_transaction_session_timeout).

worker_id  the holder, as given to get_job()
job_id     the job
lease      the lease (jobs.lease at the claim); null: whichever the worker holds

Returns: true; false if the worker does not hold the job any more. Errors: 22004, 22023. Locks: the
job; waits for it. Roles: app_jobs_worker.';
comment on function app_jobs.begin_once(text, bigint, text, integer) is
'Ask whether to perform a side effect that must not be repeated. Commit before performing it, and
call finish_once() after it.

worker_id   the holder of the job, as given to get_job()
job_id      the job
effect_key  names the effect within its job, 1 to 512 characters
lease       the lease (jobs.lease at the claim); null: whichever the worker holds

Returns: run, true: perform it, false: it has happened; result, as given to finish_once() then.
Errors: 22004, 22023, JQ001 if the job is not live, JQ002 if the worker does not hold it, JQ003 if
the effect was begun and never finished, so that only a person can know. Locks: the job; waits for
it. Roles: app_jobs_worker.';
comment on function app_jobs.finish_once(text, bigint, text, json, integer) is
'Note that a side effect has happened. A second time changes nothing. It counts also when the job
was taken over or has failed since: who began the effect knows.

worker_id   who called begin_once()
job_id      the job
effect_key  the effect
result      what later calls of begin_once() answer; null: none
lease       the lease under which it was begun; null: whichever it was

Errors: 22004, 22023, JQ001 if the job is not live and the worker has begun no such effect, JQ002
if it is live. Locks: the effect; waits for it. Roles: app_jobs_worker.';
comment on function app_jobs.forget_once(bigint, text, integer) is
'Forget a side effect: it may be performed again.

job_id      the job, live or finished
effect_key  the effect
lease       only if it was begun under this lease; null: under any

Returns: whether there was one. Errors: 22004, 22023. Locks: the effect; waits for it. Roles:
app_jobs_worker.';

commit;
