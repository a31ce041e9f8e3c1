-- app_jobs 0.1.0 in one file and one transaction: psql -f app_jobs.sql
-- Made by `make generate`: do not edit.
\set ON_ERROR_STOP on

begin;

-- the lock that Sqitch and the migrator take between deployers
do $$
begin
    perform pg_advisory_xact_lock(75474063);
end;
$$;

-- Deploy app_jobs:schema to pg

set local lock_timeout = '5s';

-- A schema of this name that we did not make may hold somebody's data: touch nothing.
do $$
declare
    v_extension name;
begin
    if to_regnamespace('app_jobs') is null then
        return;
    end if;
    select e.extname into v_extension
    from pg_class as c
    inner join pg_depend as d on d.classid = 'pg_class'::regclass and d.objid = c.oid
    inner join pg_extension as e
        on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
    where c.relnamespace = to_regnamespace('app_jobs')
    limit 1;
    if found then
        raise exception 'schema "app_jobs" exists: extension "%" made it', v_extension
            using errcode = 'JQ091',
                hint = format('ALTER EXTENSION %I UPDATE brings it up to date.', v_extension);
    end if;
    raise exception 'schema "app_jobs" exists and was not made by this deployment'
        using errcode = 'JQ091',
            detail = 'If it is a deployed job queue, Sqitch''s registry tells which changes it has.',
            hint = 'A deployed job queue is upgraded with `app-jobs migrate` or `make deploy`. A '
                'schema of somebody else: rename or drop it, or choose another database or name.';
end;
$$;

create schema app_jobs;
revoke all on schema app_jobs from public;

comment on schema app_jobs is
'A job queue. Producers call add_job(), workers get_jobs() and complete_jobs(); \df+ app_jobs.* is
the manual.';

-- Deploy app_jobs:roles to pg
-- requires: schema

set local lock_timeout = '5s';

-- Roles belong to the cluster: another database may have made them, or the DBA by hand. Whoever may
-- not make them is told what to ask for, and deploys again once it is done.
do $$
declare
    c_roles constant text [] := array[
        'app_jobs_producer', 'app_jobs_worker', 'app_jobs_operator', 'app_jobs_monitor'
    ];
    v_role text;
begin
    foreach v_role in array c_roles loop
        if to_regrole(v_role) is null then
            -- a role's name cannot be a parameter of a static statement
            execute format('create role %I nologin', v_role);
            execute format('comment on role %I is %L', v_role, case v_role
                when 'app_jobs_producer' then 'May add jobs, find and cancel them by key.'
                when 'app_jobs_worker' then 'May claim, finish and renew jobs, and call tick().'
                when 'app_jobs_operator' then 'May steer app_jobs and read all of its tables.'
                else 'May read the state of app_jobs, but no payload.'
            end);
        end if;
    end loop;
    -- An operator may do what producers, workers and monitors may. Repeating the grant is harmless,
    -- but needs the admin option on roles that others made, so ask first.
    if not pg_has_role('app_jobs_operator', 'app_jobs_producer', 'usage')
        or not pg_has_role('app_jobs_operator', 'app_jobs_worker', 'usage')
        or not pg_has_role('app_jobs_operator', 'app_jobs_monitor', 'usage')
    then
        grant app_jobs_producer, app_jobs_worker, app_jobs_monitor to app_jobs_operator;
    end if;
exception when insufficient_privilege then
    raise exception 'role "%" may not make the roles of app_jobs: %', current_user, sqlerrm
        using errcode = '42501',
            hint = 'Have this run by somebody who may, then deploy again: ' || coalesce((
                select string_agg(format('create role %I nologin; ', r.name), '')
                from unnest(c_roles) as r(name)
                where to_regrole(r.name) is null
            ), '') || 'grant app_jobs_producer, app_jobs_worker, app_jobs_monitor '
            'to app_jobs_operator;';
end;
$$;

grant usage on schema app_jobs
to app_jobs_producer, app_jobs_worker, app_jobs_operator, app_jobs_monitor;

-- Deploy app_jobs:error_codes to pg
-- requires: roles

set local lock_timeout = '5s';

create table app_jobs.error_codes (
    sqlstate text not null,
    condition text not null,
    meaning text not null,
    constraint error_codes_pkey primary key (sqlstate),
    constraint error_codes_sqlstate_form check (sqlstate ~ '^[0-9A-Z]{5}$')
);

insert into app_jobs.error_codes (sqlstate, condition, meaning) values
('22004', 'null_value_not_allowed', 'an argument is null where none may be'),
('22023', 'invalid_parameter_value', 'an argument has a value outside its range'),
('42501', 'insufficient_privilege', 'the caller has no right to this function'),
('JQ001', 'unknown_job', 'no job has this id'),
('JQ002', 'not_supported_now', 'not supported in this state or at this isolation level'),
('JQ003', 'effect_in_doubt', 'a side effect was begun and never finished: only a person can know'),
('JQ004', 'already_scheduled', 'the last job of this schedule still waits or runs'),
('JQ005', 'key_in_use', 'another live job has this key'),
('JQ090', 'broken_line', 'a sequence of the ready line has no value: call app_jobs.sweep()'),
('JQ091', 'foreign_schema', 'a schema of this name exists and is not ours');

grant select on app_jobs.error_codes
to app_jobs_producer, app_jobs_worker, app_jobs_operator, app_jobs_monitor;

comment on table app_jobs.error_codes is
'Every SQLSTATE that a function of this schema raises on purpose.';
comment on column app_jobs.error_codes.sqlstate is 'Five characters, as in GET STACKED DIAGNOSTICS … RETURNED_SQLSTATE.';
comment on column app_jobs.error_codes.condition is 'Its name: PostgreSQL''s own, or ours for class JQ.';
comment on column app_jobs.error_codes.meaning is 'What went wrong, in one line.';

-- Deploy app_jobs:arguments to pg
-- requires: error_codes

set local lock_timeout = '5s';

create function app_jobs.check_worker_id(worker_id text) returns void
language plpgsql
immutable
as $$
begin
    if worker_id is null then
        raise exception 'worker_id is null'
            using errcode = '22004',
                hint = 'Give each worker process a name of its own, 1 to 200 characters.';
    elsif char_length(worker_id) not between 1 and 200 then
        raise exception 'worker_id has % characters: "%"',
            char_length(worker_id), left(worker_id, 60)
            using errcode = '22023',
                hint = 'Give each worker process a name of its own, 1 to 200 characters.';
    end if;
end;
$$;

create function app_jobs.check_not_null(argument text, is_null boolean, hint text) returns void
language plpgsql
immutable
as $$
begin
    if check_not_null.is_null then
        raise exception '% is null', check_not_null.argument
            using errcode = '22004', hint = check_not_null.hint;
    end if;
end;
$$;

create function app_jobs.check_length(argument text, value text, most integer) returns void
language plpgsql
immutable
as $$
begin
    if char_length(check_length.value) not between 1 and check_length.most then
        raise exception '% has % characters: "%"',
            check_length.argument, char_length(check_length.value), left(check_length.value, 60)
            using errcode = '22023',
                hint = format('It takes 1 to %s characters.', check_length.most);
    end if;
end;
$$;

create function app_jobs.check_positive(argument text, value interval) returns void
language plpgsql
immutable
as $$
begin
    if check_positive.value <= interval '0' then
        raise exception '% is %', check_positive.argument, check_positive.value
            using errcode = '22023', hint = 'Give a positive interval, like ''1 minute''.';
    end if;
end;
$$;

create function app_jobs.check_job(
    identifier text, job_key text, queue_name text, max_attempts integer, retry_after interval
) returns void
language plpgsql
immutable
as $$
begin
    perform app_jobs.check_not_null(
        'identifier', check_job.identifier is null, 'Name the task to run, 1 to 126 characters.'
    );
    perform app_jobs.check_length('identifier', check_job.identifier, 126);
    perform app_jobs.check_length('job_key', check_job.job_key, 512);
    perform app_jobs.check_length('queue_name', check_job.queue_name, 200);
    perform app_jobs.check_positive('retry_after', check_job.retry_after);
    if check_job.max_attempts < 1 then
        raise exception 'max_attempts is %', check_job.max_attempts
            using errcode = '22023',
                hint = 'Give at least 1, or leave it out for the task''s default.';
    end if;
end;
$$;

revoke all on function app_jobs.check_worker_id(text) from public;
revoke all on function app_jobs.check_not_null(text, boolean, text) from public;
revoke all on function app_jobs.check_length(text, text, integer) from public;
revoke all on function app_jobs.check_positive(text, interval) from public;
revoke all on function app_jobs.check_job(text, text, text, integer, interval) from public;

comment on function app_jobs.check_worker_id(text) is
'Refuse a worker id that is null or not 1 to 200 characters long.

worker_id  names one process

Errors: 22004, 22023. Roles: internal.';
comment on function app_jobs.check_not_null(text, boolean, text) is
'Refuse a null argument.

argument  its name, for the message
is_null   whether it is null
hint      what to give instead

Errors: 22004. Roles: internal.';
comment on function app_jobs.check_length(text, text, integer) is
'Refuse an empty or too long text; null passes.

argument  its name, for the message
value     the text
most      characters allowed

Errors: 22023. Roles: internal.';
comment on function app_jobs.check_positive(text, interval) is
'Refuse an interval that is not positive; null passes.

argument  its name, for the message
value     the interval

Errors: 22023. Roles: internal.';
comment on function app_jobs.check_job(text, text, text, integer, interval) is
'Refuse what cannot stand in a job: the checks that add_job() and add_jobs() share.

identifier    1 to 126 characters, not null
job_key       up to 512 characters, or null
queue_name    up to 200 characters, or null
max_attempts  1 or more, or null
retry_after   positive, or null

Errors: 22004, 22023. Roles: internal.';

-- Deploy app_jobs:tasks to pg
-- requires: arguments

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
    v_unknown text;
