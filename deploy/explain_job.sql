-- Deploy app_jobs:explain_job to pg
-- requires: metrics

begin;

set local lock_timeout = '5s';

create function app_jobs.in_words(span interval) returns text
language sql
immutable
as $$
    select case
        when s.seconds < 100 then round(s.seconds) || ' s'
        when s.seconds < 100 * 60 then round(s.seconds / 60) || ' min'
        when s.seconds < 48 * 3600 then round(s.seconds / 3600) || ' h'
        else round(s.seconds / 86400) || ' days'
    end
    from (select abs(extract(epoch from in_words.span)) as seconds) as s
$$;

create function app_jobs.at_time(moment timestamptz) returns text
language sql
stable
as $$
    select to_char(at_time.moment, 'YYYY-MM-DD HH24:MI:SS TZ')
$$;

create function app_jobs.first_line(message text) returns text
language sql
immutable
as $$
    select left(split_part(first_line.message, chr(10), 1), 200)
$$;

create function app_jobs.explain_queue(job app_jobs.jobs) returns text
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_line constant text := app_jobs.queue_line(job.database_id, job.queue_name);
    v_arguments constant text
        := concat_ws(', ', quote_literal(job.queue_name), quote_literal(job.database_id));
    v_seats integer;
    v_paused boolean;
    v_taken bigint;
    v_first app_jobs.jobs;
begin
    select s.max_running, s.paused into v_seats, v_paused
    from app_jobs.queue_settings as s
    where s.line = v_line;
    if v_paused then
        return format(
            'its queue "%s" is paused: call app_jobs.resume_queue(%s)', job.queue_name, v_arguments
        );
    end if;
    v_seats := coalesce(v_seats, 1);

    with taken as (
        select j.*
        from (
            select o.slot from app_jobs.open_slots as o
            union
            select n.slot from app_jobs.streams as n where n.line = app_jobs.seat_line(v_line)
        ) as s
        -- lateral, and offset 0: slot by slot, whatever the statistics say
        cross join lateral (
            select h.id, h.locked_by, h.locked_at, h.lease_expires_at
            from app_jobs.jobs as h
            where
                h.slot = s.slot
                and app_jobs.queue_line(h.database_id, h.queue_name) = v_line
                and h.seat is not null
            offset 0
        ) as j
    )

    select
        count(*) over (), t.id, t.locked_by, t.lease_expires_at
    into v_taken, v_first.id, v_first.locked_by, v_first.lease_expires_at
    from taken as t
    order by t.locked_at, t.id
    limit 1;
    if coalesce(v_taken, 0) < v_seats then
        return null;
    end if;
    return format(
        'queue "%s" runs %s at a time, now job %s, which worker "%s" holds %s%s',
        job.queue_name,
        v_seats,
        v_first.id,
        v_first.locked_by,
        coalesce('until ' || app_jobs.at_time(v_first.lease_expires_at), 'without an end'),
        case
            when v_taken > 1 then format(', and %s more', v_taken - 1)
        end
    ) || format(
        ': wait, or call app_jobs.set_queue_limit(%s)',
        concat_ws(', ', quote_literal(job.queue_name), v_seats + 1, quote_literal(job.database_id))
    );
end;
$$;

create function app_jobs.explain_finished(job_id bigint) returns text
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_job app_jobs.finished_jobs;
    v_when text;
begin
    select
        f.state, f.finished_at, f.finished_by, f.attempts, f.max_attempts, f.last_error,
        f.keep_until
    into
        v_job.state, v_job.finished_at, v_job.finished_by, v_job.attempts, v_job.max_attempts,
        v_job.last_error, v_job.keep_until
    from app_jobs.finished_jobs as f
    where f.id = explain_finished.job_id;
    if not found then
        return format(
            'There is no job %s: it was never added or not yet committed, or it is finished and '
            'not kept any more; tasks.keep_completed and keep_failed say how long jobs are kept.',
            explain_finished.job_id
        );
    end if;
    v_when := format(
        'at %s%s', app_jobs.at_time(v_job.finished_at),
        ' by worker "' || v_job.finished_by || '"'
    );
    return case v_job.state
        when 'completed' then format(
            'Job %s was completed %s, and is kept until %s.',
            explain_finished.job_id, v_when, app_jobs.at_time(v_job.keep_until)
        )
        when 'cancelled' then format(
            'Job %s was cancelled %s%s: call app_jobs.retry_jobs(array[%s]) to run it after all.',
            explain_finished.job_id, v_when,
            ' (' || app_jobs.first_line(v_job.last_error) || ')', explain_finished.job_id
        )
        else format(
            'Job %s failed for good %s, after %s of %s attempts%s: call '
            'app_jobs.retry_jobs(array[%s]) to try again.',
            explain_finished.job_id, v_when, v_job.attempts, v_job.max_attempts,
            ', with "' || app_jobs.first_line(v_job.last_error) || '"', explain_finished.job_id
        )
    end;
end;
$$;

create function app_jobs.explain_ready(job app_jobs.jobs) returns text
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_workers bigint;
    v_idle bigint;
    v_ready numeric;
begin
    select count(*), count(*) filter (where w.idle) into v_workers, v_idle
    from app_jobs.workers as w
    where
        w.last_seen_at > clock_timestamp() - interval '5 minutes'
        and (w.task_identifiers is null or job.task_identifier = any(w.task_identifiers));
    if v_workers = 0 then
        return format(
            'no live worker is known to serve task "%s": start one (workers are known by '
            'heartbeat() or register_worker())',
            job.task_identifier
        );
    end if;
    select sum(m.ready) into v_ready
    from app_jobs.metrics() as m
    where m.task_identifier = job.task_identifier;
    return format(
        '%s live workers serve task "%s", %s of them idle, and about %s of its jobs are ready, '
        'this one with priority %s: wait, start more workers, or call '
        'app_jobs.reschedule_jobs(array[%s], priority => %s)',
        v_workers, job.task_identifier, v_idle, v_ready, job.priority, job.id, job.priority - 1
    );
