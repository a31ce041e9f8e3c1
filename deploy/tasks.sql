-- Deploy app_jobs:tasks to pg
-- requires: arguments

begin;

set local lock_timeout = '5s';

create function app_jobs.backoff_delay(backoff json, attempts integer) returns interval
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_type text := coalesce(backoff ->> 'type', 'exponential');
    v_base interval := coalesce((backoff ->> 'base')::interval, interval '1 second');
    v_cap interval := coalesce((backoff ->> 'cap')::interval, interval '6 hours');
    v_jitter double precision := coalesce((backoff ->> 'jitter')::double precision, 0.1);
    v_factor double precision;
    v_unknown text;
begin
    if backoff is null then
        return make_interval(secs => exp(least(attempts, 10)));
    end if;
    if json_typeof(backoff) <> 'object' then
        raise exception 'backoff is of type %', json_typeof(backoff)
            using errcode = '22023', hint = 'Give an object with type, base, cap and jitter.';
    end if;
    select k.key into v_unknown
    from json_object_keys(backoff) as k(key)
    where k.key not in ('type', 'base', 'cap', 'jitter');
    if found then
        raise exception 'backoff has an unknown key: "%"', v_unknown
            using errcode = '22023', hint = 'It takes type, base, cap and jitter.';
    elsif v_type not in ('exponential', 'linear', 'constant') then
        raise exception 'backoff has type "%"', v_type
            using errcode = '22023', hint = 'Use exponential, linear or constant.';
    elsif v_base <= interval '0' or v_cap <= interval '0'
        or greatest(v_base, v_cap) > interval '100 years'
    then
        raise exception 'backoff has base % and cap %', v_base, v_cap
            using errcode = '22023',
                hint = 'Both are positive intervals of up to 100 years, like "10 seconds".';
    elsif not v_jitter between 0 and 1 then
        raise exception 'backoff has jitter %', v_jitter
            using errcode = '22023', hint = 'Jitter is a share of the delay, 0 to 1.';
    end if;
    v_factor := case v_type
        when 'exponential' then 2 ^ least(attempts - 1, 100)
        when 'linear' then attempts
        else 1
    end;
    -- asked first, since the product may be longer than any interval
    if extract(epoch from v_base) * v_factor >= extract(epoch from v_cap) then
        return v_cap;
    end if;
    return v_base * v_factor;
end;
$$;

create table app_jobs.tasks (
    task_identifier text collate "C" not null,
    max_attempts integer,
    retry_after interval,
    timeout interval,
    backoff json,
    keep_completed interval not null default interval '0',
    keep_failed interval not null default interval '30 days',
    paused boolean not null default false,
    constraint tasks_pkey primary key (task_identifier),
    constraint tasks_task_identifier_length check (char_length(task_identifier) between 1 and 126),
    constraint tasks_max_attempts_positive check (max_attempts >= 1),
    constraint tasks_retry_after_in_range check (
        retry_after > interval '0' and retry_after <= interval '100 years'
    ),
    constraint tasks_timeout_in_range check (
        timeout > interval '0' and timeout <= interval '100 years'
    ),
    constraint tasks_backoff_valid check (app_jobs.backoff_delay(backoff, 1) > interval '0'),
    constraint tasks_keep_completed_in_range check (
        keep_completed between interval '0' and interval '100 years'
    ),
    constraint tasks_keep_failed_in_range check (
        keep_failed between interval '0' and interval '100 years'
    )
);

create function app_jobs.retry_delay(identifier text, attempts integer) returns interval
language plpgsql
volatile
as $$
declare
    v_backoff json;
begin
    select t.backoff into v_backoff from app_jobs.tasks as t where t.task_identifier = identifier;
    return app_jobs.backoff_delay(v_backoff, attempts)
        * (1 + random() * coalesce((v_backoff ->> 'jitter')::double precision, 0.1));
end;
$$;

revoke all on function app_jobs.backoff_delay(json, integer) from public;
revoke all on function app_jobs.retry_delay(text, integer) from public;
grant select, insert, update, delete on app_jobs.tasks to app_jobs_operator;
grant execute on function app_jobs.backoff_delay(json, integer) to app_jobs_operator;

comment on table app_jobs.tasks is
'Settings per task, all optional: a task without a row has the defaults. Changes take effect at
once.';
comment on column app_jobs.tasks.task_identifier is 'The task, 1 to 126 characters.';
comment on column app_jobs.tasks.max_attempts is 'Runs before a job fails for good; null: 25. Read when a job is added.';
comment on column app_jobs.tasks.retry_after is 'Length of a lease; null: the worker''s. A job''s own retry_after goes first.';
comment on column app_jobs.tasks.timeout is 'How long a run may take from its claim, renewals included; it then fails. Null: no limit.';
comment on column app_jobs.tasks.backoff is
'{"type": "exponential"|"linear"|"constant", "base": "1s", "cap": "6h", "jitter": 0.1}; null:
exp(attempts) seconds.';
comment on column app_jobs.tasks.keep_completed is 'How long a completed job stays in finished_jobs; 0: its row is deleted.';
comment on column app_jobs.tasks.keep_failed is 'How long a failed or cancelled job stays in finished_jobs.';
comment on column app_jobs.tasks.paused is 'No job of a paused task is claimed.';
comment on constraint tasks_backoff_valid on app_jobs.tasks is
'The backoff can be read, so that no failing job meets one that cannot.';
comment on function app_jobs.backoff_delay(json, integer) is
'Read a backoff: the delay before the next attempt, without jitter.

backoff   as in tasks.backoff; null: exp(least(attempts, 10)) seconds
attempts  runs so far, 1 or more

Errors: 22023, and PostgreSQL''s own for a text that is no interval. Roles: app_jobs_operator (the
table''s check calls it).';
comment on function app_jobs.retry_delay(text, integer) is
'Choose the delay before the next attempt of a failed job, jitter included.

identifier  the task
attempts    runs so far, 1 or more

Roles: internal.';

commit;