begin
    if backoff is null then
        return make_interval(secs => exp(least(attempts, 10)));
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
    elsif v_base <= interval '0' or v_cap <= interval '0' then
        raise exception 'backoff has base % and cap %', v_base, v_cap
            using errcode = '22023', hint = 'Both are positive intervals, like "10 seconds".';
    elsif not v_jitter between 0 and 1 then
        raise exception 'backoff has jitter %', v_jitter
            using errcode = '22023', hint = 'Jitter is a share of the delay, 0 to 1.';
    end if;
    return least(v_cap, v_base * case v_type
        when 'exponential' then 2 ^ least(attempts - 1, 40)
        when 'linear' then attempts
        else 1
    end);
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
    constraint tasks_retry_after_positive check (retry_after > interval '0'),
    constraint tasks_timeout_positive check (timeout > interval '0'),
    constraint tasks_backoff_valid check (app_jobs.backoff_delay(backoff, 1) > interval '0'),
    constraint tasks_keep_not_negative check (
        keep_completed >= interval '0' and keep_failed >= interval '0'
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
comment on column app_jobs.tasks.timeout is 'A run''s own time limit, apart from its lease; null: none.';
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

-- Deploy app_jobs:jobs to pg
-- requires: tasks

set local lock_timeout = '5s';

create function app_jobs.queue_line(database_id uuid, queue_name text) returns text
language sql
immutable
parallel safe
as $$
    select coalesce(database_id::text, '') || ':' || queue_name
$$;

create table app_jobs.jobs (
    id bigint generated always as identity,
    database_id uuid,
    queue_name text,
    task_identifier text collate "C" not null,
    payload json not null default '{}',
    attributes jsonb not null default '{}',
    priority integer not null default 0,
    run_at timestamptz not null default now(),
    attempts integer not null default 0,
    max_attempts integer not null default 25,
    lease integer not null default 0,
    key text,
    last_error text,
    retry_after interval,
    locked_by text,
    locked_at timestamptz,
    lease_expires_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    slot integer not null,
    line text collate "C",
    seat integer,
    lease_length interval,
    superseded boolean not null default false,
    cancel_reason text,
    constraint jobs_pkey primary key (id),
    constraint jobs_task_identifier_length check (char_length(task_identifier) between 1 and 126),
    constraint jobs_queue_name_length check (char_length(queue_name) between 1 and 200),
    constraint jobs_key_length check (char_length(key) between 1 and 512),
    constraint jobs_max_attempts_positive check (max_attempts >= 1),
    constraint jobs_counts_not_negative check (attempts >= 0 and lease >= 0),
    constraint jobs_retry_after_positive check (retry_after > interval '0'),
    constraint jobs_held_since check ((locked_by is null) = (locked_at is null)),
    constraint jobs_lease_is_held check (lease_expires_at is null or locked_by is not null),
    constraint jobs_held_out_of_line check (line is null or locked_by is null),
    constraint jobs_seat_is_held check (
        seat is null or (locked_by is not null and queue_name is not null and seat >= 1)
    )
) with (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.2,
    autovacuum_analyze_scale_factor = 0.2,
    autovacuum_analyze_threshold = 50000
);

create index jobs_line on app_jobs.jobs (
    slot, line, priority, run_at, id, task_identifier
) where line is not null;

create index jobs_scheduled on app_jobs.jobs (
    slot, run_at
) where line is null and locked_by is null;

create index jobs_leased on app_jobs.jobs (
    slot, lease_expires_at
) where lease_expires_at is not null;

create unique index jobs_seats on app_jobs.jobs (
    slot, app_jobs.queue_line(database_id, queue_name), seat
) where seat is not null;

create unique index jobs_key on app_jobs.jobs (
    key
) where key is not null and database_id is null;

create unique index jobs_tenant_key on app_jobs.jobs (
    database_id, key
) where key is not null and database_id is not null;

revoke all on function app_jobs.queue_line(uuid, text) from public;
grant select on app_jobs.jobs to app_jobs_operator;

comment on function app_jobs.queue_line(uuid, text) is
'Name the line in which the parked jobs of a queue stand.

database_id  the tenant, or null
queue_name   the queue

Returns: tenant, colon, queue; null without a queue. Roles: internal.';
comment on table app_jobs.jobs is
'Every job that is not finished, and nothing else. A job is ready (line ''''), parked (line of its
queue), scheduled (no line, not locked), running (locked, with lease_expires_at) or processing
(locked, without).';
comment on column app_jobs.jobs.id is 'Order of insertion.';
comment on column app_jobs.jobs.database_id is 'Tenant; null: no tenant.';
comment on column app_jobs.jobs.queue_name is 'Jobs of a queue run one after the other, or max_running at a time; null: in parallel with everything.';
comment on column app_jobs.jobs.task_identifier is 'What to run, 1 to 126 characters.';
comment on column app_jobs.jobs.payload is 'What to run it with, kept byte for byte.';
comment on column app_jobs.jobs.attributes is 'Metadata that may change while the job lives.';
comment on column app_jobs.jobs.priority is 'Lower runs first.';
comment on column app_jobs.jobs.run_at is 'Not before this time.';
comment on column app_jobs.jobs.attempts is 'Runs so far, the current one included.';
comment on column app_jobs.jobs.max_attempts is 'When attempts reaches this and the run fails, the job is finished as failed.';
comment on column app_jobs.jobs.lease is 'The fence: grows by one with every claim and is never reset while the job lives.';
comment on column app_jobs.jobs.key is 'Unique per tenant among live jobs; up to 512 characters.';
comment on column app_jobs.jobs.last_error is 'Message of the last failed attempt.';
comment on column app_jobs.jobs.retry_after is 'Length of this job''s leases; null: the task''s, or else the worker''s.';
comment on column app_jobs.jobs.locked_by is 'The worker that holds it.';
comment on column app_jobs.jobs.locked_at is 'Since when.';
comment on column app_jobs.jobs.lease_expires_at is 'When its lease ends; null on a held job: never (processing).';
comment on column app_jobs.jobs.created_at is 'Start of the transaction that added it.';
comment on column app_jobs.jobs.updated_at is 'Last change of any kind.';
comment on column app_jobs.jobs.slot is 'Internal: the slot that was current when the job came to where it stands. See ARCHITECTURE.md.';
comment on column app_jobs.jobs.line is 'Internal: '''' if ready, the queue''s line if parked, null otherwise.';
comment on column app_jobs.jobs.seat is 'Internal: the seat of its queue that a held job sits on, 1 to max_running.';
comment on column app_jobs.jobs.lease_length is 'Internal: the length that the claim asked for, with which a heartbeat renews.';
comment on column app_jobs.jobs.superseded is 'Internal: gave its key up to a newer job while running, so it is not retried.';
comment on column app_jobs.jobs.cancel_reason is 'Internal: not null once cancellation of a running job was asked for.';
comment on constraint jobs_held_out_of_line on app_jobs.jobs is 'A held job stands in no line: never two holders.';
comment on constraint jobs_seat_is_held on app_jobs.jobs is 'Only a held job of a queue sits on a seat.';
comment on constraint jobs_held_since on app_jobs.jobs is 'Held by somebody means held since some time.';
comment on constraint jobs_lease_is_held on app_jobs.jobs is 'A lease has a holder.';
comment on index app_jobs.jobs_line is 'The ready and parked lines, slot by slot; the task comes last so that others'' jobs are passed within the index.';
comment on index app_jobs.jobs_scheduled is 'Jobs that wait for their time, slot by slot.';
comment on index app_jobs.jobs_leased is 'Leases, slot by slot.';
comment on index app_jobs.jobs_seats is 'Seats taken, slot by slot: two claims that race for one seat meet here.';
comment on index app_jobs.jobs_key is 'One live job per key, without tenant (a null tenant would make a plain unique index enforce nothing).';
comment on index app_jobs.jobs_tenant_key is 'One live job per tenant and key.';

-- Deploy app_jobs:finished_jobs to pg
-- requires: jobs

set local lock_timeout = '5s';

create table app_jobs.finished_jobs (
    id bigint not null,
    database_id uuid,
    queue_name text,
    task_identifier text collate "C" not null,
    payload json not null,
    attributes jsonb not null,
    priority integer not null,
    run_at timestamptz not null,
    attempts integer not null,
    max_attempts integer not null,
    lease integer not null,
    key text,
    last_error text,
    retry_after interval,
    created_at timestamptz not null,
    started_at timestamptz,
    state text not null,
    finished_at timestamptz not null default clock_timestamp(),
    finished_by text,
    result json,
    keep_until timestamptz not null,
    constraint finished_jobs_pkey primary key (id),
    constraint finished_jobs_state_known check (state in ('completed', 'failed', 'cancelled'))
);

create index finished_jobs_key on app_jobs.finished_jobs (key, database_id) where key is not null;
create index finished_jobs_keep_until on app_jobs.finished_jobs (keep_until);

create table app_jobs.job_errors (
    job_id bigint not null,
    lease integer not null,
    attempt integer not null,
    worker_id text,
    failed_at timestamptz not null default clock_timestamp(),
    error_message text,
    detail text,
    constraint job_errors_pkey primary key (job_id, lease)
);

grant select on app_jobs.finished_jobs, app_jobs.job_errors to app_jobs_operator;

comment on table app_jobs.finished_jobs is
'History and dead letters: what tasks.keep_completed and tasks.keep_failed say, no longer.';
comment on column app_jobs.finished_jobs.id is 'As in jobs, like all columns up to created_at.';
comment on column app_jobs.finished_jobs.database_id is 'Tenant.';
comment on column app_jobs.finished_jobs.queue_name is 'Queue, or null.';
comment on column app_jobs.finished_jobs.task_identifier is 'Task.';
comment on column app_jobs.finished_jobs.payload is 'Payload, byte for byte.';
comment on column app_jobs.finished_jobs.attributes is 'Attributes at the end.';
comment on column app_jobs.finished_jobs.priority is 'Priority.';
comment on column app_jobs.finished_jobs.run_at is 'Time before which the last attempt did not start.';
comment on column app_jobs.finished_jobs.attempts is 'Runs.';
comment on column app_jobs.finished_jobs.max_attempts is 'Runs allowed.';
comment on column app_jobs.finished_jobs.lease is 'Claims.';
comment on column app_jobs.finished_jobs.key is 'Key that it had.';
comment on column app_jobs.finished_jobs.last_error is 'Last error, or the reason of a cancellation.';
comment on column app_jobs.finished_jobs.retry_after is 'Its own lease length.';
comment on column app_jobs.finished_jobs.created_at is 'When it was added.';
comment on column app_jobs.finished_jobs.started_at is 'When the last run was claimed; null: it never ran.';
comment on column app_jobs.finished_jobs.state is 'completed, failed (the dead letters) or cancelled.';
comment on column app_jobs.finished_jobs.finished_at is 'When it ended.';
comment on column app_jobs.finished_jobs.finished_by is 'The worker that ended it; null: nobody held it.';
comment on column app_jobs.finished_jobs.result is 'What the worker gave to complete_jobs().';
comment on column app_jobs.finished_jobs.keep_until is 'Internal: tick() may delete the row after this.';
comment on index app_jobs.finished_jobs_key is 'For job_key_mode once.';
comment on index app_jobs.finished_jobs_keep_until is 'For pruning.';
comment on table app_jobs.job_errors is
'One row per failed attempt, kept as long as its job is, live or finished.';
comment on column app_jobs.job_errors.job_id is 'The job.';
comment on column app_jobs.job_errors.lease is 'The claim that failed.';
comment on column app_jobs.job_errors.attempt is 'Which attempt it was.';
comment on column app_jobs.job_errors.worker_id is 'Who held it.';
comment on column app_jobs.job_errors.failed_at is 'When the failure was reported, or the lease found expired.';
comment on column app_jobs.job_errors.error_message is 'What the worker said.';
comment on column app_jobs.job_errors.detail is 'More of it: a stack trace, say.';

-- Deploy app_jobs:job_queues to pg
-- requires: jobs

set local lock_timeout = '5s';

-- Who writes the table or reads the view needs the right to what they call, so queue_line() stands
-- here in full.
create table app_jobs.queue_settings (
    line text collate "C" not null,
    database_id uuid,
    queue_name text not null,
    max_running integer not null default 1,
    paused boolean not null default false,
    constraint queue_settings_pkey primary key (line),
    constraint queue_settings_line_named check (
        line = coalesce(database_id::text, '') || ':' || queue_name
    ),
    constraint queue_settings_max_running_positive check (max_running between 1 and 10000)
);

create view app_jobs.job_queues as
select
    coalesce(s.database_id, j.database_id) as database_id,
    coalesce(s.queue_name, j.queue_name) as queue_name,
    coalesce(j.job_count, 0) as job_count,
    j.locked_by,
    j.locked_at,
    coalesce(s.max_running, 1) as max_running,
    coalesce(s.paused, false) as paused
from app_jobs.queue_settings as s
full join (
    select
        coalesce(q.database_id::text, '') || ':' || q.queue_name as line,
        q.database_id,
        q.queue_name,
        count(*) as job_count,
        min(q.locked_by) filter (where q.seat is not null) as locked_by,
        min(q.locked_at) filter (where q.seat is not null) as locked_at
    from app_jobs.jobs as q
    where q.queue_name is not null
    group by q.database_id, q.queue_name
) as j on s.line = j.line;

grant select, insert, update, delete on app_jobs.queue_settings to app_jobs_operator;
grant select on app_jobs.job_queues to app_jobs_operator, app_jobs_monitor;

comment on table app_jobs.queue_settings is
'Queues that differ from the default of one job at a time. A queue needs no row here.';
comment on column app_jobs.queue_settings.line is 'queue_line(database_id, queue_name).';
comment on column app_jobs.queue_settings.database_id is 'Tenant; the same name under two tenants is two queues.';
comment on column app_jobs.queue_settings.queue_name is 'Queue.';
comment on column app_jobs.queue_settings.max_running is 'Seats: jobs that may run at once, 1 to 10000.';
comment on column app_jobs.queue_settings.paused is 'No job of a paused queue is claimed.';
comment on constraint queue_settings_line_named on app_jobs.queue_settings is 'The line is the queue''s own.';
comment on view app_jobs.job_queues is
'A row per named queue that has jobs or settings. Counted when read, so that producers of a queue
share no row; reads all of jobs.';
comment on column app_jobs.job_queues.database_id is 'Tenant.';
comment on column app_jobs.job_queues.queue_name is 'Queue.';
comment on column app_jobs.job_queues.job_count is 'Live jobs, in whatever state.';
comment on column app_jobs.job_queues.locked_by is 'A worker that runs one of its jobs.';
comment on column app_jobs.job_queues.locked_at is 'Since when the longest running one runs.';
comment on column app_jobs.job_queues.max_running is 'Jobs that may run at once.';
comment on column app_jobs.job_queues.paused is 'No job of it is claimed.';

-- Deploy app_jobs:workers to pg
-- requires: arguments

set local lock_timeout = '5s';

create table app_jobs.workers (
    worker_id text not null,
    host text,
    pid integer,
    started_at timestamptz not null default clock_timestamp(),
    last_seen_at timestamptz not null default clock_timestamp(),
    task_identifiers text[],
    idle boolean not null default false,
    running integer not null default 0,
    constraint workers_pkey primary key (worker_id),
    constraint workers_running_not_negative check (running >= 0)
);

-- Transitions, not a count: a sequence is updated in place, so nobody waits and no dead row is
-- left.
create sequence app_jobs.went_idle;
create sequence app_jobs.went_busy;

create function app_jobs.wake_workers() returns void
language plpgsql
volatile
as $$
begin
    -- A count that is off must err towards notifying, hence "not equal"; tick() sets it right.
    if coalesce(pg_sequence_last_value('app_jobs.went_idle'), 0)
        <> coalesce(pg_sequence_last_value('app_jobs.went_busy'), 0)
        and coalesce(current_setting('app_jobs.notify', true), '')
        not in ('off', 'false', 'no', '0')
    then
        perform pg_notify('app_jobs', '');
    end if;
end;
$$;

create function app_jobs.register_worker(
    worker_id text,
    host text default null,
    pid integer default null,
    task_identifiers text[] default null
) returns app_jobs.workers
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_worker app_jobs.workers;
begin
    perform app_jobs.check_worker_id(register_worker.worker_id);
    insert into app_jobs.workers as w (worker_id, host, pid, task_identifiers)
    values (
        register_worker.worker_id, register_worker.host, register_worker.pid,
        register_worker.task_identifiers
    )
    on conflict on constraint workers_pkey do update set
        host = excluded.host,
        pid = excluded.pid,
        task_identifiers = excluded.task_identifiers,
        started_at = excluded.started_at,
        last_seen_at = excluded.last_seen_at,
        running = 0
    returning w.* into v_worker;
    return v_worker;
end;
$$;

create function app_jobs.set_worker_idle(worker_id text, idle boolean) returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform app_jobs.check_worker_id(set_worker_idle.worker_id);
    perform app_jobs.check_not_null(
        'idle', set_worker_idle.idle is null, 'Give true to be woken, false not to be.'
    );
    insert into app_jobs.workers (worker_id) values (set_worker_idle.worker_id)
    on conflict on constraint workers_pkey do nothing;
    update app_jobs.workers as w
    set idle = set_worker_idle.idle, last_seen_at = clock_timestamp()
    where w.worker_id = set_worker_idle.worker_id and w.idle <> set_worker_idle.idle;
    if found then
        if set_worker_idle.idle then
            perform nextval('app_jobs.went_idle');
        else
            perform nextval('app_jobs.went_busy');
        end if;
    end if;
end;
$$;

revoke all on function app_jobs.wake_workers() from public;
revoke all on function app_jobs.register_worker(text, text, integer, text[]) from public;
revoke all on function app_jobs.set_worker_idle(text, boolean) from public;
grant execute on function app_jobs.register_worker(text, text, integer, text[]) to app_jobs_worker;
grant execute on function app_jobs.set_worker_idle(text, boolean) to app_jobs_worker;
grant select on app_jobs.workers to app_jobs_operator, app_jobs_monitor;

comment on table app_jobs.workers is
'Processes that run jobs, as they said at their last heartbeat. Informative: a lease needs no row
here.';
comment on column app_jobs.workers.worker_id is 'Its name, 1 to 200 characters.';
comment on column app_jobs.workers.host is 'Where it runs.';
comment on column app_jobs.workers.pid is 'Its process id there.';
comment on column app_jobs.workers.started_at is 'When it registered.';
comment on column app_jobs.workers.last_seen_at is 'Its last heartbeat; tick() forgets a worker five minutes later.';
comment on column app_jobs.workers.task_identifiers is 'Tasks that it serves; null: all, or unknown.';
comment on column app_jobs.workers.idle is 'It waits for a notification.';
comment on column app_jobs.workers.running is 'Jobs held at its last heartbeat.';
comment on sequence app_jobs.went_idle is 'Times that a worker went idle; minus went_busy: idle workers now.';
comment on sequence app_jobs.went_busy is 'Times that a worker went busy.';
comment on function app_jobs.wake_workers() is
'Notify idle workers at commit; silent while all are busy, or where app_jobs.notify is off. A hint:
polling is the guarantee.

Locks: NOTIFY''s, at commit, only if it notifies. Roles: internal.';
comment on function app_jobs.register_worker(text, text, integer, text[]) is
'Say that a worker process has started. Optional: heartbeat() does it too.

worker_id         1 to 200 characters, names one process
host              where it runs
pid               its process id there
task_identifiers  tasks that it serves; null: all

Returns: its row. Errors: 22004, 22023. Locks: its row. Roles: app_jobs_worker.';
comment on function app_jobs.set_worker_idle(text, boolean) is
'Say whether a worker wants to be woken by NOTIFY. Producers are silent while no worker is idle.

worker_id  the worker
idle       true: wake me; look for jobs once more after this

Errors: 22004, 22023. Locks: its row. Roles: app_jobs_worker.';

-- Deploy app_jobs:slots to pg
-- requires: jobs
-- requires: workers

set local lock_timeout = '5s';

-- Sequences are read and written in place, outside of MVCC: a transaction in REPEATABLE READ sees
-- them as they are.
create sequence app_jobs.slot_number as integer start 2;
create sequence app_jobs.slot_current as integer;
create sequence app_jobs.activity minvalue 0;
select
    setval('app_jobs.slot_current', 1),
    setval('app_jobs.activity', 0);

create table app_jobs.open_slots (
    slot integer not null,
    opened_by xid8 not null default pg_current_xact_id(),
    opened_at timestamptz not null default clock_timestamp(),
    constraint open_slots_pkey primary key (slot)
);
insert into app_jobs.open_slots (slot) values (1);

create table app_jobs.streams (
    slot integer not null,
    line text collate "C" not null,
    task_identifier text collate "C" not null,
    priority integer not null,
    run_at timestamptz not null,
    id bigint not null,
    constraint streams_pkey primary key (slot, line, task_identifier)
);
create index streams_order on app_jobs.streams (line, task_identifier, priority, run_at, id);

create table app_jobs.alarms (
    slot integer not null,
    kind text collate "C" not null,
    due_at timestamptz not null,
    constraint alarms_pkey primary key (slot, kind),
    constraint alarms_kind_known check (kind in ('run', 'lease'))
);
create index alarms_due on app_jobs.alarms (kind, due_at);

create function app_jobs.lock_key(kind text, name text) returns bigint
language sql
immutable
parallel safe
as $$
    select hashtextextended('app_jobs ' || kind || ' ' || name, 0)
$$;

create function app_jobs.seat_line(queue_line text) returns text
language sql
immutable
parallel safe
as $$
    select '#' || queue_line
$$;

create function app_jobs.enter_slot() returns integer
language plpgsql
volatile
as $$
declare
    v_slot integer;
begin
    loop
        v_slot := pg_sequence_last_value('app_jobs.slot_current');
        if v_slot is null then
            raise exception 'sequence app_jobs.slot_current has no value'
                using errcode = 'JQ090',
                    hint = 'It was not restored with the tables. Call app_jobs.sweep().';
        end if;
        -- The exclusive lock is only ever taken on a slot that is not current any more, so a lock
        -- that cannot be had and a slot that has moved on mean the same: look again. Nobody waits.
        if pg_try_advisory_xact_lock_shared(app_jobs.lock_key('slot', v_slot::text))
            and v_slot = pg_sequence_last_value('app_jobs.slot_current')
        then
            return v_slot;
        end if;
    end loop;
end;
$$;

create function app_jobs.note_arrivals(jobs integer) returns void
language plpgsql
volatile
as $$
begin
    -- two sessions may lose a count to each other: it only says when to open a new slot
    perform setval(
        'app_jobs.activity', pg_sequence_last_value('app_jobs.activity') + note_arrivals.jobs
    );
end;
$$;

create function app_jobs.close_slot(slot integer) returns void
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    -- a slot that a sweep listed again may have left bounds behind
    delete from app_jobs.streams as s where s.slot = close_slot.slot;
    delete from app_jobs.alarms as a where a.slot = close_slot.slot;

    insert into app_jobs.streams (slot, line, task_identifier, priority, run_at, id)
    select close_slot.slot, j.line, j.task_identifier, min(j.priority), min(j.run_at), min(j.id)
    from app_jobs.jobs as j
    where j.slot = close_slot.slot and j.line is not null
    group by j.line, j.task_identifier
    union all
    select distinct
        close_slot.slot, app_jobs.seat_line(app_jobs.queue_line(j.database_id, j.queue_name)), '',
        0, timestamptz '-infinity', 0::bigint
    from app_jobs.jobs as j
    where j.slot = close_slot.slot and j.seat is not null;

    insert into app_jobs.alarms (slot, kind, due_at)
    select close_slot.slot, 'run', min(j.run_at)
    from app_jobs.jobs as j
    where j.slot = close_slot.slot and j.line is null and j.locked_by is null
    having count(*) > 0
    union all
    select close_slot.slot, 'lease', min(j.lease_expires_at)
    from app_jobs.jobs as j
    where j.slot = close_slot.slot and j.lease_expires_at is not null
    having count(*) > 0;

    delete from app_jobs.open_slots as o where o.slot = close_slot.slot;
end;
$$;

create function app_jobs.turn_slots() returns integer
language plpgsql
volatile
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    c_arrivals constant integer := 1000;
    v_current integer := pg_sequence_last_value('app_jobs.slot_current');
    v_next integer;
    v_slot integer;
    v_closed integer := 0;
begin
    if pg_sequence_last_value('app_jobs.activity') >= c_arrivals then
        select o.slot into v_next
        from app_jobs.open_slots as o
        where o.slot > v_current
        order by o.slot desc
        limit 1;
        if not found then
            insert into app_jobs.open_slots (slot) values (nextval('app_jobs.slot_number'));
        elsif pg_try_advisory_xact_lock_shared(app_jobs.lock_key('slot', v_next::text)) then
            -- Only now make it current: its row must be committed, or producers would write where
            -- no claim looks, and our shared lock keeps others from closing it. The look comes
            -- after the lock, in a statement of its own.
            perform from app_jobs.open_slots as o
            where o.slot = v_next and o.opened_by is distinct from pg_current_xact_id_if_assigned();
            if found then
                perform setval('app_jobs.slot_current', v_next), setval('app_jobs.activity', 0);
            end if;
        end if;
    end if;

    for v_slot in
        select o.slot from app_jobs.open_slots as o where o.slot < v_current order by o.slot
    loop
        -- An uncommitted writer holds the shared lock. Without one, nobody can write here any more:
        -- to make a slot current again takes the shared lock, too. Lock, check, look: three
        -- statements, in this order.
        continue when not pg_try_advisory_xact_lock(app_jobs.lock_key('slot', v_slot::text));
        continue when v_slot = pg_sequence_last_value('app_jobs.slot_current');
        perform from app_jobs.open_slots as o where o.slot = v_slot;
        if found then
            perform app_jobs.close_slot(v_slot);
            v_closed := v_closed + 1;
        end if;
    end loop;
    return v_closed;
end;
$$;

revoke all on function app_jobs.lock_key(text, text) from public;
revoke all on function app_jobs.seat_line(text) from public;
revoke all on function app_jobs.enter_slot() from public;
revoke all on function app_jobs.note_arrivals(integer) from public;
revoke all on function app_jobs.close_slot(integer) from public;
revoke all on function app_jobs.turn_slots() from public;

comment on sequence app_jobs.slot_number is 'Names slots.';
comment on sequence app_jobs.slot_current is 'The slot that jobs enter now.';
comment on sequence app_jobs.activity is 'Jobs that have entered the current slot, about.';
comment on table app_jobs.open_slots is
'Slots that may still gain jobs: the current one, and those that an uncommitted transaction has
entered.';
comment on column app_jobs.open_slots.slot is 'Its number.';
comment on column app_jobs.open_slots.opened_by is 'The transaction that listed it: it is made current by another, once this one is committed.';
comment on column app_jobs.open_slots.opened_at is 'When.';
comment on table app_jobs.streams is
'What is left in closed slots: a lower bound of the position of the first job per slot, line and
task. A closed slot only loses jobs, so a bound stays one. Seats taken stand here, too, in lines of
their own.';
comment on column app_jobs.streams.slot is 'A closed slot.';
comment on column app_jobs.streams.line is ''''': ready jobs; a queue''s line: its parked jobs; a seat line: its running ones.';
comment on column app_jobs.streams.task_identifier is 'Task; '''' in seat lines.';
comment on column app_jobs.streams.priority is 'Lower bound of the position.';
comment on column app_jobs.streams.run_at is 'Lower bound of the position.';
comment on column app_jobs.streams.id is 'Lower bound of the position.';
comment on index app_jobs.streams_order is 'To find the first stream of a line and task.';
comment on table app_jobs.alarms is
'What falls due in closed slots: nothing before due_at.';
comment on column app_jobs.alarms.slot is 'A closed slot.';
comment on column app_jobs.alarms.kind is 'run: scheduled jobs; lease: leases that end.';
comment on column app_jobs.alarms.due_at is 'Lower bound of run_at or lease_expires_at.';
comment on index app_jobs.alarms_due is 'To find what is due.';
comment on function app_jobs.lock_key(text, text) is
'Make the key of an advisory lock: 64 bits, so that two installations and the application do not
meet.

kind  slot or queue
name  its number or line

Roles: internal.';
comment on function app_jobs.seat_line(text) is
'Name the line in which the running jobs of a queue are noted.

queue_line  the queue''s line

Roles: internal.';
comment on function app_jobs.enter_slot() is
'Enter the current slot until the end of the transaction. Whoever puts a job in a line, schedules it
or leases it does so in a slot that it has entered: then nobody can close the slot before the job
is committed or gone.

Returns: the slot. Errors: JQ090. Locks: the slot, shared; never waits. Roles: internal.';
comment on function app_jobs.note_arrivals(integer) is
'Count jobs that have entered the current slot.

jobs  how many; a lease counts for a quarter, since its index entries are looked at less often

Roles: internal.';
comment on function app_jobs.close_slot(integer) is
'Write down what is left in a slot that nobody can enter any more, and take it off the list of open
ones.

slot  the slot, locked exclusively

Roles: internal.';
comment on function app_jobs.turn_slots() is
'Open a new slot after about a thousand arrivals, and close those that nobody is in any more.

Returns: slots closed. Locks: slots, exclusively, if nobody is in them; never waits. Roles:
internal; READ COMMITTED only.';

-- Deploy app_jobs:lines to pg
-- requires: slots

set local lock_timeout = '5s';

create function app_jobs.raise_bounds(slot integer, line text) returns void
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    -- A closed slot only loses rows, and a claim not yet committed still shows its row as waiting,
    -- so what this statement sees is a lower bound for everybody. Bounds that another claim is
    -- raising are left to it.
    with stale as materialized (
        select s.task_identifier, s.priority, s.run_at, s.id
        from app_jobs.streams as s
        where s.slot = raise_bounds.slot and s.line = raise_bounds.line
        for update skip locked
    ),

    left_over as materialized (
        select t.task_identifier, n.priority, n.run_at, n.id
        from stale as t
        left join lateral (
            select j.priority, j.run_at, j.id
            from app_jobs.jobs as j
            where
                j.slot = raise_bounds.slot
                and j.line = raise_bounds.line
                and j.task_identifier = t.task_identifier
                and (j.priority, j.run_at, j.id) >= (t.priority, t.run_at, t.id)
            order by j.priority, j.run_at, j.id
            limit 1
        ) as n on true
    ),

    emptied as (
        delete from app_jobs.streams as s
        using left_over as l
        where
            s.slot = raise_bounds.slot
            and s.line = raise_bounds.line
            and s.task_identifier = l.task_identifier
            and l.id is null
    )

    update app_jobs.streams as s
    set priority = l.priority, run_at = l.run_at, id = l.id
    from left_over as l
    where
        s.slot = raise_bounds.slot
        and s.line = raise_bounds.line
        and s.task_identifier = l.task_identifier
        and (l.priority, l.run_at, l.id) > (s.priority, s.run_at, s.id);
end;
$$;

create type app_jobs.place as (
    tid tid, slot integer, priority integer, run_at timestamptz, id bigint, queue_line text
);

create function app_jobs.look(
    line text,
    tasks text[],
    paused text[],
    wanted integer,
    after app_jobs.place
) returns setof app_jobs.place
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_slots_at_most constant integer := 200;
    v_tasks text[] := look.tasks;
    v_low text := '';
    v_high text;
    v_left integer := look.wanted;
    v_seen integer[] := '{}'::integer[];
    v_from app_jobs.place[] := '{}'::app_jobs.place[];
    v_head record;
    v_best record;
    v_next record;
    v_after app_jobs.place := coalesce(
        look.after, row(null, null, -2147483648, '-infinity', 0, null)::app_jobs.place
    );
    v_until app_jobs.place;
    v_count integer;
    v_at integer;
begin
    -- As plain comparisons the task's bounds are checked within the index; "= any" needs a visit to
    -- the table.
    if look.tasks is null then
        v_high := repeat(
            case getdatabaseencoding() when 'UTF8' then chr(1114111) else chr(255) end, 127
        );
        v_tasks := array(
            with recursive named(task) as (
                (
                    select s.task_identifier from app_jobs.streams as s
                    where s.line = look.line
                    order by s.task_identifier limit 1
                )
                union all
                select (
                    select s.task_identifier from app_jobs.streams as s
                    where s.line = look.line and s.task_identifier > n.task
                    order by s.task_identifier limit 1
                )
                from named as n
                where n.task is not null
            )

            select n.task from named as n where n.task is not null
        );
    else
        select min(t.name), max(t.name) into v_low, v_high from unnest(look.tasks) as t(name);
    end if;

    loop
        -- The two slots with the best heads: exact in open slots and in those seen in this call,
        -- elsewhere a bound.
        v_best := null;
        v_next := null;
        for v_head in
            with exact as (
                select o.slot from app_jobs.open_slots as o where o.slot <> all(v_seen)
                union all
                select s.slot from unnest(v_seen) as s(slot)
            )

            select e.slot, h.priority, h.run_at, h.id, false as closed
            from exact as e
            cross join lateral (
                select j.priority, j.run_at, j.id
                from app_jobs.jobs as j
                where
                    j.slot = e.slot
                    and j.line = look.line
                    and j.task_identifier between v_low and v_high
                    and (look.tasks is null or j.task_identifier = any(look.tasks))
                    and j.task_identifier <> all(look.paused)
                    and (j.priority, j.run_at, j.id) > (
                        coalesce((v_from[array_position(v_seen, e.slot)]).priority,
                        v_after.priority),
                        coalesce((v_from[array_position(v_seen, e.slot)]).run_at, v_after.run_at),
                        coalesce((v_from[array_position(v_seen, e.slot)]).id, v_after.id)
                    )
                order by j.priority, j.run_at, j.id
                limit 1
            ) as h
            union all
            select b.slot, b.priority, b.run_at, b.id, true
            from unnest(v_tasks) as task(name)
            cross join lateral (
                select s.slot, s.priority, s.run_at, s.id
                from app_jobs.streams as s
                where
                    s.line = look.line
                    and s.task_identifier = task.name
                    and s.slot <> all(v_seen)
                order by s.priority, s.run_at, s.id
                limit 2
            ) as b
            where task.name <> all(look.paused)
            order by 2, 3, 4
        loop
            if v_best is null then
                v_best := v_head;
            elsif v_head.slot <> v_best.slot then
                v_next := v_head;
                exit;
            end if;
        end loop;
        exit when v_best is null;

        v_until := row(null, null, 2147483647, 'infinity', 9223372036854775807, null);
        if v_next is not null then
            v_until := row(null, null, v_next.priority, v_next.run_at, v_next.id, null);
        end if;
        if (v_best.priority, v_best.run_at, v_best.id) <= (v_after.priority, v_after.run_at,
        v_after.id) then
            v_best.priority := v_after.priority;
            v_best.run_at := v_after.run_at;
            v_best.id := v_after.id + 1;
        end if;

        return query
        select
            j.ctid, j.slot, j.priority, j.run_at, j.id,
            app_jobs.queue_line(j.database_id, j.queue_name)
        from app_jobs.jobs as j
        where
            j.slot = v_best.slot
            and j.line = look.line
            and j.task_identifier between v_low and v_high
            and (look.tasks is null or j.task_identifier = any(look.tasks))
            and j.task_identifier <> all(look.paused)
            and (j.priority, j.run_at, j.id) >= (v_best.priority, v_best.run_at, v_best.id)
            and (j.priority, j.run_at, j.id) < (v_until.priority, v_until.run_at, v_until.id)
        order by j.priority, j.run_at, j.id
        limit v_left
        for update skip locked;
        get diagnostics v_count = row_count;

        v_left := v_left - v_count;
        exit when v_left = 0;
        if v_count = 0
            and v_best.closed
            and current_setting('transaction_isolation') = 'read committed'
        then
            perform app_jobs.raise_bounds(v_best.slot, look.line);
        end if;
        -- What is left in this slot before the next one's head is locked by others: go on behind
        -- it.
        exit when v_next is null or cardinality(v_seen) >= c_slots_at_most;
        v_at := coalesce(array_position(v_seen, v_best.slot), cardinality(v_seen) + 1);
        v_seen[v_at] := v_best.slot;
        v_from[v_at] := v_until;
    end loop;
end;
$$;

revoke all on function app_jobs.raise_bounds(integer, text) from public;
revoke all on function app_jobs.look(text, text[], text[], integer, app_jobs.place) from public;
revoke all on type app_jobs.place from public;

comment on type app_jobs.place is
'Where a job stands in a line: its row, its position, and what a claim needs to know of it.';
comment on function app_jobs.raise_bounds(integer, text) is
'Set the streams of a closed slot to what is left in it; drop those with nothing left.

slot  a closed slot
line  '''', or a queue''s line

Locks: its streams, skipping locked ones. Roles: internal.';
comment on function app_jobs.look(text, text[], text[], integer, app_jobs.place) is
'Lock and return the first jobs of a line that nobody else has locked, in the order priority,
run_at, id.

line    '''': the ready jobs; a queue''s line: its parked jobs
tasks   tasks wanted; null: all
paused  tasks not wanted
wanted  jobs at most, 1 or more
after   only jobs behind this place; null: from the start

Returns: their places, in order. Locks: the jobs returned (for update), skipping locked ones.
Roles: internal; the caller pins the plans.';

-- Deploy app_jobs:queues to pg
-- requires: lines
-- requires: job_queues

set local lock_timeout = '5s';

create function app_jobs.free_seats(queue_line text, wanted integer) returns integer[]
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_seats integer := 1;
    v_paused boolean := false;
    v_taken integer[];
begin
    select s.max_running, s.paused into v_seats, v_paused
    from app_jobs.queue_settings as s
    where s.line = free_seats.queue_line;
    if v_paused then
        return '{}'::integer[];
    end if;
    v_seats := coalesce(v_seats, 1);

    with noted as materialized (
        select s.slot from app_jobs.streams as s
        where s.line = app_jobs.seat_line(free_seats.queue_line)
    ),

    taken as materialized (
        select j.slot, j.seat
        from (
            select o.slot from app_jobs.open_slots as o
            union
            select n.slot from noted as n
        ) as s
        cross join lateral (
            select h.slot, h.seat
            from app_jobs.jobs as h
            where
                h.slot = s.slot
                and app_jobs.queue_line(h.database_id, h.queue_name) = free_seats.queue_line
                and h.seat is not null
            offset 0
        ) as j
    ),

    left_behind as (
        delete from app_jobs.streams as s
        where s.ctid = any(array(
            select l.ctid
            from app_jobs.streams as l
            where
                l.line = app_jobs.seat_line(free_seats.queue_line)
                and l.slot not in (select t.slot from taken as t)
            for update skip locked
        ))
    )

    select array_agg(t.seat) into v_taken from taken as t;

    return array(
        select n.seat
        from generate_series(1, v_seats) as n(seat)
        where n.seat <> all(coalesce(v_taken, '{}'))
        limit greatest(0, least(free_seats.wanted, v_seats - coalesce(cardinality(v_taken), 0)))
    );
end;
$$;

create type app_jobs.seated as (tid tid, seat integer);

create function app_jobs.take_seats(
    slot integer, tasks text[], paused text[], places app_jobs.place[]
) returns setof app_jobs.seated
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_line text;
    v_met tid[];
    v_seats integer[];
    v_chosen tid[];
    v_parked integer;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'a job of a queue cannot be claimed at isolation level %',
            current_setting('transaction_isolation')
            using errcode = 'JQ002',
                detail = 'The transaction''s snapshot does not show who runs in the queue now.',
                hint = 'Call get_job() at READ COMMITTED.';
    end if;
    for v_line, v_met in
        select p.queue_line, array_agg(p.tid order by p.priority, p.run_at, p.id)
        from unnest(take_seats.places) as p
        where p.queue_line is not null
        group by p.queue_line
    loop
        if not pg_try_advisory_xact_lock(app_jobs.lock_key('queue', v_line)) then
            -- Somebody is changing this queue: for a moment, as a rule, so leave its best job for
            -- the next claim to meet. One that has been there for a second is parked like the
            -- others; tick() finds it.
            v_chosen := array(
                select j.ctid
                from app_jobs.jobs as j
                where
                    j.ctid = any(v_met[1:1])
                    and j.updated_at > clock_timestamp() - interval '1 second'
            );
        else
            -- New statements, new snapshots: what the lock's last holder did is seen.
            v_seats := app_jobs.free_seats(v_line, cardinality(v_met));
            v_chosen := '{}';
            if cardinality(v_seats) > 0 then
                v_chosen := array(
                    select c.tid
                    from (
                        select p.tid, p.priority, p.run_at, p.id
                        from unnest(take_seats.places) as p
                        where p.queue_line = v_line
                        union all
                        select l.tid, l.priority, l.run_at, l.id
                        from app_jobs.look(
                            v_line, take_seats.tasks, take_seats.paused, cardinality(v_seats), null
                        ) as l
                    ) as c
                    order by c.priority, c.run_at, c.id
                    limit cardinality(v_seats)
                );
                return query
                select c.tid, v_seats[c.n::integer]
                from unnest(v_chosen) with ordinality as c(tid, n);
            end if;
        end if;
        update app_jobs.jobs as j
        set line = v_line, slot = take_seats.slot, updated_at = clock_timestamp()
        where j.ctid = any(array(
            select m.tid from unnest(v_met) as m(tid) where m.tid <> all(v_chosen)
        ));
        get diagnostics v_parked = row_count;
        perform app_jobs.note_arrivals(v_parked);
    end loop;
end;
$$;

create function app_jobs.advance_queues(
    queue_lines text[], tasks text[], wait boolean
) returns integer
language plpgsql
volatile
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_at_most constant integer := 100;
    v_paused text[];
    v_line text;
    v_tasks text[];
    v_task text;
    v_seats integer;
    v_tids tid[];
    v_count integer := 0;
begin
    -- At other levels we cannot see who runs in the queue now: the next tick() does it.
    if current_setting('transaction_isolation') <> 'read committed' then
        return 0;
    end if;
    v_paused := array(select t.task_identifier from app_jobs.tasks as t where t.paused);
    for v_line, v_tasks in
        select q.line, array_agg(distinct q.task)
        from unnest(advance_queues.queue_lines, advance_queues.tasks) as q(line, task)
        group by q.line
        order by app_jobs.lock_key('queue', q.line)
    loop
        if advance_queues.wait then
            perform pg_advisory_xact_lock(app_jobs.lock_key('queue', v_line));
        else
            continue when not pg_try_advisory_xact_lock(app_jobs.lock_key('queue', v_line));
        end if;
        v_seats := cardinality(app_jobs.free_seats(v_line, c_at_most));
        continue when v_seats = 0;
        v_tids := array(select l.tid from app_jobs.look(v_line, null, v_paused, v_seats,
        null) as l);
        -- The best may be of a task that nobody serves: it must not keep those behind it, of tasks
        -- that somebody does.
        foreach v_task in array v_tasks loop
            v_tids := v_tids || array(
                select l.tid
                from app_jobs.look(v_line, array[v_task], v_paused, 1, null) as l
                where l.tid <> all(v_tids)
            );
        end loop;
        continue when v_tids = '{}';
        update app_jobs.jobs as j
        set line = '', slot = app_jobs.enter_slot(), updated_at = clock_timestamp()
        where j.ctid = any(v_tids);
        v_count := v_count + cardinality(v_tids);
    end loop;
    if v_count > 0 then
        perform app_jobs.note_arrivals(v_count);
        perform app_jobs.wake_workers();
    end if;
    return v_count;
end;
$$;

revoke all on function app_jobs.free_seats(text, integer) from public;
revoke all on function app_jobs.take_seats(integer, text[], text[], app_jobs.place[]) from public;
revoke all on function app_jobs.advance_queues(text[], text[], boolean) from public;
revoke all on type app_jobs.seated from public;

comment on type app_jobs.seated is 'A job and the seat of its queue that it takes.';
comment on function app_jobs.free_seats(text, integer) is
'Find free seats of a queue: none if it is paused.

queue_line  the queue''s line; its lock is held
wanted      seats at most

Returns: their numbers, lowest first. Roles: internal; the caller pins the plans.';
comment on function app_jobs.take_seats(integer, text[], text[], app_jobs.place[]) is
'Give the free seats of the queues of these ready jobs to the best of them and of the parked ones,
and park the others.

slot    entered by the caller
tasks   tasks that the claim may take; null: all
paused  tasks that it may not
places  ready jobs, locked by the caller

Returns: jobs to claim and their seats. Errors: JQ002. Locks: queues, trying only. Roles: internal;
the caller pins the plans.';
comment on function app_jobs.advance_queues(text[], text[], boolean) is
'Make the best parked jobs of these queues ready, as many as there are seats.

queue_lines  the queues
tasks        tasks somebody serves, one for each queue line: the best job of each is made ready in
             any case
wait         wait for the queues'' locks, in the order of their keys; false: leave out those that
             others hold

Returns: jobs made ready. Locks: the queues. Roles: internal.';

-- Deploy app_jobs:let_go to pg
-- requires: queues
-- requires: finished_jobs

set local lock_timeout = '5s';

create function app_jobs.queues_left(tids tid[], out queue_lines text[], out tasks text[])
language plpgsql
stable
as $$
begin
    select array_agg(q.line), array_agg(q.task_identifier) into queue_lines, tasks
    from (
        select distinct app_jobs.queue_line(j.database_id, j.queue_name) as line, j.task_identifier
        from app_jobs.jobs as j
        -- said in a way that no partial index can serve: by address, whatever the statistics say
        where j.ctid = any(queues_left.tids) and coalesce(j.seat, 0) > 0
    ) as q;
end;
$$;

create function app_jobs.finish_jobs(
    tids tid[], state text, finished_by text, reasons text[]
) returns setof app_jobs.jobs
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    return query
    with gone as materialized (
        delete from app_jobs.jobs as j
        where j.ctid = any(finish_jobs.tids)
        returning j.*, finish_jobs.reasons[array_position(finish_jobs.tids, j.ctid)] as reason
    ),

    kept as (
        insert into app_jobs.finished_jobs (
            id, database_id, queue_name, task_identifier, payload, attributes, priority, run_at,
            attempts,
            max_attempts, lease, key, last_error, retry_after, created_at, started_at, state,
            finished_by, keep_until
        )
        select
            g.id, g.database_id, g.queue_name, g.task_identifier, g.payload, g.attributes,
            g.priority, g.run_at,
            g.attempts, g.max_attempts, g.lease, g.key, coalesce(g.reason, g.last_error),
            g.retry_after,
            g.created_at, g.locked_at, finish_jobs.state, coalesce(finish_jobs.finished_by,
            g.locked_by),
            clock_timestamp() + coalesce(t.keep_failed, interval '30 days')
        from gone as g
        left join app_jobs.tasks as t on t.task_identifier = g.task_identifier
        where coalesce(t.keep_failed, interval '30 days') > interval '0'
        returning id
    ),

    forgotten as (
        delete from app_jobs.job_errors as e
        where e.job_id = any(array(
            select g.id from gone as g where g.id not in (select k.id from kept as k)
        ))
    )

    select
        g.id, g.database_id, g.queue_name, g.task_identifier, g.payload, g.attributes, g.priority,
        g.run_at,
        g.attempts, g.max_attempts, g.lease, g.key, g.last_error, g.retry_after, g.locked_by,
        g.locked_at,
        g.lease_expires_at, g.created_at, g.updated_at, g.slot, g.line, g.seat, g.lease_length,
        g.superseded,
        g.cancel_reason
    from gone as g;
end;
$$;

create function app_jobs.let_go(
    tids tid[], run_ats timestamptz[], errors text[], permanent boolean[], counted boolean,
    wait boolean
) returns void
language plpgsql
volatile
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_cancelled tid[];
    v_reasons text[];
    v_failed tid[];
    v_errors text[];
    v_slot integer;
    v_lines text[];
    v_tasks text[];
begin
    select q.queue_lines, q.tasks into v_lines, v_tasks from app_jobs.queues_left(let_go.tids) as q;

    select
        array_agg(h.tid) filter (where h.cancel_reason is not null),
        array_agg(h.cancel_reason) filter (where h.cancel_reason is not null),
        array_agg(h.tid) filter (where h.cancel_reason is null and h.over),
        array_agg(h.error) filter (where h.cancel_reason is null and h.over)
    into v_cancelled, v_reasons, v_failed, v_errors
    from (
        select
            g.tid, g.error, j.cancel_reason,
            coalesce(g.permanent, false)
            or (let_go.counted and (j.attempts >= j.max_attempts or j.superseded)) as over
        from unnest(let_go.tids, let_go.errors, let_go.permanent) as g(tid, error, permanent)
        inner join app_jobs.jobs as j on j.ctid = g.tid
    ) as h;
    if v_cancelled is not null then
        perform app_jobs.finish_jobs(v_cancelled, 'cancelled', null, v_reasons);
    end if;
    if v_failed is not null then
        perform app_jobs.finish_jobs(v_failed, 'failed', null, v_errors);
    end if;

    -- The others wait again: the rows that were finished are gone.
    v_slot := app_jobs.enter_slot();
    update app_jobs.jobs as j
    set
        run_at = coalesce(g.run_at, j.run_at),
        line = case when coalesce(g.run_at, j.run_at) <= v_now then '' end,
        slot = v_slot,
        attempts = case when let_go.counted then j.attempts else greatest(j.attempts - 1, 0) end,
        last_error = case when let_go.counted then g.error else j.last_error end,
        seat = null,
        locked_by = null,
        locked_at = null,
        lease_expires_at = null,
        lease_length = null,
        updated_at = v_now
    from unnest(let_go.tids, let_go.run_ats, let_go.errors) as g(tid, run_at, error)
    where j.ctid = g.tid;
    if found then
        perform app_jobs.note_arrivals(cardinality(let_go.tids));
        perform app_jobs.wake_workers();
    end if;

    if v_lines is not null then
        perform app_jobs.advance_queues(v_lines, v_tasks, let_go.wait);
    end if;
end;
$$;

revoke all on function app_jobs.queues_left(tid[]) from public;
revoke all on function app_jobs.finish_jobs(tid[], text, text, text[]) from public;
revoke all on function app_jobs.let_go(
    tid[], timestamptz[], text[], boolean[], boolean, boolean
) from public;

comment on function app_jobs.queues_left(tid[]) is
'Name the queues whose seats these jobs are about to leave, with the tasks of those jobs.

tids  jobs, locked by the caller

Returns: two arrays for advance_queues(); null if no job sits on a seat. Roles: internal.';
comment on function app_jobs.finish_jobs(tid[], text, text, text[]) is
'Move jobs to finished_jobs, with their errors, as failed or cancelled.

tids         jobs, locked by the caller
state        failed or cancelled
finished_by  the worker; null: the jobs'' holders
reasons      what to keep as last_error, one for each job; null: its own

Returns: the jobs as they were. Roles: internal; the caller pins the plans.';
comment on function app_jobs.let_go(tid[], timestamptz[], text[], boolean[], boolean, boolean) is
'Let held jobs go that are not completed: back to wait, or to finished_jobs if they are to be
cancelled or have no attempt left. Their queues move on.

tids       jobs, locked by the caller
run_ats    when each may run again; null: at once
errors     why, one for each job
permanent  true: it failed for good; null or false: not
counted    whether the attempt counts
wait       as in advance_queues()

Locks: the jobs'' queues. Roles: internal.';

-- Deploy app_jobs:add_job to pg
-- requires: let_go

set local lock_timeout = '5s';

create function app_jobs.find_job(job_key text, db_id uuid default null) returns app_jobs.jobs
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_job app_jobs.jobs;
begin
    perform app_jobs.check_not_null(
        'job_key', find_job.job_key is null, 'Give the key that the job was added with.'
    );
    if find_job.db_id is null then
        select j.* into v_job from app_jobs.jobs as j
        where j.key = find_job.job_key and j.database_id is null;
    else
        select j.* into v_job from app_jobs.jobs as j
        where j.key = find_job.job_key and j.database_id = find_job.db_id;
    end if;
    return v_job;
end;
$$;

create function app_jobs.lock_key_holder(job_key text, db_id uuid) returns app_jobs.jobs
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_job app_jobs.jobs;
begin
    if lock_key_holder.db_id is null then
        select j.* into v_job from app_jobs.jobs as j
        where j.key = lock_key_holder.job_key and j.database_id is null
        for update;
    else
        select j.* into v_job from app_jobs.jobs as j
        where j.key = lock_key_holder.job_key and j.database_id = lock_key_holder.db_id
        for update;
    end if;
    return v_job;
end;
$$;

create function app_jobs.finished_with_key(job_key text, db_id uuid) returns app_jobs.jobs
language plpgsql
stable
as $$
#variable_conflict use_column
declare
    v_kept app_jobs.finished_jobs;
    v_job app_jobs.jobs;
begin
    select f.* into v_kept
    from app_jobs.finished_jobs as f
    where
        f.key = finished_with_key.job_key
        and f.database_id is not distinct from finished_with_key.db_id
    order by f.finished_at desc
    limit 1;
    v_job.id := v_kept.id;
    v_job.database_id := v_kept.database_id;
    v_job.queue_name := v_kept.queue_name;
    v_job.task_identifier := v_kept.task_identifier;
    v_job.payload := v_kept.payload;
    v_job.attributes := v_kept.attributes;
    v_job.priority := v_kept.priority;
    v_job.run_at := v_kept.run_at;
    v_job.attempts := v_kept.attempts;
    v_job.max_attempts := v_kept.max_attempts;
    v_job.lease := v_kept.lease;
    v_job.key := v_kept.key;
    v_job.last_error := v_kept.last_error;
    v_job.retry_after := v_kept.retry_after;
    v_job.created_at := v_kept.created_at;
    v_job.updated_at := v_kept.finished_at;
    return v_job;
end;
$$;

create function app_jobs.add_job(
    db_id uuid default null,
    identifier text default null,
    payload json default '{}',
    job_key text default null,
    queue_name text default null,
    run_at timestamptz default now(),
    max_attempts integer default null,
    priority integer default 0,
    job_key_mode text default 'replace',
    attributes jsonb default '{}',
    retry_after interval default null
) returns app_jobs.jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_mode text := coalesce(add_job.job_key_mode, 'replace');
    v_payload json := coalesce(add_job.payload, '{}');
    v_attributes jsonb := coalesce(add_job.attributes, '{}');
    v_run_at timestamptz := coalesce(add_job.run_at, now());
    v_priority integer := coalesce(add_job.priority, 0);
    v_max_attempts integer := add_job.max_attempts;
    v_slot integer;
    v_line text;
    v_old app_jobs.jobs;
    v_job app_jobs.jobs;
begin
    perform app_jobs.check_job(
        add_job.identifier, add_job.job_key, add_job.queue_name, add_job.max_attempts,
        add_job.retry_after
    );
    if v_mode not in ('replace', 'preserve_run_at', 'keep', 'once') then
        raise exception 'job_key_mode is "%"', v_mode
            using errcode = '22023', hint = 'Use replace, preserve_run_at, keep or once.';
    end if;
    if v_max_attempts is null then
        select t.max_attempts into v_max_attempts
        from app_jobs.tasks as t where t.task_identifier = add_job.identifier;
        v_max_attempts := coalesce(v_max_attempts, 25);
    end if;

    loop
        if add_job.job_key is not null then
            -- Waits for another transaction that adds or claims the job under this key, and for
            -- nobody else.
            v_old := app_jobs.lock_key_holder(add_job.job_key, add_job.db_id);
            if v_old.id is not null and v_mode in ('keep', 'once') then
                return v_old;
            elsif v_old.id is null and v_mode = 'once' then
                v_old := app_jobs.finished_with_key(add_job.job_key, add_job.db_id);
                if v_old.id is not null then
                    return v_old;
                end if;
            end if;
            if v_old.locked_by is not null then
                -- It runs: it ends as it ends, without the key, and is not retried.
                update app_jobs.jobs as j
                set key = null, superseded = true, updated_at = clock_timestamp()
                where j.id = v_old.id;
                v_old := null;
            elsif v_old.id is not null then
                if v_mode = 'preserve_run_at' then
                    v_run_at := v_old.run_at;
                end if;
                if (
                    v_old.task_identifier, v_old.queue_name, v_old.payload::text, v_old.attributes,
                    v_old.priority,
                    v_old.run_at, v_old.max_attempts, v_old.retry_after, v_old.attempts,
                    v_old.last_error
                ) is not distinct from (
                    add_job.identifier, add_job.queue_name, v_payload::text, v_attributes,
                    v_priority,
                    v_run_at, v_max_attempts, add_job.retry_after, 0, null::text
                ) then
                    return v_old;
                end if;
            end if;
        end if;

        v_slot := app_jobs.enter_slot();
        perform nextval('app_jobs.activity');
        v_line := case when v_run_at <= clock_timestamp() then '' end;
        if v_old.id is not null then
            update app_jobs.jobs as j
            set
                task_identifier = add_job.identifier,
                queue_name = add_job.queue_name,
                payload = v_payload,
                attributes = v_attributes,
                priority = v_priority,
                run_at = v_run_at,
                attempts = 0,
                max_attempts = v_max_attempts,
                last_error = null,
                retry_after = add_job.retry_after,
                updated_at = clock_timestamp(),
                slot = v_slot,
                line = v_line
            where j.id = v_old.id
            returning j.* into v_job;
        else
            insert into app_jobs.jobs as j (
                database_id, queue_name, task_identifier, payload, attributes, priority, run_at,
                max_attempts, key,
                retry_after, slot, line
            )
            values (
                add_job.db_id, add_job.queue_name, add_job.identifier, v_payload, v_attributes,
                v_priority, v_run_at,
                v_max_attempts, add_job.job_key, add_job.retry_after, v_slot, v_line
            )
            on conflict do nothing
            returning j.* into v_job;
        end if;
        -- nothing inserted: another transaction has just committed a job under this key, so look
        -- again
        exit when v_job.id is not null;
    end loop;

    -- Workers learn of a later job at their next poll; one that is due before that needs them now.
    if v_run_at < clock_timestamp() + interval '1 minute' then
        perform app_jobs.wake_workers();
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.find_job(text, uuid) from public;
revoke all on function app_jobs.lock_key_holder(text, uuid) from public;
revoke all on function app_jobs.finished_with_key(text, uuid) from public;
revoke all on function app_jobs.add_job(
    uuid, text, json, text, text, timestamptz, integer, integer, text, jsonb, interval
) from public;
grant execute on function app_jobs.find_job(text, uuid) to app_jobs_producer;
grant execute on function app_jobs.add_job(
    uuid, text, json, text, text, timestamptz, integer, integer, text, jsonb, interval
) to app_jobs_producer;

comment on function app_jobs.find_job(text, uuid) is
'Find the live job that has a key.

job_key  the key
db_id    its tenant; null: none

Returns: the job; a row of nulls if there is none. Errors: 22004. Roles: app_jobs_producer.';
comment on function app_jobs.lock_key_holder(text, uuid) is
'Lock the live job that has a key.

job_key  the key
db_id    its tenant; null: none

Returns: the job; a row of nulls if there is none. Locks: the job; waits for it. Roles: internal;
the caller pins the plans.';
comment on function app_jobs.finished_with_key(text, uuid) is
'Find the last finished job with a key that is still kept.

job_key  the key
db_id    its tenant; null: none

Returns: the job in the shape of jobs; a row of nulls if there is none. Roles: internal.';
comment on function app_jobs.add_job(
    uuid, text, json, text, text, timestamptz, integer, integer, text, jsonb, interval
) is
'Add a job. It joins the transaction: no commit, no job, and no worker is woken before.

db_id         tenant; null: none
identifier    task to run, 1 to 126 characters; required
payload       what to run it with
job_key       unique among live jobs of the tenant, up to 512 characters; null: none
queue_name    jobs of a queue run one after the other, or max_running at a time; null: in parallel
              with everything
run_at        not before this time
max_attempts  1 or more; null: the task''s, or 25
priority      lower runs first
job_key_mode  what to do with the live job under job_key. replace: give it the new task, payload,
              run_at … and start its attempts anew; preserve_run_at: the same, but for run_at;
              keep: leave it and return it; once: the same, and a finished job that is still kept
              counts. If it is running, replace gives the key to a new job, and the running one is
              not retried
attributes    metadata that may change while the job lives
retry_after   length of its leases; null: the task''s, or else the worker''s

A null argument means its default.

Returns: the job as it stands now. Errors: 22004, 22023. Locks: the current slot, shared; the job
under job_key. Roles: app_jobs_producer.';

-- Deploy app_jobs:add_jobs to pg
-- requires: add_job

set local lock_timeout = '5s';

create function app_jobs.check_spec(spec json) returns void
language plpgsql
stable
as $$
#variable_conflict use_column
declare
    v_unknown text;
    v_job record;
begin
    if json_typeof(spec) <> 'object' then
        raise exception 'it is of type %', json_typeof(spec)
            using errcode = '22023',
                hint = 'Give an object whose keys are add_job()''s argument names.';
    end if;
    select k.key into v_unknown
    from json_object_keys(spec) as k(key)
    where k.key not in (
        'db_id', 'identifier', 'payload', 'job_key', 'queue_name', 'run_at', 'max_attempts',
        'priority', 'job_key_mode', 'attributes', 'retry_after'
    );
    if found then
        raise exception 'unknown key "%"', v_unknown
            using errcode = '22023', hint = 'Its keys are add_job()''s argument names.';
    end if;
    select s.* into v_job
    from json_to_record(spec) as s(
        db_id uuid, identifier text, job_key text, queue_name text, run_at timestamptz,
        max_attempts integer,
        priority integer, job_key_mode text, attributes jsonb, retry_after interval
    );
    perform app_jobs.check_job(
        v_job.identifier, v_job.job_key, v_job.queue_name, v_job.max_attempts, v_job.retry_after
    );
    if v_job.job_key_mode not in ('replace', 'preserve_run_at', 'keep', 'once') then
        raise exception 'job_key_mode is "%"', v_job.job_key_mode
            using errcode = '22023', hint = 'Use replace, preserve_run_at, keep or once.';
    end if;
end;
$$;

create function app_jobs.check_specs(specs json) returns void
language plpgsql
stable
as $$
#variable_conflict use_column
declare
    v_spec json;
    v_index bigint;
    v_message text;
    v_hint text;
begin
    for v_spec, v_index in
        select e.spec, e.n - 1 from json_array_elements(specs) with ordinality as e(spec, n)
    loop
        begin
            perform app_jobs.check_spec(v_spec);
        exception when data_exception then
            get stacked diagnostics v_message = message_text, v_hint = pg_exception_hint;
            raise exception 'specs[%]: %', v_index, v_message
                using errcode = sqlstate,
                    hint = coalesce(nullif(v_hint, ''), 'Nothing was added. Indexes count from 0.');
        end;
    end loop;
end;
$$;

create function app_jobs.insert_jobs(
    specs json,
    identifier text,
    payloads json[],
    db_ids uuid[],
    jobs integer,
    queue_name text,
    run_at timestamptz,
    max_attempts integer,
    priority integer,
    attributes jsonb,
    retry_after interval
) returns bigint[]
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_slot_size constant integer := 1000;
    v_large constant boolean := insert_jobs.jobs >= c_slot_size;
    v_one_tenant constant boolean := cardinality(insert_jobs.db_ids) = 1;
    v_now constant timestamptz := clock_timestamp();
    v_defaults constant jsonb := (
        select jsonb_object_agg(t.task_identifier, t.max_attempts)
        from app_jobs.tasks as t where t.max_attempts is not null
    );
    v_slots integer[];
    v_ids bigint[];
begin
    -- A large addition brings slots of its own: closed from the first, they appear with its commit
    -- and need no lock.
    if v_large then
        v_slots := array(
            select nextval('app_jobs.slot_number')
            from generate_series(1, (insert_jobs.jobs + c_slot_size - 1) / c_slot_size)
        );
    else
        v_slots := array[app_jobs.enter_slot()];
        perform app_jobs.note_arrivals(insert_jobs.jobs);
    end if;

    with given as (
        select s.*
        from rows from (
            json_to_recordset(insert_jobs.specs) as (
                db_id uuid, identifier text, payload json, queue_name text, run_at timestamptz,
                max_attempts integer, priority integer, attributes jsonb, retry_after interval
            )
        ) with ordinality as s(
            db_id, identifier, payload, queue_name, run_at, max_attempts, priority, attributes,
            retry_after, n
        )
        union all
        select
            case when v_one_tenant then insert_jobs.db_ids[1] else p.db_id end,
            insert_jobs.identifier, p.payload, insert_jobs.queue_name,
            insert_jobs.run_at, insert_jobs.max_attempts, insert_jobs.priority,
            insert_jobs.attributes,
            insert_jobs.retry_after, p.n
        from unnest(insert_jobs.payloads, insert_jobs.db_ids) with ordinality as p(payload, db_id,
        n)
    ),

    added as (
        insert into app_jobs.jobs as j (
            database_id, queue_name, task_identifier, payload, attributes, priority, run_at,
            max_attempts,
            retry_after, slot, line
        )
        select
            g.db_id, g.queue_name, g.identifier, coalesce(g.payload, '{}'),
            coalesce(g.attributes, '{}'),
            coalesce(g.priority, 0), coalesce(g.run_at, now()),
            coalesce(g.max_attempts, (v_defaults ->> g.identifier)::integer, 25), g.retry_after,
            v_slots[1 + (g.n - 1) / c_slot_size],
            case when coalesce(g.run_at, now()) <= v_now then '' end
        from given as g
        returning j.id, j.slot, j.line, j.task_identifier, j.priority, j.run_at
    ),

    left_streams as (
        insert into app_jobs.streams (slot, line, task_identifier, priority, run_at, id)
        select a.slot, a.line, a.task_identifier, min(a.priority), min(a.run_at), min(a.id)
        from added as a
        where v_large and a.line is not null
        group by a.slot, a.line, a.task_identifier
    ),

    left_alarms as (
        insert into app_jobs.alarms (slot, kind, due_at)
        select a.slot, 'run', min(a.run_at)
        from added as a
        where v_large and a.line is null
        group by a.slot
    )

    select array_agg(a.id) into v_ids from added as a;
    perform app_jobs.wake_workers();
    return v_ids;
end;
$$;

create function app_jobs.add_jobs(specs json) returns setof bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    v_jobs integer;
begin
    perform app_jobs.check_not_null('specs', add_jobs.specs is null, 'Give an array of objects.');
    if json_typeof(add_jobs.specs) <> 'array' then
        raise exception 'specs is of type %', json_typeof(add_jobs.specs)
            using errcode = '22023',
                hint = 'Give an array of objects whose keys are add_job()''s argument names.';
    end if;
    v_jobs := json_array_length(add_jobs.specs);
    if v_jobs = 0 then
        return;
    end if;
    -- Keys may name jobs that exist, so those specs go one by one (the text is looked at: cheap,
    -- and never misses one).
    if add_jobs.specs::text ~ 'job_key|\\u' then
        perform app_jobs.check_specs(add_jobs.specs);
        return query
        select (app_jobs.add_job(
            s.db_id, s.identifier, s.payload, s.job_key, s.queue_name, s.run_at, s.max_attempts,
            s.priority,
            s.job_key_mode, s.attributes, s.retry_after
        )).id
        from rows from (
            json_to_recordset(add_jobs.specs) as (
                db_id uuid, identifier text, payload json, job_key text, queue_name text,
                run_at timestamptz,
                max_attempts integer, priority integer, job_key_mode text, attributes jsonb,
                retry_after interval
            )
        ) with ordinality as s(
            db_id, identifier, payload, job_key, queue_name, run_at, max_attempts, priority,
            job_key_mode,
            attributes, retry_after, n
        )
        order by s.n;
        return;
    end if;
    begin
        perform from json_array_elements(add_jobs.specs) as e(spec),
        json_object_keys(e.spec) as k(key)
        where k.key not in (
            'db_id', 'identifier', 'payload', 'queue_name', 'run_at', 'max_attempts', 'priority',
            'attributes', 'retry_after'
        );
        if found then
            perform app_jobs.check_specs(add_jobs.specs);
        end if;
        return query
        select i.id
        from unnest(app_jobs.insert_jobs(
            add_jobs.specs, null, null, null, v_jobs, null, null, null, null, null, null
        )) as i(id)
        order by i.id;
    exception when data_exception or not_null_violation or check_violation then
        -- find the element that is to blame, and say it better
        perform app_jobs.check_specs(add_jobs.specs);
        raise;
    end;
end;
$$;

create function app_jobs.add_jobs(
    identifier text,
    payloads json[],
    db_id uuid default null,
    queue_name text default null,
    run_at timestamptz default now(),
    max_attempts integer default null,
    priority integer default 0,
    attributes jsonb default '{}',
    retry_after interval default null
) returns setof bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
begin
    perform app_jobs.check_job(
        add_jobs.identifier, null, add_jobs.queue_name, add_jobs.max_attempts, add_jobs.retry_after
    );
    perform app_jobs.check_not_null(
        'payloads', add_jobs.payloads is null, 'Give an array with a payload for each job.'
    );
    if cardinality(add_jobs.payloads) > 0 then
        return query
        select i.id
        from unnest(app_jobs.insert_jobs(
            null, add_jobs.identifier, add_jobs.payloads, array[add_jobs.db_id],
            cardinality(add_jobs.payloads),
            add_jobs.queue_name, add_jobs.run_at, add_jobs.max_attempts, add_jobs.priority,
            add_jobs.attributes,
            add_jobs.retry_after
        )) as i(id)
        order by i.id;
    end if;
end;
$$;

revoke all on function app_jobs.check_spec(json) from public;
revoke all on function app_jobs.check_specs(json) from public;
revoke all on function app_jobs.insert_jobs(
    json, text, json[], uuid[], integer, text, timestamptz, integer, integer, jsonb, interval
) from public;
revoke all on function app_jobs.add_jobs(json) from public;
revoke all on function app_jobs.add_jobs(
    text, json[], uuid, text, timestamptz, integer, integer, jsonb, interval
) from public;
grant execute on function app_jobs.add_jobs(json) to app_jobs_producer;
grant execute on function app_jobs.add_jobs(
    text, json[], uuid, text, timestamptz, integer, integer, jsonb, interval
) to app_jobs_producer;

comment on function app_jobs.check_spec(json) is
'Refuse an element of add_jobs(specs) that is no job.

spec  the element

Errors: 22004, 22023, and PostgreSQL''s own of class 22 for values that cannot be read. Roles:
internal.';
comment on function app_jobs.check_specs(json) is
'Refuse the first element of add_jobs(specs) that is no job, naming its index.

specs  the array

Errors: as check_spec(). Roles: internal.';
comment on function app_jobs.insert_jobs(
    json, text, json[], uuid[], integer, text, timestamptz, integer, integer, jsonb, interval
) is
'Insert jobs without keys, in one statement.

specs     as in add_jobs(specs), checked by the table only; or null, and:
payloads  one for each job
db_ids    one for each job, or a single one for all
jobs      how many
the rest  as in add_job(), for all jobs alike

Returns: ids. Locks: the current slot, shared. Roles: internal.';
comment on function app_jobs.add_jobs(json) is
'Add many jobs: all or nothing. 100,000 in a call is normal use.

specs  array of objects whose keys are add_job()''s argument names

Returns: ids, in input order. Errors: 22004, 22023 and others of class 22, naming the index of the
element, from 0; 40P01 if another call takes the same keys in another order: try again. Locks: the
current slot, shared; jobs under the keys given. Roles: app_jobs_producer.';
comment on function app_jobs.add_jobs(
    text, json[], uuid, text, timestamptz, integer, integer, jsonb, interval
) is
'Add many jobs of one task, one for each payload: all or nothing. 100,000 in a call is normal use.

identifier  task to run
payloads    one for each job
the rest    as in add_job(), for all jobs alike

Returns: ids, in input order. Errors: 22004, 22023. Locks: the current slot, shared. Roles:
app_jobs_producer.';

-- Deploy app_jobs:triggers to pg
-- requires: add_jobs

set local lock_timeout = '5s';

create function app_jobs.has_own_cast_to_json(type oid) returns boolean
language sql
stable
as $$
    with recursive part(type) as (
        select has_own_cast_to_json.type
        union
        select n.type
        from part as p
        inner join pg_catalog.pg_type as t on t.oid = p.type
        cross join lateral (
            select t.typelem as type where t.typelem <> 0
            union all
            select t.typbasetype where t.typbasetype <> 0
            union all
            select r.rngsubtype from pg_catalog.pg_range as r where t.oid in (r.rngtypid,
            r.rngmultitypid)
            union all
            select a.atttypid
            from pg_catalog.pg_attribute as a
            where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
        ) as n
    )

    select exists (
        select
        from part as p
        inner join pg_catalog.pg_cast as c on c.castsource = p.type
        where c.casttarget in ('json'::regtype, 'jsonb'::regtype) and c.castfunc >= 16384
    )
$$;

create function app_jobs.field_as_json(row_given record, type oid, name text) returns json
language plpgsql
stable
as $$
declare
    v_value json;
begin
    -- to_json() would run a cast to json that the owner of a type has made, and here it would run
    -- with our rights: such a value goes through its type's output function, which is what format()
    -- calls (a cast to text may be theirs, too). A record's field can only be named in dynamic SQL,
    -- as a quoted identifier.
    if app_jobs.has_own_cast_to_json(field_as_json.type) then
        execute format(
            'select to_json(format(''%%s'', ($1).%1$I)) where ($1).%1$I is distinct from null',
            field_as_json.name
        )
        into v_value using field_as_json.row_given;
    else
        execute format('select to_json(($1).%I)', field_as_json.name)
        into v_value using field_as_json.row_given;
    end if;
    return v_value;
end;
$$;

create function app_jobs.row_as_json(row_given record, relation oid) returns json
language plpgsql
stable
as $$
declare
    v_object text;
begin
    if not app_jobs.has_own_cast_to_json(
        (select c.reltype from pg_catalog.pg_class as c where c.oid = row_as_json.relation)
    ) then
        return to_json(row_as_json.row_given);
    end if;
    select string_agg(
        to_json(a.attname) || ':' || coalesce(
            app_jobs.field_as_json(row_as_json.row_given, a.atttypid, a.attname)::text, 'null'
        ),
        ',' order by a.attnum
    )
    into v_object
    from pg_catalog.pg_attribute as a
    where a.attrelid = row_as_json.relation and a.attnum > 0 and not a.attisdropped;
    return ('{' || v_object || '}')::json;
end;
$$;

create function app_jobs.column_type(
    relation oid, trigger_name text, argument text, name text
) returns oid
language plpgsql
stable
as $$
declare
    v_type oid;
begin
    select a.atttypid into v_type
    from pg_catalog.pg_attribute as a
    where
        a.attrelid = column_type.relation
        and a.attname = column_type.name
        and a.attnum > 0
        and not a.attisdropped;
    if not found then
        raise exception 'trigger "%" on table %: argument % is "%", and there is no such column',
            column_type.trigger_name, column_type.relation::regclass, column_type.argument,
            column_type.name
            using errcode = '22023',
                hint = 'Create the trigger again with a column''s name as the catalogue has it.';
    end if;
    return v_type;
end;
$$;

create function app_jobs.tenant_column(relation oid, trigger_name text, tenant text) returns text
language plpgsql
stable
as $$
declare
    v_type oid;
begin
    -- '' and a uuid name no column
    if tenant_column.tenant = ''
        or tenant_column.tenant ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
    then
        return null;
    end if;
    select a.atttypid into v_type
    from pg_catalog.pg_attribute as a
    where
        a.attrelid = tenant_column.relation
        and a.attname = tenant_column.tenant
        and a.attnum > 0
        and not a.attisdropped;
    if v_type is distinct from 'uuid'::regtype then
        raise exception 'trigger "%" on table %: argument tenant is "%"',
            tenant_column.trigger_name, tenant_column.relation::regclass, tenant_column.tenant
            using errcode = '22023',
                hint = 'Give a uuid, the name of a column of type uuid, or '''' for no tenant.';
    end if;
    return tenant_column.tenant;
end;
$$;

create function app_jobs.check_trigger(
    relation oid, trigger_name text, arguments text[], level text, wanted_level text,
    fewest integer, most integer, form text
) returns void
language plpgsql
immutable
as $$
begin
    if cardinality(check_trigger.arguments)
        not between check_trigger.fewest and check_trigger.most
    then
        raise exception 'trigger "%" on table % has % arguments',
            check_trigger.trigger_name, check_trigger.relation::regclass,
            cardinality(check_trigger.arguments)
            using errcode = '22023', hint = format('Create it again with %s.', check_trigger.form);
    elsif check_trigger.level <> check_trigger.wanted_level then
        raise exception 'trigger "%" on table % fires for each %',
            check_trigger.trigger_name, check_trigger.relation::regclass,
            lower(check_trigger.level)
            using errcode = '22023',
                hint = format('Create it again for each %s.', lower(check_trigger.wanted_level));
    elsif char_length(check_trigger.arguments[2]) not between 1 and 126 then
        raise exception 'trigger "%" on table %: argument task is "%"',
            check_trigger.trigger_name, check_trigger.relation::regclass,
            left(check_trigger.arguments[2], 200)
            using errcode = '22023', hint = 'Name the task to run, 1 to 126 characters.';
    end if;
end;
$$;

create function app_jobs.add_job_for_row(
    row_given record, relation oid, trigger_name text, arguments text[], payload json
) returns void
language plpgsql
volatile
as $$
declare
    v_column text := app_jobs.tenant_column(relation, trigger_name, arguments[1]);
    v_tenant uuid;
begin
    if v_column is null then
        v_tenant := nullif(arguments[1], '')::uuid;
    else
        v_tenant := (
            app_jobs.field_as_json(row_given, 'uuid'::regtype, v_column) #>> '{}'
        )::uuid;
    end if;
    perform app_jobs.add_job(v_tenant, arguments[2], payload);
end;
$$;

create function app_jobs.tg_add_job_with_row_id() returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_arguments constant text[] := coalesce(tg_argv[:], '{}');
    v_column constant text := coalesce(tg_argv[2], 'id');
    v_row record := case when tg_op = 'DELETE' then old else new end;
begin
    perform app_jobs.check_trigger(
        tg_relid, tg_name, v_arguments, tg_level, 'ROW', 2, 3,
        '(''tenant'', ''task'') or (''tenant'', ''task'', ''id column'')'
    );
    perform app_jobs.add_job_for_row(v_row, tg_relid, tg_name, v_arguments, json_build_object(
        'id',
        app_jobs.field_as_json(
            v_row, app_jobs.column_type(tg_relid, tg_name, 'id column', v_column), v_column
        )
    ));
    return v_row;
end;
$$;

create function app_jobs.tg_add_job_with_row() returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_arguments constant text[] := coalesce(tg_argv[:], '{}');
    v_row record := case when tg_op = 'DELETE' then old else new end;
begin
    perform app_jobs.check_trigger(
        tg_relid, tg_name, v_arguments, tg_level, 'ROW', 2, 2, '(''tenant'', ''task'')'
    );
    perform app_jobs.add_job_for_row(
        v_row, tg_relid, tg_name, v_arguments, app_jobs.row_as_json(v_row, tg_relid)
    );
    return v_row;
end;
$$;

create function app_jobs.tg_add_job_with_fields() returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_arguments constant text[] := coalesce(tg_argv[:], '{}');
    v_row record := case when tg_op = 'DELETE' then old else new end;
    v_payload json;
begin
    perform app_jobs.check_trigger(
        tg_relid, tg_name, v_arguments, tg_level, 'ROW', 3, 1602, '(''tenant'', ''task'', ''field'', …)'
    );
    select json_object_agg(
        f.name,
        app_jobs.field_as_json(
            v_row, app_jobs.column_type(tg_relid, tg_name, 'field', f.name), f.name
        )
        order by f.n
    )
    into v_payload
    from unnest(v_arguments[3:]) with ordinality as f(name, n);
    perform app_jobs.add_job_for_row(v_row, tg_relid, tg_name, v_arguments, v_payload);
    return v_row;
end;
$$;

create function app_jobs.tg_add_jobs_with_rows() returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_arguments constant text[] := coalesce(tg_argv[:], '{}');
    v_column text;
    v_payloads json[];
    v_tenants uuid[];
begin
    perform app_jobs.check_trigger(
        tg_relid, tg_name, v_arguments, tg_level, 'STATEMENT', 2, 2, '(''tenant'', ''task'')'
    );
    v_column := app_jobs.tenant_column(tg_relid, tg_name, v_arguments[1]);
    -- asked once per statement, not once per row
    if app_jobs.has_own_cast_to_json(
        (select c.reltype from pg_catalog.pg_class as c where c.oid = tg_relid)
    ) then
        -- as in field_as_json(); columns can only be listed in dynamic SQL, as quoted identifiers
        execute (
            select format(
                'select array(select to_json(r) from (select %s from %s) as r)',
                string_agg(format(
                    case when app_jobs.has_own_cast_to_json(a.atttypid)
                        then 'case when %1$I is distinct from null'
                            ' then format(''%%s'', %1$I) end as %1$I'
                        else '%1$I'
                    end,
                    a.attname
                ), ', ' order by a.attnum),
                case tg_op when 'DELETE' then 'old_rows' else 'new_rows' end
            )
            from pg_catalog.pg_attribute as a
            where a.attrelid = tg_relid and a.attnum > 0 and not a.attisdropped
        ) into v_payloads;
    elsif tg_op = 'DELETE' then
        v_payloads := array(select to_json(r) from old_rows as r);
    else
        v_payloads := array(select to_json(r) from new_rows as r);
    end if;
    if cardinality(v_payloads) > 0 then
        v_tenants := case
            when v_column is null then array[nullif(v_arguments[1], '')::uuid]
            else array(
                select (p.payload ->> v_column)::uuid
                from unnest(v_payloads) with ordinality as p(payload, n)
                order by p.n
            )
        end;
        perform app_jobs.insert_jobs(
            null, v_arguments[2], v_payloads, v_tenants, cardinality(v_payloads), null, null, null,
            null, null, null
        );
    end if;
    return null;
end;
$$;

revoke all on function app_jobs.has_own_cast_to_json(oid) from public;
revoke all on function app_jobs.field_as_json(record, oid, text) from public;
revoke all on function app_jobs.row_as_json(record, oid) from public;
revoke all on function app_jobs.column_type(oid, text, text, text) from public;
revoke all on function app_jobs.tenant_column(oid, text, text) from public;
revoke all on function app_jobs.check_trigger(
    oid, text, text[], text, text, integer, integer, text
) from public;
revoke all on function app_jobs.add_job_for_row(record, oid, text, text[], json) from public;
revoke all on function app_jobs.tg_add_job_with_row_id() from public;
revoke all on function app_jobs.tg_add_job_with_row() from public;
revoke all on function app_jobs.tg_add_job_with_fields() from public;
revoke all on function app_jobs.tg_add_jobs_with_rows() from public;
grant execute on function app_jobs.tg_add_job_with_row_id() to app_jobs_producer;
grant execute on function app_jobs.tg_add_job_with_row() to app_jobs_producer;
grant execute on function app_jobs.tg_add_job_with_fields() to app_jobs_producer;
grant execute on function app_jobs.tg_add_jobs_with_rows() to app_jobs_producer;

comment on function app_jobs.has_own_cast_to_json(oid) is
'Tell whether somebody has made a cast from this type, or from a part of it, to json: to_json()
would run it.

type  the type; elements, attributes and base types are looked at, too

Roles: internal.';
comment on function app_jobs.field_as_json(record, oid, text) is
'Turn one field of a row into json without running anybody''s code.

row_given  the row
type       the field''s type
name       the field

Returns: json of its own type; as text if its type has a cast to json of its own. Roles: internal.';
comment on function app_jobs.row_as_json(record, oid) is
'Turn a row into json without running anybody''s code.

row_given  the row
relation   its table

Returns: an object. Roles: internal.';
comment on function app_jobs.column_type(oid, text, text, text) is
'Find the type of the column that a trigger''s argument names.

relation      the table
trigger_name  the trigger
argument      what the argument is called
name          the column

Errors: 22023. Roles: internal.';
comment on function app_jobs.tenant_column(oid, text, text) is
'Read the tenant argument of a trigger.

relation      the table
trigger_name  the trigger
tenant        a uuid, the name of a uuid column, or ''''

Returns: the column; null for a uuid or ''''. Errors: 22023. Roles: internal.';
comment on function app_jobs.check_trigger(oid, text, text[], text, text, integer, integer, text) is
'Refuse a trigger with a wrong number of arguments, or no task.

relation      the table
trigger_name  the trigger
arguments     its arguments
level         ROW or STATEMENT: what it fires for
wanted_level  what it should
fewest, most  how many it takes
form          how it should be, for the hint

Errors: 22023. Roles: internal.';
comment on function app_jobs.add_job_for_row(record, oid, text, text[], json) is
'Add the job of a row-level trigger.

row_given     the row
relation      the table
trigger_name  the trigger
arguments     its arguments: tenant, task …
payload       the job''s

Errors: 22023, and add_job()''s. Roles: internal.';
comment on function app_jobs.tg_add_job_with_row_id() is
'Add a job {"id": …} for each row: AFTER or BEFORE INSERT, UPDATE or DELETE (the old row), FOR EACH
ROW.

tenant     a uuid, the name of a column of type uuid, or '''' for none
task       task to run, 1 to 126 characters
id column  column whose value is sent; default: id

Errors: 22023, naming table, trigger and argument. Roles: whoever may create triggers on a table
and is in app_jobs_producer; whoever may write the table fires it.';
comment on function app_jobs.tg_add_job_with_row() is
'Add a job with the whole row for each row: AFTER or BEFORE INSERT, UPDATE or DELETE (the old row),
FOR EACH ROW.

tenant  a uuid, the name of a column of type uuid, or '''' for none
task    task to run, 1 to 126 characters

Errors: 22023, naming table, trigger and argument. Roles: as tg_add_job_with_row_id().';
comment on function app_jobs.tg_add_job_with_fields() is
'Add a job with some fields, JSON types kept, for each row: AFTER or BEFORE INSERT, UPDATE or DELETE
(the old row), FOR EACH ROW.

tenant   a uuid, the name of a column of type uuid, or '''' for none
task     task to run, 1 to 126 characters
field …  columns to send

Errors: 22023, naming table, trigger and argument. Roles: as tg_add_job_with_row_id().';
comment on function app_jobs.tg_add_jobs_with_rows() is
'Add a job with the whole row for each row of a statement, in one go: AFTER INSERT or UPDATE,
REFERENCING NEW TABLE AS new_rows, or AFTER DELETE, REFERENCING OLD TABLE AS old_rows, FOR EACH
STATEMENT.

tenant  a uuid, the name of a column of type uuid, or '''' for none
task    task to run, 1 to 126 characters

Errors: 22023, naming table, trigger and argument. Roles: as tg_add_job_with_row_id().';

-- Deploy app_jobs:cancel_job to pg
-- requires: add_jobs

set local lock_timeout = '5s';

create function app_jobs.cancel_job(
    job_key text,
    db_id uuid default null,
    reason text default null
) returns app_jobs.jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_job app_jobs.jobs;
    v_tid tid;
    v_lines text[];
    v_tasks text[];
begin
    perform app_jobs.check_not_null(
        'job_key', cancel_job.job_key is null, 'Give the key that the job was added with.'
    );
    v_job := app_jobs.lock_key_holder(cancel_job.job_key, cancel_job.db_id);
    if v_job.id is null then
        return v_job;
    end if;
    if v_job.lease_expires_at is not null then
        -- It runs: mark it, so that the next heartbeat tells its worker.
        update app_jobs.jobs as j
        set cancel_reason = coalesce(cancel_job.reason, 'cancelled'), updated_at = clock_timestamp()
        where j.id = v_job.id
        returning j.* into v_job;
        return v_job;
    end if;
    select j.ctid into v_tid from app_jobs.jobs as j where j.id = v_job.id;
    select q.queue_lines, q.tasks into v_lines,
    v_tasks from app_jobs.queues_left(array[v_tid]) as q;
    perform app_jobs.finish_jobs(
        array[v_tid], 'cancelled', null, array[coalesce(cancel_job.reason, 'cancelled')]
    );
    if v_lines is not null then
        perform app_jobs.advance_queues(v_lines, v_tasks, true);
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.cancel_job(text, uuid, text) from public;
grant execute on function app_jobs.cancel_job(text, uuid, text) to app_jobs_producer;

comment on function app_jobs.cancel_job(text, uuid, text) is
'Cancel the live job that has a key. One that waits is finished as cancelled; one that runs is
marked, and its worker learns of it at the next heartbeat: if it completes all the same it is
completed, otherwise it is cancelled, not retried.

job_key  the key
db_id    its tenant; null: none
reason   kept as last_error; null: "cancelled"

Returns: the job as it was, or as it is if it runs; a row of nulls if no live job has the key.
Errors: 22004. Locks: the job; waits for it. Roles: app_jobs_producer.';

-- Deploy app_jobs:tick to pg
-- requires: cancel_job

set local lock_timeout = '5s';

-- When tick() last ran, in milliseconds since 1970; when it last swept, in seconds. Sequences: no
-- dead rows, no lock.
create sequence app_jobs.ticked_at minvalue 0 start 0;
create sequence app_jobs.swept_at minvalue 0 start 0;
create sequence app_jobs.pruned_to minvalue 0 start 0;
select
    setval('app_jobs.ticked_at', 0),
    setval('app_jobs.swept_at', 0),
    setval('app_jobs.pruned_to', 0);

create function app_jobs.due_slots(kind text, now timestamptz) returns setof integer
language sql
stable
as $$
    select o.slot from app_jobs.open_slots as o
    union all
    (
        select a.slot
        from app_jobs.alarms as a
        where a.kind = due_slots.kind and a.due_at <= due_slots.now
        order by a.due_at
        limit 50
    )
$$;

create function app_jobs.make_due_ready(tasks text[], most integer) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_looked_at constant integer := 1000;
    c_spare constant integer := 100;
    v_now constant timestamptz := clock_timestamp();
    v_due tid[];
    v_tids tid[];
begin
    -- The best of what is due, so that a claim for one job finds it, and some more, since others
    -- may have locked those; then lock as many as are wanted.
    v_due := array(
        select d.ctid
        from (
            select j.ctid, j.priority, j.run_at, j.id
            from app_jobs.due_slots('run', v_now) as s(slot)
            -- lateral: slot by slot, whatever the statistics say
            cross join lateral (
                select w.ctid, w.priority, w.run_at, w.id
                from app_jobs.jobs as w
                where
                    w.slot = s.slot
                    and w.line is null
                    and w.locked_by is null
                    and w.run_at <= v_now
                    and (
                        make_due_ready.tasks is null
                        or w.task_identifier = any(make_due_ready.tasks)
                    )
                order by w.run_at
                limit c_looked_at
            ) as j
            limit c_looked_at
        ) as d
        order by d.priority, d.run_at, d.id
        limit make_due_ready.most + c_spare
    );
    v_tids := array(
        select j.ctid
        from app_jobs.jobs as j
        -- said in a way that no partial index can serve: by address, whatever the statistics say
        where j.ctid = any(v_due) and coalesce(j.line, j.locked_by) is null
        order by j.priority, j.run_at, j.id
        limit make_due_ready.most
        for update skip locked
    );
    if v_tids <> '{}' then
        update app_jobs.jobs as j
        set line = '', slot = app_jobs.enter_slot(), updated_at = v_now
        where j.ctid = any(v_tids);
        perform app_jobs.note_arrivals(cardinality(v_tids));
        perform app_jobs.wake_workers();
    end if;
    -- An alarm that has gone off is set again, or removed. One that would go off in a moment is
    -- left as it is: to look once more costs less than to write the row for every single job.
    with rung as materialized (
        select a.slot, a.due_at
        from app_jobs.alarms as a
        where a.kind = 'run' and a.due_at <= v_now
        order by a.due_at
        limit 50
        for update skip locked
    ),

    next_due as materialized (
        select r.slot, n.run_at
        from rung as r
        left join lateral (
            select j.run_at
            from app_jobs.jobs as j
            where j.slot = r.slot and j.line is null and j.locked_by is null
            order by j.run_at
            limit 1
        ) as n on true
    ),

    silent as (
        delete from app_jobs.alarms as a
        using next_due as n
        where a.slot = n.slot and a.kind = 'run' and n.run_at is null
    )

    update app_jobs.alarms as a
    set due_at = n.run_at
    from next_due as n
    where a.slot = n.slot and a.kind = 'run' and n.run_at > v_now + interval '0.2 seconds';
    return cardinality(v_tids);
end;
$$;

create function app_jobs.end_expired_leases(most integer) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_tids tid[];
begin
    v_tids := array(
        select j.ctid
        from app_jobs.due_slots('lease', v_now) as s(slot)
        cross join lateral (
            select d.ctid
            from app_jobs.jobs as d
            where d.slot = s.slot and d.lease_expires_at <= v_now
            for update skip locked
        ) as j
        limit end_expired_leases.most
    );
    if v_tids <> '{}' then
        insert into app_jobs.job_errors (job_id, lease, attempt, worker_id, failed_at,
        error_message)
        select j.id, j.lease, j.attempts, j.locked_by, v_now, 'lease expired'
        from app_jobs.jobs as j
        where j.ctid = any(v_tids);
        perform app_jobs.let_go(
            v_tids, null, array_fill('lease expired'::text, array[cardinality(v_tids)]), null,
            true, false
        );
    end if;

    with rung as materialized (
        select a.slot
        from app_jobs.alarms as a
        where a.kind = 'lease' and a.due_at <= v_now
        order by a.due_at
        limit 50
        for update skip locked
    ),

    next_due as materialized (
        select r.slot, n.lease_expires_at
        from rung as r
        left join lateral (
            select j.lease_expires_at
            from app_jobs.jobs as j
            where j.slot = r.slot and j.lease_expires_at is not null
            order by j.lease_expires_at
            limit 1
        ) as n on true
    ),

    silent as (
        delete from app_jobs.alarms as a
        using next_due as n
        where a.slot = n.slot and a.kind = 'lease' and n.lease_expires_at is null
    )

    update app_jobs.alarms as a
    set due_at = n.lease_expires_at
    from next_due as n
    where a.slot = n.slot and a.kind = 'lease' and n.lease_expires_at > v_now + interval '1 second';
    return cardinality(v_tids);
end;
$$;

create function app_jobs.move_queues(most integer) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_lines text[];
    v_tasks text[];
begin
    -- Each line and task that has parked jobs, once. The lines of seats come before '$'.
    with recursive stream_line(line, task) as (
        (
            select s.line, s.task_identifier from app_jobs.streams as s
            where s.line > '$'
            order by s.line, s.task_identifier limit 1
        )
        union all
        select n.line, n.task_identifier
        from stream_line as l
        cross join lateral (
            select s.line, s.task_identifier from app_jobs.streams as s
            where (s.line, s.task_identifier) > (l.line, l.task)
            order by s.line, s.task_identifier limit 1
        ) as n
    ),

    parked as (
        select l.line, l.task from stream_line as l
        union
        select j.line, j.task_identifier
        from app_jobs.open_slots as o
        cross join lateral (
            select distinct p.line, p.task_identifier
            from app_jobs.jobs as p
            where p.slot = o.slot and p.line > ''
        ) as j
    )

    select array_agg(p.line), array_agg(p.task) into v_lines, v_tasks
    from (select m.line, m.task from parked as m order by random() limit move_queues.most) as p;
    return app_jobs.advance_queues(v_lines, v_tasks, false);
end;
$$;

create function app_jobs.sweep() returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_highest integer;
    v_ids constant regclass := pg_get_serial_sequence('app_jobs.jobs', 'id');
    v_last_id bigint;
    v_unlisted integer[];
    v_current integer;
    v_listed integer;
begin
    perform setval('app_jobs.swept_at', extract(epoch from clock_timestamp())::bigint);
    perform setval('app_jobs.pruned_to', 0);
    -- A sequence is only ever set forward, and only if it is behind: others draw numbers meanwhile.
    v_last_id := greatest(
        (select j.id from app_jobs.jobs as j order by j.id desc limit 1),
        (select f.id from app_jobs.finished_jobs as f order by f.id desc limit 1)
    );
    if v_last_id > coalesce(pg_sequence_last_value(v_ids), 0) then
        perform setval(v_ids, v_last_id);
    end if;
    if pg_sequence_last_value('app_jobs.activity') is null then
        perform setval('app_jobs.activity', 0);
    end if;

    -- Each slot that holds jobs must be listed: closed, with bounds, or else open. Slot after slot,
    -- by index.
    with recursive waiting(slot) as (
        (select j.slot from app_jobs.jobs as j where j.line is not null order by j.slot limit 1)
        union all
        select (
            select j.slot from app_jobs.jobs as j
            where j.line is not null and j.slot > w.slot order by j.slot limit 1
        )
        from waiting as w where w.slot is not null
    ),

    scheduled(slot) as (
        (
            select j.slot from app_jobs.jobs as j
            where j.line is null and j.locked_by is null order by j.slot limit 1
        )
        union all
        select (
            select j.slot from app_jobs.jobs as j
            where j.line is null and j.locked_by is null and j.slot > s.slot order by j.slot limit 1
        )
        from scheduled as s where s.slot is not null
    ),

    leased(slot) as (
        (
            select j.slot from app_jobs.jobs as j
            where j.lease_expires_at is not null order by j.slot limit 1
        )
        union all
        select (
            select j.slot from app_jobs.jobs as j
            where j.lease_expires_at is not null and j.slot > l.slot order by j.slot limit 1
        )
        from leased as l where l.slot is not null
    ),

    seated(slot) as (
        (select j.slot from app_jobs.jobs as j where j.seat is not null order by j.slot limit 1)
        union all
        select (
            select j.slot from app_jobs.jobs as j
            where j.seat is not null and j.slot > s.slot order by j.slot limit 1
        )
        from seated as s where s.slot is not null
    ),

    -- scalar subqueries: slot by slot, whatever the statistics say
    unlisted as (
        select w.slot from waiting as w
        where (
            select s.slot from app_jobs.streams as s
            where s.slot = w.slot and s.line not like '#%' limit 1
        ) is null
        union
        select d.slot from scheduled as d
        where (
            select a.slot from app_jobs.alarms as a where a.slot = d.slot and a.kind = 'run'
        ) is null
        union
        select l.slot from leased as l
        where (
            select a.slot from app_jobs.alarms as a where a.slot = l.slot and a.kind = 'lease'
        ) is null
        union
        select t.slot from seated as t
        where (
            select s.slot from app_jobs.streams as s
            where s.slot = t.slot and s.line like '#%' limit 1
        ) is null
    ),

    used as (
        select w.slot from waiting as w
        union all
        select d.slot from scheduled as d
        union all
        select l.slot from leased as l
        union all
        select t.slot from seated as t
    )

    select (select max(u.slot) from used as u), array_agg(n.slot)
    into v_highest, v_unlisted
    from unlisted as n
    where
        n.slot is not null
        -- by the same snapshot: one that is closed a moment later is not unlisted
        and n.slot not in (select o.slot from app_jobs.open_slots as o);

    v_highest := greatest(
        v_highest,
        pg_sequence_last_value('app_jobs.slot_current'),
        (select o.slot from app_jobs.open_slots as o order by o.slot desc limit 1)
    );
    if v_highest > coalesce(pg_sequence_last_value('app_jobs.slot_number'), 0) then
        perform setval('app_jobs.slot_number', v_highest);
    end if;
    -- So must the current one, or what producers write now would be seen by nobody.
    -- While we are in it nobody can close it.
    if pg_sequence_last_value('app_jobs.slot_current') is null then
        perform setval('app_jobs.slot_current', nextval('app_jobs.slot_number'));
    end if;
    v_current := app_jobs.enter_slot();
    insert into app_jobs.open_slots (slot)
    select u.slot from unnest(v_unlisted || v_current) as u(slot)
    on conflict on constraint open_slots_pkey do nothing;
    get diagnostics v_listed = row_count;
    return v_listed;
end;
$$;

create function app_jobs.prune_finished(most integer) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_ids bigint[];
    v_until timestamptz;
begin
    -- The mark lets us pass over rows deleted before that an old snapshot still holds; each sweep
    -- sets it back.
    with expired as materialized (
        select f.id, f.keep_until
        from app_jobs.finished_jobs as f
        where
            f.keep_until >= to_timestamp(pg_sequence_last_value('app_jobs.pruned_to'))
            and f.keep_until <= v_now
        order by f.keep_until
        limit prune_finished.most
        for update skip locked
    )

    select array_agg(e.id), max(e.keep_until) into v_ids, v_until from expired as e;
    if v_ids is null then
        return 0;
    end if;
    delete from app_jobs.finished_jobs as f where f.id = any(v_ids);
    delete from app_jobs.job_errors as e where e.job_id = any(v_ids);
    perform setval('app_jobs.pruned_to', floor(extract(epoch from v_until))::bigint);
    return cardinality(v_ids);
end;
$$;

create function app_jobs.count_idle() returns void
language plpgsql
volatile
as $$
declare
    v_idle bigint;
    v_gone_idle bigint := coalesce(pg_sequence_last_value('app_jobs.went_idle'), 0);
    v_gone_busy bigint := coalesce(pg_sequence_last_value('app_jobs.went_busy'), 0);
begin
    delete from app_jobs.workers as w
    where w.ctid = any(array(
        select g.ctid from app_jobs.workers as g
        where g.last_seen_at < clock_timestamp() - interval '5 minutes'
        for update skip locked
    ));
    select count(*) into v_idle from app_jobs.workers as w where w.idle;
    if v_gone_idle - v_gone_busy <> v_idle then
        if v_idle > 0 then
            perform setval('app_jobs.went_idle', v_gone_busy + v_idle);
        else
            v_gone_idle := greatest(v_gone_idle, v_gone_busy, 1);
            perform
                setval('app_jobs.went_busy', v_gone_idle),
                setval('app_jobs.went_idle', v_gone_idle);
        end if;
    end if;
end;
$$;

create function app_jobs.keep_house(
    most integer,
    out made_ready integer, out expired integer, out moved integer,
    out closed integer, out relisted integer, out pruned integer
)
language plpgsql
volatile
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
begin
    perform setval('app_jobs.ticked_at', (extract(epoch from v_now) * 1000)::bigint);
    relisted := 0;
    if pg_sequence_last_value('app_jobs.swept_at') < extract(epoch from v_now) - 3600
        or not exists (
            select from app_jobs.open_slots as o
            where o.slot = (select pg_sequence_last_value('app_jobs.slot_current'))
        )
    then
        relisted := app_jobs.sweep();
        if relisted > 0 then
            raise warning 'app_jobs: % slots held jobs and were not listed', relisted
                using hint = 'Expected once after a restore; otherwise please report it.';
        end if;
    end if;
    closed := app_jobs.turn_slots();
    made_ready := app_jobs.make_due_ready(null, most);
    expired := app_jobs.end_expired_leases(most);
    moved := app_jobs.move_queues(most);
    pruned := app_jobs.prune_finished(most);
    perform app_jobs.count_idle();
end;
$$;

create function app_jobs.tick(
    out next_due_at timestamptz, out made_ready integer, out expired integer, out moved integer,
    out closed integer, out relisted integer, out pruned integer
)
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
    v_now timestamptz;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'tick() cannot run at isolation level %',
            current_setting('transaction_isolation')
            using errcode = 'JQ002',
                detail = 'It locks, and then must see what others did before.',
                hint = 'Call it at READ COMMITTED.';
    end if;
    select h.made_ready, h.expired, h.moved, h.closed, h.relisted, h.pruned
    into made_ready, expired, moved, closed, relisted, pruned
    from app_jobs.keep_house(1000) as h;

    v_now := clock_timestamp();
    select min(d.run_at) into next_due_at
    from (
        (
            select a.due_at as run_at
            from app_jobs.alarms as a
            where a.kind = 'run' and a.due_at > v_now
            order by a.due_at
            limit 1
        )
        union all
        -- in open slots, and where an alarm has just gone off: exactly
        select h.run_at
        from app_jobs.due_slots('run', v_now) as s(slot)
        cross join lateral (
            select j.run_at
            from app_jobs.jobs as j
            where j.slot = s.slot and j.line is null and j.locked_by is null
            order by j.run_at
            limit 1
        ) as h
    ) as d;
end;
$$;

revoke all on function app_jobs.due_slots(text, timestamptz) from public;
revoke all on function app_jobs.make_due_ready(text[], integer) from public;
revoke all on function app_jobs.end_expired_leases(integer) from public;
revoke all on function app_jobs.move_queues(integer) from public;
revoke all on function app_jobs.sweep() from public;
revoke all on function app_jobs.prune_finished(integer) from public;
revoke all on function app_jobs.count_idle() from public;
revoke all on function app_jobs.keep_house(integer) from public;
revoke all on function app_jobs.tick() from public;
grant execute on function app_jobs.tick() to app_jobs_worker;
grant execute on function app_jobs.sweep() to app_jobs_operator;

comment on sequence app_jobs.ticked_at is 'When tick() last ran, or get_jobs() in its place: milliseconds since 1970.';
comment on sequence app_jobs.swept_at is 'When sweep() last ran: seconds since 1970.';
comment on sequence app_jobs.pruned_to is 'Up to which keep_until finished_jobs is pruned: seconds since 1970.';
comment on function app_jobs.due_slots(text, timestamptz) is
'List the slots in which something may be due: the open ones, and those whose alarm has gone off.

kind  run or lease
now   the time

Roles: internal; the caller pins the plans.';
comment on function app_jobs.make_due_ready(text[], integer) is
'Put scheduled jobs whose time has come into the ready line, the best first.

tasks  tasks wanted; null: all
most   jobs at most

Returns: jobs made ready. Locks: those jobs, skipping locked ones. Roles: internal; READ COMMITTED
only.';
comment on function app_jobs.end_expired_leases(integer) is
'Take back jobs whose lease is over: ready again, or finished if their attempts are used up.

most  jobs at most

Returns: leases ended. Locks: those jobs, skipping locked ones; queues, trying only. Roles:
internal; READ COMMITTED only.';
comment on function app_jobs.move_queues(integer) is
'Let queues move on that have a free seat and a parked job: what others had to skip.

most  queues at most

Returns: jobs made ready. Locks: queues, trying only. Roles: internal; READ COMMITTED only.';
comment on function app_jobs.sweep() is
'Repair the sequences and list any slot that holds jobs and is not listed: after a restore or a
failover, and hourly.

Returns: slots listed; 0 in a healthy database. Roles: app_jobs_operator.';
comment on function app_jobs.prune_finished(integer) is
'Delete finished jobs that are over their time, with their errors.

most  jobs at most

Returns: jobs deleted. Locks: those rows, skipping locked ones. Roles: internal.';
comment on function app_jobs.count_idle() is
'Forget workers that are gone and set the count of idle ones right.

Locks: rows of workers, skipping locked ones. Roles: internal.';
comment on function app_jobs.keep_house(integer) is
'Do what must be done about once a second, by whoever comes first: tick() or get_jobs().

most  jobs at most in each step

Returns: what was done, in jobs, slots and rows. Locks: see the steps; never waits. Roles:
internal; READ COMMITTED only.';
comment on function app_jobs.tick() is
'Keep house: open and close slots, make due jobs ready, end expired leases, move queues on, prune.
Any worker, pg_cron or a shell may call it at any time. get_jobs() does the same if nobody has for
a second.

Returns: next_due_at, when the next scheduled job is due (null: none); made_ready, expired, moved:
jobs; closed, relisted: slots; pruned: rows of finished_jobs. Errors: JQ002 at another level than
READ COMMITTED. Locks: rows and queues, skipping locked ones. Roles: app_jobs_worker.';

-- Deploy app_jobs:get_jobs to pg
-- requires: tick

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
    c_lot constant integer := 1000;
    v_left integer := get_jobs.job_limit;
    v_wanted integer;
    v_met integer := 0;
    v_paused text[];
    v_leases jsonb;
    v_slot integer;
    v_ids bigint[];
    v_slots integer[];
    v_found integer;
    v_queued app_jobs.place[];
    v_after app_jobs.place;
    v_tids tid[];
    v_seats app_jobs.seated[];
    v_used integer;
    v_count integer;
    v_claimed integer := 0;
begin
    perform app_jobs.check_worker_id(get_jobs.worker_id);
    perform app_jobs.check_not_null(
        'job_expiry', get_jobs.job_expiry is null,
        'Give the length of the lease, like ''1 minute''.'
    );
    perform app_jobs.check_positive('job_expiry', get_jobs.job_expiry);
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
        perform app_jobs.make_due_ready(get_jobs.task_identifiers, get_jobs.job_limit);
    end if;

    v_paused := array(select t.task_identifier from app_jobs.tasks as t where t.paused);
    v_leases := (
        select jsonb_object_agg(t.task_identifier, t.retry_after)
        from app_jobs.tasks as t where t.retry_after is not null
    );
    v_slot := app_jobs.enter_slot();

    loop
        v_wanted := least(v_left, c_lot);
        select
            array_agg(l.tid) filter (where l.queue_line is null),
            array_agg(l) filter (where l.queue_line is not null),
            array_agg(l.id),
            array_agg(distinct l.slot)
        into v_tids, v_queued, v_ids, v_slots
        from app_jobs.look('', get_jobs.task_identifiers, v_paused, v_wanted, v_after) as l;
        v_found := coalesce(cardinality(v_ids), 0);
        exit when v_found = 0;

        v_seats := null;
        if v_queued is not null then
            v_seats := array(
                select s from app_jobs.take_seats(v_slot, get_jobs.task_identifiers, v_paused,
                v_queued) as s
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
                lease_expires_at = v_now + coalesce(
                    j.retry_after, (v_leases ->> j.task_identifier)::interval, get_jobs.job_expiry
                ),
                lease_length = coalesce(
                    j.retry_after, (v_leases ->> j.task_identifier)::interval, get_jobs.job_expiry
                ),
                updated_at = v_now,
                slot = v_slot,
                line = null,
                seat = (select s.seat from unnest(v_seats) as s where s.tid = j.ctid)
            where j.ctid = any(v_tids)
            returning j.*
        )

        select c.* from claimed as c
        order by c.priority, c.run_at, c.id;
        get diagnostics v_count = row_count;
        -- After many jobs it pays to write down how far a slot has been used up, so that nobody
        -- passes over them again.
        if v_found >= 100 and v_read_committed then
            foreach v_used in array v_slots loop
                perform app_jobs.raise_bounds(v_used, '');
            end loop;
        end if;

        v_claimed := v_claimed + v_count;
        v_left := v_left - v_count;
        -- Each queue met costs an advisory lock; the server has some thousands for everybody. And
        -- to park very many jobs takes a while: what a second has done is kept.
        v_met := v_met + (select count(distinct q.queue_line) from unnest(v_queued) as q);
        exit when v_left = 0 or v_found < v_wanted or v_met >= c_lot;
        exit when clock_timestamp() > v_started + interval '1 second';
        -- More are wanted: look behind the last one met.
        select null::tid, null::integer, j.priority, j.run_at, j.id, null::text into v_after
        from app_jobs.jobs as j where j.id = v_ids[v_found];
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
job_expiry        length of the leases, positive, unless the job or its task has its own
job_limit         jobs at most, 1 to 10000

Returns: the jobs, in order, with the lease to finish them by; fewer or none if there are no
more, or if it has met a thousand blocked jobs or taken a second: then the next call goes on.
Errors: 22004, 22023, JQ002 for a job of a queue at another level than READ COMMITTED. Locks: the
jobs, skipping locked ones; queues, trying only; the current slot, shared. Roles: app_jobs_worker.';
comment on function app_jobs.get_job(text, text[], interval) is
'Claim the next job: get_jobs() with a limit of one.

worker_id         1 to 200 characters, names one process
task_identifiers  tasks that it serves; null: all
job_expiry        length of the lease, positive, unless the job or its task has its own

Returns: the job; a row of nulls if there is nothing to do. Errors and locks: as get_jobs(). Roles:
app_jobs_worker.';

-- Deploy app_jobs:complete_jobs to pg
-- requires: get_jobs

set local lock_timeout = '5s';

create function app_jobs.complete_jobs(
    worker_id text,
    job_ids bigint[],
    leases integer[] default null,
    results json[] default null
) returns setof bigint
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
    v_results json[];
    v_queued boolean;
    v_lines text[];
    v_tasks text[];
    v_ids bigint[];
    v_claimed_again boolean;
begin
    perform app_jobs.check_worker_id(complete_jobs.worker_id);
    perform app_jobs.check_not_null(
        'job_ids', complete_jobs.job_ids is null, 'Give the ids of the jobs to complete.'
    );
    if cardinality(complete_jobs.leases) <> cardinality(complete_jobs.job_ids)
        or cardinality(complete_jobs.results) <> cardinality(complete_jobs.job_ids)
    then
        raise exception '% job_ids, % leases, % results', cardinality(complete_jobs.job_ids),
            coalesce(cardinality(complete_jobs.leases)::text, 'no'),
            coalesce(cardinality(complete_jobs.results)::text, 'no')
            using errcode = '22023',
                hint = 'Give one lease and one result for each job, or none at all.';
    end if;

    -- The fence: whoever does not hold the lease any more ends nothing. Rows that others have
    -- locked are skipped, since a producer may have one locked until the end of a long transaction:
    -- they are not returned, so try them again.
    select array_agg(h.ctid), array_agg(h.result), bool_or(h.seat is not null)
    into v_tids, v_results, v_queued
    from (
        select j.ctid, given.result, j.seat
        from unnest(
            complete_jobs.job_ids, complete_jobs.leases, complete_jobs.results
        ) as given(id, lease, result)
        -- lateral: id by id, whatever the statistics say
        cross join lateral (
            select w.ctid, w.seat
            from app_jobs.jobs as w
            where
                w.id = given.id
                and w.locked_by = complete_jobs.worker_id
                and (given.lease is null or w.lease = given.lease)
            for update skip locked
        ) as j
    ) as h;
    if v_tids is null then
        return;
    end if;
    if v_queued then
        select q.queue_lines, q.tasks into v_lines, v_tasks from app_jobs.queues_left(v_tids) as q;
    end if;

    perform from app_jobs.tasks as t where t.keep_completed > interval '0';
    if found then
        insert into app_jobs.finished_jobs (
            id, database_id, queue_name, task_identifier, payload, attributes, priority, run_at,
            attempts, max_attempts, lease, key, last_error, retry_after, created_at, started_at,
            state, finished_by, result, keep_until
        )
        select
            j.id, j.database_id, j.queue_name, j.task_identifier, j.payload, j.attributes,
            j.priority, j.run_at, j.attempts, j.max_attempts, j.lease, j.key, j.last_error,
            j.retry_after, j.created_at, j.locked_at, 'completed', j.locked_by, h.result,
            clock_timestamp() + t.keep_completed
        from unnest(v_tids, v_results) as h(tid, result)
        inner join app_jobs.jobs as j on j.ctid = h.tid
        inner join app_jobs.tasks as t on t.task_identifier = j.task_identifier
        where t.keep_completed > interval '0';
    end if;

    with gone as (
        delete from app_jobs.jobs as j
        where j.ctid = any(v_tids)
        returning j.id, j.lease
    )

    select array_agg(g.id), bool_or(g.lease > 1) into v_ids, v_claimed_again from gone as g;
    if v_claimed_again then
        delete from app_jobs.job_errors as e
        where
            e.job_id = any(v_ids)
            and not exists (select from app_jobs.finished_jobs as f where f.id = e.job_id);
    end if;
    if v_lines is not null then
        perform app_jobs.advance_queues(v_lines, v_tasks, true);
    end if;
    return query select i.id from unnest(v_ids) as i(id);
end;
$$;

create function app_jobs.complete_job(
    worker_id text,
    job_id bigint,
    lease integer default null,
    result json default null
) returns app_jobs.jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_job app_jobs.jobs;
begin
    perform app_jobs.check_not_null(
        'job_id', complete_job.job_id is null, 'Give the id of the job to complete.'
    );
    select j.* into v_job from app_jobs.jobs as j where j.id = complete_job.job_id;
    perform app_jobs.complete_jobs(
        complete_job.worker_id, array[complete_job.job_id], array[complete_job.lease],
        array[complete_job.result]
    );
    if not found then
        v_job := null;
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.complete_jobs(text, bigint[], integer[], json[]) from public;
revoke all on function app_jobs.complete_job(text, bigint, integer, json) from public;
grant execute on function app_jobs.complete_jobs(text, bigint[], integer[], json[])
to app_jobs_worker;
grant execute on function app_jobs.complete_job(text, bigint, integer, json) to app_jobs_worker;

comment on function app_jobs.complete_jobs(text, bigint[], integer[], json[]) is
'Finish jobs that this worker holds. What is kept of them is the task''s keep_completed.

worker_id  the holder, as given to get_jobs()
job_ids    the jobs
leases     the lease of each (jobs.lease at the claim); null: whichever the worker holds
results    the result of each; null: none

Returns: the ids of those really completed. One that is missing was taken over, or another
transaction has its row locked just now: heartbeat() returns it in the second case, then try again.
Errors: 22004, 22023. Locks: the jobs, skipping locked ones; their queues. Roles: app_jobs_worker.';
comment on function app_jobs.complete_job(text, bigint, integer, json) is
'Finish a job that this worker holds.

worker_id  the holder, as given to get_job()
job_id     the job
lease      the lease being finished (jobs.lease at the claim); null: whichever the worker holds
result     kept as long as the task''s keep_completed says

Returns: the job as it was; a row of nulls if the worker does not hold it, or another transaction
has its row locked. Errors: 22004, 22023. Locks: the job, skipping a locked one; its queue. Roles:
app_jobs_worker.';

-- Deploy app_jobs:fail_jobs to pg
-- requires: complete_jobs

set local lock_timeout = '5s';

create function app_jobs.fail_jobs(worker_id text, failures json) returns setof bigint
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
    v_now constant timestamptz := clock_timestamp();
    v_unknown text;
    v_bad bigint;
    v_tids tid[];
    v_ids bigint[];
    v_leases integer[];
    v_attempts integer[];
    v_run_ats timestamptz[];
    v_errors text[];
    v_details text[];
    v_permanent boolean[];
begin
    perform app_jobs.check_worker_id(fail_jobs.worker_id);
    perform app_jobs.check_not_null(
        'failures', fail_jobs.failures is null, 'Give an array of objects.'
    );
    if json_typeof(fail_jobs.failures) <> 'array' then
        raise exception 'failures is of type %', json_typeof(fail_jobs.failures)
            using errcode = '22023',
                hint = 'Give an array of objects whose keys are fail_job()''s argument names.';
    end if;
    select k.key into v_unknown
    from json_array_elements(fail_jobs.failures) as e(failure),
    json_object_keys(e.failure) as k(key)
    where k.key not in ('job_id', 'error_message', 'lease', 'retry_in', 'detail', 'permanent');
    if found then
        raise exception 'failures has an unknown key: "%"', v_unknown
            using errcode = '22023', hint = 'Its keys are fail_job()''s argument names.';
    end if;
    select f.n - 1 into v_bad
    from rows from (
        json_to_recordset(fail_jobs.failures) as (job_id bigint, retry_in interval)
    ) with ordinality as f(job_id, retry_in, n)
    where f.job_id is null or f.retry_in < interval '0'
    limit 1;
    if found then
        raise exception 'failures[%] is %', v_bad, fail_jobs.failures -> v_bad::integer
            using errcode = '22023',
                hint = 'Each needs a job_id, and a retry_in that is not negative, or none.';
    end if;

    -- the fence, and skipping what others have locked: as in complete_jobs()
    select
        array_agg(h.ctid), array_agg(h.id), array_agg(h.lease), array_agg(h.attempts),
        array_agg(v_now + coalesce(h.retry_in, app_jobs.retry_delay(h.task_identifier,
        h.attempts))),
        array_agg(h.error_message), array_agg(h.detail), array_agg(h.permanent)
    into v_tids, v_ids, v_leases, v_attempts, v_run_ats, v_errors, v_details, v_permanent
    from (
        select
            j.ctid, j.id, j.lease, j.attempts, j.task_identifier, f.retry_in, f.error_message,
            f.detail,
            f.permanent
        from json_to_recordset(fail_jobs.failures) as f(
            job_id bigint, error_message text, lease integer, retry_in interval, detail text,
            permanent boolean
        )
        cross join lateral (
            select w.ctid, w.id, w.lease, w.attempts, w.task_identifier
            from app_jobs.jobs as w
            where
                w.id = f.job_id
                and w.locked_by = fail_jobs.worker_id
                and (f.lease is null or w.lease = f.lease)
            for update skip locked
        ) as j
    ) as h;
    if v_tids is not null then
        insert into app_jobs.job_errors (job_id, lease, attempt, worker_id, failed_at,
        error_message, detail)
        select e.id, e.lease, e.attempt, fail_jobs.worker_id, v_now, e.message, e.detail
        from unnest(v_ids, v_leases, v_attempts, v_errors, v_details) as e(id, lease, attempt,
        message, detail);
        perform app_jobs.let_go(v_tids, v_run_ats, v_errors, v_permanent, true, true);
        return query select i.id from unnest(v_ids) as i(id);
    end if;
end;
$$;

create function app_jobs.fail_job(
    worker_id text,
    job_id bigint,
    error_message text default null,
    lease integer default null,
    retry_in interval default null,
    detail text default null,
    permanent boolean default false
) returns app_jobs.jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_before app_jobs.jobs;
    v_job app_jobs.jobs;
begin
    perform app_jobs.check_not_null(
        'job_id', fail_job.job_id is null, 'Give the id of the job that failed.'
    );
    select j.* into v_before from app_jobs.jobs as j where j.id = fail_job.job_id;
    perform app_jobs.fail_jobs(fail_job.worker_id, json_build_array(json_build_object(
        'job_id', fail_job.job_id,
        'error_message', fail_job.error_message,
        'lease', fail_job.lease,
        'retry_in', fail_job.retry_in,
        'detail', fail_job.detail,
        'permanent', fail_job.permanent
    )));
    if found then
        select j.* into v_job from app_jobs.jobs as j where j.id = fail_job.job_id;
        if not found then
            v_job := v_before;
            v_job.last_error := fail_job.error_message;
        end if;
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.fail_jobs(text, json) from public;
revoke all on function app_jobs.fail_job(text, bigint, text, integer, interval, text, boolean)
from public;
grant execute on function app_jobs.fail_jobs(text, json) to app_jobs_worker;
grant execute on function app_jobs.fail_job(text, bigint, text, integer, interval, text, boolean)
to app_jobs_worker;

comment on function app_jobs.fail_jobs(text, json) is
'Fail attempts of jobs that this worker holds: each is retried later, or finished as failed if it
has no attempt left.

worker_id  the holder, as given to get_jobs()
failures   array of objects whose keys are fail_job()''s argument names

Returns: the ids of those really failed; for one that is missing see complete_jobs(). Errors:
22004, 22023. Locks: the jobs, skipping locked ones; their queues. Roles: app_jobs_worker.';
comment on function app_jobs.fail_job(text, bigint, text, integer, interval, text, boolean) is
'Fail the attempt of a job that this worker holds: it is retried later, or finished as failed if it
has no attempt left.

worker_id      the holder, as given to get_job()
job_id         the job
error_message  why; kept as last_error and in job_errors
lease          the lease that failed (jobs.lease at the claim); null: whichever the worker holds
retry_in       delay before the next attempt, not negative; null: the task''s backoff, or
               exp(least(attempts, 10)) seconds plus up to 10 %
detail         more: a stack trace, say; kept in job_errors
permanent      true: no further attempt

Returns: the job as it waits now, or as it was if it is finished; a row of nulls if the worker does
not hold it, or another transaction has its row locked. Errors: 22004, 22023. Locks: the job,
skipping a locked one; its queue. Roles: app_jobs_worker.';

-- Deploy app_jobs:snooze_job to pg
-- requires: fail_jobs

set local lock_timeout = '5s';

create function app_jobs.snooze_job(
    worker_id text,
    job_id bigint,
    delay interval,
    lease integer default null
) returns app_jobs.jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_before app_jobs.jobs;
    v_job app_jobs.jobs;
    v_tid tid;
begin
    perform app_jobs.check_worker_id(snooze_job.worker_id);
    perform app_jobs.check_not_null(
        'job_id', snooze_job.job_id is null, 'Give the id of the job to snooze.'
    );
    perform app_jobs.check_not_null(
        'delay', snooze_job.delay is null, 'Give the time to wait, like ''1 minute''.'
    );
    if snooze_job.delay < interval '0' then
        raise exception 'delay is %', snooze_job.delay
            using errcode = '22023',
                hint = 'Give an interval that is not negative, like ''1 minute''.';
    end if;
    select j.ctid into v_tid
    from app_jobs.jobs as j
    where
        j.id = snooze_job.job_id
        and j.locked_by = snooze_job.worker_id
        and (snooze_job.lease is null or j.lease = snooze_job.lease)
    for update skip locked;
    if not found then
        return v_job;
    end if;
    select j.* into v_before from app_jobs.jobs as j where j.ctid = v_tid;
    perform app_jobs.let_go(
        array[v_tid], array[clock_timestamp() + snooze_job.delay], array[null::text], null, false,
        true
    );
    select j.* into v_job from app_jobs.jobs as j where j.id = snooze_job.job_id;
    if not found then
        v_job := v_before;
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.snooze_job(text, bigint, interval, integer) from public;
grant execute on function app_jobs.snooze_job(text, bigint, interval, integer) to app_jobs_worker;

comment on function app_jobs.snooze_job(text, bigint, interval, integer) is
'Put a job that this worker holds back for some time. No attempt is counted.

worker_id  the holder, as given to get_job()
job_id     the job
delay      not before this time from now; 0: at once
lease      the lease (jobs.lease at the claim); null: whichever the worker holds

Returns: the job as it waits now, or as it was if it was to be cancelled; a row of nulls if the
worker does not hold it, or another transaction has its row locked. Errors: 22004, 22023. Locks:
the job, skipping a locked one; its queue. Roles: app_jobs_worker.';

-- Deploy app_jobs:heartbeat to pg
-- requires: snooze_job

set local lock_timeout = '5s';

create function app_jobs.held_by(worker_id text) returns setof bigint
language sql
stable
as $$
    select j.id
    from (
        select o.slot from app_jobs.open_slots as o
        union
        select a.slot from app_jobs.alarms as a where a.kind = 'lease'
    ) as s
    cross join lateral (
        select h.id
        from app_jobs.jobs as h
        where h.slot = s.slot and h.lease_expires_at is not null and h.locked_by = held_by.worker_id
        offset 0
    ) as j
$$;

create function app_jobs.heartbeat(
    worker_id text,
    job_ids bigint[] default null,
    job_expiry interval default null
) returns setof bigint
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
    v_now timestamptz;
    v_slot integer;
    v_ids bigint[];
    v_tids tid[];
begin
    perform app_jobs.check_worker_id(heartbeat.worker_id);
    perform app_jobs.check_positive('job_expiry', heartbeat.job_expiry);
    v_ids := coalesce(heartbeat.job_ids,
    array(select h.id from app_jobs.held_by(heartbeat.worker_id) as h(id)));

    -- Rows that a producer has locked are skipped: still held, and nobody can take them over
    -- meanwhile.
    v_tids := array(
        select j.ctid
        from app_jobs.jobs as j
        where
            j.id = any(v_ids)
            and j.locked_by = heartbeat.worker_id
            -- said in a way that no partial index can serve: by id, whatever the statistics say
            and coalesce(j.lease_expires_at, '-infinity') > '-infinity'
            and j.cancel_reason is null
        for update skip locked
    );
    if v_tids <> '{}' then
        v_slot := app_jobs.enter_slot();
        v_now := clock_timestamp();
        update app_jobs.jobs as j
        set
            lease_expires_at = v_now + coalesce(j.retry_after, heartbeat.job_expiry,
            j.lease_length),
            lease_length = coalesce(j.retry_after, heartbeat.job_expiry, j.lease_length),
            slot = v_slot,
            updated_at = v_now
        where j.ctid = any(v_tids);
        perform app_jobs.note_arrivals((cardinality(v_tids) + 3) / 4);
    end if;

    v_ids := array(
        select j.id
        from app_jobs.jobs as j
        where j.id = any(v_ids) and j.locked_by = heartbeat.worker_id and j.cancel_reason is null
    );
    insert into app_jobs.workers as w (worker_id, running)
    values (heartbeat.worker_id, cardinality(v_ids))
    on conflict on constraint workers_pkey do update set
        last_seen_at = excluded.last_seen_at,
        running = excluded.running;
    return query select i.id from unnest(v_ids) as i(id);
end;
$$;

revoke all on function app_jobs.held_by(text) from public;
revoke all on function app_jobs.heartbeat(text, bigint[], interval) from public;
grant execute on function app_jobs.heartbeat(text, bigint[], interval) to app_jobs_worker;

comment on function app_jobs.held_by(text) is
'List the jobs that a worker has leased.

worker_id  the worker

Returns: their ids. Roles: internal; the caller pins the plans.';
comment on function app_jobs.heartbeat(text, bigint[], interval) is
'Renew the leases of a worker, and learn which jobs it still holds.

worker_id   the holder, as given to get_jobs()
job_ids     jobs to renew; null: all that it holds
job_expiry  new length of the leases from now, positive; null: as long as at the claim. A job''s
            own retry_after goes first

Returns: the jobs still held; one that is missing was taken over, or is to be cancelled: stop its
handler. Errors: 22004, 22023. Locks: the jobs, skipping locked ones; the current slot, shared; its
row of workers. Roles: app_jobs_worker.';

-- Deploy app_jobs:release_jobs to pg
-- requires: heartbeat

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

-- Deploy app_jobs:version to pg
-- requires: roles

set local lock_timeout = '5s';

create function app_jobs.version() returns text
language sql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select '0.1.0'
$$;

revoke all on function app_jobs.version() from public;
grant execute on function app_jobs.version()
to app_jobs_producer, app_jobs_worker, app_jobs_operator, app_jobs_monitor;

comment on function app_jobs.version() is
'Tell the version of this schema.

Returns: major.minor.patch. Roles: app_jobs_producer, app_jobs_worker, app_jobs_operator,
app_jobs_monitor.';

-- Sqitch's registry, unless there is one already
do $do$
begin
    if to_regclass('sqitch.releases') is null then
        execute $registry$
-- Sqitch's registry, version 1.1, as Sqitch 1.3 makes it for PostgreSQL: the migrator of app_jobs
-- keeps the same one, so that either tool can go on where the other stopped. Adapted from
-- lib/App/Sqitch/Engine/pg.sql (schema name filled in, no transaction of its own):
--
-- Copyright (c) 2012-2022 iovation Inc., David E. Wheeler
--
-- Permission is hereby granted, free of charge, to any person obtaining a copy
-- of this software and associated documentation files (the "Software"), to deal
-- in the Software without restriction, including without limitation the rights
-- to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
-- copies of the Software, and to permit persons to whom the Software is
-- furnished to do so, subject to the following conditions:
--
-- The above copyright notice and this permission notice shall be included in all
-- copies or substantial portions of the Software.
--
-- THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
-- IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
-- FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
-- AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
-- LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
-- OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
-- SOFTWARE.

CREATE SCHEMA IF NOT EXISTS sqitch;

COMMENT ON SCHEMA sqitch IS 'Sqitch database deployment metadata v1.1.';

CREATE TABLE sqitch.releases (
    version         REAL        PRIMARY KEY,
    installed_at    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    installer_name  TEXT        NOT NULL,
    installer_email TEXT        NOT NULL
);

COMMENT ON TABLE  sqitch.releases                 IS 'Sqitch registry releases.';
COMMENT ON COLUMN sqitch.releases.version         IS 'Version of the Sqitch registry.';
COMMENT ON COLUMN sqitch.releases.installed_at    IS 'Date the registry release was installed.';
COMMENT ON COLUMN sqitch.releases.installer_name  IS 'Name of the user who installed the registry release.';
COMMENT ON COLUMN sqitch.releases.installer_email IS 'Email address of the user who installed the registry release.';

CREATE TABLE sqitch.projects (
    project         TEXT        PRIMARY KEY,
    uri             TEXT            NULL UNIQUE,
    created_at      TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    creator_name    TEXT        NOT NULL,
    creator_email   TEXT        NOT NULL
);

COMMENT ON TABLE  sqitch.projects                IS 'Sqitch projects deployed to this database.';
COMMENT ON COLUMN sqitch.projects.project        IS 'Unique Name of a project.';
COMMENT ON COLUMN sqitch.projects.uri            IS 'Optional project URI';
COMMENT ON COLUMN sqitch.projects.created_at     IS 'Date the project was added to the database.';
COMMENT ON COLUMN sqitch.projects.creator_name   IS 'Name of the user who added the project.';
COMMENT ON COLUMN sqitch.projects.creator_email  IS 'Email address of the user who added the project.';

CREATE TABLE sqitch.changes (
    change_id       TEXT        PRIMARY KEY,
    script_hash     TEXT            NULL,
    change          TEXT        NOT NULL,
    project         TEXT        NOT NULL REFERENCES sqitch.projects(project) ON UPDATE CASCADE,
    note            TEXT        NOT NULL DEFAULT '',
    committed_at    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    committer_name  TEXT        NOT NULL,
    committer_email TEXT        NOT NULL,
    planned_at      TIMESTAMPTZ NOT NULL,
    planner_name    TEXT        NOT NULL,
    planner_email   TEXT        NOT NULL,
    UNIQUE(project, script_hash)
);

COMMENT ON TABLE  sqitch.changes                 IS 'Tracks the changes currently deployed to the database.';
COMMENT ON COLUMN sqitch.changes.change_id       IS 'Change primary key.';
COMMENT ON COLUMN sqitch.changes.script_hash     IS 'Deploy script SHA-1 hash.';
COMMENT ON COLUMN sqitch.changes.change          IS 'Name of a deployed change.';
COMMENT ON COLUMN sqitch.changes.project         IS 'Name of the Sqitch project to which the change belongs.';
COMMENT ON COLUMN sqitch.changes.note            IS 'Description of the change.';
COMMENT ON COLUMN sqitch.changes.committed_at    IS 'Date the change was deployed.';
COMMENT ON COLUMN sqitch.changes.committer_name  IS 'Name of the user who deployed the change.';
COMMENT ON COLUMN sqitch.changes.committer_email IS 'Email address of the user who deployed the change.';
COMMENT ON COLUMN sqitch.changes.planned_at      IS 'Date the change was added to the plan.';
COMMENT ON COLUMN sqitch.changes.planner_name    IS 'Name of the user who planed the change.';
COMMENT ON COLUMN sqitch.changes.planner_email   IS 'Email address of the user who planned the change.';

CREATE TABLE sqitch.tags (
    tag_id          TEXT        PRIMARY KEY,
    tag             TEXT        NOT NULL,
    project         TEXT        NOT NULL REFERENCES sqitch.projects(project) ON UPDATE CASCADE,
    change_id       TEXT        NOT NULL REFERENCES sqitch.changes(change_id) ON UPDATE CASCADE,
    note            TEXT        NOT NULL DEFAULT '',
    committed_at    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    committer_name  TEXT        NOT NULL,
    committer_email TEXT        NOT NULL,
    planned_at      TIMESTAMPTZ NOT NULL,
    planner_name    TEXT        NOT NULL,
    planner_email   TEXT        NOT NULL,
    UNIQUE(project, tag)
);

COMMENT ON TABLE  sqitch.tags                 IS 'Tracks the tags currently applied to the database.';
COMMENT ON COLUMN sqitch.tags.tag_id          IS 'Tag primary key.';
COMMENT ON COLUMN sqitch.tags.tag             IS 'Project-unique tag name.';
COMMENT ON COLUMN sqitch.tags.project         IS 'Name of the Sqitch project to which the tag belongs.';
COMMENT ON COLUMN sqitch.tags.change_id       IS 'ID of last change deployed before the tag was applied.';
COMMENT ON COLUMN sqitch.tags.note            IS 'Description of the tag.';
COMMENT ON COLUMN sqitch.tags.committed_at    IS 'Date the tag was applied to the database.';
COMMENT ON COLUMN sqitch.tags.committer_name  IS 'Name of the user who applied the tag.';
COMMENT ON COLUMN sqitch.tags.committer_email IS 'Email address of the user who applied the tag.';
COMMENT ON COLUMN sqitch.tags.planned_at      IS 'Date the tag was added to the plan.';
COMMENT ON COLUMN sqitch.tags.planner_name    IS 'Name of the user who planed the tag.';
COMMENT ON COLUMN sqitch.tags.planner_email   IS 'Email address of the user who planned the tag.';

CREATE TABLE sqitch.dependencies (
    change_id       TEXT        NOT NULL REFERENCES sqitch.changes(change_id) ON UPDATE CASCADE ON DELETE CASCADE,
    type            TEXT        NOT NULL,
    dependency      TEXT        NOT NULL,
    dependency_id   TEXT            NULL REFERENCES sqitch.changes(change_id) ON UPDATE CASCADE CONSTRAINT dependencies_check CHECK (
            (type = 'require'  AND dependency_id IS NOT NULL)
         OR (type = 'conflict' AND dependency_id IS NULL)
    ),
    PRIMARY KEY (change_id, dependency)
);

COMMENT ON TABLE  sqitch.dependencies               IS 'Tracks the currently satisfied dependencies.';
COMMENT ON COLUMN sqitch.dependencies.change_id     IS 'ID of the depending change.';
COMMENT ON COLUMN sqitch.dependencies.type          IS 'Type of dependency.';
COMMENT ON COLUMN sqitch.dependencies.dependency    IS 'Dependency name.';
COMMENT ON COLUMN sqitch.dependencies.dependency_id IS 'Change ID the dependency resolves to.';

CREATE TABLE sqitch.events (
    event           TEXT        NOT NULL CONSTRAINT events_event_check CHECK (
        event IN ('deploy', 'revert', 'fail', 'merge')
    ),
    change_id       TEXT        NOT NULL,
    change          TEXT        NOT NULL,
    project         TEXT        NOT NULL REFERENCES sqitch.projects(project) ON UPDATE CASCADE,
    note            TEXT        NOT NULL DEFAULT '',
    requires        TEXT[]      NOT NULL DEFAULT '{}',
    conflicts       TEXT[]      NOT NULL DEFAULT '{}',
    tags            TEXT[]      NOT NULL DEFAULT '{}',
    committed_at    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    committer_name  TEXT        NOT NULL,
    committer_email TEXT        NOT NULL,
    planned_at      TIMESTAMPTZ NOT NULL,
    planner_name    TEXT        NOT NULL,
    planner_email   TEXT        NOT NULL,
    PRIMARY KEY (change_id, committed_at)
);

COMMENT ON TABLE  sqitch.events                 IS 'Contains full history of all deployment events.';
COMMENT ON COLUMN sqitch.events.event           IS 'Type of event.';
COMMENT ON COLUMN sqitch.events.change_id       IS 'Change ID.';
COMMENT ON COLUMN sqitch.events.change          IS 'Change name.';
COMMENT ON COLUMN sqitch.events.project         IS 'Name of the Sqitch project to which the change belongs.';
COMMENT ON COLUMN sqitch.events.note            IS 'Description of the change.';
COMMENT ON COLUMN sqitch.events.requires        IS 'Array of the names of required changes.';
COMMENT ON COLUMN sqitch.events.conflicts       IS 'Array of the names of conflicting changes.';
COMMENT ON COLUMN sqitch.events.tags            IS 'Tags associated with the change.';
COMMENT ON COLUMN sqitch.events.committed_at    IS 'Date the event was committed.';
COMMENT ON COLUMN sqitch.events.committer_name  IS 'Name of the user who committed the event.';
COMMENT ON COLUMN sqitch.events.committer_email IS 'Email address of the user who committed the event.';
COMMENT ON COLUMN sqitch.events.planned_at      IS 'Date the event was added to the plan.';
COMMENT ON COLUMN sqitch.events.planner_name    IS 'Name of the user who planed the change.';
COMMENT ON COLUMN sqitch.events.planner_email   IS 'Email address of the user who plan planned the change.';
$registry$;
        insert into sqitch.releases (version, installer_name, installer_email)
        values (1.1, current_user, current_user || '@localhost');
    elsif (
        select max(r.version)::text from sqitch.releases as r
    ) <> '1.1' then
        raise exception 'Sqitch''s registry here is not of version 1.1'
            using errcode = 'JQ091', hint = 'Deploy with Sqitch.';
    end if;
end;
$do$;

insert into sqitch.projects (project, uri, creator_name, creator_email)
values ('app_jobs', null, current_user, current_user || '@localhost')
on conflict (project) do nothing;

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('87895f33eea986d052dbd32b978c1bc5eab08791', 'e80b30221a41bf4600b9934bbec63322b718c37f', 'schema', 'app_jobs', 'A schema of our own, or none.', '2026-11-22T11:00:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '87895f33eea986d052dbd32b978c1bc5eab08791', 'schema', 'app_jobs', array[]::text[], array[]::text[], 'A schema of our own, or none.', '2026-11-22T11:00:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('486923d28f849a8b71314e60b4bf7f79d80225b8', '280d4c26ea76c38ab6bbfbef4f6a7247a8dbad84', 'roles', 'app_jobs', 'Who may add, claim, steer, watch.', '2026-11-22T11:01:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('486923d28f849a8b71314e60b4bf7f79d80225b8', 'require', 'schema', '87895f33eea986d052dbd32b978c1bc5eab08791');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '486923d28f849a8b71314e60b4bf7f79d80225b8', 'roles', 'app_jobs', array['schema']::text[], array[]::text[], 'Who may add, claim, steer, watch.', '2026-11-22T11:01:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('6a91e07986522511d0a23464cd2f7ab85208471b', 'e3d57c165155ea9fd4bf85473a1ab851db475cf0', 'error_codes', 'app_jobs', 'Every SQLSTATE that we raise.', '2026-11-22T11:02:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('6a91e07986522511d0a23464cd2f7ab85208471b', 'require', 'roles', '486923d28f849a8b71314e60b4bf7f79d80225b8');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '6a91e07986522511d0a23464cd2f7ab85208471b', 'error_codes', 'app_jobs', array['roles']::text[], array[]::text[], 'Every SQLSTATE that we raise.', '2026-11-22T11:02:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('a7c9f97ef8cf83edd0f9f01b9d353bb1ac23febf', '5c0db01c73ce193f4f98fcd4812332685b608a98', 'arguments', 'app_jobs', 'Checks that functions share.', '2026-11-22T11:04:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('a7c9f97ef8cf83edd0f9f01b9d353bb1ac23febf', 'require', 'error_codes', '6a91e07986522511d0a23464cd2f7ab85208471b');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', 'a7c9f97ef8cf83edd0f9f01b9d353bb1ac23febf', 'arguments', 'app_jobs', array['error_codes']::text[], array[]::text[], 'Checks that functions share.', '2026-11-22T11:04:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('2096bff60adbadde011a72e21518df982ef27423', '533b8800fe715ba5bc92047e802f80756f89f77a', 'tasks', 'app_jobs', 'Settings per task.', '2026-11-22T11:05:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('2096bff60adbadde011a72e21518df982ef27423', 'require', 'arguments', 'a7c9f97ef8cf83edd0f9f01b9d353bb1ac23febf');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '2096bff60adbadde011a72e21518df982ef27423', 'tasks', 'app_jobs', array['arguments']::text[], array[]::text[], 'Settings per task.', '2026-11-22T11:05:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('b797adf20dc5033da918fb527161066dce250339', '780861dc2771e524d8a3ae937cb84b4eef56ca65', 'jobs', 'app_jobs', 'Every job that is not finished.', '2026-11-22T11:06:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('b797adf20dc5033da918fb527161066dce250339', 'require', 'tasks', '2096bff60adbadde011a72e21518df982ef27423');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', 'b797adf20dc5033da918fb527161066dce250339', 'jobs', 'app_jobs', array['tasks']::text[], array[]::text[], 'Every job that is not finished.', '2026-11-22T11:06:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('05ccc1cc65e337f9e9f3af14657b4e125aeda339', '1d53c0ac81234f1bb6318aabc87fa584d458959c', 'finished_jobs', 'app_jobs', 'History, dead letters and errors.', '2026-11-22T11:07:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('05ccc1cc65e337f9e9f3af14657b4e125aeda339', 'require', 'jobs', 'b797adf20dc5033da918fb527161066dce250339');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '05ccc1cc65e337f9e9f3af14657b4e125aeda339', 'finished_jobs', 'app_jobs', array['jobs']::text[], array[]::text[], 'History, dead letters and errors.', '2026-11-22T11:07:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('948cf8df41848e5ec9381aa34cd140cb4ed45956', 'f92012bb634538f7ede90162dbd6b48376e455d3', 'job_queues', 'app_jobs', 'Settings and a view of named queues.', '2026-11-22T11:08:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('948cf8df41848e5ec9381aa34cd140cb4ed45956', 'require', 'jobs', 'b797adf20dc5033da918fb527161066dce250339');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '948cf8df41848e5ec9381aa34cd140cb4ed45956', 'job_queues', 'app_jobs', array['jobs']::text[], array[]::text[], 'Settings and a view of named queues.', '2026-11-22T11:08:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('64475e67055333f8ec9df3ae2878a7c4c9da3bb5', 'de09056dc4747396b15d50107a86290605e4de98', 'workers', 'app_jobs', 'Processes that run jobs, and how they are woken.', '2026-11-22T11:09:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('64475e67055333f8ec9df3ae2878a7c4c9da3bb5', 'require', 'arguments', 'a7c9f97ef8cf83edd0f9f01b9d353bb1ac23febf');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '64475e67055333f8ec9df3ae2878a7c4c9da3bb5', 'workers', 'app_jobs', array['arguments']::text[], array[]::text[], 'Processes that run jobs, and how they are woken.', '2026-11-22T11:09:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('a65617273c648e2b8ac3e3381d9ff3b0d179de48', 'c559ddf0355e291e4f0735bf231ecc3357065538', 'slots', 'app_jobs', 'Where waiting jobs stand: slots, streams and alarms.', '2026-11-22T11:10:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('a65617273c648e2b8ac3e3381d9ff3b0d179de48', 'require', 'jobs', 'b797adf20dc5033da918fb527161066dce250339');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('a65617273c648e2b8ac3e3381d9ff3b0d179de48', 'require', 'workers', '64475e67055333f8ec9df3ae2878a7c4c9da3bb5');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', 'a65617273c648e2b8ac3e3381d9ff3b0d179de48', 'slots', 'app_jobs', array['jobs', 'workers']::text[], array[]::text[], 'Where waiting jobs stand: slots, streams and alarms.', '2026-11-22T11:10:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('a74a0183eafa79b1dd1378bb90e443c4b01caaa7', '4e6b0b8a71bac01ff5bc7f91b029e600a76b3472', 'lines', 'app_jobs', 'look(): the first jobs of a line, in order, whatever waits in front.', '2026-11-22T11:11:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('a74a0183eafa79b1dd1378bb90e443c4b01caaa7', 'require', 'slots', 'a65617273c648e2b8ac3e3381d9ff3b0d179de48');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', 'a74a0183eafa79b1dd1378bb90e443c4b01caaa7', 'lines', 'app_jobs', array['slots']::text[], array[]::text[], 'look(): the first jobs of a line, in order, whatever waits in front.', '2026-11-22T11:11:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('fb9642835f79e5de0d2c433eb24b4fea94f4401e', 'f47b26b3a2b351df6eae929b107c82ad098c869d', 'queues', 'app_jobs', 'Seats and parking: queues run one or N at a time.', '2026-11-22T11:12:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('fb9642835f79e5de0d2c433eb24b4fea94f4401e', 'require', 'lines', 'a74a0183eafa79b1dd1378bb90e443c4b01caaa7');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('fb9642835f79e5de0d2c433eb24b4fea94f4401e', 'require', 'job_queues', '948cf8df41848e5ec9381aa34cd140cb4ed45956');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', 'fb9642835f79e5de0d2c433eb24b4fea94f4401e', 'queues', 'app_jobs', array['lines', 'job_queues']::text[], array[]::text[], 'Seats and parking: queues run one or N at a time.', '2026-11-22T11:12:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('fe6c7f7b1be14183b2cc898db786dedf8cebd0ef', '31032afcb0453ba63044ec7a9a9aeb08f4f8179f', 'let_go', 'app_jobs', 'What happens to a held job that is not completed.', '2026-11-22T11:13:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('fe6c7f7b1be14183b2cc898db786dedf8cebd0ef', 'require', 'queues', 'fb9642835f79e5de0d2c433eb24b4fea94f4401e');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('fe6c7f7b1be14183b2cc898db786dedf8cebd0ef', 'require', 'finished_jobs', '05ccc1cc65e337f9e9f3af14657b4e125aeda339');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', 'fe6c7f7b1be14183b2cc898db786dedf8cebd0ef', 'let_go', 'app_jobs', array['queues', 'finished_jobs']::text[], array[]::text[], 'What happens to a held job that is not completed.', '2026-11-22T11:13:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('1a8228d1c1588f8cad725681e4a981f52bd2ad90', '7bb3786176dc9c229350ea9e76c75aad3d9a7c1d', 'add_job', 'app_jobs', 'add_job() and find_job().', '2026-11-22T11:14:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('1a8228d1c1588f8cad725681e4a981f52bd2ad90', 'require', 'let_go', 'fe6c7f7b1be14183b2cc898db786dedf8cebd0ef');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '1a8228d1c1588f8cad725681e4a981f52bd2ad90', 'add_job', 'app_jobs', array['let_go']::text[], array[]::text[], 'add_job() and find_job().', '2026-11-22T11:14:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('afb891abcbefde370a9f881c36832e80081acf50', '69e148a28420393f543aa4fd52d3ceb76bcac7dc', 'add_jobs', 'app_jobs', 'add_jobs(): many at once.', '2026-11-22T11:15:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('afb891abcbefde370a9f881c36832e80081acf50', 'require', 'add_job', '1a8228d1c1588f8cad725681e4a981f52bd2ad90');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', 'afb891abcbefde370a9f881c36832e80081acf50', 'add_jobs', 'app_jobs', array['add_job']::text[], array[]::text[], 'add_jobs(): many at once.', '2026-11-22T11:15:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('1f25712c532ce59ad2628d7133358f66a41f5258', 'b1ca045904648277d9ce5c29e0ce19e4ad7e7de9', 'triggers', 'app_jobs', 'Triggers that add jobs for rows.', '2026-11-22T11:16:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('1f25712c532ce59ad2628d7133358f66a41f5258', 'require', 'add_jobs', 'afb891abcbefde370a9f881c36832e80081acf50');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '1f25712c532ce59ad2628d7133358f66a41f5258', 'triggers', 'app_jobs', array['add_jobs']::text[], array[]::text[], 'Triggers that add jobs for rows.', '2026-11-22T11:16:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('3fc9ca1e816bf49e5b5c9dcefd790b5048e4e6e1', '76e566320ca49d227801d8dac14f113029a4e4e4', 'cancel_job', 'app_jobs', 'cancel_job() by key.', '2026-11-22T11:17:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('3fc9ca1e816bf49e5b5c9dcefd790b5048e4e6e1', 'require', 'add_jobs', 'afb891abcbefde370a9f881c36832e80081acf50');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '3fc9ca1e816bf49e5b5c9dcefd790b5048e4e6e1', 'cancel_job', 'app_jobs', array['add_jobs']::text[], array[]::text[], 'cancel_job() by key.', '2026-11-22T11:17:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('5eacb58f6e20e21b740e8a1c44674d03e7b8e376', 'a60a1caf610563f26bb68e12b05493107036f72d', 'tick', 'app_jobs', 'tick(): what must be done about once a second.', '2026-11-22T11:18:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('5eacb58f6e20e21b740e8a1c44674d03e7b8e376', 'require', 'cancel_job', '3fc9ca1e816bf49e5b5c9dcefd790b5048e4e6e1');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '5eacb58f6e20e21b740e8a1c44674d03e7b8e376', 'tick', 'app_jobs', array['cancel_job']::text[], array[]::text[], 'tick(): what must be done about once a second.', '2026-11-22T11:18:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('625532f947c17d2c015ba95cd849bdbe2fb54319', 'ef7cb94aaa7996edaa73561389e8adcf7c2aa0ff', 'get_jobs', 'app_jobs', 'get_job() and get_jobs(): the claim.', '2026-11-22T11:19:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('625532f947c17d2c015ba95cd849bdbe2fb54319', 'require', 'tick', '5eacb58f6e20e21b740e8a1c44674d03e7b8e376');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '625532f947c17d2c015ba95cd849bdbe2fb54319', 'get_jobs', 'app_jobs', array['tick']::text[], array[]::text[], 'get_job() and get_jobs(): the claim.', '2026-11-22T11:19:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('a235aea92e5ebcc6edc4e5009f65c9f5e395237d', 'f303335a018484cd50361025637223c779d91378', 'complete_jobs', 'app_jobs', 'complete_job() and complete_jobs().', '2026-11-22T11:20:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('a235aea92e5ebcc6edc4e5009f65c9f5e395237d', 'require', 'get_jobs', '625532f947c17d2c015ba95cd849bdbe2fb54319');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', 'a235aea92e5ebcc6edc4e5009f65c9f5e395237d', 'complete_jobs', 'app_jobs', array['get_jobs']::text[], array[]::text[], 'complete_job() and complete_jobs().', '2026-11-22T11:20:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('e296028b137e066727dd2400e9e841f28f8e7e1a', 'edc13a7ba357d3f7fe35d8a7588f8d8ffa501ceb', 'fail_jobs', 'app_jobs', 'fail_job() and fail_jobs().', '2026-11-22T11:21:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('e296028b137e066727dd2400e9e841f28f8e7e1a', 'require', 'complete_jobs', 'a235aea92e5ebcc6edc4e5009f65c9f5e395237d');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', 'e296028b137e066727dd2400e9e841f28f8e7e1a', 'fail_jobs', 'app_jobs', array['complete_jobs']::text[], array[]::text[], 'fail_job() and fail_jobs().', '2026-11-22T11:21:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('8d694f2736231d747db449eda1b300edc092a5c9', '19c3ddef5c7eeee2fbdd03a3c62a65906fab14f9', 'snooze_job', 'app_jobs', 'snooze_job().', '2026-11-22T11:22:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('8d694f2736231d747db449eda1b300edc092a5c9', 'require', 'fail_jobs', 'e296028b137e066727dd2400e9e841f28f8e7e1a');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '8d694f2736231d747db449eda1b300edc092a5c9', 'snooze_job', 'app_jobs', array['fail_jobs']::text[], array[]::text[], 'snooze_job().', '2026-11-22T11:22:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('7a44c7e3e9021b7cfd1a52a7f463fd7d4d6bb47c', '72de73929ef37ae5f4d3d0bcf9e47d7529902e01', 'heartbeat', 'app_jobs', 'heartbeat(): renew leases.', '2026-11-22T11:23:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('7a44c7e3e9021b7cfd1a52a7f463fd7d4d6bb47c', 'require', 'snooze_job', '8d694f2736231d747db449eda1b300edc092a5c9');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', '7a44c7e3e9021b7cfd1a52a7f463fd7d4d6bb47c', 'heartbeat', 'app_jobs', array['snooze_job']::text[], array[]::text[], 'heartbeat(): renew leases.', '2026-11-22T11:23:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('f30851632d074551de24d94813b9c7991bd14ce0', '3d748a70f4a5881e2ac9af155a9eda10ac8f98ed', 'release_jobs', 'app_jobs', 'release_jobs(): give all back.', '2026-11-22T11:24:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('f30851632d074551de24d94813b9c7991bd14ce0', 'require', 'heartbeat', '7a44c7e3e9021b7cfd1a52a7f463fd7d4d6bb47c');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', 'f30851632d074551de24d94813b9c7991bd14ce0', 'release_jobs', 'app_jobs', array['heartbeat']::text[], array[]::text[], 'release_jobs(): give all back.', '2026-11-22T11:24:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

insert into sqitch.changes (change_id, script_hash, change, project, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('ac447cf45ad3285f598542706402499c8d3df380', 'a34ebdaca4e7a957d8a896df5c50418d032e0f22', 'version', 'app_jobs', 'version(): all of the above is there.', '2026-11-22T13:00:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');
insert into sqitch.dependencies (change_id, type, dependency, dependency_id)
values ('ac447cf45ad3285f598542706402499c8d3df380', 'require', 'roles', '486923d28f849a8b71314e60b4bf7f79d80225b8');
insert into sqitch.events (event, change_id, change, project, requires, tags, note, planned_at, planner_name, planner_email, committer_name, committer_email)
values ('deploy', 'ac447cf45ad3285f598542706402499c8d3df380', 'version', 'app_jobs', array['roles']::text[], array[]::text[], 'version(): all of the above is there.', '2026-11-22T13:00:00Z', 'app_jobs contributors', 'app_jobs@localhost', current_user, current_user || '@localhost');

commit;