end;
$$;

create function app_jobs.explain_job(job_id bigint) returns text
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
    v_now constant timestamptz := clock_timestamp();
    v_job app_jobs.jobs;
    v_reason text;
begin
    perform app_jobs.check_not_null(
        'job_id', explain_job.job_id is null, 'Give the id of the job to explain.'
    );
    select j.* into v_job from app_jobs.jobs as j where j.id = explain_job.job_id;
    if not found then
        return app_jobs.explain_finished(explain_job.job_id);
    elsif v_job.locked_by is not null and v_job.lease_expires_at is null then
        return format(
            'Job %s is processing since %s, with no lease that could end: whoever works on it '
            'calls app_jobs.move_job_to_done(%s) or app_jobs.move_job_to_failed(%s).',
            v_job.id, app_jobs.at_time(v_job.locked_at), v_job.id, v_job.id
        );
    elsif v_job.lease_expires_at <= v_now then
        return format(
            'Job %s was held by worker "%s" until its lease ended at %s: the next '
            'app_jobs.tick() takes it back; the last one was %s ago.',
            v_job.id, v_job.locked_by, app_jobs.at_time(v_job.lease_expires_at),
            app_jobs.in_words(v_now - to_timestamp(
                pg_sequence_last_value('app_jobs.ticked_at') / 1000.0
            ))
        );
    elsif v_job.locked_by is not null then
        return format(
            'Job %s is running, attempt %s of %s: worker "%s" holds it since %s until %s%s.',
            v_job.id, v_job.attempts, v_job.max_attempts, v_job.locked_by,
            app_jobs.at_time(v_job.locked_at), app_jobs.at_time(v_job.lease_expires_at),
            case
                when v_job.cancel_reason is not null
                    then ', and is to cancel it: its next heartbeat() says so'
                else ' and may renew that by heartbeat()'
            end
        );
    elsif v_job.line is null then
        return format(
            'Job %s is scheduled for %s, %s%s: %s.',
            v_job.id, app_jobs.at_time(v_job.run_at),
            case
                when v_job.run_at <= v_now
                    then app_jobs.in_words(v_now - v_job.run_at) || ' ago'
                else 'in ' || app_jobs.in_words(v_job.run_at - v_now)
            end,
            case
                when v_job.attempts > 0 then format(
                    ', after attempt %s of %s%s', v_job.attempts, v_job.max_attempts,
                    ', which failed with "' || app_jobs.first_line(v_job.last_error) || '"'
                )
            end,
            case
                when v_job.run_at <= v_now
                    then 'the next app_jobs.get_jobs() or app_jobs.tick() makes it ready'
                else format(
                    'wait, or call app_jobs.reschedule_jobs(array[%s], run_at => now())', v_job.id
                )
            end
        );
    end if;

    perform from app_jobs.tasks as t where t.task_identifier = v_job.task_identifier and t.paused;
    if found then
        v_reason := format(
            'its task is paused: call app_jobs.resume_task(%L)', v_job.task_identifier
        );
    elsif v_job.queue_name is not null then
        v_reason := app_jobs.explain_queue(v_job);
    end if;
    if v_reason is null and v_job.line > '' then
        v_reason := 'others of its queue went first: the next app_jobs.tick() lets the queue move';
    end if;
    return format(
        'Job %s is %s since %s, but %s.',
        v_job.id,
        case when v_job.line = '' then 'ready' else 'parked' end,
        app_jobs.at_time(greatest(v_job.run_at, v_job.updated_at)),
        coalesce(v_reason, app_jobs.explain_ready(v_job))
    );
end;
$$;

revoke all on function app_jobs.in_words(interval) from public;
revoke all on function app_jobs.at_time(timestamptz) from public;
revoke all on function app_jobs.first_line(text) from public;
revoke all on function app_jobs.explain_queue(app_jobs.jobs) from public;
revoke all on function app_jobs.explain_finished(bigint) from public;
revoke all on function app_jobs.explain_ready(app_jobs.jobs) from public;
revoke all on function app_jobs.explain_job(bigint) from public;
grant execute on function app_jobs.explain_job(bigint) to app_jobs_monitor;

comment on function app_jobs.in_words(interval) is
'Say how long a span is, in one unit.

span  its sign does not matter

Roles: internal.';
comment on function app_jobs.at_time(timestamptz) is
'Say when, in the caller''s time zone.

moment  the time

Roles: internal.';
comment on function app_jobs.first_line(text) is
'Take the first line of an error, up to 200 characters.

message  the error

Roles: internal.';
comment on function app_jobs.explain_queue(app_jobs.jobs) is
'Say why the queue of a job that waits does not let it run, and what to do.

job  the job

Returns: the reason; null: a seat is free. Roles: internal; the caller pins the plans.';
comment on function app_jobs.explain_finished(bigint) is
'Say how a job ended.

job_id  the job

Roles: internal; the caller pins the plans.';
comment on function app_jobs.explain_ready(app_jobs.jobs) is
'Say why nobody has taken a ready job, and what to do.

job  the job

Roles: internal; the caller pins the plans.';
comment on function app_jobs.explain_job(bigint) is
'Say in one sentence why a job is not running, or that it is, and the next step. Shows no payload,
but the first line of an error.

job_id  the job, live or finished

Returns: the sentence, also for a job that is not known. Errors: 22004. Roles: app_jobs_monitor.';

commit;
