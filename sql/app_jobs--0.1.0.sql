-- Made by `make generate`: do not edit.
\echo Use "CREATE EXTENSION app_jobs" to load this file. \quit

-- Every function names the schema in its text, so the text is rendered before it is run.

-- the lock that Sqitch and the migrator take between deployers
do $$
begin
    perform pg_advisory_xact_lock(75474063);
end;
$$;

do $$
declare
    v_schema constant text := case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end;
begin
    if '@extschema@' = 'public' and to_regnamespace('app_jobs') is null then
        create schema app_jobs;
    elsif '@extschema@' !~ '^(?!pg_)[a-z_][a-z0-9_]{0,39}$' then
        raise exception 'schema % cannot be that of app_jobs', '@extschema@'
            using errcode = '22023',
                hint = 'Its name has up to 40 lower-case letters, digits and underscores.';
    elsif '@extschema@' = 'public' or exists (
        select from pg_depend as d
        where
            d.refclassid = 'pg_namespace'::regclass
            and d.refobjid = to_regnamespace('@extschema@')
            and d.classid <> 'pg_extension'::regclass
    ) then
        raise exception 'schema "%" exists and was not made by this extension', v_schema
            using errcode = 'JQ091',
                hint = 'A deployed job queue is upgraded with `app-jobs migrate` or `make deploy`. '
                    'Beside a schema of somebody else: CREATE SCHEMA jobs; '
                    'CREATE EXTENSION app_jobs SCHEMA jobs.';
    end if;
end;
$$;

do $do$
begin
    execute replace($script$
revoke all on schema app_jobs from public;

comment on schema app_jobs is
'A job queue. Producers call add_job(), workers get_jobs() and complete_jobs(); \df+ app_jobs.* is
the manual.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
('55P03', 'lock_not_available', 'another program holds an advisory lock of app_jobs'),
('JQ001', 'unknown_job', 'no job, or no schedule, has this id'),
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
    -- the upper bound: a sum with any time of check_time() is a time
    if check_positive.value <= interval '0' or check_positive.value > interval '100 years' then
        raise exception '% is %', check_positive.argument, check_positive.value
            using errcode = '22023',
                hint = 'Give a positive interval of up to 100 years, like ''1 minute''.';
    end if;
end;
$$;

create function app_jobs.check_delay(argument text, value interval) returns void
language plpgsql
immutable
as $$
begin
    if check_delay.value < interval '0' or check_delay.value > interval '100 years' then
        raise exception '% is %', check_delay.argument, check_delay.value
            using errcode = '22023',
                hint = 'Give an interval from 0 to 100 years, like ''1 minute''.';
    end if;
end;
$$;

create function app_jobs.check_time(argument text, value timestamptz) returns void
language plpgsql
immutable
as $$
begin
    -- what is beyond cannot be subtracted from now, or cannot be read by clients
    if check_time.value < '1900-01-01 00:00+00' or check_time.value >= '9999-01-01 00:00+00' then
        raise exception '% is %', check_time.argument, check_time.value
            using errcode = '22023', hint = 'Give a time in the years 1900 to 9998.';
    end if;
end;
$$;

create function app_jobs.check_sizes(payload json, attributes jsonb) returns void
language plpgsql
immutable
as $$
begin
    -- Neither is read for this. A row of a gigabyte could be stored, but never sent to a worker, and
    -- would stand in front of all others.
    if octet_length(check_sizes.payload::text) > 67108864 then
        raise exception 'payload has % bytes', octet_length(check_sizes.payload::text)
            using errcode = '22023',
                hint = 'It takes 64 MB: keep large things elsewhere, and send where they are.';
    elsif pg_column_size(check_sizes.attributes) > 1048576 then
        raise exception 'attributes has % bytes', pg_column_size(check_sizes.attributes)
            using errcode = '22023',
                hint = 'It takes 1 MB: keep large things elsewhere, and note where they are.';
    end if;
end;
$$;

create function app_jobs.check_objects(argument text, value json, hint text) returns void
language plpgsql
immutable
as $$
declare
    v_type text := json_typeof(check_objects.value);
    v_index bigint;
begin
    perform app_jobs.check_not_null(
        check_objects.argument, check_objects.value is null, check_objects.hint
    );
    if v_type = 'array' then
        select json_typeof(e.item), e.n - 1 into v_type, v_index
        from json_array_elements(check_objects.value) with ordinality as e(item, n)
        where json_typeof(e.item) <> 'object'
        limit 1;
        if not found then
            return;
        end if;
    end if;
    raise exception '% is of type %', check_objects.argument || coalesce('[' || v_index || ']', ''),
        v_type
        using errcode = '22023', hint = check_objects.hint;
end;
$$;

create function app_jobs.check_job(
    identifier text, job_key text, queue_name text, max_attempts integer, retry_after interval,
    run_at timestamptz
) returns void
language plpgsql
immutable
as $$
begin
    -- in one statement: to begin one costs more than all of this
    perform
        app_jobs.check_not_null(
            'identifier', check_job.identifier is null, 'Name the task to run, 1 to 126 characters.'
        ),
        app_jobs.check_length('identifier', check_job.identifier, 126),
        app_jobs.check_length('job_key', check_job.job_key, 512),
        app_jobs.check_length('queue_name', check_job.queue_name, 200),
        app_jobs.check_positive('retry_after', check_job.retry_after),
        app_jobs.check_time('run_at', check_job.run_at);
    if check_job.max_attempts < 1 then
        raise exception 'max_attempts is %', check_job.max_attempts
            using errcode = '22023',
                hint = 'Give at least 1, or leave it out for the task''s default.';
    end if;
end;
$$;

-- The same limits as types, for what is read from JSON by the thousand.
create domain app_jobs.task_name as text
constraint task_name_length check (char_length(value) between 1 and 126);
create domain app_jobs.queue_name as text
constraint queue_name_length check (char_length(value) between 1 and 200);
create domain app_jobs.job_payload as json
constraint job_payload_size check (octet_length(value::text) <= 67108864);
create domain app_jobs.job_attributes as jsonb
constraint job_attributes_size check (pg_column_size(value) <= 1048576);
create domain app_jobs.due_time as timestamptz
constraint due_time_in_range check (
    value >= '1900-01-01 00:00+00' and value < '9999-01-01 00:00+00'
);
create domain app_jobs.lease_term as interval
constraint lease_term_in_range check (value > interval '0' and value <= interval '100 years');
create domain app_jobs.attempt_limit as integer
constraint attempt_limit_positive check (value >= 1);

revoke all on type app_jobs.task_name from public;
revoke all on type app_jobs.queue_name from public;
revoke all on type app_jobs.job_payload from public;
revoke all on type app_jobs.job_attributes from public;
revoke all on type app_jobs.due_time from public;
revoke all on type app_jobs.lease_term from public;
revoke all on type app_jobs.attempt_limit from public;
revoke all on function app_jobs.check_worker_id(text) from public;
revoke all on function app_jobs.check_not_null(text, boolean, text) from public;
revoke all on function app_jobs.check_length(text, text, integer) from public;
revoke all on function app_jobs.check_positive(text, interval) from public;
revoke all on function app_jobs.check_delay(text, interval) from public;
revoke all on function app_jobs.check_time(text, timestamptz) from public;
revoke all on function app_jobs.check_objects(text, json, text) from public;
revoke all on function app_jobs.check_sizes(json, jsonb) from public;
revoke all on function app_jobs.check_job(
    text, text, text, integer, interval, timestamptz
) from public;

comment on domain app_jobs.task_name is 'Names a task, 1 to 126 characters.';
comment on domain app_jobs.queue_name is 'Names a queue, 1 to 200 characters.';
comment on domain app_jobs.job_payload is 'What a job is run with, up to 64 MB.';
comment on domain app_jobs.job_attributes is 'Metadata of a job, up to 1 MB.';
comment on domain app_jobs.due_time is 'When a job is due, in the years 1900 to 9998.';
comment on domain app_jobs.lease_term is 'How long a lease lasts: positive, up to 100 years.';
comment on domain app_jobs.attempt_limit is 'How often a job is run at most, 1 or more.';
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
'Refuse an interval that is not positive, or longer than 100 years; null passes.

argument  its name, for the message
value     the interval

Errors: 22023. Roles: internal.';
comment on function app_jobs.check_delay(text, interval) is
'Refuse an interval that is negative, or longer than 100 years; null passes.

argument  its name, for the message
value     the interval

Errors: 22023. Roles: internal.';
comment on function app_jobs.check_time(text, timestamptz) is
'Refuse a time outside of the years 1900 to 9998; null passes.

argument  its name, for the message
value     the time

Errors: 22023. Roles: internal.';
comment on function app_jobs.check_sizes(json, jsonb) is
'Refuse a payload of more than 64 MB, or attributes of more than 1 MB; null passes.

payload     a job''s
attributes  a job''s

Errors: 22023. Roles: internal.';
comment on function app_jobs.check_objects(text, json, text) is
'Refuse what is no array of objects.

argument  its name, for the message
value     the array
hint      what to give instead

Errors: 22004, 22023. Roles: internal.';
comment on function app_jobs.check_job(text, text, text, integer, interval, timestamptz) is
'Refuse what cannot stand in a job: the checks that add_job() and add_jobs() share.

identifier    1 to 126 characters, not null
job_key       up to 512 characters, or null
queue_name    up to 200 characters, or null
max_attempts  1 or more, or null
retry_after   positive, up to 100 years, or null
run_at        in the years 1900 to 9998, or null

Errors: 22004, 22023. Roles: internal.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
    has_effects boolean not null default false,
    -- A job gets a second entry when it is claimed: with room for it on its page nothing has to be
    -- split, merged or cleaned up there.
    constraint jobs_pkey primary key (id) with (fillfactor = 50, deduplicate_items = off),
    -- With a time that nobody can reckon with all claims would fail. The other limits of single
    -- columns are left to functions: PostgreSQL reads and plans constraints anew in each statement.
    constraint jobs_retry_after_in_range check (
        retry_after > interval '0' and retry_after <= interval '100 years'
    ),
    constraint jobs_run_at_in_range check (
        run_at >= '1900-01-01 00:00+00' and run_at < '9999-01-01 00:00+00'
    ),
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

create index jobs_processing on app_jobs.jobs (
    locked_at
) where locked_by is not null and lease_expires_at is null;

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
comment on column app_jobs.jobs.has_effects is 'Internal: may have rows in effects, which go when it goes.';
comment on constraint jobs_held_out_of_line on app_jobs.jobs is 'A held job stands in no line: never two holders.';
comment on constraint jobs_seat_is_held on app_jobs.jobs is 'Only a held job of a queue sits on a seat.';
comment on constraint jobs_held_since on app_jobs.jobs is 'Held by somebody means held since some time.';
comment on constraint jobs_lease_is_held on app_jobs.jobs is 'A lease has a holder.';
comment on index app_jobs.jobs_line is 'The ready and parked lines, slot by slot; the task comes last so that others'' jobs are passed within the index.';
comment on index app_jobs.jobs_scheduled is 'Jobs that wait for their time, slot by slot.';
comment on index app_jobs.jobs_leased is 'Leases, slot by slot.';
comment on index app_jobs.jobs_processing is 'To count held jobs without a lease.';
comment on index app_jobs.jobs_seats is 'Seats taken, slot by slot: two claims that race for one seat meet here.';
comment on index app_jobs.jobs_key is 'One live job per key, without tenant (a null tenant would make a plain unique index enforce nothing).';
comment on index app_jobs.jobs_tenant_key is 'One live job per tenant and key.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
) with (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 10000
);

create index finished_jobs_key on app_jobs.finished_jobs (key, database_id) where key is not null;
create index finished_jobs_keep_until on app_jobs.finished_jobs (keep_until);
create index finished_jobs_finished_at on app_jobs.finished_jobs (finished_at);
create index finished_jobs_failed on app_jobs.finished_jobs (
    finished_at
) where state = 'failed';

create table app_jobs.job_errors (
    job_id bigint not null,
    lease integer not null,
    attempt integer not null,
    worker_id text,
    failed_at timestamptz not null default clock_timestamp(),
    error_message text,
    detail text,
    constraint job_errors_pkey primary key (job_id, lease)
) with (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 10000
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
comment on index app_jobs.finished_jobs_keep_until is 'To prune what is over its time.';
comment on index app_jobs.finished_jobs_finished_at is 'To prune by age, and to look at the latest.';
comment on index app_jobs.finished_jobs_failed is 'To count what has failed of late.';
comment on table app_jobs.job_errors is
'One row per failed attempt, kept as long as its job is, live or finished.';
comment on column app_jobs.job_errors.job_id is 'The job.';
comment on column app_jobs.job_errors.lease is 'The claim that failed.';
comment on column app_jobs.job_errors.attempt is 'Which attempt it was.';
comment on column app_jobs.job_errors.worker_id is 'Who held it.';
comment on column app_jobs.job_errors.failed_at is 'When the failure was reported, or the lease found expired.';
comment on column app_jobs.job_errors.error_message is 'What the worker said.';
comment on column app_jobs.job_errors.detail is 'More of it: a stack trace, say.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:effects to pg
-- requires: finished_jobs

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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:job_queues to pg
-- requires: jobs

set local lock_timeout = '5s';

-- Who reads the view needs the right to what it calls, so queue_line() stands here in full.
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

grant select on app_jobs.queue_settings to app_jobs_operator;
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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

create function app_jobs.idle_peers(worker_id text) returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform app_jobs.check_worker_id(idle_peers.worker_id);
    return (
        select count(*)
        from app_jobs.workers as w
        inner join app_jobs.workers as me on me.worker_id = idle_peers.worker_id
        where
            w.idle
            and w.last_seen_at > clock_timestamp() - interval '1 minute'
            and w.task_identifiers is not distinct from me.task_identifiers
    );
end;
$$;

revoke all on function app_jobs.wake_workers() from public;
revoke all on function app_jobs.register_worker(text, text, integer, text[]) from public;
revoke all on function app_jobs.set_worker_idle(text, boolean) from public;
revoke all on function app_jobs.idle_peers(text) from public;
grant execute on function app_jobs.register_worker(text, text, integer, text[]) to app_jobs_worker;
grant execute on function app_jobs.set_worker_idle(text, boolean) to app_jobs_worker;
grant execute on function app_jobs.idle_peers(text) to app_jobs_worker;
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

comment on function app_jobs.idle_peers(text) is
'How many workers wait to be woken for the same tasks, this one included. The more they are, the less
often each has to look for jobs by itself.

worker_id  the worker

Returns: those that were seen within a minute; 0 if it is unknown or none is idle. Errors: 22004,
22023. Locks: none. Roles: app_jobs_worker.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:counts to pg
-- requires: jobs

set local lock_timeout = '5s';

create table app_jobs.slot_counts (
    slot integer not null,
    state text collate "C" not null,
    task_identifier text collate "C" not null,
    queue_line text collate "C" not null,
    jobs bigint not null,
    oldest timestamptz not null,
    constraint slot_counts_pkey primary key (slot, state, task_identifier, queue_line),
    constraint slot_counts_state_known check (state in ('ready', 'parked', 'scheduled'))
);
create index slot_counts_oldest on app_jobs.slot_counts (
    task_identifier, queue_line, oldest
) where state = 'ready';

-- Differences, not a row per group that is written again and again: whoever counts waits for
-- nobody.
create table app_jobs.totals (
    id bigint generated always as identity,
    state text collate "C" not null,
    task_identifier text collate "C" not null,
    queue_line text collate "C" not null,
    jobs bigint not null,
    merged boolean not null default false,
    constraint totals_pkey primary key (id)
);
create index totals_merged on app_jobs.totals (merged, state, task_identifier, queue_line);

-- The slot that was counted again last, and when: seconds since 1970.
create sequence app_jobs.counted_to as integer minvalue -2147483648 start -2147483648;
create sequence app_jobs.counted_at minvalue 0 start 0;
select
    setval('app_jobs.counted_to', -2147483648),
    setval('app_jobs.counted_at', 0);

create function app_jobs.groups_at_most() returns integer
language sql
immutable
as $$
    select 50
$$;

create function app_jobs.waiting_in(slot integer)
returns table (state text, task_identifier text, queue_line text, jobs bigint, oldest timestamptz)
language sql
stable
as $$
    select
        w.state, w.task_identifier,
        app_jobs.queue_line(w.database_id, coalesce(w.queue_name, '')), w.jobs, w.oldest
    from (
        select
            case when j.line = '' then 'ready' else 'parked' end as state,
            j.task_identifier, j.database_id, j.queue_name, count(*) as jobs, min(j.run_at) as oldest
        from app_jobs.jobs as j
        where j.slot = waiting_in.slot and j.line is not null
        group by 1, 2, 3, 4
        union all
        select
            'scheduled', j.task_identifier, j.database_id, j.queue_name, count(*), min(j.run_at)
        from app_jobs.jobs as j
        where j.slot = waiting_in.slot and j.line is null and j.locked_by is null
        group by 1, 2, 3, 4
    ) as w
$$;

create function app_jobs.note_counts(counts app_jobs.slot_counts[]) returns void
language plpgsql
volatile
as $$
begin
    with noted as (
        insert into app_jobs.slot_counts as c (
            slot, state, task_identifier, queue_line, jobs, oldest
        )
        select n.slot, n.state, n.task_identifier, n.queue_line, n.jobs, n.oldest
        from unnest(note_counts.counts) as n
        -- in a slot that a sweep had listed again, and only if another session is counting there
        on conflict on constraint slot_counts_pkey do nothing
        returning c.state, c.task_identifier, c.queue_line, c.jobs
    )

    insert into app_jobs.totals (state, task_identifier, queue_line, jobs)
    select n.state, n.task_identifier, n.queue_line, sum(n.jobs)
    from noted as n
    group by n.state, n.task_identifier, n.queue_line;
end;
$$;

create function app_jobs.forget_counts(
    slots integer[], state text, tasks text[], queue_line text
) returns void
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    with gone as (
        delete from app_jobs.slot_counts as c
        where c.ctid = any(array(
            select f.ctid
            from app_jobs.slot_counts as f
            where
                f.slot = any(forget_counts.slots)
                and f.state = coalesce(forget_counts.state, f.state)
                and (
                    forget_counts.tasks is null or f.task_identifier = any(forget_counts.tasks)
                )
                and f.queue_line = coalesce(forget_counts.queue_line, f.queue_line)
            for update skip locked
        ))
        returning c.state, c.task_identifier, c.queue_line, c.jobs
    )

    insert into app_jobs.totals (state, task_identifier, queue_line, jobs)
    select g.state, g.task_identifier, g.queue_line, -sum(g.jobs)
    from gone as g
    group by g.state, g.task_identifier, g.queue_line;
end;
$$;

create function app_jobs.count_again(slots integer) returns integer
language plpgsql
volatile
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
-- keep_house() has it off: a slot may have hundreds of groups
set enable_hashjoin = on
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_from constant integer := pg_sequence_last_value('app_jobs.counted_to');
    v_slots integer[];
begin
    v_slots := array(
        with recursive counted(slot) as (
            (
                select c.slot from app_jobs.slot_counts as c
                where v_from is null or c.slot > v_from
                order by c.slot limit 1
            )
            union all
            select (
                select c.slot from app_jobs.slot_counts as c where c.slot > n.slot
                order by c.slot limit 1
            )
            from counted as n
            where n.slot is not null
        )

        select n.slot from counted as n where n.slot is not null limit count_again.slots
    );
    -- at the end: from the start, next time
    perform setval('app_jobs.counted_to', case
        when cardinality(v_slots) < count_again.slots then -2147483648
        else v_slots[count_again.slots]
    end);

    -- A closed slot only loses jobs, so its groups only shrink. Counts that another session is
    -- changing are left to it.
    with counted as materialized (
        select c.slot, c.state, c.task_identifier, c.queue_line, c.jobs
        from app_jobs.slot_counts as c
        where c.slot = any(v_slots)
        for update skip locked
    ),

    waiting as materialized (
        select s.slot, w.state, w.task_identifier, w.queue_line, w.jobs, w.oldest
        from unnest(v_slots) as s(slot)
        cross join lateral app_jobs.waiting_in(s.slot) as w
    ),

    fresh as materialized (
        select
            c.slot, c.state, c.task_identifier, c.queue_line, c.jobs as noted,
            coalesce(sum(w.jobs), 0) as jobs, min(w.oldest) as oldest
        from counted as c
        left join waiting as w
            on
                w.slot = c.slot
                and w.state = c.state
                and w.task_identifier = c.task_identifier
                and c.queue_line in ('*', w.queue_line)
        group by c.slot, c.state, c.task_identifier, c.queue_line, c.jobs
    ),

    emptied as (
        delete from app_jobs.slot_counts as c
        using fresh as f
        where
            (c.slot, c.state, c.task_identifier, c.queue_line)
            = (f.slot, f.state, f.task_identifier, f.queue_line)
            and f.jobs = 0
    ),

    changed as (
        update app_jobs.slot_counts as c
        set jobs = f.jobs, oldest = f.oldest
        from fresh as f
        where
            (c.slot, c.state, c.task_identifier, c.queue_line)
            = (f.slot, f.state, f.task_identifier, f.queue_line)
            and f.jobs > 0
            and (f.jobs, f.oldest) is distinct from (c.jobs, c.oldest)
    )

    insert into app_jobs.totals (state, task_identifier, queue_line, jobs)
    select f.state, f.task_identifier, f.queue_line, sum(f.jobs - f.noted)
    from fresh as f
    group by f.state, f.task_identifier, f.queue_line
    having sum(f.jobs - f.noted) <> 0;

    -- what others have noted since, added up
    with noted as materialized (
        select t.id, t.state, t.task_identifier, t.queue_line
        from app_jobs.totals as t
        where not t.merged
        order by t.state, t.task_identifier, t.queue_line
        limit 1000
        for update skip locked
    ),

    added_up as (
        delete from app_jobs.totals as t
        where t.id = any(array(
            select n.id from noted as n
            union all
            select m.id
            from (select distinct n.state, n.task_identifier, n.queue_line from noted as n) as g
            cross join lateral (
                select s.id
                from app_jobs.totals as s
                where
                    s.merged
                    and s.state = g.state
                    and s.task_identifier = g.task_identifier
                    and s.queue_line = g.queue_line
                for update skip locked
            ) as m
        ))
        returning t.state, t.task_identifier, t.queue_line, t.jobs
    )

    insert into app_jobs.totals (state, task_identifier, queue_line, jobs, merged)
    select a.state, a.task_identifier, a.queue_line, sum(a.jobs), true
    from added_up as a
    group by a.state, a.task_identifier, a.queue_line
    having sum(a.jobs) <> 0;
    return cardinality(v_slots);
end;
$$;

revoke all on function app_jobs.groups_at_most() from public;
revoke all on function app_jobs.waiting_in(integer) from public;
revoke all on function app_jobs.note_counts(app_jobs.slot_counts[]) from public;
revoke all on function app_jobs.forget_counts(integer[], text, text[], text) from public;
revoke all on function app_jobs.count_again(integer) from public;

comment on table app_jobs.slot_counts is
'Jobs that wait in closed slots, as of the last count: never too few, since a closed slot only
loses jobs.';
comment on column app_jobs.slot_counts.slot is 'A closed slot.';
comment on column app_jobs.slot_counts.state is 'ready, parked or scheduled.';
comment on column app_jobs.slot_counts.task_identifier is 'Task.';
comment on column app_jobs.slot_counts.queue_line is 'Tenant, colon, queue, each empty if there is none; *: more than 50 of them, counted as one.';
comment on column app_jobs.slot_counts.jobs is 'How many.';
comment on column app_jobs.slot_counts.oldest is 'Their lowest run_at.';
comment on index app_jobs.slot_counts_oldest is 'To find what is ready longest.';
comment on table app_jobs.totals is
'Sums of slot_counts over all slots. Several rows of one group are to be added up: each change of
slot_counts adds its difference, and tick() merges.';
comment on column app_jobs.totals.id is 'Number.';
comment on column app_jobs.totals.state is 'As in slot_counts, like the next two columns.';
comment on column app_jobs.totals.task_identifier is 'Task.';
comment on column app_jobs.totals.queue_line is 'Tenant and queue.';
comment on column app_jobs.totals.jobs is 'How many; less than zero for those that went.';
comment on column app_jobs.totals.merged is 'Added up by tick().';
comment on index app_jobs.totals_merged is 'To find what is to be merged, and with what.';
comment on sequence app_jobs.counted_to is 'The closed slot that tick() has counted again last.';
comment on sequence app_jobs.counted_at is 'When tick() has done so: seconds since 1970.';
comment on function app_jobs.groups_at_most() is
'Say how many tenants and queues of a task in one slot are counted each. If there are more, they
are counted as one, or there would be more to count than to run.

Returns: 50. Roles: internal.';
comment on function app_jobs.waiting_in(integer) is
'Count the jobs of a slot that wait.

slot  an open or closed slot

Returns: a row per state, task, tenant and queue, with the lowest run_at. Roles: internal; the
caller pins the plans.';
comment on function app_jobs.note_counts(app_jobs.slot_counts[]) is
'Note how many jobs wait in slots that nobody can enter any more.

counts  a row per slot, state, task, and tenant and queue or * for all of them

Roles: internal.';
comment on function app_jobs.forget_counts(integer[], text, text[], text) is
'Forget counts of closed slots in which nothing is left.

slots       the slots
state       ready, parked or scheduled; null: all
tasks       tasks; null: all
queue_line  tenant and queue; null: all

Locks: counts, skipping locked ones. Roles: internal; the caller pins the plans.';
comment on function app_jobs.count_again(integer) is
'Count what is left in the next few closed slots, in turn, and merge totals.

slots  slots at most

Returns: slots counted. Locks: counts and totals, skipping locked ones. Roles: internal; READ
COMMITTED only.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:slots to pg
-- requires: counts
-- requires: workers

set local lock_timeout = '5s';

-- Sequences are read and written in place, outside of MVCC: a transaction in REPEATABLE READ sees
-- them as they are.
create sequence app_jobs.slot_number as integer start 2;
create sequence app_jobs.slot_current as integer;
create sequence app_jobs.slot_first as integer minvalue 0;
create sequence app_jobs.activity minvalue 0;
select
    setval('app_jobs.slot_current', 1),
    setval('app_jobs.slot_first', 0),
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
    constraint alarms_kind_known check (kind in ('run', 'lease', 'schedule'))
);
create index alarms_due on app_jobs.alarms (kind, due_at);

create function app_jobs.lock_key(kind text, name text) returns bigint
language sql
immutable
parallel safe
as $$
    select hashtextextended('app_jobs ' || kind || ' ' || name, 0)
$$;

create index streams_parked on app_jobs.streams (
    app_jobs.lock_key('queue', line), task_identifier
) where line > '$';

create function app_jobs.seat_line(queue_line text) returns text
language sql
immutable
parallel safe
as $$
    select '#' || queue_line
$$;

create function app_jobs.first_slot() returns integer
language sql
volatile
as $$
    -- a snapshot of long ago has slots open that were closed since
    select case current_setting('transaction_isolation')
        when 'read committed'
            then coalesce(pg_sequence_last_value('app_jobs.slot_first'), 0)::integer
        else 0
    end
$$;

create function app_jobs.find_first_slot() returns integer
language sql
volatile
as $$
    -- Not where this transaction may have closed some: to others they are open till it commits.
    select case
        when pg_current_xact_id_if_assigned() is null
            then
                setval('app_jobs.slot_first', (select min(o.slot) from app_jobs.open_slots as o))
                ::integer
    end
$$;

create function app_jobs.enter_slot() returns integer
language plpgsql
volatile
as $$
declare
    c_refusals constant integer := 100;
    c_pause constant double precision := 0.05;
    v_slot integer;
    v_refused integer := 0;
begin
    loop
        v_slot := pg_sequence_last_value('app_jobs.slot_current');
        if v_slot is null then
            raise exception 'sequence app_jobs.slot_current has no value'
                using errcode = 'JQ090',
                    hint = 'It was not restored with the tables. Call app_jobs.sweep().';
        end if;
        -- We take the exclusive lock only on a slot that is not current any more, so a lock that
        -- cannot be had and a slot that has moved on mean the same: look again. Nobody waits.
        if pg_try_advisory_xact_lock_shared(app_jobs.lock_key('slot', v_slot::text))
            and v_slot = pg_sequence_last_value('app_jobs.slot_current')
        then
            return v_slot;
        end if;
        -- Still current, and refused: somebody else has taken it.
        if v_slot = pg_sequence_last_value('app_jobs.slot_current') then
            v_refused := v_refused + 1;
            if v_refused = c_refusals then
                raise exception 'another session keeps slot % locked exclusively', v_slot
                    using errcode = '55P03',
                        detail = 'Nothing of app_jobs locks the current slot so.',
                        hint = format(
                            'Let go of advisory lock %s, and try again: pg_locks shows who has it.',
                            app_jobs.lock_key('slot', v_slot::text)
                        );
            end if;
            perform pg_sleep(c_pause);
        end if;
    end loop;
end;
$$;

create function app_jobs.note_arrivals(jobs integer) returns bigint
language sql
volatile
as $$
    -- two sessions may lose a count to each other: it only says when to open a new slot
    select setval('app_jobs.activity', pg_sequence_last_value('app_jobs.activity') + jobs)
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
    perform app_jobs.forget_counts(array[close_slot.slot], null, null, null);

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
    having count(*) > 0
    union all
    select close_slot.slot, 'schedule', min(s.due_at)
    from app_jobs.scheduled_jobs as s
    where s.slot = close_slot.slot and s.due_at is not null
    having count(*) > 0;

    perform app_jobs.note_counts(array(
        select row(
            close_slot.slot, w.state, w.task_identifier, w.queue_line, sum(w.jobs), min(w.oldest)
        )::app_jobs.slot_counts
        from (
            select
                c.state, c.task_identifier, c.jobs, c.oldest,
                case
                    when count(*) over (partition by c.state, c.task_identifier)
                        > app_jobs.groups_at_most() then '*'
                    else c.queue_line
                end as queue_line
            from app_jobs.waiting_in(close_slot.slot) as c
        ) as w
        group by w.state, w.task_identifier, w.queue_line
    ));

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
    v_first constant integer := app_jobs.first_slot();
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
        select o.slot
        from app_jobs.open_slots as o
        where o.slot >= v_first and o.slot < v_current
        order by o.slot
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
revoke all on function app_jobs.first_slot() from public;
revoke all on function app_jobs.find_first_slot() from public;
revoke all on function app_jobs.enter_slot() from public;
revoke all on function app_jobs.note_arrivals(integer) from public;
revoke all on function app_jobs.close_slot(integer) from public;
revoke all on function app_jobs.turn_slots() from public;

comment on sequence app_jobs.slot_number is 'Names slots.';
comment on sequence app_jobs.slot_current is 'The slot that jobs enter now.';
comment on sequence app_jobs.slot_first is 'No slot below it is open.';
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
comment on index app_jobs.streams_parked is 'For queues with parked jobs to take turns in tick(). The lines of seats come before ''$''.';
comment on table app_jobs.alarms is
'What falls due in closed slots: nothing before due_at.';
comment on column app_jobs.alarms.slot is 'A closed slot.';
comment on column app_jobs.alarms.kind is 'run: scheduled jobs; lease: leases that end; schedule: schedules.';
comment on column app_jobs.alarms.due_at is 'Lower bound of run_at, lease_expires_at or scheduled_jobs.due_at.';
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
comment on function app_jobs.first_slot() is
'Say from which slot on there may be open ones. The rows of those before are gone, but where an old
snapshot is held each look would pass over all of them. Call it before the statement that looks, so
that this sees what had been closed.

Returns: a slot''s number; 0 at another level than READ COMMITTED. Roles: internal.';
comment on function app_jobs.find_first_slot() is
'Find the first open slot, for first_slot(). To be called before anything is written, once a second
or so: it passes over the dead rows.

Returns: its number; null if the transaction has written something before. Roles: internal; READ
COMMITTED only; the caller pins the plans.';
comment on function app_jobs.enter_slot() is
'Enter the current slot until the end of the transaction. Whoever puts a job in a line, schedules it
or leases it does so in a slot that it has entered: then nobody can close the slot before the job
is committed or gone.

Returns: the slot. Errors: JQ090; 55P03 if somebody who is not of app_jobs keeps it locked
exclusively for five seconds. Locks: the slot, shared; waits for nobody else. Roles: internal.';
comment on function app_jobs.note_arrivals(integer) is
'Count jobs that have entered the current slot.

jobs  how many; a lease counts for a quarter, since its index entries are looked at less often

Returns: how many have, about. Roles: internal.';
comment on function app_jobs.close_slot(integer) is
'Write down what is left in a slot that nobody can enter any more, and take it off the list of open
ones.

slot  the slot, locked exclusively

Roles: internal.';
comment on function app_jobs.turn_slots() is
'Open a new slot after about a thousand arrivals, and close those that nobody is in any more.

Returns: slots closed. Locks: slots, exclusively, if nobody is in them; never waits. Roles:
internal; READ COMMITTED only.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:lines to pg
-- requires: slots

set local lock_timeout = '5s';

create function app_jobs.raise_bounds(slot integer, line text) returns boolean
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_emptied text[];
    v_raised boolean;
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
        returning s.task_identifier
    ),

    raised as (
        update app_jobs.streams as s
        set priority = l.priority, run_at = l.run_at, id = l.id
        from left_over as l
        where
            s.slot = raise_bounds.slot
            and s.line = raise_bounds.line
            and s.task_identifier = l.task_identifier
            and (l.priority, l.run_at, l.id) > (s.priority, s.run_at, s.id)
        returning 1
    )

    select (select array_agg(e.task_identifier) from emptied as e), exists (select from raised)
    into v_emptied, v_raised;
    if v_emptied is not null then
        perform app_jobs.forget_counts(
            array[raise_bounds.slot],
            case when raise_bounds.line = '' then 'ready' else 'parked' end,
            v_emptied,
            nullif(raise_bounds.line, '')
        );
    end if;
    return v_raised or v_emptied is not null;
end;
$$;

create type app_jobs.place as (
    tid tid, priority integer, run_at timestamptz, id bigint, queue_line text
);

create type app_jobs.found as (
    tids tid [], queued app_jobs.place [], last_id bigint, used_slots integer [], left_out boolean
);

create function app_jobs.task_range(tasks text[]) returns table (low text, high text)
language sql
stable
as $$
    select
        coalesce(min(t.name collate "C"), ''),
        coalesce(max(t.name collate "C"), repeat(
            case getdatabaseencoding() when 'UTF8' then chr(1114111) else chr(255) end, 127
        ))
    from unnest(task_range.tasks) as t(name)
$$;

create function app_jobs.only_slot(line text, tasks text[], first integer)
returns setof integer
language sql
stable
as $$
    select min(o.slot)
    from app_jobs.open_slots as o
    where o.slot >= only_slot.first
    having
        count(*) = 1
        and not exists (
            select from app_jobs.streams as s
            where s.line = only_slot.line and only_slot.tasks is null
            union all
            select
            from unnest(only_slot.tasks) as t(name)
            cross join lateral (
                select from app_jobs.streams as s
                where s.line = only_slot.line and s.task_identifier = t.name
                limit 1
            ) as b
        )
$$;

create function app_jobs.lock_jobs(
    slot integer,
    line text,
    tasks text[],
    low text,
    high text,
    paused text[],
    after app_jobs.place,
    until app_jobs.place,
    most integer,
    of_queues boolean
) returns app_jobs.found
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_found app_jobs.found;
begin
    -- As plain comparisons the task's bounds are checked within the index; "= any" needs a visit to
    -- the table.
    select
        coalesce(array_agg(l.ctid) filter (where l.queue_name is null), '{}'),
        coalesce(
            array_agg(
                row(
                    l.ctid, l.priority, l.run_at, l.id,
                    app_jobs.queue_line(l.database_id, l.queue_name)
                )::app_jobs.place
            ) filter (where l.queue_name is not null),
            '{}'
        ),
        (array_agg(l.id))[count(*)],
        '{}'::integer[],
        false
    into v_found
    from (
        select j.ctid, j.priority, j.run_at, j.id, j.database_id, j.queue_name
        from app_jobs.jobs as j
        where
            j.slot = lock_jobs.slot
            and j.line = lock_jobs.line
            and j.task_identifier between lock_jobs.low and lock_jobs.high
            and (lock_jobs.tasks is null or j.task_identifier = any(lock_jobs.tasks))
            and j.task_identifier <> all(lock_jobs.paused)
            and (lock_jobs.of_queues or j.queue_name is null)
            and (j.priority, j.run_at, j.id) > (
                coalesce((lock_jobs.after).priority, -2147483648),
                coalesce((lock_jobs.after).run_at, '-infinity'),
                coalesce((lock_jobs.after).id, 0)
            )
            and (j.priority, j.run_at, j.id) <= (
                coalesce((lock_jobs.until).priority, 2147483647),
                coalesce((lock_jobs.until).run_at, 'infinity'),
                coalesce((lock_jobs.until).id, 9223372036854775807)
            )
        order by j.priority, j.run_at, j.id
        limit lock_jobs.most
        for update skip locked
    ) as l;
    return v_found;
end;
$$;

create function app_jobs.look(
    line text,
    tasks text[],
    paused text[],
    wanted integer,
    after app_jobs.place
) returns app_jobs.found
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_found app_jobs.found := row(
        '{}'::tid[], '{}'::app_jobs.place[], null, '{}'::integer[], false
    )::app_jobs.found;
    v_lot app_jobs.found;
    c_slots_at_most constant integer := 200;
    c_many constant integer := 100;
    c_note_every constant integer := 256;
    c_heads_at_most constant integer := 256;
    v_first constant integer := app_jobs.first_slot();
    v_tasks text[] := look.tasks;
    v_low text;
    v_high text;
    v_left integer := look.wanted;
    v_seen integer[] := '{}'::integer[];
    v_from app_jobs.place[] := '{}'::app_jobs.place[];
    v_head record;
    v_best record;
    v_next record;
    v_after app_jobs.place := coalesce(
        look.after, row(null, -2147483648, '-infinity', 0, null)::app_jobs.place
    );
    v_until app_jobs.place;
    v_count integer;
    v_at integer;
    -- Claims of many jobs at the same moment would pass over each other's rows. So each takes closed
    -- slots for itself, where there are others as urgent; for this second, and not as long as its
    -- transaction is open.
    v_shares boolean := look.line <> '' or look.wanted < c_many;
    v_second constant text := floor(extract(epoch from clock_timestamp()))::text;
    v_heads integer := 2;
    v_left_out integer[] := '{}'::integer[];
    v_urgency integer;
begin
    select r.low, r.high into v_low, v_high from app_jobs.task_range(look.tasks) as r;
    if look.tasks is null then
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
    end if;
    if not v_shares then
        v_heads := 2 + 14 / greatest(cardinality(v_tasks), 1);
    end if;

    loop
        -- The two slots with the best heads: exact in open slots and in those seen in this call,
        -- elsewhere a bound.
        v_best := null;
        v_next := null;
        v_count := 0;
        for v_head in
            with exact as (
                select o.slot from app_jobs.open_slots as o
                where o.slot >= v_first and o.slot <> all(v_seen)
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
                limit v_heads
            ) as b
            where task.name <> all(look.paused)
            order by 2, 3, 4
        loop
            exit when v_best is null and v_head.priority > v_urgency;
            v_count := v_count + 1;
            continue when v_head.slot = any(v_left_out);
            if v_best is null
                and not v_shares
                and v_head.closed
                and not pg_try_advisory_xact_lock(
                    app_jobs.lock_key('claim', v_head.slot || ' ' || v_second)
                )
            then
                v_left_out := v_left_out || v_head.slot;
                v_urgency := v_head.priority;
                continue;
            end if;
            if v_best is null then
                v_best := v_head;
            elsif v_head.slot <> v_best.slot then
                v_next := v_head;
                exit;
            end if;
        end loop;
        v_found.left_out := v_urgency is not null;
        if v_best is null and v_found.left_out and v_left = look.wanted then
            if v_count >= v_heads and v_heads < c_heads_at_most then
                v_heads := 4 * v_heads;
            else
                -- nothing as urgent elsewhere
                v_shares := true;
                v_seen := '{}';
                v_left_out := '{}';
                v_urgency := null;
            end if;
            continue;
        end if;
        exit when v_best is null;

        v_until := null;
        if v_next is not null then
            v_until := row(null, v_next.priority, v_next.run_at, v_next.id, null);
        end if;
        if v_urgency is not null and (v_until is null or v_until.priority > v_urgency) then
            v_until := row(null, v_urgency, 'infinity', 9223372036854775807, null);
        end if;
        if (v_best.priority, v_best.run_at, v_best.id) <= (v_after.priority, v_after.run_at,
        v_after.id) then
            v_best.priority := v_after.priority;
            v_best.run_at := v_after.run_at;
            v_best.id := v_after.id + 1;
        end if;

        v_lot := app_jobs.lock_jobs(
            v_best.slot, look.line, look.tasks, v_low, v_high, look.paused,
            row(null, v_best.priority, v_best.run_at, v_best.id - 1, null)::app_jobs.place,
            -- included: a bound may have been left behind by a job that stands here now
            v_until,
            v_left,
            v_urgency is null  -- jobs of a queue keep their order
        );
        v_count := cardinality(v_lot.tids) + cardinality(v_lot.queued);
        v_found.tids := v_found.tids || v_lot.tids;
        v_found.queued := v_found.queued || v_lot.queued;
        if v_urgency is null then
            v_found.last_id := coalesce(v_lot.last_id, v_found.last_id);
        end if;
        -- Once for so many jobs, as if by chance: to write it down for each single one would cost
        -- more than to pass over its entry again.
        if v_best.closed and v_count > (hashint8(v_lot.last_id) & (c_note_every - 1)) then
            v_found.used_slots := v_found.used_slots || v_best.slot;
        end if;

        v_left := v_left - v_count;
        exit when v_left = 0;
        if v_count = 0
            and v_best.closed
            and current_setting('transaction_isolation') = 'read committed'
        then
            -- Thousands may be out of date where many jobs were cancelled: this goes on until a
            -- bound is right, or another claim is raising it.
            continue when app_jobs.raise_bounds(v_best.slot, look.line);
        end if;
        -- What is left in this slot before the next one's head is locked by others: go on behind
        -- it.
        exit when v_next is null and v_urgency is null or cardinality(v_seen) >= c_slots_at_most;
        v_at := coalesce(array_position(v_seen, v_best.slot), cardinality(v_seen) + 1);
        v_seen[v_at] := v_best.slot;
        v_from[v_at] := v_until;
    end loop;
    return v_found;
end;
$$;

revoke all on function app_jobs.raise_bounds(integer, text) from public;
revoke all on function app_jobs.task_range(text[]) from public;
revoke all on function app_jobs.only_slot(text, text[], integer) from public;
revoke all on function app_jobs.lock_jobs(
    integer, text, text[], text, text, text[], app_jobs.place, app_jobs.place, integer, boolean
) from public;
revoke all on function app_jobs.look(text, text[], text[], integer, app_jobs.place) from public;
revoke all on type app_jobs.place from public;
revoke all on type app_jobs.found from public;

comment on type app_jobs.place is
'Where a job stands in a line: its row, its position, and what a claim needs to know of it.';
comment on type app_jobs.found is
'What look() has found: the rows of jobs without a queue, the places of those with one, both in
order; the last of them all; the closed slots in which many were found; and whether slots were left
to other claims (then the last is the last before them).';
comment on function app_jobs.raise_bounds(integer, text) is
'Set the streams of a closed slot to what is left in it; drop those with nothing left.

slot  a closed slot
line  '''', or a queue''s line

Returns: whether any bound was out of date. Locks: its streams, skipping locked ones. Roles: internal.';
comment on function app_jobs.task_range(text[]) is
'Tell the first and the last of these tasks, in the order of the index, whatever the database''s is.

tasks  task identifiers; null: all there can be

Returns: one row. Roles: internal.';
comment on function app_jobs.only_slot(text, text[], integer) is
'Name the one slot in which jobs of this line can stand, if there is but one and it is open.

line   '''', or a queue''s line
tasks  tasks wanted; null: all
first  as first_slot() says

Returns: a row, or none. Roles: internal.';
comment on function app_jobs.lock_jobs(
    integer, text, text[], text, text, text[], app_jobs.place, app_jobs.place, integer, boolean
) is
'Lock and return the first jobs of a line in a slot that nobody else has locked, in the order
priority, run_at, id.

slot       the slot
line       '''', or a queue''s line
tasks      tasks wanted; null: all
low        the first of them, as task_range() says
high       the last of them
paused     tasks not wanted
after      only jobs behind this place; null: from the start
until      only jobs up to this place; null: to the end
most       jobs at most
of_queues  false: only those of no queue

Returns: those of no queue, those of queues, and the last of them. Locks: the jobs returned (for
update), skipping locked ones. Roles: internal; the caller pins the plans.';
comment on function app_jobs.look(text, text[], text[], integer, app_jobs.place) is
'Lock and return the first jobs of a line that nobody else has locked, in the order priority,
run_at, id.

line    '''': the ready jobs; a queue''s line: its parked jobs
tasks   tasks wanted; null: all
paused  tasks not wanted
wanted  jobs at most, 1 or more
after   only jobs behind this place; null: from the start

Returns: those of no queue, and those of queues, in order; but of a hundred and more ready jobs, some
may stand in another closed slot, as urgent, than those that another transaction is claiming just now.
Locks: the jobs returned (for update), skipping locked ones.
Roles: internal; the caller pins the plans.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:queues to pg
-- requires: lines
-- requires: job_queues

set local lock_timeout = '5s';

create function app_jobs.queues_at_most() returns integer
language sql
stable
as $$
    select least(
        1000,
        current_setting('max_locks_per_transaction')::bigint
        * current_setting('max_connections')::bigint / 4
    )::integer
$$;

create function app_jobs.free_seats(queue_line text, wanted integer) returns integer[]
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_first constant integer := app_jobs.first_slot();
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
            where o.slot >= v_first
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
                        from unnest((
                            app_jobs.look(
                                v_line, take_seats.tasks, take_seats.paused,
                                cardinality(v_seats), null
                            )
                        ).queued) as l
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
            -- a queue that is busy is left alone, without its lock: the end of a job moves it on
            continue when cardinality(app_jobs.free_seats(v_line, 1)) = 0;
            continue when not pg_try_advisory_xact_lock(app_jobs.lock_key('queue', v_line));
        end if;
        v_seats := cardinality(app_jobs.free_seats(v_line, c_at_most));
        continue when v_seats = 0;
        v_tids := array(
            select l.tid
            from unnest((app_jobs.look(v_line, null, v_paused, v_seats, null)).queued) as l
        );
        -- The best may be of a task that nobody serves: it must not keep those behind it, of tasks
        -- that somebody does.
        foreach v_task in array v_tasks loop
            v_tids := v_tids || array(
                select l.tid
                from unnest((app_jobs.look(v_line, array[v_task], v_paused, 1, null)).queued) as l
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

revoke all on function app_jobs.queues_at_most() from public;
revoke all on function app_jobs.free_seats(text, integer) from public;
revoke all on function app_jobs.take_seats(integer, text[], text[], app_jobs.place[]) from public;
revoke all on function app_jobs.advance_queues(text[], text[], boolean) from public;
revoke all on type app_jobs.seated from public;

comment on type app_jobs.seated is 'A job and the seat of its queue that it takes.';
comment on function app_jobs.queues_at_most() is
'Say of how many queues a call takes the locks, about: the server has room for some thousands, or
fewer where it is set so, to be shared by all transactions. What is left waits for the next call, or
for tick().

Returns: 1000, or a quarter of the room if that is less. Roles: internal.';
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
             any case; null: unknown
wait         wait for the queues'' locks, in the order of their keys; false: leave out those that
             others hold

Returns: jobs made ready. Locks: the queues. Roles: internal.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:let_go to pg
-- requires: queues
-- requires: effects

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
        where
            j.ctid = any(queues_left.tids)
            and j.queue_name is not null
            -- said in a way that no partial index can serve: by address, whatever the statistics say
            and (coalesce(j.seat, 0) > 0 or coalesce(j.line, '-') = '')
        limit app_jobs.queues_at_most()
    ) as q;
end;
$$;

create function app_jobs.finish_jobs(
    tids tid[], state text, finished_by text, reasons text[], results json[] default null,
    keep interval default null
) returns setof bigint
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    return query
    with gone as materialized (
        delete from app_jobs.jobs as j
        using unnest(finish_jobs.tids, finish_jobs.reasons, finish_jobs.results)
            as g(tid, reason, result)
        where j.ctid = g.tid
        returning j.*, g.reason, g.result
    ),

    kept as (
        insert into app_jobs.finished_jobs (
            id, database_id, queue_name, task_identifier, payload, attributes, priority, run_at,
            attempts, max_attempts, lease, key, last_error, retry_after, created_at, started_at,
            state, finished_by, result, keep_until
        )
        select
            g.id, g.database_id, g.queue_name, g.task_identifier, g.payload, g.attributes,
            g.priority, g.run_at, g.attempts, g.max_attempts, g.lease, g.key,
            coalesce(g.reason, g.last_error), g.retry_after, g.created_at, g.locked_at,
            finish_jobs.state, coalesce(finish_jobs.finished_by, g.locked_by), g.result,
            clock_timestamp() + k.keep
        from gone as g
        left join app_jobs.tasks as t on t.task_identifier = g.task_identifier
        cross join lateral (
            select coalesce(finish_jobs.keep, case finish_jobs.state
                when 'completed' then coalesce(t.keep_completed, interval '0')
                else coalesce(t.keep_failed, interval '30 days')
            end)
        ) as k(keep)
        where k.keep > interval '0'
        returning id
    ),

    forgotten as (
        delete from app_jobs.job_errors as e
        where e.job_id = any(array(
            select g.id
            from gone as g
            where
                -- a job that is completed by its first claim has none
                not (finish_jobs.state = 'completed' and g.lease = 1 and g.locked_by is not null)
                and g.id not in (select k.id from kept as k)
        ))
    ),

    repeatable as (
        delete from app_jobs.effects as e
        where e.job_id = any(array(
            select g.id
            from gone as g
            where g.has_effects and g.id not in (select k.id from kept as k)
        ))
    )

    select g.id from gone as g;
end;
$$;

create function app_jobs.end_jobs(
    tids tid[], state text, reason text, keep interval default null
) returns void
language plpgsql
volatile
as $$
declare
    v_lines text[];
    v_tasks text[];
begin
    select q.queue_lines, q.tasks into v_lines, v_tasks
    from app_jobs.queues_left(end_jobs.tids) as q;
    perform app_jobs.finish_jobs(
        end_jobs.tids, end_jobs.state, null,
        array_fill(end_jobs.reason, array[cardinality(end_jobs.tids)]), null, end_jobs.keep
    );
    if v_lines is not null then
        perform app_jobs.advance_queues(v_lines, v_tasks, true);
    end if;
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
revoke all on function app_jobs.finish_jobs(tid[], text, text, text[], json[], interval)
from public;
revoke all on function app_jobs.end_jobs(tid[], text, text, interval) from public;
revoke all on function app_jobs.let_go(
    tid[], timestamptz[], text[], boolean[], boolean, boolean
) from public;

comment on function app_jobs.queues_left(tid[]) is
'Name the queues that may move on once these jobs are gone from where they stand, with the tasks of
those jobs: a seat is left, or one was on its way to a seat.

tids  jobs, locked by the caller

Returns: two arrays for advance_queues(), of queues_at_most(), since each queue costs an advisory
lock; tick() moves the others. Null if there is none. Roles: internal.';
comment on function app_jobs.finish_jobs(tid[], text, text, text[], json[], interval) is
'Move jobs to finished_jobs. What is not kept goes with its errors and effects.

tids         jobs, locked by the caller
state        completed, failed or cancelled
finished_by  the worker; null: the jobs'' holders
reasons      what to keep as last_error, one for each job; null: its own
results      what to keep as result, one for each job; null: none
keep         how long; 0: not at all; null: as long as the task''s keep_completed or keep_failed says

Returns: their ids. Roles: internal; the caller pins the plans.';
comment on function app_jobs.end_jobs(tid[], text, text, interval) is
'Finish jobs. Their queues move on.

tids    jobs, locked by the caller
state   completed, failed or cancelled
reason  what to keep as last_error; null: their own
keep    as in finish_jobs()

Locks: the jobs'' queues; waits for them. Roles: internal; the caller pins the plans.';
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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

create function app_jobs.with_trace(attributes jsonb) returns jsonb
language sql
stable
parallel safe
as $$
    select case
        when
            current_setting('app_jobs.traceparent', true)
            ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
            and jsonb_typeof(coalesce(attributes, '{}')) = 'object'
            then
                jsonb_build_object('traceparent', current_setting('app_jobs.traceparent', true))
                || coalesce(attributes, '{}')
        else coalesce(attributes, '{}')
    end
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
    v_attributes jsonb := app_jobs.with_trace(add_job.attributes);
    v_run_at timestamptz := coalesce(add_job.run_at, now());
    v_priority integer := coalesce(add_job.priority, 0);
    v_max_attempts integer := add_job.max_attempts;
    v_slot integer;
    v_line text;
    v_old app_jobs.jobs;
    v_job app_jobs.jobs;
begin
    perform
        app_jobs.check_job(
            add_job.identifier, add_job.job_key, add_job.queue_name, add_job.max_attempts,
            add_job.retry_after, add_job.run_at
        ),
        app_jobs.check_sizes(add_job.payload, add_job.attributes);
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
                    v_old.last_error, v_old.has_effects
                ) is not distinct from (
                    add_job.identifier, add_job.queue_name, v_payload::text, v_attributes,
                    v_priority,
                    v_run_at, v_max_attempts, add_job.retry_after, 0, null::text, false
                ) then
                    return v_old;
                end if;
                -- another request now, whose effects have not happened
                if v_old.has_effects then
                    delete from app_jobs.effects as e where e.job_id = v_old.id;
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
                has_effects = false,
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
revoke all on function app_jobs.with_trace(jsonb) from public;
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
comment on function app_jobs.with_trace(jsonb) is
'Add the trace that the setting app_jobs.traceparent names (W3C Trace Context) to the attributes of a
job, unless they name one. A setting that is none is passed over.

attributes  of the job; null: none

Returns: the attributes. Roles: internal.';
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
payload       what to run it with, up to 64 MB
job_key       unique among live jobs of the tenant, up to 512 characters; null: none
queue_name    jobs of a queue run one after the other, or max_running at a time; null: in parallel
              with everything
run_at        not before this time, in the years 1900 to 9998
max_attempts  1 or more; null: the task''s, or 25
priority      lower runs first
job_key_mode  what to do with the live job under job_key. replace: give it the new task, payload,
              run_at … and start its attempts and effects anew; preserve_run_at: the same, but for
              run_at; keep: leave it and return it; once: the same, and a finished job that is still
              kept counts. If it is running, replace gives the key to a new job, and the running one
              is not retried
attributes    metadata that may change while the job lives, up to 1 MB; the setting app_jobs.traceparent adds
              traceparent
retry_after   length of its leases, up to 100 years; null: the task''s, or else the worker''s

A null argument means its default.

Returns: the job as it stands now. Errors: 22004, 22023. Locks: the current slot, shared; the job
under job_key. Roles: app_jobs_producer.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
        db_id uuid, identifier text, payload json, job_key text, queue_name text,
        run_at timestamptz, max_attempts integer, priority integer, job_key_mode text,
        attributes jsonb, retry_after interval
    );
    perform app_jobs.check_sizes(v_job.payload, v_job.attributes);
    perform app_jobs.check_job(
        v_job.identifier, v_job.job_key, v_job.queue_name, v_job.max_attempts, v_job.retry_after,
        v_job.run_at
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
    v_counts app_jobs.slot_counts[];
begin
    -- what is in specs is left to the types that it is read as
    perform app_jobs.check_sizes(
        (
            select p.payload from unnest(insert_jobs.payloads) as p(payload)
            order by octet_length(p.payload::text) desc nulls last
            limit 1
        ),
        insert_jobs.attributes
    );
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
                db_id uuid, identifier app_jobs.task_name, payload app_jobs.job_payload,
                queue_name app_jobs.queue_name, run_at app_jobs.due_time,
                max_attempts app_jobs.attempt_limit, priority integer,
                attributes app_jobs.job_attributes, retry_after app_jobs.lease_term
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
            app_jobs.with_trace(g.attributes),
            coalesce(g.priority, 0), coalesce(g.run_at, now()),
            coalesce(g.max_attempts, (v_defaults ->> g.identifier)::integer, 25), g.retry_after,
            v_slots[1 + (g.n - 1) / c_slot_size],
            case when coalesce(g.run_at, now()) <= v_now then '' end
        from given as g
        returning
            j.id, j.slot, j.line, j.task_identifier, j.database_id, j.queue_name, j.priority,
            j.run_at
    ),

    brought as materialized (
        select
            a.slot, case when a.line is null then 'scheduled' else 'ready' end as state,
            a.task_identifier, a.database_id, a.queue_name,
            min(a.priority) as priority, min(a.run_at) as run_at, min(a.id) as id, count(*) as jobs
        from added as a
        where v_large
        group by a.slot, 2, a.task_identifier, a.database_id, a.queue_name
    ),

    by_task as materialized (
        select
            b.slot, b.state, b.task_identifier,
            min(b.priority) as priority, min(b.run_at) as run_at, min(b.id) as id,
            sum(b.jobs) as jobs, count(*) <= app_jobs.groups_at_most() as each
        from brought as b
        group by b.slot, b.state, b.task_identifier
    ),

    left_streams as (
        insert into app_jobs.streams (slot, line, task_identifier, priority, run_at, id)
        select t.slot, '', t.task_identifier, t.priority, t.run_at, t.id
        from by_task as t
        where t.state = 'ready'
    ),

    left_alarms as (
        insert into app_jobs.alarms (slot, kind, due_at)
        select t.slot, 'run', min(t.run_at)
        from by_task as t
        where t.state = 'scheduled'
        group by t.slot
    ),

    counts as (
        select t.slot, t.state, t.task_identifier, '*' as queue_line, t.jobs, t.run_at
        from by_task as t
        where not t.each
        union all
        select
            b.slot, b.state, b.task_identifier,
            app_jobs.queue_line(b.database_id, coalesce(b.queue_name, '')), b.jobs, b.run_at
        from by_task as t
        inner join brought as b
            on (b.slot, b.state, b.task_identifier) = (t.slot, t.state, t.task_identifier)
        where t.each
    )

    select
        array_agg(a.id),
        (select array_agg(row(c.*)::app_jobs.slot_counts) from counts as c)
    into v_ids, v_counts
    from added as a;
    if v_large then
        perform app_jobs.note_counts(v_counts);
    end if;
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
        add_jobs.identifier, null, add_jobs.queue_name, add_jobs.max_attempts, add_jobs.retry_after,
        add_jobs.run_at
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

specs     as in add_jobs(specs), checked by the types of its members only; or null, and:
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:triggers to pg
-- requires: add_jobs

set local lock_timeout = '5s';

create function app_jobs.is_built_in(type oid) returns boolean
language sql
stable
as $$
    with recursive part(type) as (
        select is_built_in.type
        union all
        select case t.typtype when 'd' then t.typbasetype else t.typelem end
        from part as p
        inner join pg_catalog.pg_type as t on t.oid = p.type
        where
            p.type >= 16384
            and (t.typtype = 'd' or t.typsubscript = 'array_subscript_handler'::regproc)
    )

    -- what initdb has made has a lower number
    select exists (select from part as p where p.type < 16384)
$$;

create function app_jobs.json_expression(type oid, value text) returns text
language plpgsql
stable
as $$
declare
    v_type pg_catalog.pg_type;
    v_as_text constant text := format(
        'case when %1$s is distinct from null then to_json(format(''%%s'', %1$s)) end', value
    );
    v_index text;
begin
    -- to_json() runs a cast to json that the owner of a type has made, and here it would run with
    -- our rights. To look for one is not enough: it may be made the next moment, or be newer than
    -- our snapshot. So only values of built-in types ever get there, with the type asked in the
    -- same statement; what is made of them is taken apart, and the rest goes through its type's
    -- output function, which is what format() calls (a cast to text may be theirs, too).
    if app_jobs.is_built_in(json_expression.type) then
        return format(
            'case when pg_typeof(%1$s) = %2$s::regtype then to_json(%1$s) else %3$s end',
            value, json_expression.type, v_as_text
        );
    end if;
    select t.* into v_type from pg_catalog.pg_type as t where t.oid = json_expression.type;
    if v_type.typtype = 'c' then
        return format(
            'case when %1$s is distinct from null'
            ' then (select to_json(r) from (select %2$s) as r) end',
            value, app_jobs.json_columns(v_type.typrelid, format('(%s)', value))
        );
    elsif v_type.typsubscript = 'array_subscript_handler'::regproc then
        -- of its own, since one array may be inside of another
        v_index := 'i' || length(value);
        return format(
            'case when array_ndims(%1$s) > 1 then %2$s when %1$s is distinct from null then'
            ' to_json(array(select %3$s from generate_subscripts(%1$s, 1) as %4$s)) end',
            value, v_as_text,
            app_jobs.json_expression(v_type.typelem, format('(%s)[%s]', value, v_index)), v_index
        );
    end if;
    return v_as_text;
end;
$$;

create function app_jobs.json_columns(relation oid, value text) returns text
language sql
stable
as $$
    select string_agg(
        format(
            '%s as %I',
            app_jobs.json_expression(
                a.atttypid, format('%s.%I', json_columns.value, a.attname)
            ),
            a.attname
        ),
        ', ' order by a.attnum
    )
    from pg_catalog.pg_attribute as a
    where a.attrelid = json_columns.relation and a.attnum > 0 and not a.attisdropped
$$;

create function app_jobs.has_built_in_columns(relation oid) returns boolean
language sql
stable
as $$
    -- Whoever fires a trigger holds a lock on the table, so its columns stay; but an older snapshot
    -- may not show them as they are.
    select current_setting('transaction_isolation') = 'read committed' and not exists (
        select
        from pg_catalog.pg_attribute as a
        where
            a.attrelid = has_built_in_columns.relation
            and a.attnum > 0
            and not a.attisdropped
            and not app_jobs.is_built_in(a.atttypid)
    )
$$;

create function app_jobs.field_as_json(row_given record, type oid, name text) returns json
language plpgsql
stable
as $$
declare
    v_value json;
begin
    -- a record's field can only be named in dynamic SQL, as a quoted identifier
    execute 'select ' || app_jobs.json_expression(
        field_as_json.type, format('($1).%I', field_as_json.name)
    )
    into v_value using field_as_json.row_given;
    return v_value;
end;
$$;

create function app_jobs.row_as_json(row_given record, relation oid) returns json
language plpgsql
stable
as $$
declare
    v_columns text;
    v_object json;
begin
    -- as a record it has no cast of its own
    if app_jobs.has_built_in_columns(row_as_json.relation) then
        return to_json(row_as_json.row_given);
    end if;
    v_columns := app_jobs.json_columns(row_as_json.relation, '($1)');
    if v_columns is null then
        raise exception 'table % has no columns in the snapshot of this transaction',
            row_as_json.relation::regclass
            using errcode = 'JQ002', hint = 'It is newer: begin another transaction.';
    end if;
    execute format('select to_json(r) from (select %s) as r', v_columns)
    into v_object using row_as_json.row_given;
    return v_object;
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
    v_rows constant text := case tg_op when 'DELETE' then 'old_rows' else 'new_rows' end;
    v_column text;
    v_payloads json[];
    v_tenants uuid[];
begin
    perform app_jobs.check_trigger(
        tg_relid, tg_name, v_arguments, tg_level, 'STATEMENT', 2, 2, '(''tenant'', ''task'')'
    );
    -- Without a transition table the name would mean a temporary table, or a view of the caller's,
    -- whose functions would run with our rights. An older snapshot may not show the trigger as it
    -- is, so such a relation is refused in any case.
    perform from pg_catalog.pg_trigger as t
    where
        t.tgrelid = tg_relid
        and t.tgname = tg_name
        and v_rows = case tg_op when 'DELETE' then t.tgoldtable else t.tgnewtable end;
    if not found then
        raise exception 'trigger "%" on table % has no transition table "%"',
            tg_name, tg_relid::regclass, v_rows
            using errcode = '22023', hint = format(
                'Create it again, referencing %s table as %s.', left(v_rows, 3), v_rows
            );
    elsif to_regclass('pg_temp.' || v_rows) is not null then
        raise exception 'trigger "%" on table %: there is a temporary relation "%"',
            tg_name, tg_relid::regclass, v_rows
            using errcode = '22023', hint = 'Give the temporary table or view another name.';
    end if;
    v_column := app_jobs.tenant_column(tg_relid, tg_name, v_arguments[1]);
    if not app_jobs.has_built_in_columns(tg_relid) then
        -- columns can only be listed in dynamic SQL, as quoted identifiers
        execute format(
            'select array(select to_json(r) from (select %s from %I as r) as r)',
            app_jobs.json_columns(tg_relid, 'r'), v_rows
        )
        into v_payloads;
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

revoke all on function app_jobs.is_built_in(oid) from public;
revoke all on function app_jobs.json_expression(oid, text) from public;
revoke all on function app_jobs.json_columns(oid, text) from public;
revoke all on function app_jobs.has_built_in_columns(oid) from public;
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

comment on function app_jobs.is_built_in(oid) is
'Tell whether a type is PostgreSQL''s own, or an array or a domain of such a type: to_json() then
runs nobody''s code.

type  the type

Roles: internal.';
comment on function app_jobs.json_expression(oid, text) is
'Write an expression that turns a value into json without running anybody''s code.

type   the value''s type
value  an expression for it

Returns: SQL. Roles: internal.';
comment on function app_jobs.json_columns(oid, text) is
'Write the select list that turns each column of a row into json without running anybody''s code.

relation  the table, or that of a composite type
value     an expression for the row

Returns: SQL. Roles: internal.';
comment on function app_jobs.has_built_in_columns(oid) is
'Tell whether to_json() may be given a whole row of a table: all of its columns are of built-in
types, and the snapshot is sure to show them.

relation  the table

Roles: internal.';
comment on function app_jobs.field_as_json(record, oid, text) is
'Turn one field of a row into json without running anybody''s code.

row_given  the row
type       the field''s type
name       the field

Returns: json; what is neither of a built-in type nor made of such goes as text. Roles: internal.';
comment on function app_jobs.row_as_json(record, oid) is
'Turn a row into json without running anybody''s code.

row_given  the row
relation   its table

Returns: an object. Errors: JQ002. Roles: internal.';
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

Errors: 22023, naming table, trigger and argument; JQ002 if the table is newer than the snapshot.
Roles: as tg_add_job_with_row_id().';
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:cancel_job to pg
-- requires: add_jobs

set local lock_timeout = '5s';

create function app_jobs.cancel_locked(tids tid[], reason text) returns void
language plpgsql
volatile
as $$
declare
    v_reason constant text := coalesce(cancel_locked.reason, 'cancelled');
    v_not_leased constant tid[] := array(
        select j.ctid from app_jobs.jobs as j
        where j.ctid = any(cancel_locked.tids) and j.lease_expires_at is null
    );
begin
    -- One that runs is marked, so that the next heartbeat tells its worker.
    update app_jobs.jobs as j
    set cancel_reason = v_reason, updated_at = clock_timestamp()
    where
        j.ctid = any(cancel_locked.tids)
        -- said in a way that no partial index can serve: by address, whatever the statistics say
        and coalesce(j.lease_expires_at, '-infinity') > '-infinity';
    perform app_jobs.end_jobs(v_not_leased, 'cancelled', v_reason);
end;
$$;

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
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_job app_jobs.jobs;
begin
    perform app_jobs.check_not_null(
        'job_key', cancel_job.job_key is null, 'Give the key that the job was added with.'
    );
    v_job := app_jobs.lock_key_holder(cancel_job.job_key, cancel_job.db_id);
    if v_job.id is not null then
        perform app_jobs.cancel_locked(
            array(select j.ctid from app_jobs.jobs as j where j.id = v_job.id), cancel_job.reason
        );
    end if;
    return v_job;
end;
$$;

revoke all on function app_jobs.cancel_locked(tid[], text) from public;
revoke all on function app_jobs.cancel_job(text, uuid, text) from public;
grant execute on function app_jobs.cancel_job(text, uuid, text) to app_jobs_producer;

comment on function app_jobs.cancel_locked(tid[], text) is
'Cancel jobs: those that are leased are marked, the others finished. Their queues move on.

tids    jobs, locked by the caller
reason  kept as last_error; null: "cancelled"

Locks: the jobs'' queues; waits for them. Roles: internal; the caller pins the plans.';
comment on function app_jobs.cancel_job(text, uuid, text) is
'Cancel the live job that has a key. One that waits is finished as cancelled; one that runs is
marked, and its worker learns of it at the next heartbeat: if it completes all the same it is
completed, otherwise it is cancelled, not retried.

job_key  the key
db_id    its tenant; null: none
reason   kept as last_error; null: "cancelled"

Returns: the job as it was (lease_expires_at not null: it runs); a row of nulls if no live job has
the key. Errors: 22004. Locks: the job; waits for it; its queue. Roles: app_jobs_producer.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:schedule_times to pg
-- requires: arguments

set local lock_timeout = '5s';

create type app_jobs.parsed_schedule as (
    time_zone text,
    start_at timestamptz,
    end_at timestamptz,
    run_at timestamptz,
    every interval,
    seconds bit varying,
    minutes bit varying,
    hours bit varying,
    dates bit varying,
    months bit varying,
    weekdays bit varying,
    years bit varying,
    either_day boolean,
    names_hour boolean
);

create function app_jobs.next_bit(bits bit varying, first integer) returns integer
language sql
immutable
as $$
    select first - 1 + nullif(position(b'1' in substring(bits from first + 1)), 0);
$$;

create function app_jobs.check_time_zone(argument text, time_zone text) returns void
language plpgsql
stable
as $$
declare
    v_known boolean := true;
begin
    -- AT TIME ZONE also takes abbreviations, CET among them, and POSIX rules: offsets that no clock
    -- change moves, or a typing error that is taken for one. Both lack the slash, or have a digit.
    if check_time_zone.time_zone !~* '^(utc|gmt|etc/gmt[+-]1?[0-9]|[a-z_]+(/[a-z_-]+)+)$' then
        v_known := false;
    else
        begin
            perform timezone(check_time_zone.time_zone, now());
        exception when invalid_parameter_value then
            v_known := false;
        end;
    end if;
    if not v_known then
        raise exception '% is "%"', check_time_zone.argument, left(check_time_zone.time_zone, 60)
            using errcode = '22023',
                hint = 'Give UTC, or a name like Europe/Berlin: see pg_timezone_names.';
    end if;
end;
$$;

create function app_jobs.clock_change(
    time_zone text, since timestamptz, until timestamptz
) returns timestamptz
language plpgsql
stable
as $$
declare
    v_lead interval := timezone(clock_change.time_zone, since) - timezone('UTC', since);
    v_from bigint := floor(extract(epoch from since));
    v_to bigint := ceil(extract(epoch from until));
    v_middle timestamptz;
begin
    while v_to - v_from > 1 loop
        v_middle := to_timestamp((v_from + v_to) / 2);
        if timezone(clock_change.time_zone, v_middle) - timezone('UTC', v_middle) = v_lead then
            v_from := (v_from + v_to) / 2;
        else
            v_to := (v_from + v_to) / 2;
        end if;
    end loop;
    return to_timestamp(v_to);
end;
$$;

create function app_jobs.first_reading(wall timestamp, time_zone text) returns timestamptz
language plpgsql
stable
as $$
declare
    -- Of two possible instants timezone() gives the later one: after the change, if the clock was
    -- put back; without the change, if the time was skipped.
    v_last timestamptz := timezone(first_reading.time_zone, wall);
    v_day_before timestamptz := v_last - interval '24 hours';
    v_gained interval := timezone(first_reading.time_zone, v_last)
        - timezone(first_reading.time_zone, v_day_before) - interval '24 hours';
begin
    if v_gained > interval '0' and timezone(first_reading.time_zone, v_last) <> wall then
        return app_jobs.clock_change(first_reading.time_zone, v_day_before, v_last);
    elsif v_gained < interval '0'
        and timezone(first_reading.time_zone, v_last + v_gained) = wall
    then
        return v_last + v_gained;
    end if;
    return v_last;
end;
$$;

create function app_jobs.read_moment(
    key text, value json, time_zone text
) returns timestamptz
language plpgsql
stable
as $$
declare
    v_text text := value #>> '{}';
    v_part text[] := regexp_match(
        v_text collate "C",  -- or \d may be a digit of any script
        '^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)? ?(Z|[+-]\d\d(?::?\d\d)?)?$'
    );
begin
    if value is null then
        return null;
    end if;
    if json_typeof(value) = 'string' and v_part is not null then
        begin
            -- with the year in front no setting of DateStyle matters
            if v_part[1] is null then
                return app_jobs.first_reading(v_text::timestamp, read_moment.time_zone);
            end if;
            return v_text::timestamptz;
        exception when datetime_field_overflow or invalid_datetime_format
            or invalid_time_zone_displacement_value
        then
            null;
        end;
    end if;
    raise exception 'schedule_info.% is %', key, left(value::text, 60)
        using errcode = '22023',
            hint = 'Write "2031-02-03T04:05:06+01:00", or without an offset for local time.';
end;
$$;

create function app_jobs.read_every(value json) returns interval
language plpgsql
stable
as $$
declare
    v_text text := value #>> '{}';
    v_every interval;
    v_months interval;
    v_days interval;
begin
    if value is null then
        return null;
    end if;
    -- not a bare number, which PostgreSQL takes for seconds
    if json_typeof(value) = 'string' and v_text ~ '[A-Za-z:]' then
        begin
            v_every := v_text::interval;
        exception when invalid_datetime_format or datetime_field_overflow
            or interval_field_overflow
        then
            null;
        end;
    end if;
    if v_every between interval '1 second' and interval '1000 years' then
        v_months := make_interval(
            years => extract(year from v_every)::integer,
            months => extract(month from v_every)::integer
        );
        v_days := make_interval(days => extract(day from v_every)::integer);
        if least(v_months, v_days, v_every - v_months - v_days) >= interval '0' then
            return v_every;
        end if;
    end if;
    raise exception 'schedule_info.every is %', left(value::text, 60)
        using errcode = '22023',
            hint = 'Give 1 second to 1000 years, with units and no part negative: "15 minutes".';
end;
$$;

create function app_jobs.cron_number(
    value text, names text[], first_name integer
) returns integer
language sql
immutable
as $$
    select case
        when value ~ '^[0-9]{1,4}$' then value::integer
        else array_position(names, value) - 1 + first_name
    end;
$$;

create function app_jobs.cron_field(
    field text, value text, low integer, high integer, names text[] default null
) returns bit varying
language plpgsql
immutable
as $$
declare
    v_bits bit varying := repeat('0', 60)::bit varying;
    v_item text;
    v_part text[];
    v_first integer;
    v_last integer;
    v_step integer;
begin
    foreach v_item in array string_to_array(value, ',') loop
        if field = 'day of month' and v_item = 'L' then
            v_bits := set_bit(v_bits, 0, 1);
            continue;
        end if;
        v_part := regexp_match(v_item, '^([0-9]|[A-Z]{3})(?:(L)|#([1-5]))$');
        v_first := app_jobs.cron_number(v_part[1], names, low);
        if field = 'day of week' and v_first between 0 and 7 then
            v_bits := set_bit(v_bits, v_first % 7 + 7 * coalesce(v_part[3]::integer, 6), 1);
            continue;
        end if;
        v_part := regexp_match(v_item, '^(?:(\*)|(\w+)(?:-(\w+))?)(?:/([0-9]{1,4}))?$');
        v_step := coalesce(v_part[4]::integer, 1);
        if v_part[1] = '*' then
            v_first := low;
            v_last := high;
        else
            v_first := app_jobs.cron_number(v_part[2], names, low);
            v_last := case
                when v_part[3] is not null then app_jobs.cron_number(v_part[3], names, low)
                when v_part[4] is not null then high
                else v_first
            end;
            -- FRI-SUN, for one
            if field = 'day of week' and v_last = 0 and v_first > 0 then
                v_last := 7;
            end if;
        end if;
        if (v_step > 0 and v_first between low and v_last and v_last <= high) is not true then
            raise exception 'schedule_info.rule has % "%"', field, left(v_item, 60)
                using errcode = '22023',
                    hint = format(
                        'The %s takes %s to %s%s, *, ranges like %s-%s, steps like */2, and lists '
                        'of these with commas%s.',
                        field, low, high, ', ' || names[1] || ' to ' || names[cardinality(names)],
                        low + 1, low + 3, case field
                            when 'day of month' then ', ? for * and L for the last day'
                            when 'day of week' then
                                ', ? for *, 5L for the last Friday and 5#2 for the second'
                        end
                    );
        end if;
        while v_first <= v_last loop
            v_bits := set_bit(
                v_bits, case field when 'day of week' then v_first % 7 else v_first end, 1
            );
            v_first := v_first + v_step;
        end loop;
    end loop;
    return v_bits;
end;
$$;

create function app_jobs.calendar_field(
    key text, value json, low integer, high integer, shift integer default 0
) returns bit varying
language plpgsql
immutable
as $$
declare
    v_bits bit varying := repeat('0', greatest(60, high + shift + 1))::bit varying;
    v_item json;
    v_range text[];
    v_number integer;
    v_is_good boolean := false;
begin
    if value is null then
        return overlay(
            v_bits placing repeat('1', high - low + 1)::bit varying from low + shift + 1
        );
    end if;
    for v_item in
        select e.item
        from json_array_elements(
            case json_typeof(value) when 'array' then value else json_build_array(value) end
        ) as e(item)
    loop
        if json_typeof(v_item) = 'number' then
            v_range := array[v_item #>> '{}', v_item #>> '{}', '1'];
        elsif json_typeof(v_item) = 'object' and v_item::text <> '{}' and not exists (
            select from json_object_keys(v_item) as k(key)
            where k.key not in ('start', 'end', 'step')
        ) then
            v_range := array[
                coalesce(v_item ->> 'start', low::text), coalesce(v_item ->> 'end', high::text),
                coalesce(v_item ->> 'step', '1')
            ];
        else
            v_range := null;
        end if;
        v_is_good := v_range is not null
            and array_to_string(v_range, ' ') ~ '^[0-9]{1,4} [0-9]{1,4} [1-9][0-9]{0,3}$'
            and v_range[1]::integer between low and v_range[2]::integer
            -- Sunday is 7 as well
            and v_range[2]::integer <= case key when 'dayOfWeek' then 7 else high end;
        exit when not v_is_good;
        v_number := v_range[1]::integer;
        while v_number <= v_range[2]::integer loop
            v_bits := set_bit(
                v_bits, shift + case key when 'dayOfWeek' then v_number % 7 else v_number end, 1
            );
            v_number := v_number + v_range[3]::integer;
        end loop;
    end loop;
    if not v_is_good then
        raise exception 'schedule_info.% is %', key, left(value::text, 60)
            using errcode = '22023',
                hint = format(
                    'Give whole numbers from %s to %s: one, an array, or {"start": …, "end": …, '
                    '"step": …}.', low, high
                );
    end if;
    return v_bits;
end;
$$;

create function app_jobs.read_schedule(
    schedule_info json, time_zone text
) returns app_jobs.parsed_schedule
language plpgsql
stable
as $$
declare
    c_calendar constant text[] := array[
        'second', 'minute', 'hour', 'dayOfWeek', 'date', 'month', 'year'
    ];
    v_info json := json_strip_nulls(schedule_info);
    v_keys text[];
    v_unknown text;
    v_forms text[];
    v_rule text;
    v_fields text[];
    v_schedule app_jobs.parsed_schedule;
begin
    perform app_jobs.check_not_null(
        'schedule_info', schedule_info is null, 'Give an object like {"rule": "0 9 * * MON-FRI"}.'
    );
    if json_typeof(schedule_info) <> 'object' then
        raise exception 'schedule_info is %', left(schedule_info::text, 60)
            using errcode = '22023', hint = 'Give an object like {"rule": "0 9 * * MON-FRI"}.';
    elsif char_length(schedule_info::text) > 4000 then
        raise exception 'schedule_info has % characters: %',
            char_length(schedule_info::text), left(schedule_info::text, 60)
            using errcode = '22023',
                hint = 'It takes up to 4000: give ranges and steps instead of many values.';
    end if;
    v_keys := array(select k.key from json_object_keys(v_info) as k(key));
    select k.key into v_unknown
    from unnest(v_keys) as k(key)
    where k.key <> all (c_calendar || array['rule', 'every', 'at', 'start', 'end', 'tz']);
    if found then
        raise exception 'schedule_info has an unknown key: "%"', left(v_unknown, 60)
            using errcode = '22023',
                hint = format(
                    'It takes rule, every or at, or one or more of %s; besides start, end and tz.',
                    array_to_string(c_calendar, ', ')
                );
    end if;
    v_forms := array(
        select distinct case when k.key = any (c_calendar) then 'calendar fields' else k.key end
        from unnest(v_keys) as k(key)
        where k.key not in ('start', 'end', 'tz') or (k.key <> 'tz' and 'at' = any (v_keys))
        order by 1
    );
    if cardinality(v_forms) <> 1 then
        raise exception 'schedule_info has %: %',
            coalesce(nullif(array_to_string(v_forms, ' and '), ''), 'no times'),
            left(schedule_info::text, 60)
            using errcode = '22023',
                hint = 'Give either rule, every, at (without start and end) or calendar fields.';
    end if;

    perform app_jobs.check_time_zone('time_zone', read_schedule.time_zone);
    perform app_jobs.check_time_zone('schedule_info.tz', v_info ->> 'tz');
    v_schedule.time_zone := coalesce(v_info ->> 'tz', read_schedule.time_zone, 'UTC');
    v_schedule.run_at := app_jobs.read_moment('at', v_info -> 'at', v_schedule.time_zone);
    v_schedule.start_at := app_jobs.read_moment('start', v_info -> 'start', v_schedule.time_zone);
    v_schedule.end_at := app_jobs.read_moment('end', v_info -> 'end', v_schedule.time_zone);
    if v_schedule.start_at > v_schedule.end_at then
        raise exception 'schedule_info has start % after end %', v_info -> 'start', v_info -> 'end'
            using errcode = '22023', hint = 'Give an end that is not before the start.';
    end if;
    v_schedule.every := app_jobs.read_every(v_info -> 'every');

    if v_forms[1] = 'rule' then
        v_rule := btrim(upper((v_info ->> 'rule') collate "C"));
        v_rule := case v_rule
            when '@YEARLY' then '0 0 1 1 *'
            when '@ANNUALLY' then '0 0 1 1 *'
            when '@MONTHLY' then '0 0 1 * *'
            when '@WEEKLY' then '0 0 * * 0'
            when '@DAILY' then '0 0 * * *'
            when '@MIDNIGHT' then '0 0 * * *'
            when '@HOURLY' then '0 * * * *'
            else v_rule
        end;
        v_fields := regexp_split_to_array(v_rule, '\s+');
        if cardinality(v_fields) = 5 then
            v_fields := array_prepend('0', v_fields);
        elsif cardinality(v_fields) <> 6 then
            raise exception 'schedule_info.rule is %', left((v_info -> 'rule')::text, 60)
                using errcode = '22023',
                    hint = 'Give minute, hour, day of month, month and day of week, with or '
                    'without a second in front, or @hourly, @daily, @weekly, @monthly or @yearly.';
        end if;
        v_schedule.seconds := app_jobs.cron_field('second', v_fields[1], 0, 59);
        v_schedule.minutes := app_jobs.cron_field('minute', v_fields[2], 0, 59);
        v_schedule.hours := app_jobs.cron_field('hour', v_fields[3], 0, 23);
        v_fields[4] := case v_fields[4] when '?' then '*' else v_fields[4] end;
        v_schedule.dates := app_jobs.cron_field('day of month', v_fields[4], 1, 31);
        v_schedule.months := app_jobs.cron_field('month', v_fields[5], 1, 12, array[
            'JAN', 'FEB', 'MAR', 'APR', 'MAY', 'JUN', 'JUL', 'AUG', 'SEP', 'OCT', 'NOV', 'DEC'
        ]);
        v_fields[6] := case v_fields[6] when '?' then '*' else v_fields[6] end;
        v_schedule.weekdays := app_jobs.cron_field('day of week', v_fields[6], 0, 7, array[
            'SUN', 'MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT'
        ]);
        v_schedule.either_day := v_fields[4] !~ '^\*' and v_fields[6] !~ '^\*';
        v_schedule.names_hour := v_fields[3] !~ '^\*';
    elsif v_forms[1] = 'calendar fields' then
        v_schedule.seconds := app_jobs.calendar_field(
            'second', coalesce(v_info -> 'second', '0'), 0, 59
        );
        v_schedule.minutes := app_jobs.calendar_field('minute', v_info -> 'minute', 0, 59);
        v_schedule.hours := app_jobs.calendar_field('hour', v_info -> 'hour', 0, 23);
        v_schedule.dates := app_jobs.calendar_field('date', v_info -> 'date', 1, 31);
        v_schedule.months := app_jobs.calendar_field('month', v_info -> 'month', 0, 11, 1);
        v_schedule.weekdays := app_jobs.calendar_field('dayOfWeek', v_info -> 'dayOfWeek', 0, 6);
        if 'year' = any (v_keys) then
            v_schedule.years := app_jobs.calendar_field(
                'year', v_info -> 'year', 1970, 2099, -1970
            );
        end if;
        v_schedule.either_day := false;
        v_schedule.names_hour := 'hour' = any (v_keys);
    end if;
    return v_schedule;
end;
$$;

create function app_jobs.next_match(
    schedule app_jobs.parsed_schedule, wall timestamp
) returns timestamp
language plpgsql
immutable
as $$
declare
    -- Every kind of year (its length, its first weekday) comes again within 40 years.
    c_horizon constant integer := 40;
    c_sunday constant date := date '1899-12-31';
    c_no_days constant bit varying := b'0000000000000000000000000000000';
    v_first_minute constant integer := app_jobs.next_bit(schedule.minutes, 0);
    v_first_second constant integer := app_jobs.next_bit(schedule.seconds, 0);
    v_any_day constant time := make_time(
        app_jobs.next_bit(schedule.hours, 0), v_first_minute, v_first_second
    );
    v_hour constant integer := extract(hour from wall);
    v_minute constant integer := extract(minute from wall);
    v_today constant time := coalesce(
        case when get_bit(schedule.hours, v_hour) = 1 then coalesce(
            case when get_bit(schedule.minutes, v_minute) = 1 then make_time(
                v_hour, v_minute,
                app_jobs.next_bit(schedule.seconds, extract(second from wall)::integer)
            ) end,
            make_time(v_hour, app_jobs.next_bit(schedule.minutes, v_minute + 1), v_first_second)
        ) end,
        make_time(app_jobs.next_bit(schedule.hours, v_hour + 1), v_first_minute, v_first_second)
    );
    v_first_year constant integer := extract(year from wall);
    v_last_year constant integer := case
        when schedule.years is null then v_first_year + c_horizon else 2099
    end;
    v_month integer := extract(month from wall);
    v_day integer := extract(day from wall) + case when v_today is null then 1 else 0 end;
    v_next_month integer;
    v_first date;
    v_weekday integer;
    v_length integer;
    v_days bit varying;
    v_dates bit varying;
    v_week bit varying;
    v_weeks bit varying := b'';
    v_found integer;
    v_kind integer;
    v_in_vain bit varying := b'00000000000000';
begin
    -- Sunday to Saturday twice, for the first, second, …, fifth and last seven days of a month:
    -- from the weekday on which they begin, seven bits are those days.
    for v_number in 1 .. 6 loop
        v_week := substring(schedule.weekdays for 7)
            | substring(schedule.weekdays from 7 * v_number + 1 for 7);
        v_weeks := v_weeks || v_week || v_week;
    end loop;
    for v_year in v_first_year .. v_last_year loop
        if v_year > v_first_year then
            v_month := 1;
            v_day := 1;
        end if;
        v_first := make_date(v_year, 1, 1);
        v_kind := (v_first - c_sunday) % 7 + 7 * (make_date(v_year + 1, 1, 1) - v_first - 365);
        continue when get_bit(v_in_vain, v_kind) = 1
            or (v_year < 1970 or get_bit(schedule.years, v_year - 1970) = 0)
                and schedule.years is not null;
        v_next_month := app_jobs.next_bit(schedule.months, v_month);
        while v_next_month is not null loop
            if v_next_month <> v_month then
                v_day := 1;
            end if;
            v_month := v_next_month;
            v_first := make_date(v_year, v_month, 1);
            v_weekday := (v_first - c_sunday) % 7;
            v_length := (v_first + interval '1 month')::date - v_first;
            v_days := substring(
                substring(v_weeks from v_weekday + 1 for 7)
                || substring(v_weeks from v_weekday + 15 for 7)
                || substring(v_weeks from v_weekday + 29 for 7)
                || substring(v_weeks from v_weekday + 43 for 7)
                || substring(v_weeks from v_weekday + 57 for 7)
                for v_length
            );
            v_days := v_days | overlay(
                substring(c_no_days for v_length)
                placing substring(v_weeks from (v_weekday + v_length) % 7 + 71 for 7)
                from v_length - 6
            );
            v_dates := substring(schedule.dates from 2 for v_length);
            if get_bit(schedule.dates, 0) = 1 then
                v_dates := set_bit(v_dates, v_length - 1, 1);
            end if;
            if schedule.either_day then
                v_days := v_days | v_dates;
            else
                v_days := v_days & v_dates;
            end if;
            v_found := app_jobs.next_bit(v_days, v_day - 1);
            if v_found is not null then
                v_first := v_first + v_found;
                return v_first + case when v_first = wall::date then v_today else v_any_day end;
            end if;
            v_next_month := app_jobs.next_bit(schedule.months, v_month + 1);
        end loop;
        if v_year > v_first_year then
            v_in_vain := set_bit(v_in_vain, v_kind, 1);
        end if;
    end loop;
    return null;
end;
$$;

create function app_jobs.next_step(
    schedule app_jobs.parsed_schedule, after timestamptz
) returns timestamptz
language plpgsql
stable
as $$
declare
    v_zone constant text := schedule.time_zone;
    v_every constant interval := schedule.every;
    v_months constant integer := extract(year from v_every) * 12 + extract(month from v_every);
    v_has_days constant boolean := v_months > 0 or extract(day from v_every) > 0;
    -- a Monday, and the first day of a year
    v_start constant timestamptz := coalesce(
        schedule.start_at, timezone(v_zone, timestamp '2001-01-01')
    );
    v_start_wall constant timestamp := timezone(v_zone, v_start);
    v_steps double precision;
    v_next timestamptz;
begin
    -- The step before, in months of mean length, which a real one never leaves by more than half.
    v_steps := floor(
        extract(epoch from case
            when v_has_days then timezone(v_zone, after) - v_start_wall else after - v_start
        end)
        / (v_months * 2629746.0 + extract(epoch from v_every - make_interval(months => v_months)))
    ) - 1;
    if schedule.start_at is not null then
        v_steps := greatest(v_steps, 0);
    end if;
    loop
        -- Always from the start, so that the 31st comes back after a February.
        v_next := case
            when v_has_days then greatest(
                app_jobs.first_reading(v_start_wall + v_steps * v_every, v_zone), schedule.start_at
            )
            else v_start + v_steps * v_every
        end;
        exit when v_next > after;
        v_steps := v_steps + 1;
    end loop;
    return v_next;
end;
$$;

create function app_jobs.next_time(
    schedule app_jobs.parsed_schedule, after timestamptz
) returns timestamptz
language plpgsql
stable
as $$
declare
    v_zone constant text := schedule.time_zone;
    v_after constant timestamptz := greatest(
        after, timestamptz '1900-01-01 00:00+00', schedule.start_at - interval '1 microsecond'
    );
    v_end constant timestamptz := least(
        schedule.end_at, timestamptz '9999-12-31 00:00+00'
    );
    v_wall timestamp;
    v_from timestamp;
    v_match timestamp;
    v_other timestamptz;
    v_change timestamptz;
    v_put_back timestamp;
    v_next timestamptz;
begin
    if schedule.run_at is not null then
        return case when schedule.run_at > next_time.after then schedule.run_at end;
    elsif v_after >= v_end then
        return null;
    end if;
    v_wall := timezone(v_zone, v_after);
    v_from := date_trunc('second', v_wall) + interval '1 second';

    if schedule.every is not null then
        v_next := app_jobs.next_step(schedule, v_after);

    elsif schedule.names_hour then
        -- A time of the clock runs when it is first read, so the hour that comes again is over.
        v_other := app_jobs.first_reading(v_wall, v_zone);
        if v_other < v_after then
            v_change := app_jobs.clock_change(v_zone, v_other, v_after);
            v_from := v_wall + (v_change - v_other);
        end if;
        v_next := app_jobs.first_reading(app_jobs.next_match(schedule, v_from), v_zone);

    else
        -- Real time: in the hour that comes again, look up to where the clock is put back, then
        -- from there. Skipped times do not run.
        v_other := timezone(v_zone, v_wall);
        if v_other > v_after then
            v_change := app_jobs.clock_change(v_zone, v_after, v_other);
            v_put_back := v_wall + (v_change - v_after);
        end if;
        loop
            v_match := app_jobs.next_match(schedule, v_from);
            v_next := app_jobs.first_reading(v_match, v_zone);
            if v_next <= v_after then
                v_next := timezone(v_zone, v_match);
                exit;
            elsif v_match >= v_put_back then
                v_from := timezone(v_zone, v_change);
                v_put_back := null;
            elsif timezone(v_zone, v_next) <> v_match then
                v_from := timezone(v_zone, v_next);
            else
                exit;
            end if;
        end loop;
    end if;
    return case when v_next <= v_end then v_next end;
end;
$$;

create function app_jobs.check_schedule(schedule_info json, time_zone text) returns void
language plpgsql
stable
as $$
begin
    perform app_jobs.read_schedule(check_schedule.schedule_info, check_schedule.time_zone);
end;
$$;

create function app_jobs.next_run_at(
    schedule_info json,
    after timestamptz default now(),
    time_zone text default 'UTC'
) returns timestamptz
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return app_jobs.next_time(
        app_jobs.read_schedule(next_run_at.schedule_info, next_run_at.time_zone),
        coalesce(next_run_at.after, now())
    );
end;
$$;

create function app_jobs.preview_schedule(
    schedule_info json,
    count integer default 10,
    after timestamptz default now(),
    time_zone text default 'UTC'
) returns setof timestamptz
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_schedule constant app_jobs.parsed_schedule := app_jobs.read_schedule(
        preview_schedule.schedule_info, preview_schedule.time_zone
    );
    v_next timestamptz := coalesce(preview_schedule.after, now());
begin
    if preview_schedule.count not between 1 and 1000 then
        raise exception 'count is %', preview_schedule.count
            using errcode = '22023', hint = 'Give 1 to 1000, or leave it out for 10.';
    end if;
    for v_number in 1 .. coalesce(preview_schedule.count, 10) loop
        v_next := app_jobs.next_time(v_schedule, v_next);
        exit when v_next is null;
        return next v_next;
    end loop;
end;
$$;

revoke all on type app_jobs.parsed_schedule from public;
revoke all on function app_jobs.next_bit(bit varying, integer) from public;
revoke all on function app_jobs.check_time_zone(text, text) from public;
revoke all on function app_jobs.clock_change(text, timestamptz, timestamptz) from public;
revoke all on function app_jobs.first_reading(timestamp, text) from public;
revoke all on function app_jobs.read_moment(text, json, text) from public;
revoke all on function app_jobs.read_every(json) from public;
revoke all on function app_jobs.cron_number(text, text[], integer) from public;
revoke all on function app_jobs.cron_field(text, text, integer, integer, text[]) from public;
revoke all on function app_jobs.calendar_field(text, json, integer, integer, integer) from public;
revoke all on function app_jobs.read_schedule(json, text) from public;
revoke all on function app_jobs.next_match(app_jobs.parsed_schedule, timestamp) from public;
revoke all on function app_jobs.next_step(app_jobs.parsed_schedule, timestamptz) from public;
revoke all on function app_jobs.next_time(app_jobs.parsed_schedule, timestamptz) from public;
revoke all on function app_jobs.check_schedule(json, text) from public;
revoke all on function app_jobs.next_run_at(json, timestamptz, text) from public;
revoke all on function app_jobs.preview_schedule(json, integer, timestamptz, text) from public;
grant execute on function app_jobs.next_run_at(json, timestamptz, text)
to app_jobs_producer, app_jobs_monitor;
grant execute on function app_jobs.preview_schedule(json, integer, timestamptz, text)
to app_jobs_producer, app_jobs_monitor;

comment on type app_jobs.parsed_schedule is
'A schedule_info as it is computed with. run_at: of the form "at"; every: of that form; the others
have bit strings, in which bit n says whether n is allowed. dates: bit 0 is the last day of the
month. months: 1 to 12. weekdays: seven bits for each week''s Sunday to Saturday, then seven each
for those of the first, second, …, fifth and last of the month. years: from 1970. either_day: dates
or weekdays must match, not both. names_hour: a time runs once, when the clock first reads it;
otherwise the hours follow real time.';
comment on function app_jobs.next_bit(bit varying, integer) is
'Find the first bit that is set, at or after one.

bits   counted from 0
first  where to begin

Returns: its number, or null. Roles: internal.';
comment on function app_jobs.check_time_zone(text, text) is
'Refuse a time zone that is not known by its full name; null passes.

argument   its name, for the message
time_zone  UTC, GMT, or Area/City

Errors: 22023. Roles: internal.';
comment on function app_jobs.clock_change(text, timestamptz, timestamptz) is
'Find when the clock was changed between two instants whose distance from UTC differs.

time_zone  where
since      an instant before the change
until      an instant at or after it, and not after another one

Returns: the first instant of the new time. Roles: internal.';
comment on function app_jobs.first_reading(timestamp, text) is
'Find the first instant at which the clock shows a time, or a later one if that was skipped.

wall       what the clock shows
time_zone  where it hangs

Roles: internal.';
comment on function app_jobs.read_moment(text, json, text) is
'Read a moment in a schedule_info; null for none.

key        its name, for the message
value      an ISO 8601 date, or date and time
time_zone  whose time it is if it has no offset

Errors: 22023. Roles: internal.';
comment on function app_jobs.read_every(json) is
'Read the interval of a schedule_info; null for none.

value  a text that PostgreSQL takes for an interval

Errors: 22023. Roles: internal.';
comment on function app_jobs.cron_number(text, text[], integer) is
'Read a number or name in a cron rule; null if it is neither.

value       digits or an upper case name
names       the names
first_name  the number of the first one

Roles: internal.';
comment on function app_jobs.cron_field(text, text, integer, integer, text[]) is
'Read a field of a cron rule.

field  its name, for the message and for what only days can be
value  the field, in upper case
low    the smallest number allowed
high   the greatest one
names  of the numbers from low on, or null

Returns: bits as in parsed_schedule. Errors: 22023. Roles: internal.';
comment on function app_jobs.calendar_field(text, json, integer, integer, integer) is
'Read a calendar field of a schedule_info.

key    its name
value  a number, a range, or an array of these; null: all numbers
low    the smallest number allowed
high   the greatest one
shift  what is added to a number to make it that of a bit

Returns: bits as in parsed_schedule. Errors: 22023. Roles: internal.';
comment on function app_jobs.read_schedule(json, text) is
'Read a schedule_info, and refuse what is not well said.

schedule_info  as in docs/schedules.md
time_zone      used where it has no tz; null: UTC

Errors: 22004, 22023. Roles: internal.';
comment on function app_jobs.next_match(app_jobs.parsed_schedule, timestamp) is
'Find the first time that matches a rule or calendar, at or after one, on a clock that is never
changed.

schedule  its bits
wall      whole seconds

Returns: null if there is none within 40 years, in which the calendar shows all it can; with years,
none until 2099. Roles: internal.';
comment on function app_jobs.next_step(app_jobs.parsed_schedule, timestamptz) is
'Find the first step of an interval after an instant. Days and months are those of the calendar,
hours are real ones.

schedule  its every, start and time zone
after     an instant, not before the start but for a microsecond

Roles: internal.';
comment on function app_jobs.next_time(app_jobs.parsed_schedule, timestamptz) is
'Find when a schedule runs next.

schedule  from read_schedule()
after     the instant after which; 1900 stands for any before

Returns: null if never, that is, not before 9999-12-31. Roles: internal.';
comment on function app_jobs.check_schedule(json, text) is
'Refuse a schedule_info or time zone that cannot be used.

schedule_info  as in docs/schedules.md
time_zone      used where it has no tz; null: UTC

Errors: 22004, 22023. Roles: internal.';
comment on function app_jobs.next_run_at(json, timestamptz, text) is
'Say when a schedule runs next.

schedule_info  one of
               {"rule": "0 9 * * MON-FRI"}  cron, 5 fields or 6 with seconds in front
               {"hour": 9, "minute": 0}     second, minute, hour, dayOfWeek (0–6, 7 = Sunday), date
                                            (1–31), month (0–11), year (1970–2099): a number, a
                                            {"start", "end", "step"}, or an array; second defaults
                                            to 0, the others to any
               {"every": "15 minutes"}      counted from start, or from 2001-01-01
               {"at": "2031-02-03T04:05"}   once
               and with it tz (goes before time_zone) and, but for at, start and end, both inclusive
after          the answer is later than this; null: now()
time_zone      by name; null: UTC

A time that a clock change skips runs at the first instant after the gap; one that comes twice runs
once, the first time, if the schedule names the hour; otherwise hours follow real time.

Returns: null if never again. Errors: 22004, 22023. Roles: app_jobs_producer, app_jobs_operator,
app_jobs_monitor.';
comment on function app_jobs.preview_schedule(json, integer, timestamptz, text) is
'List the next times at which a schedule runs.

schedule_info  as for next_run_at()
count          how many, 1 to 1000; null: 10
after          the first one is later than this; null: now()
time_zone      by name; null: UTC

Returns: fewer if there are no more. Errors: 22004, 22023. Roles: app_jobs_producer,
app_jobs_operator, app_jobs_monitor.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:scheduled_jobs to pg
-- requires: schedule_times
-- requires: slots

set local lock_timeout = '5s';

create table app_jobs.scheduled_jobs (
    id bigint generated always as identity,
    database_id uuid,
    queue_name text default null,
    task_identifier text collate "C" not null,
    payload json not null default '{}',
    attributes jsonb not null default '{}',
    priority integer not null default 0,
    max_attempts integer,
    key text,
    schedule_info json not null,
    time_zone text not null default 'UTC',
    missed text not null default 'once',
    overlap text not null default 'allow',
    paused boolean not null default false,
    locked_at timestamptz,
    locked_by text,
    last_scheduled timestamptz,
    last_scheduled_id bigint,
    next_run_at timestamptz,
    due_at timestamptz,
    slot integer,
    constraint scheduled_jobs_pkey primary key (id),
    constraint scheduled_jobs_task_identifier_length check (
        char_length(task_identifier) between 1 and 126
    ),
    constraint scheduled_jobs_queue_name_length check (char_length(queue_name) between 1 and 200),
    constraint scheduled_jobs_key_length check (char_length(key) between 1 and 512),
    constraint scheduled_jobs_attributes_object check (jsonb_typeof(attributes) = 'object'),
    constraint scheduled_jobs_max_attempts_positive check (max_attempts >= 1),
    constraint scheduled_jobs_missed_known check (missed in ('skip', 'once', 'all')),
    constraint scheduled_jobs_overlap_known check (overlap in ('allow', 'skip')),
    constraint scheduled_jobs_held_since check ((locked_by is null) = (locked_at is null)),
    constraint scheduled_jobs_paused_without_time check (not paused or next_run_at is null),
    constraint scheduled_jobs_placed check (
        (next_run_at is null) = (due_at is null) and (due_at is null) = (slot is null)
    )
);

create index scheduled_jobs_due on app_jobs.scheduled_jobs (
    slot, due_at
) where due_at is not null;

create index scheduled_jobs_paused on app_jobs.scheduled_jobs (id) where paused;

create unique index scheduled_jobs_key on app_jobs.scheduled_jobs (
    key
) where key is not null and database_id is null;

create unique index scheduled_jobs_tenant_key on app_jobs.scheduled_jobs (
    database_id, key
) where key is not null and database_id is not null;

create function app_jobs.tg_place_schedule() returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    c_hold constant interval := interval '1 minute';
    v_now constant timestamptz := clock_timestamp();
    -- for an insert old is a row of nulls
    v_is_new constant boolean := (new.schedule_info::text, new.time_zone)
        is distinct from (old.schedule_info::text, old.time_zone)
        or (old.paused and not new.paused);
begin
    perform app_jobs.check_not_null(
        'task_identifier', new.task_identifier is null, 'Name the task to run, 1 to 126 characters.'
    );
    perform app_jobs.check_length('task_identifier', new.task_identifier, 126);
    perform app_jobs.check_length('queue_name', new.queue_name, 200);
    perform app_jobs.check_length('key', new.key, 512);
    perform app_jobs.check_time('next_run_at', new.next_run_at);
    perform app_jobs.check_sizes(new.payload, new.attributes);
    if new.max_attempts < 1 then
        raise exception 'max_attempts is %', new.max_attempts
            using errcode = '22023',
                hint = 'Give at least 1, or leave it out for the task''s default.';
    elsif new.missed not in ('skip', 'once', 'all') then
        raise exception 'missed is "%"', new.missed
            using errcode = '22023', hint = 'Use skip, once or all.';
    elsif new.overlap not in ('allow', 'skip') then
        raise exception 'overlap is "%"', new.overlap
            using errcode = '22023', hint = 'Use allow or skip.';
    elsif jsonb_typeof(new.attributes) <> 'object' then
        raise exception 'attributes is of type %', jsonb_typeof(new.attributes)
            using errcode = '22023', hint = 'Give an object: each job gets it.';
    end if;

    if v_is_new then
        perform app_jobs.check_not_null(
            'schedule_info', new.schedule_info is null, 'Say when, like {"every": "15 minutes"}.'
        );
        perform app_jobs.check_not_null(
            'time_zone', new.time_zone is null, 'Name a time zone, like UTC or Europe/Berlin.'
        );
        perform app_jobs.check_schedule(new.schedule_info, new.time_zone);
    end if;

    if new.paused then
        new.next_run_at := null;
    elsif v_is_new
        and (new.next_run_at is null or new.next_run_at is not distinct from old.next_run_at)
    then
        -- Behind the last due time that was seen to, wherever the clock is: none comes twice.
        new.next_run_at := app_jobs.next_run_at(
            new.schedule_info, greatest(v_now, new.last_scheduled), new.time_zone
        );
    end if;

    -- While an outside scheduler holds it there is nothing to look for.
    new.due_at := case
        when new.next_run_at is not null then greatest(new.next_run_at, new.locked_at + c_hold)
    end;
    -- Whoever writes a due time, in whatever way, does so in a slot, so that nobody looks past it.
    if new.due_at is null then
        new.slot := null;
    elsif tg_op = 'UPDATE' and new.due_at is not distinct from old.due_at then
        new.slot := old.slot;
    elsif tg_op = 'UPDATE' or new.slot is null then -- given: by a restore, with slots and alarms
        new.slot := app_jobs.enter_slot();
        perform nextval('app_jobs.activity');
        -- as in add_job()
        if new.due_at < v_now + interval '1 minute' then
            perform app_jobs.wake_workers();
        end if;
    end if;
    return new;
end;
$$;

create trigger scheduled_jobs_place before insert or update on app_jobs.scheduled_jobs
for each row execute function app_jobs.tg_place_schedule();

create function app_jobs.add_scheduled_job(
    db_id uuid default null,
    identifier text default null,
    payload json default '{}',
    schedule_info json default '{}',
    job_key text default null,
    queue_name text default null,
    max_attempts integer default null,
    priority integer default 0,
    time_zone text default 'UTC',
    missed text default 'once',
    attributes jsonb default '{}',
    overlap text default 'allow'
) returns app_jobs.scheduled_jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_payload constant json := coalesce(add_scheduled_job.payload, '{}');
    v_info constant json := coalesce(add_scheduled_job.schedule_info, '{}');
    v_priority constant integer := coalesce(add_scheduled_job.priority, 0);
    v_zone constant text := coalesce(add_scheduled_job.time_zone, 'UTC');
    v_missed constant text := coalesce(add_scheduled_job.missed, 'once');
    v_attributes constant jsonb := coalesce(add_scheduled_job.attributes, '{}');
    v_overlap constant text := coalesce(add_scheduled_job.overlap, 'allow');
    v_schedule app_jobs.scheduled_jobs;
begin
    -- what has the same name as a column is left to the table's trigger
    perform app_jobs.check_job(
        add_scheduled_job.identifier, add_scheduled_job.job_key, add_scheduled_job.queue_name,
        add_scheduled_job.max_attempts, null, null
    );
    loop
        if add_scheduled_job.db_id is null then
            select s.* into v_schedule from app_jobs.scheduled_jobs as s
            where s.key = add_scheduled_job.job_key and s.database_id is null;
        else
            select s.* into v_schedule from app_jobs.scheduled_jobs as s
            where
                s.key = add_scheduled_job.job_key
                and s.database_id = add_scheduled_job.db_id;
        end if;
        if v_schedule.id is null then
            insert into app_jobs.scheduled_jobs as s (
                database_id, queue_name, task_identifier, payload, attributes, priority,
                max_attempts, key, schedule_info, time_zone, missed, overlap
            )
            values (
                add_scheduled_job.db_id, add_scheduled_job.queue_name,
                add_scheduled_job.identifier, v_payload, v_attributes, v_priority,
                add_scheduled_job.max_attempts, add_scheduled_job.job_key, v_info, v_zone,
                v_missed, v_overlap
            )
            on conflict do nothing
            returning s.* into v_schedule;
        elsif (
            v_schedule.task_identifier, v_schedule.queue_name, v_schedule.payload::text,
            v_schedule.attributes, v_schedule.priority, v_schedule.max_attempts,
            v_schedule.schedule_info::text, v_schedule.time_zone, v_schedule.missed,
            v_schedule.overlap
        ) is distinct from (
            add_scheduled_job.identifier, add_scheduled_job.queue_name, v_payload::text,
            v_attributes, v_priority, add_scheduled_job.max_attempts, v_info::text, v_zone,
            v_missed, v_overlap
        ) then
            -- the trigger sets next_run_at anew if the rule has changed, and only then
            update app_jobs.scheduled_jobs as s
            set
                task_identifier = add_scheduled_job.identifier,
                queue_name = add_scheduled_job.queue_name,
                payload = v_payload,
                attributes = v_attributes,
                priority = v_priority,
                max_attempts = add_scheduled_job.max_attempts,
                schedule_info = v_info,
                time_zone = v_zone,
                missed = v_missed,
                overlap = v_overlap
            where s.id = v_schedule.id
            returning s.* into v_schedule;
        end if;
        -- none: another transaction has just added or removed one under this key, so look again
        exit when v_schedule.id is not null;
    end loop;
    return v_schedule;
end;
$$;

create function app_jobs.list_scheduled_jobs(key_prefix text default null)
returns setof app_jobs.scheduled_jobs
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select s.* from app_jobs.scheduled_jobs as s
    where
        list_scheduled_jobs.key_prefix is null
        or starts_with(s.key, list_scheduled_jobs.key_prefix)
    order by s.id;
end;
$$;

revoke all on function app_jobs.tg_place_schedule() from public;
revoke all on function app_jobs.add_scheduled_job(
    uuid, text, json, json, text, text, integer, integer, text, text, jsonb, text
) from public;
revoke all on function app_jobs.list_scheduled_jobs(text) from public;
grant select, insert, update, delete on app_jobs.scheduled_jobs to app_jobs_operator;
grant execute on function app_jobs.add_scheduled_job(
    uuid, text, json, json, text, text, integer, integer, text, text, jsonb, text
) to app_jobs_worker;
grant execute on function app_jobs.list_scheduled_jobs(text) to app_jobs_worker;

comment on table app_jobs.scheduled_jobs is
'Recurring jobs: a row per rule. run_due_schedules(), which tick() calls, adds the jobs. Operators
may write the table directly: a row of task_identifier and schedule_info is a live schedule.';
comment on column app_jobs.scheduled_jobs.id is 'Names the schedule.';
comment on column app_jobs.scheduled_jobs.database_id is 'Tenant of its jobs; null: none.';
comment on column app_jobs.scheduled_jobs.queue_name is 'Queue of its jobs, up to 200 characters; null: in parallel with everything.';
comment on column app_jobs.scheduled_jobs.task_identifier is 'Task to run, 1 to 126 characters.';
comment on column app_jobs.scheduled_jobs.payload is 'Payload of each job, kept byte for byte.';
comment on column app_jobs.scheduled_jobs.attributes is 'Attributes of each job, an object; its job gets "schedule": {"id", "due_at"} besides.';
comment on column app_jobs.scheduled_jobs.priority is 'Priority of its jobs: lower runs first.';
comment on column app_jobs.scheduled_jobs.max_attempts is 'Runs of a job before it fails for good; null: the task''s, or 25.';
comment on column app_jobs.scheduled_jobs.key is 'Names the schedule within its tenant, not its jobs; up to 512 characters, or null.';
comment on column app_jobs.scheduled_jobs.schedule_info is 'The rule: see next_run_at().';
comment on column app_jobs.scheduled_jobs.time_zone is 'Its time zone, unless schedule_info names one.';
comment on column app_jobs.scheduled_jobs.missed is
'What to do when it is more than a minute behind. skip: go on with the next due time to come; once:
one job, for the last due time; all: a job for each. Less late, each gets its job in any case.';
comment on column app_jobs.scheduled_jobs.overlap is
'What to do when its last job still waits or runs. allow: add the next one all the same; skip: pass
over the due time.';
comment on column app_jobs.scheduled_jobs.paused is 'Nothing is added, and nothing is made up for later.';
comment on column app_jobs.scheduled_jobs.locked_at is 'Since when an outside scheduler holds it: for a minute, then the hold is over.';
comment on column app_jobs.scheduled_jobs.locked_by is 'The outside scheduler: see get_scheduled_job().';
comment on column app_jobs.scheduled_jobs.last_scheduled is 'The last due time that was seen to, with a job or passed over. No due time up to it comes again.';
comment on column app_jobs.scheduled_jobs.last_scheduled_id is 'The last job that was added for it.';
comment on column app_jobs.scheduled_jobs.next_run_at is
'The next due time; null: paused, or never again. Set when the rule is; an operator may write
another.';
comment on column app_jobs.scheduled_jobs.due_at is 'Internal: when to look at it: at next_run_at, or when the hold of an outside scheduler is over.';
comment on column app_jobs.scheduled_jobs.slot is 'Internal: the slot in which due_at was written.';
comment on constraint scheduled_jobs_paused_without_time on app_jobs.scheduled_jobs is
'So what has a next_run_at is live.';
comment on constraint scheduled_jobs_placed on app_jobs.scheduled_jobs is
'Each due time stands where it is looked for.';
comment on index app_jobs.scheduled_jobs_due is 'Due times, slot by slot.';
comment on index app_jobs.scheduled_jobs_paused is 'To find what is paused.';
comment on index app_jobs.scheduled_jobs_key is 'One schedule per key, without tenant (a null tenant would make a plain unique index enforce nothing).';
comment on index app_jobs.scheduled_jobs_tenant_key is 'One schedule per tenant and key.';
comment on function app_jobs.tg_place_schedule() is
'Check a schedule, set its next due time if the rule is new, and place it where it is looked for.
Workers are woken if it is due within a minute.

Errors: 22004, 22023. Locks: the current slot, shared. Roles: internal; as the table''s trigger it
has our rights.';
comment on function app_jobs.add_scheduled_job(
    uuid, text, json, json, text, text, integer, integer, text, text, jsonb, text
) is
'Add a schedule, or with a key change the one that has it. Whoever says again what is there writes
nothing; next_run_at is set anew only if the rule changes, so no due time is lost or repeated.

db_id          tenant of the schedule and its jobs; null: none
identifier     task to run, 1 to 126 characters; required
payload        payload of each job
schedule_info  the rule: see next_run_at(); required
job_key        names the schedule within its tenant, up to 512 characters; null: always a new one
queue_name     queue of its jobs; null: in parallel with everything
max_attempts   1 or more; null: the task''s, or 25
priority       lower runs first
time_zone      for rules that name none themselves
missed         skip, once or all: see scheduled_jobs.missed
attributes     attributes of each job, an object
overlap        allow or skip: see scheduled_jobs.overlap

A null argument means its default. A schedule that is paused stays so.

Returns: the schedule as it stands now. Errors: 22004, 22023. Locks: the schedule under job_key;
waits for it. Roles: app_jobs_worker.';
comment on function app_jobs.list_scheduled_jobs(text) is
'List schedules, by id. For applications that compare them with what they declare.

key_prefix  only those whose key begins so; null: all

Returns: schedules. Roles: app_jobs_worker.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:run_schedules to pg
-- requires: scheduled_jobs
-- requires: add_jobs

set local lock_timeout = '5s';

create function app_jobs.schedule_slots(
    now timestamptz, out slot integer, out since timestamptz
) returns setof record
language sql
stable
as $$
    select o.slot, timestamptz '-infinity' from app_jobs.open_slots as o
    union all
    (
        select a.slot, a.due_at
        from app_jobs.alarms as a
        where a.kind = 'schedule' and a.due_at <= schedule_slots.now
        order by a.due_at
        limit 50
    )
$$;

create function app_jobs.next_schedule_at(now timestamptz) returns timestamptz
language plpgsql
stable
as $$
#variable_conflict use_column
begin
    return (
        select min(d.due_at)
        from (
            (
                select a.due_at
                from app_jobs.alarms as a
                where a.kind = 'schedule' and a.due_at > next_schedule_at.now
                order by a.due_at
                limit 1
            )
            union all
            -- in open slots, and where an alarm has just gone off: exactly
            select h.due_at
            from app_jobs.schedule_slots(next_schedule_at.now) as p(slot, since)
            cross join lateral (
                select w.due_at
                from app_jobs.scheduled_jobs as w
                where w.slot = p.slot and w.due_at >= p.since
                order by w.due_at
                limit 1
            ) as h
        ) as d
    );
end;
$$;

create function app_jobs.last_due(
    schedule app_jobs.scheduled_jobs, now timestamptz
) returns timestamptz
language plpgsql
stable
as $$
declare
    v_last timestamptz := schedule.next_run_at;
    v_until timestamptz := now;
    v_next timestamptz;
    v_middle timestamptz;
begin
    -- Halve the time in which it must be: a thousand due times cost ten looks.
    loop
        v_next := app_jobs.next_run_at(schedule.schedule_info, v_last, schedule.time_zone);
        exit when v_next is null or v_next > now;
        v_last := v_next;
        v_middle := v_last + make_interval(secs => extract(epoch from v_until - v_last) / 2);
        v_next := app_jobs.next_run_at(schedule.schedule_info, v_middle, schedule.time_zone);
        if v_next is null or v_next > now then
            v_until := v_middle;
        else
            v_last := v_next;
        end if;
    end loop;
    return v_last;
end;
$$;

create function app_jobs.due_times(
    schedule app_jobs.scheduled_jobs, now timestamptz,
    out due timestamptz[], out last_due timestamptz, out next_due timestamptz
)
language plpgsql
stable
as $$
declare
    c_late constant interval := interval '1 minute';
    c_at_once constant integer := 100;
begin
    due := '{}';
    next_due := schedule.next_run_at;
    if next_due < now - c_late and schedule.missed <> 'all' then
        last_due := app_jobs.last_due(schedule, now);
        if schedule.missed = 'once' then
            due := array[last_due];
        end if;
        next_due := app_jobs.next_run_at(schedule.schedule_info, last_due, schedule.time_zone);
        return;
    end if;
    loop
        last_due := next_due;
        due := due || last_due;
        -- from the due time, not from the clock: none is left out, whenever we come, and none
        -- comes twice, wherever the clock is set
        next_due := app_jobs.next_run_at(schedule.schedule_info, last_due, schedule.time_zone);
        exit when next_due is null or next_due > now or cardinality(due) = c_at_once;
    end loop;
end;
$$;

create function app_jobs.job_spec(
    schedule app_jobs.scheduled_jobs, due_at timestamptz
) returns json
language sql
stable
as $$
    select json_build_object(
        'db_id', schedule.database_id,
        'identifier', schedule.task_identifier,
        'payload', schedule.payload,
        'queue_name', schedule.queue_name,
        'run_at', due_at,
        'max_attempts', schedule.max_attempts,
        'priority', schedule.priority,
        'attributes', schedule.attributes || jsonb_build_object(
            'schedule', jsonb_build_object(
                'id', schedule.id,
                'due_at', (to_json(due_at at time zone 'UTC') #>> '{}') || '+00:00'
            )
        )
    )
$$;

create function app_jobs.fire_schedules(most integer) returns bigint[]
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_looked_at constant integer := 1000;
    c_jobs constant integer := 1000;
    v_now constant timestamptz := clock_timestamp();
    v_due tid[];
    v_row record;
    v_schedule app_jobs.scheduled_jobs;
    v_times record;
    v_due_times timestamptz[];
    v_overlaps boolean;
    v_tids tid[];
    v_last timestamptz[];
    v_next timestamptz[];
    v_counts integer[];
    v_specs json[] := '{}'::json[];
    v_ids bigint[] := '{}'::bigint[];
begin
    -- More than are wanted, since others may have locked those; then lock as many as are wanted.
    v_due := array(
        select d.ctid
        from app_jobs.schedule_slots(v_now) as p(slot, since)
        cross join lateral (
            select w.ctid
            from app_jobs.scheduled_jobs as w
            where w.slot = p.slot and w.due_at >= p.since and w.due_at <= v_now
            order by w.due_at
            limit c_looked_at
        ) as d
        limit c_looked_at
    );
    for v_row in
        select s.ctid as tid, s as schedule
        from app_jobs.scheduled_jobs as s
        -- The fence: of a row that somebody has just changed, what it says now counts. Said in a way
        -- that no partial index can serve: by address, whatever the statistics say.
        where s.ctid = any(v_due) and coalesce(s.due_at, 'infinity') <= v_now
        order by s.due_at
        limit fire_schedules.most
        for update skip locked
    loop
        v_schedule := v_row.schedule;
        begin
            select t.* into v_times from app_jobs.due_times(v_schedule, v_now) as t;
        exception when data_exception then
            -- Its time zone has gone from the server, say. It must not stop the others.
            raise warning 'app_jobs: schedule % is paused: %', v_schedule.id, sqlerrm
                using hint = 'Correct schedule_info or time_zone, then set paused = false.';
            update app_jobs.scheduled_jobs as s set paused = true where s.ctid = v_row.tid;
            continue;
        end;
        v_due_times := v_times.due;
        if v_schedule.overlap = 'skip' then
            v_overlaps := exists (
                select from app_jobs.jobs as j where j.id = v_schedule.last_scheduled_id
            );
            -- the job of the first one still waits when the second one is due
            v_due_times := case when v_overlaps then '{}' else v_due_times[1:1] end;
        end if;
        v_specs := v_specs || array(
            select app_jobs.job_spec(v_schedule, t.due_at)
            from unnest(v_due_times) with ordinality as t(due_at, n)
            order by t.n
        );
        v_tids := v_tids || v_row.tid;
        v_last := v_last || v_times.last_due;
        v_next := v_next || v_times.next_due;
        v_counts := v_counts || cardinality(v_due_times);
        exit when cardinality(v_specs) >= c_jobs;
    end loop;

    -- To add the jobs and to note it is one transaction: nothing in between can be lost.
    if cardinality(v_specs) > 0 then
        v_ids := array(
            select i.id
            from unnest(app_jobs.insert_jobs(
                array_to_json(v_specs), null, null, null, cardinality(v_specs), null, null, null,
                null, null, null
            )) as i(id)
            order by i.id
        );
    end if;
    update app_jobs.scheduled_jobs as s
    set
        last_scheduled = f.last_due,
        last_scheduled_id = case
            when f.jobs > 0 then v_ids[f.jobs_so_far] else s.last_scheduled_id
        end,
        next_run_at = f.next_due,
        locked_at = null,
        locked_by = null
    from (
        select u.*, sum(u.jobs) over (order by u.n) as jobs_so_far
        from unnest(v_tids, v_last, v_next, v_counts) with ordinality
        as u(tid, last_due, next_due, jobs, n)
    ) as f
    where s.ctid = f.tid;

    -- as in make_due_ready()
    with rung as materialized (
        select a.slot, a.due_at
        from app_jobs.alarms as a
        where a.kind = 'schedule' and a.due_at <= v_now
        order by a.due_at
        limit 50
        for update skip locked
    ),

    next_due as materialized (
        select r.slot, n.due_at
        from rung as r
        left join lateral (
            select s.due_at
            from app_jobs.scheduled_jobs as s
            where s.slot = r.slot and s.due_at >= r.due_at
            order by s.due_at
            limit 1
        ) as n on true
    ),

    silent as (
        delete from app_jobs.alarms as a
        using next_due as n
        where a.slot = n.slot and a.kind = 'schedule' and n.due_at is null
    )

    update app_jobs.alarms as a
    set due_at = n.due_at
    from next_due as n
    where
        a.slot = n.slot
        and a.kind = 'schedule'
        and n.due_at > v_now + interval '0.2 seconds';
    return v_ids;
end;
$$;

create function app_jobs.run_due_schedules() returns setof app_jobs.jobs
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
    v_ids bigint[];
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'run_due_schedules() cannot run at isolation level %',
            current_setting('transaction_isolation')
            using errcode = 'JQ002',
                detail = 'It locks, and then must see what others did before.',
                hint = 'Call it at READ COMMITTED.';
    end if;
    v_ids := app_jobs.fire_schedules(1000);
    return query
    select j.* from app_jobs.jobs as j where j.id = any(v_ids) order by j.id;
end;
$$;

create function app_jobs.run_scheduled_job(
    scheduled_job_id bigint,
    job_expiry interval default '1 hour'
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
    c_hold constant interval := interval '1 minute';
    v_expiry constant interval := coalesce(run_scheduled_job.job_expiry, interval '1 hour');
    v_now timestamptz;
    v_schedule app_jobs.scheduled_jobs;
    v_last app_jobs.jobs;
    v_job app_jobs.jobs;
begin
    perform app_jobs.check_not_null(
        'scheduled_job_id', run_scheduled_job.scheduled_job_id is null, 'Give scheduled_jobs.id.'
    );
    perform app_jobs.check_positive('job_expiry', v_expiry);
    select s.* into v_schedule
    from app_jobs.scheduled_jobs as s
    where s.id = run_scheduled_job.scheduled_job_id
    for update;
    if not found then
        raise exception 'no schedule has id %', run_scheduled_job.scheduled_job_id
            using errcode = 'JQ001', hint = 'Look into scheduled_jobs: it may have been removed.';
    end if;
    v_now := clock_timestamp();
    select j.* into v_last from app_jobs.jobs as j where j.id = v_schedule.last_scheduled_id;
    if found and coalesce(v_last.locked_at, 'infinity') > v_now - v_expiry then
        raise exception 'the last job of schedule % still %', v_schedule.id,
            case when v_last.locked_at is null then 'waits' else 'runs' end
            using errcode = 'JQ004',
                detail = format('Job %s%s.', v_last.id, ', held by ' || v_last.locked_by
                    || ' since ' || v_last.locked_at),
                hint = 'Let it end, cancel it, or give a job_expiry after which it counts as dead.';
    end if;

    v_job := app_jobs.add_job(
        db_id => v_schedule.database_id,
        identifier => v_schedule.task_identifier,
        payload => v_schedule.payload,
        queue_name => v_schedule.queue_name,
        run_at => v_now,
        max_attempts => v_schedule.max_attempts,
        priority => v_schedule.priority,
        attributes => v_schedule.attributes || jsonb_build_object(
            'schedule', jsonb_build_object('id', v_schedule.id)
        )
    );
    -- Who holds the schedule sees to its due times: those up to now are done with. For anybody
    -- else this is a job more.
    update app_jobs.scheduled_jobs as s
    set
        last_scheduled_id = v_job.id,
        last_scheduled = case
            when s.locked_at > v_now - c_hold then greatest(v_now, s.last_scheduled)
            else s.last_scheduled
        end,
        next_run_at = case
            when s.locked_at > v_now - c_hold and s.next_run_at <= v_now
                then app_jobs.next_run_at(
                    s.schedule_info, greatest(v_now, s.last_scheduled), s.time_zone
                )
            else s.next_run_at
        end
    where s.id = v_schedule.id;
    return v_job;
end;
$$;

create function app_jobs.get_scheduled_job(
    worker_id text,
    task_identifiers text[] default null
) returns app_jobs.scheduled_jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    c_hold constant interval := interval '1 minute';
    v_now constant timestamptz := clock_timestamp();
    v_schedule app_jobs.scheduled_jobs;
begin
    perform app_jobs.check_worker_id(get_scheduled_job.worker_id);
    select s.* into v_schedule
    from app_jobs.scheduled_jobs as s
    where
        s.next_run_at is not null
        and (
            get_scheduled_job.task_identifiers is null
            or s.task_identifier = any(get_scheduled_job.task_identifiers)
        )
        -- nobody's, or its own and to be taken again before the hold is over
        and coalesce(s.locked_at, '-infinity') <= v_now - case
            when s.locked_by = get_scheduled_job.worker_id then c_hold / 2 else c_hold
        end
    order by s.id
    limit 1
    for update skip locked;
    if found then
        update app_jobs.scheduled_jobs as s
        set locked_at = v_now, locked_by = get_scheduled_job.worker_id
        where s.id = v_schedule.id
        returning s.* into v_schedule;
    end if;
    return v_schedule;
end;
$$;

create function app_jobs.release_scheduled_jobs(
    worker_id text,
    ids bigint[] default null
) returns setof bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform app_jobs.check_worker_id(release_scheduled_jobs.worker_id);
    return query
    update app_jobs.scheduled_jobs as s
    set locked_at = null, locked_by = null
    where
        s.locked_by = release_scheduled_jobs.worker_id
        and (
            release_scheduled_jobs.ids is null or s.id = any(release_scheduled_jobs.ids)
        )
    returning s.id;
end;
$$;

revoke all on function app_jobs.schedule_slots(timestamptz) from public;
revoke all on function app_jobs.next_schedule_at(timestamptz) from public;
revoke all on function app_jobs.last_due(app_jobs.scheduled_jobs, timestamptz) from public;
revoke all on function app_jobs.due_times(app_jobs.scheduled_jobs, timestamptz) from public;
revoke all on function app_jobs.job_spec(app_jobs.scheduled_jobs, timestamptz) from public;
revoke all on function app_jobs.fire_schedules(integer) from public;
revoke all on function app_jobs.run_due_schedules() from public;
revoke all on function app_jobs.run_scheduled_job(bigint, interval) from public;
revoke all on function app_jobs.get_scheduled_job(text, text[]) from public;
revoke all on function app_jobs.release_scheduled_jobs(text, bigint[]) from public;
grant execute on function app_jobs.run_due_schedules() to app_jobs_worker;
grant execute on function app_jobs.run_scheduled_job(bigint, interval) to app_jobs_worker;
grant execute on function app_jobs.get_scheduled_job(text, text[]) to app_jobs_worker;
grant execute on function app_jobs.release_scheduled_jobs(text, bigint[]) to app_jobs_worker;

comment on function app_jobs.schedule_slots(timestamptz) is
'List the slots in which a schedule may be due, with a lower bound of what is due there: the open
ones, and those whose alarm has gone off.

now  the time

Roles: internal; the caller pins the plans.';
comment on function app_jobs.next_schedule_at(timestamptz) is
'Tell when the next schedule is due.

now  the time

Returns: the time, or a lower bound of it; null: never. Roles: internal; the caller pins the
plans.';
comment on function app_jobs.last_due(app_jobs.scheduled_jobs, timestamptz) is
'Find the last due time of a schedule that is behind.

schedule  the schedule; its next_run_at has passed
now       the time

Returns: the last due time up to now. Errors: as next_run_at(). Roles: internal.';
comment on function app_jobs.due_times(app_jobs.scheduled_jobs, timestamptz) is
'Decide what a due schedule gets: a job for each due time, or what scheduled_jobs.missed says if it
is more than a minute behind.

schedule  the schedule; its next_run_at has passed
now       the time

Returns: due, the times that get a job, at most 100; last_due, the last one seen to; next_due, the
one after it (null: none). Errors: as next_run_at(). Roles: internal.';
comment on function app_jobs.job_spec(app_jobs.scheduled_jobs, timestamptz) is
'Describe the job of a due time, as add_jobs() takes it.

schedule  the schedule
due_at    the due time: run_at, and in attributes, as UTC

Roles: internal.';
comment on function app_jobs.fire_schedules(integer) is
'Add the jobs of schedules that are due, and note it in the same transaction.

most  schedules at most; it also stops after a thousand jobs

Returns: ids of the jobs. Locks: those schedules, skipping locked ones; the current slot, shared.
Roles: internal; READ COMMITTED only; the caller pins the plans.';
comment on function app_jobs.run_due_schedules() is
'Add the jobs of schedules that are due. tick() does it, so where a worker runs nobody needs to.
Each due time adds its job once, however many call it. A schedule that is more than a minute behind
gets what its column missed says. At most a thousand schedules in a call: call it again while it
returns jobs.

Returns: the jobs added. Errors: JQ002 at another level than READ COMMITTED. Locks: the schedules,
skipping locked ones; the current slot, shared. Roles: app_jobs_worker.';
comment on function app_jobs.run_scheduled_job(bigint, interval) is
'Add a job of a schedule now, paused or not. Its due times stay as they are, unless an outside
scheduler holds it: then those up to now are done with.

scheduled_job_id  the schedule
job_expiry        a last job that has been held for longer counts as dead; positive

Returns: the job. Errors: 22004, 22023, JQ001 if there is no such schedule, JQ004 if its last job
still waits or runs. Locks: the schedule; waits for it. Roles: app_jobs_worker.';
comment on function app_jobs.get_scheduled_job(text, text[]) is
'Take a schedule, for a scheduler outside that computes times itself and calls run_scheduled_job().
While it holds the schedule run_due_schedules() leaves it alone. The hold lasts a minute: call this
every 20 seconds or so until it returns nothing, for it also returns what the scheduler has held for
half a minute, taken again.

worker_id         names the scheduler, 1 to 200 characters
task_identifiers  only schedules of these tasks; null: all

Returns: the schedule; a row of nulls if there is none to take. Errors: 22004, 22023. Locks: that
schedule, skipping locked ones. Roles: app_jobs_worker.';
comment on function app_jobs.release_scheduled_jobs(text, bigint[]) is
'Give schedules back that an outside scheduler holds. Due times that it has not seen to are seen to
then, as missed says.

worker_id  the scheduler
ids        only these; null: all that it holds

Returns: their ids. Errors: 22004, 22023. Locks: those schedules. Roles: app_jobs_worker.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:metrics to pg
-- requires: slots

set local lock_timeout = '5s';

-- A view cannot pin its plan.
create function app_jobs.metrics() returns table (
    database_id uuid,
    task_identifier text,
    queue_name text,
    ready bigint,
    scheduled bigint,
    running bigint,
    parked bigint,
    expired bigint,
    oldest_ready_age interval,
    failed_1h bigint
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_failures constant integer := 10000;
    v_now constant timestamptz := clock_timestamp();
begin
    return query
    with closed as (
        select t.state, t.task_identifier, t.queue_line, sum(t.jobs) as jobs
        from app_jobs.totals as t
        group by t.state, t.task_identifier, t.queue_line
        having sum(t.jobs) > 0
    ),

    held_in as (
        select o.slot from app_jobs.open_slots as o
        union
        select a.slot from app_jobs.alarms as a where a.kind = 'lease'
    ),

    -- lateral, and offset 0: slot by slot, whatever the statistics say
    held as (
        select j.*
        from held_in as s
        cross join lateral (
            select h.task_identifier, h.database_id, h.queue_name, h.lease_expires_at
            from app_jobs.jobs as h
            where h.slot = s.slot and h.lease_expires_at is not null
            offset 0
        ) as j
        union all
        select p.task_identifier, p.database_id, p.queue_name, p.lease_expires_at
        from app_jobs.jobs as p
        where
            p.locked_by is not null
            and p.lease_expires_at is null
            -- true of all: only the index of these jobs can serve it
            and p.locked_at > '-infinity'
    ),

    failed as (
        select f.task_identifier, f.database_id, f.queue_name
        from app_jobs.finished_jobs as f
        where f.state = 'failed' and f.finished_at > v_now - interval '1 hour'
        order by f.finished_at desc
        limit c_failures
    ),

    counted as (
        select
            c.state, c.task_identifier, c.queue_line, c.jobs,
            case when c.state = 'ready' then (
                select s.oldest
                from app_jobs.slot_counts as s
                where
                    s.state = 'ready'
                    and s.task_identifier = c.task_identifier
                    and s.queue_line = c.queue_line
                order by s.oldest
                limit 1
            ) end as oldest
        from closed as c
        union all
        select w.state, w.task_identifier, w.queue_line, w.jobs, w.oldest
        from app_jobs.open_slots as o
        cross join lateral app_jobs.waiting_in(o.slot) as w
        union all
        select
            case when h.lease_expires_at <= v_now then 'expired' else 'running' end,
            h.task_identifier,
            app_jobs.queue_line(h.database_id, coalesce(h.queue_name, '')), count(*), null
        from held as h
        group by 1, 2, 3
        union all
        select
            'failed', f.task_identifier,
            app_jobs.queue_line(f.database_id, coalesce(f.queue_name, '')), count(*), null
        from failed as f
        group by 1, 2, 3
    )

    select
        substring(c.queue_line from '^([^:]{36}):')::uuid,
        c.task_identifier,
        nullif(regexp_replace(c.queue_line, '^[^:]*:', ''), ''),
        coalesce(sum(c.jobs) filter (where c.state = 'ready'), 0)::bigint,
        coalesce(sum(c.jobs) filter (where c.state = 'scheduled'), 0)::bigint,
        coalesce(sum(c.jobs) filter (where c.state in ('running', 'expired')), 0)::bigint,
        coalesce(sum(c.jobs) filter (where c.state = 'parked'), 0)::bigint,
        coalesce(sum(c.jobs) filter (where c.state = 'expired'), 0)::bigint,
        v_now - min(c.oldest) filter (where c.state = 'ready'),
        coalesce(sum(c.jobs) filter (where c.state = 'failed'), 0)::bigint
    from counted as c
    group by c.queue_line, c.task_identifier;
end;
$$;

create view app_jobs.metrics as
select
    m.database_id,
    m.task_identifier,
    m.queue_name,
    m.ready,
    m.scheduled,
    m.running,
    m.parked,
    m.expired,
    m.oldest_ready_age,
    m.failed_1h
from app_jobs.metrics() as m;

revoke all on function app_jobs.metrics() from public;
grant execute on function app_jobs.metrics() to app_jobs_monitor;
grant select on app_jobs.metrics to app_jobs_monitor;

comment on function app_jobs.metrics() is
'Count jobs by tenant, task and queue; cheap enough to be asked every 10 seconds with millions of
jobs waiting.

Returns: a row per tenant, task and queue that has jobs or has failed of late, no payload. Jobs
that have waited for long (in closed slots) are counted as of tick()''s last look, never too few:
see the view''s columns. Roles: app_jobs_monitor.';
comment on view app_jobs.metrics is
'A row per tenant, task and queue that has jobs, or failures of the last hour: the rows of
metrics(). Exact for what runs and for the last thousand or so to arrive; for others that wait as
of the last count: a count goes with the last job of about a thousand that arrived together, and
tick() counts again in turn, some 4,000 jobs a call.';
comment on column app_jobs.metrics.database_id is 'Tenant; null: none.';
comment on column app_jobs.metrics.task_identifier is 'Task.';
comment on column app_jobs.metrics.queue_name is 'Queue; null: none; *: jobs of tenants and queues of which there are too many to count each (more than 50 among a thousand jobs of a task).';
comment on column app_jobs.metrics.ready is 'Jobs that could be claimed now, those of paused tasks included.';
comment on column app_jobs.metrics.scheduled is 'Jobs whose time has not come: added so, retried or snoozed.';
comment on column app_jobs.metrics.running is 'Jobs that a worker holds, expired and processing ones included.';
comment on column app_jobs.metrics.parked is 'Jobs behind others of their queue, or of a paused queue.';
comment on column app_jobs.metrics.expired is 'Running jobs whose lease is over: tick() takes them back within a second or so.';
comment on column app_jobs.metrics.oldest_ready_age is 'Time since the lowest run_at among ready jobs; null: none is ready.';
comment on column app_jobs.metrics.failed_1h is 'Jobs that failed for good within the last hour and are still kept; the newest 10,000 of all tasks are looked at.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:task_stats to pg
-- requires: metrics

set local lock_timeout = '5s';

-- What workers counted, merged: a row per minute and task, or some where very many workers report;
-- and per ten minutes, so that a week is read quickly. The key begins with the time, so what old
-- snapshots keep of other times is never met.
create table app_jobs.task_figures (
    minutes integer not null,
    at timestamptz not null,
    task_identifier text collate "C" not null,
    lot bigint not null,
    completed bigint not null,
    failed bigint not null,
    retried bigint not null,
    wait_histogram bigint[] not null,
    run_histogram bigint[] not null,
    wait_seconds double precision not null,
    run_seconds double precision not null,
    constraint task_figures_pkey primary key (minutes, at, task_identifier, lot),
    constraint task_figures_minutes_known check (minutes in (1, 10))
);

-- What they say every few seconds: inserted, merged a minute later, deleted.
create table app_jobs.stat_reports (
    at timestamptz not null,
    id bigint generated always as identity,
    worker_id text not null,
    figures app_jobs.task_figures[] not null,
    constraint stat_reports_pkey primary key (at, id)
);

-- What waited in the middle of each minute, by task and by queue.
create table app_jobs.depth_figures (
    at timestamptz not null,
    kind text not null,
    name text collate "C" not null,
    ready bigint not null,
    scheduled bigint not null,
    running bigint not null,
    parked bigint not null,
    oldest_ready_age interval,
    constraint depth_figures_pkey primary key (at, kind, name),
    constraint depth_figures_kind_known check (kind in ('task', 'queue'))
);

-- Minutes up to which reports are merged, and figures deleted: seconds since 1970.
create sequence app_jobs.stats_merged_to minvalue 0 start 0;
create sequence app_jobs.stats_pruned_to minvalue 0 start 0;
select
    setval('app_jobs.stats_merged_to', 0),
    setval('app_jobs.stats_pruned_to', 0);

create function app_jobs.histogram_bounds() returns double precision[]
language sql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    select array[
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300,
        900, 3600, 14400
    ]::double precision[]
$$;

create function app_jobs.histogram_quantile(
    histogram bigint[], quantile double precision
) returns double precision
language sql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
    -- as if what is in a bucket were spread evenly over it; the last one has no upper bound
    select b.lower + coalesce(
        (b.upper - b.lower) * (r.rank - b.until + b.jobs) / b.jobs, 0
    )
    from (
        select
            h.jobs,
            sum(h.jobs) over (order by h.n) as until,
            coalesce(u.bounds[h.n - 1], 0) as lower,
            u.bounds[h.n] as upper,
            h.n
        from unnest(histogram_quantile.histogram) with ordinality as h(jobs, n)
        cross join (select app_jobs.histogram_bounds()) as u(bounds)
    ) as b
    cross join (
        select histogram_quantile.quantile * sum(s.jobs)
        from unnest(histogram_quantile.histogram) as s(jobs)
    ) as r(rank)
    where
        b.jobs > 0
        and b.until >= r.rank
        and histogram_quantile.quantile between 0 and 1
    order by b.n
    limit 1
$$;

create function app_jobs.sum_stats(
    step interval, tens tstzrange, minutes tstzrange, reports tstzrange, report_ids bigint[]
) returns setof app_jobs.task_figures
language sql
stable
as $$
    select
        (extract(epoch from sum_stats.step) / 60)::integer,
        date_bin(sum_stats.step, f.at, 'epoch'), f.task_identifier, min(f.lot),
        sum(f.completed)::bigint, sum(f.failed)::bigint, sum(f.retried)::bigint,
        array[
            sum(f.w[1]), sum(f.w[2]), sum(f.w[3]), sum(f.w[4]), sum(f.w[5]), sum(f.w[6]), sum(f.w[7]),
            sum(f.w[8]), sum(f.w[9]), sum(f.w[10]), sum(f.w[11]), sum(f.w[12]), sum(f.w[13]), sum(f.w[14]),
            sum(f.w[15]), sum(f.w[16]), sum(f.w[17]), sum(f.w[18]), sum(f.w[19]), sum(f.w[20]), sum(f.w[21])
        ]::bigint[],
        array[
            sum(f.r[1]), sum(f.r[2]), sum(f.r[3]), sum(f.r[4]), sum(f.r[5]), sum(f.r[6]), sum(f.r[7]),
            sum(f.r[8]), sum(f.r[9]), sum(f.r[10]), sum(f.r[11]), sum(f.r[12]), sum(f.r[13]), sum(f.r[14]),
            sum(f.r[15]), sum(f.r[16]), sum(f.r[17]), sum(f.r[18]), sum(f.r[19]), sum(f.r[20]), sum(f.r[21])
        ]::bigint[],
        sum(f.wait_seconds), sum(f.run_seconds)
    from (
        select t.*
        from app_jobs.task_figures as t
        where
            t.minutes = 10
            and t.at >= lower(sum_stats.tens)
            and t.at < upper(sum_stats.tens)
        union all
        select m.*
        from app_jobs.task_figures as m
        where
            m.minutes = 1
            and m.at >= lower(sum_stats.minutes)
            and m.at < upper(sum_stats.minutes)
        union all
        select
            1, r.at, n.task_identifier, r.id, n.completed, n.failed, n.retried, n.wait_histogram,
            n.run_histogram, n.wait_seconds, n.run_seconds
        from app_jobs.stat_reports as r
        cross join unnest(r.figures) as n
        where
            r.at >= lower(sum_stats.reports)
            and r.at < upper(sum_stats.reports)
            and (sum_stats.report_ids is null or r.id = any(sum_stats.report_ids))
    ) as f(
        minutes, at, task_identifier, lot, completed, failed, retried, w, r, wait_seconds,
        run_seconds
    )
    group by 2, 3
$$;

create function app_jobs.record_stats(worker_id text, stats json) returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    c_empty constant bigint[] := array_fill(
        0::bigint, array[cardinality(app_jobs.histogram_bounds()) + 1]
    );
    c_most constant bigint := 1000000000;
    c_keys constant text[] := array[
        'task_identifier', 'completed', 'failed', 'retried', 'wait_histogram', 'run_histogram',
        'wait_seconds', 'run_seconds'
    ];
    v_figures app_jobs.task_figures[];
    v_unknown text;
    v_wrong bigint;
begin
    perform app_jobs.check_worker_id(record_stats.worker_id);
    perform app_jobs.check_objects(
        'stats', record_stats.stats, 'Give an array of objects, one per task.'
    );
    select k.key into v_unknown
    from json_array_elements(record_stats.stats) as e(figures)
    cross join json_object_keys(e.figures) as k(key)
    where k.key <> all(c_keys);
    if found then
        raise exception 'stats has an unknown key: "%"', v_unknown
            using errcode = '22023',
                hint = 'Its keys are ' || array_to_string(c_keys, ', ') || '.';
    end if;
    v_figures := array(
        select row(
            null, null, s.task_identifier, null,
            coalesce(s.completed, 0), coalesce(s.failed, 0), coalesce(s.retried, 0),
            coalesce(s.wait_histogram, c_empty), coalesce(s.run_histogram, c_empty),
            coalesce(s.wait_seconds, 0), coalesce(s.run_seconds, 0)
        )::app_jobs.task_figures
        from json_populate_recordset(null::app_jobs.task_figures, record_stats.stats) as s
    );
    select f.n - 1 into v_wrong
    from unnest(v_figures) with ordinality as f(
        minutes, at, task_identifier, lot, completed, failed, retried, wait_histogram, run_histogram,
        wait_seconds, run_seconds, n
    )
    cross join lateral (
        select array[f.completed, f.failed, f.retried] || f.wait_histogram || f.run_histogram
    ) as c(counts)
    where (
        char_length(f.task_identifier) between 1 and 126
        and array_dims(f.wait_histogram) = array_dims(c_empty)
        and array_dims(f.run_histogram) = array_dims(c_empty)
        and 0 <= all(c.counts)
        and c_most >= all(c.counts)
        and f.wait_seconds between 0 and 1e18
        and f.run_seconds between 0 and 1e18
    ) is not true
    limit 1;
    if found then
        raise exception 'stats[%] is not the figures of a task: %',
            v_wrong, left((record_stats.stats -> v_wrong::integer)::text, 200)
            using errcode = '22023',
                hint = format(
                    'It needs a task_identifier, 1 to 126 characters. Counts are 0 to %s; a '
                    'histogram has %s of them, see histogram_bounds().',
                    c_most, cardinality(c_empty)
                );
    end if;
    if v_figures <> '{}' then
        insert into app_jobs.stat_reports (at, worker_id, figures)
        values (
            date_bin('1 minute', clock_timestamp(), 'epoch'), record_stats.worker_id, v_figures
        );
    end if;
end;
$$;

create function app_jobs.record_depths(at timestamptz) returns void
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_deepest constant integer := 50;
begin
    if exists (select from app_jobs.depth_figures as f where f.at = record_depths.at) then
        return;
    end if;
    insert into app_jobs.depth_figures (
        at, kind, name, ready, scheduled, running, parked, oldest_ready_age
    )
    select
        record_depths.at, d.kind, d.name, d.ready, d.scheduled, d.running, d.parked,
        d.oldest_ready_age
    from (
        select
            n.kind, n.name,
            sum(m.ready) as ready,
            sum(m.scheduled) as scheduled,
            sum(m.running) as running,
            sum(m.parked) as parked,
            max(m.oldest_ready_age) as oldest_ready_age,
            row_number() over (
                partition by n.kind
                order by
                    sum(m.ready + m.parked) desc, sum(m.scheduled + m.running) desc, n.name
            ) as place
        from app_jobs.metrics() as m
        cross join lateral (
            values ('task', m.task_identifier), ('queue', m.queue_name)
        ) as n(kind, name)
        where n.name is not null
        group by n.kind, n.name
        having sum(m.ready + m.scheduled + m.running + m.parked) > 0
    ) as d
    where d.place <= c_deepest;
end;
$$;

create function app_jobs.merge_stats(reports integer, rows integer) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_minute constant interval := interval '1 minute';
    c_ten constant interval := interval '10 minutes';
    -- a report is on its way for so long at most; a later one counts, but is not merged
    c_late constant interval := interval '30 seconds';
    c_kept constant interval := interval '7 days';
    v_over constant timestamptz := date_bin(c_minute, clock_timestamp() - c_late, 'epoch');
    v_merged_to timestamptz := to_timestamp(
        coalesce(pg_sequence_last_value('app_jobs.stats_merged_to'), 0)
    );
    v_pruned_from constant timestamptz := to_timestamp(
        coalesce(pg_sequence_last_value('app_jobs.stats_pruned_to'), 0)
    );
    v_pruned_to timestamptz;
    v_ten constant timestamptz := date_bin(c_ten, v_merged_to, 'epoch');
    v_at timestamptz;
    v_ids bigint[];
    v_pruned integer;
begin
    -- The marks are minutes before which nothing is left to do: they pass over rows that an old
    -- snapshot still holds. One that is off, since the clock was set back, say, is set anew.
    if v_merged_to = v_over and v_pruned_from = v_over - c_kept
        or not pg_try_advisory_xact_lock(app_jobs.lock_key('stats', ''))
    then
        return 0;
    end if;
    perform app_jobs.record_depths(v_over);

    select r.at into v_at
    from app_jobs.stat_reports as r
    where r.at >= v_merged_to and r.at < v_over
    order by r.at
    limit 1;
    v_ids := array(
        select r.id from app_jobs.stat_reports as r
        where r.at = v_at
        order by r.id
        limit merge_stats.reports
    );
    insert into app_jobs.task_figures
    select s.*
    from app_jobs.sum_stats(
        c_minute, null, null, tstzrange(v_at, v_at + c_minute), v_ids
    ) as s;
    delete from app_jobs.stat_reports as r where r.at = v_at and r.id = any(v_ids);

    v_merged_to := case
        when cardinality(v_ids) = merge_stats.reports then v_at
        else coalesce(v_at + c_minute, v_over)
    end;
    if date_bin(c_ten, v_merged_to, 'epoch') <> v_ten then
        -- summed up once more only if the clock was set back
        delete from app_jobs.task_figures as t where t.minutes = 10 and t.at = v_ten;
        insert into app_jobs.task_figures
        select s.*
        from app_jobs.sum_stats(
            c_ten, null, tstzrange(v_ten, v_ten + c_ten), null, null
        ) as s;
    end if;
    perform setval('app_jobs.stats_merged_to', extract(epoch from v_merged_to)::bigint);

    with old as materialized (
        select m.figures, m.depths, m.at
        from unnest(array[1, 10]) as s(minutes)
        cross join lateral (
            select o.ctid as figures, null::tid as depths, o.at
            from app_jobs.task_figures as o
            where o.minutes = s.minutes and o.at >= v_pruned_from and o.at < v_over - c_kept
            order by o.at
            limit merge_stats.rows
        ) as m
        union all
        (
            select null, o.ctid, o.at
            from app_jobs.depth_figures as o
            where o.at >= v_pruned_from and o.at < v_over - c_kept
            order by o.at
            limit merge_stats.rows
        )
        order by at
        limit merge_stats.rows
    ),

    gone as (
        delete from app_jobs.task_figures as f
        where f.ctid = any(array(select o.figures from old as o))
    ),

    gone_depths as (
        delete from app_jobs.depth_figures as f
        where f.ctid = any(array(select o.depths from old as o))
    )

    select count(*), max(o.at) into v_pruned, v_pruned_to from old as o;
    if v_pruned < merge_stats.rows then
        v_pruned_to := v_over - c_kept;
        delete from app_jobs.stat_reports as r
        where r.at >= v_pruned_from and r.at < v_pruned_to;
    end if;
    perform setval('app_jobs.stats_pruned_to', extract(epoch from v_pruned_to)::bigint);
    return cardinality(v_ids);
end;
$$;

create function app_jobs.whole_steps(
    "from" timestamptz, "to" timestamptz, step interval
) returns tstzrange
language plpgsql
stable
as $$
#variable_conflict use_column
declare
    v_from timestamptz;
begin
    perform
        app_jobs.check_not_null('from', whole_steps."from" is null, 'Give the time to begin at.'),
        app_jobs.check_not_null('to', whole_steps."to" is null, 'Give the time to end at.');
    if whole_steps.step is null
        or whole_steps.step < interval '1 minute'
        or extract(epoch from whole_steps.step) % 60 <> 0
        or extract(year from whole_steps.step) <> 0
        or extract(month from whole_steps.step) <> 0
    then
        raise exception 'step is %', coalesce(whole_steps.step::text, 'null')
            using errcode = '22023',
                hint = 'Give minutes, hours or days, like ''15 minutes''; not months, which differ.';
    end if;
    v_from := date_bin(whole_steps.step, whole_steps."from", 'epoch');
    return tstzrange(v_from, greatest(
        v_from,
        date_bin(
            whole_steps.step, whole_steps."to" + whole_steps.step - interval '1 microsecond',
            'epoch'
        )
    ));
end;
$$;

create function app_jobs.task_stats(
    "from" timestamptz,
    "to" timestamptz,
    step interval default '1 minute'
) returns table (
    at timestamptz,
    task_identifier text,
    completed bigint,
    failed bigint,
    retried bigint,
    wait_histogram bigint[],
    run_histogram bigint[],
    wait_seconds double precision,
    run_seconds double precision
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_ten constant interval := interval '10 minutes';
    v_merged_to constant bigint := pg_sequence_last_value('app_jobs.stats_merged_to');
    v_steps constant tstzrange := app_jobs.whole_steps(
        task_stats."from", task_stats."to", task_stats.step
    );
    -- null if the range is empty: no rows then
    v_from constant timestamptz := lower(v_steps);
    v_to constant timestamptz := upper(v_steps);
    v_tens_to timestamptz;
begin
    -- The sums of ten minutes, where they serve, save nine rows of ten. The last one may not have
    -- been committed yet.
    v_tens_to := v_from;
    if extract(epoch from task_stats.step) % extract(epoch from c_ten) = 0 then
        v_tens_to := least(v_to, greatest(v_from, date_bin(
            c_ten, to_timestamp(coalesce(v_merged_to, 0)), 'epoch'
        ) - c_ten));
    end if;
    return query
    select
        s.at, s.task_identifier, s.completed, s.failed, s.retried, s.wait_histogram,
        s.run_histogram, s.wait_seconds, s.run_seconds
    from app_jobs.sum_stats(
        task_stats.step, tstzrange(v_from, v_tens_to), tstzrange(v_tens_to, v_to),
        tstzrange(v_from, v_to), null
    ) as s
    order by s.at, s.task_identifier;
end;
$$;

create function app_jobs.depths(
    "from" timestamptz,
    "to" timestamptz,
    step interval default '1 minute'
) returns table (
    at timestamptz,
    kind text,
    name text,
    ready bigint,
    scheduled bigint,
    running bigint,
    parked bigint,
    oldest_ready_age interval
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_steps constant tstzrange := app_jobs.whole_steps(depths."from", depths."to", depths.step);
begin
    return query
    select
        date_bin(depths.step, f.at, 'epoch'), f.kind, f.name, max(f.ready), max(f.scheduled),
        max(f.running), max(f.parked), max(f.oldest_ready_age)
    from app_jobs.depth_figures as f
    where f.at >= lower(v_steps) and f.at < upper(v_steps)
    group by 1, 2, 3
    order by 1, 2, 3;
end;
$$;

revoke all on function app_jobs.histogram_bounds() from public;
revoke all on function app_jobs.histogram_quantile(bigint[], double precision) from public;
revoke all on function app_jobs.sum_stats(
    interval, tstzrange, tstzrange, tstzrange, bigint[]
) from public;
revoke all on function app_jobs.record_stats(text, json) from public;
revoke all on function app_jobs.record_depths(timestamptz) from public;
revoke all on function app_jobs.merge_stats(integer, integer) from public;
revoke all on function app_jobs.whole_steps(timestamptz, timestamptz, interval) from public;
revoke all on function app_jobs.task_stats(timestamptz, timestamptz, interval) from public;
revoke all on function app_jobs.depths(timestamptz, timestamptz, interval) from public;
grant execute on function app_jobs.histogram_bounds() to app_jobs_worker, app_jobs_monitor;
grant execute on function app_jobs.histogram_quantile(bigint[], double precision)
to app_jobs_monitor;
grant execute on function app_jobs.record_stats(text, json) to app_jobs_worker;
grant execute on function app_jobs.task_stats(timestamptz, timestamptz, interval)
to app_jobs_monitor;
grant execute on function app_jobs.depths(timestamptz, timestamptz, interval)
to app_jobs_monitor;
grant select on app_jobs.task_figures, app_jobs.stat_reports, app_jobs.depth_figures
to app_jobs_operator;

comment on table app_jobs.task_figures is
'What workers counted, per minute and task, and per ten minutes, kept for 7 days; read it by task_stats().';
comment on column app_jobs.task_figures.minutes is '1, or 10 for the sum of ten rows.';
comment on column app_jobs.task_figures.at is 'When these minutes begin, by the database''s clock when it was told.';
comment on column app_jobs.task_figures.task_identifier is 'Task.';
comment on column app_jobs.task_figures.lot is 'Tells rows of a minute and task apart: where many workers report, there are some.';
comment on column app_jobs.task_figures.completed is 'Jobs that were completed.';
comment on column app_jobs.task_figures.failed is 'Jobs that failed for good.';
comment on column app_jobs.task_figures.retried is 'Attempts that failed, to be tried again.';
comment on column app_jobs.task_figures.wait_histogram is 'Runs by the time from run_at to their start: see histogram_bounds().';
comment on column app_jobs.task_figures.run_histogram is 'Runs by the time that they took: see histogram_bounds().';
comment on column app_jobs.task_figures.wait_seconds is 'Sum of these waits.';
comment on column app_jobs.task_figures.run_seconds is 'Sum of these run times.';
comment on table app_jobs.stat_reports is
'What workers counted of late: merged into task_figures when the minute is over.';
comment on column app_jobs.stat_reports.at is 'The minute in which it was told.';
comment on column app_jobs.stat_reports.id is 'Tells reports apart.';
comment on column app_jobs.stat_reports.worker_id is 'Who told.';
comment on column app_jobs.stat_reports.figures is 'What: minutes, at and lot are null.';
comment on table app_jobs.depth_figures is
'What waited in the middle of each minute, by task and by queue, the 50 deepest of each, kept for 7 days; read it by depths().';
comment on column app_jobs.depth_figures.at is 'When the minute begins.';
comment on column app_jobs.depth_figures.kind is 'task or queue: what name is the name of.';
comment on column app_jobs.depth_figures.name is 'Task, of all queues; or queue, of all tasks and tenants.';
comment on column app_jobs.depth_figures.ready is 'Jobs as in metrics.';
comment on column app_jobs.depth_figures.scheduled is 'Jobs as in metrics.';
comment on column app_jobs.depth_figures.running is 'Jobs as in metrics.';
comment on column app_jobs.depth_figures.parked is 'Jobs as in metrics.';
comment on column app_jobs.depth_figures.oldest_ready_age is 'Time since the lowest run_at among ready jobs; null: none was ready.';
comment on constraint depth_figures_kind_known on app_jobs.depth_figures is 'A task or a queue.';
comment on sequence app_jobs.stats_merged_to is 'Minute up to which merge_stats() has merged: seconds since 1970.';
comment on sequence app_jobs.stats_pruned_to is 'Minute up to which merge_stats() has deleted: seconds since 1970.';
comment on function app_jobs.histogram_bounds() is
'Tell the upper bounds of the buckets of histograms; one more bucket is beyond the last.

Returns: seconds, ascending; a time that equals a bound is below it. Roles: app_jobs_worker,
app_jobs_monitor.';
comment on function app_jobs.histogram_quantile(bigint[], double precision) is
'Estimate a quantile of what a histogram counts, as if times were spread evenly over each bucket.

histogram  as in task_stats(): a count per bucket of histogram_bounds(), and one beyond
quantile   0 to 1: 0.5 is the median

Returns: seconds; the last bound if it is beyond that; null if nothing was counted. Roles:
app_jobs_monitor.';
comment on function app_jobs.sum_stats(
    interval, tstzrange, tstzrange, tstzrange, bigint[]
) is
'Add up figures by step and task, of these times; null: none of that kind.

step        of time
tens        times of which to take the rows per ten minutes
minutes     times of which to take the rows per minute
reports     times of which to take the reports
report_ids  these reports only; null: all

Returns: a row per step and task. Roles: internal; the caller pins the plans.';
comment on function app_jobs.record_stats(text, json) is
'Tell what a worker has counted since it told last: once in ten seconds or so, of all its tasks.

worker_id  the worker
stats      array of objects: task_identifier; completed (jobs), failed (for good), retried (failed
           attempts to be tried again); wait_histogram and run_histogram (a count per bucket of
           histogram_bounds(), and one beyond), wait_seconds and run_seconds (sums) of the same
           runs. What is left out is 0

Errors: 22004, 22023. Locks: none, it only inserts. Roles: app_jobs_worker.';
comment on function app_jobs.record_depths(timestamptz) is
'Write down how many jobs there are, by task and by queue, the 50 deepest of each, unless that has
been done for this minute.

at  the minute

Roles: internal; the caller holds the lock of merge_stats().';
comment on function app_jobs.merge_stats(integer, integer) is
'Merge reports of minutes that are over, once a minute write down how many jobs there are, and delete
figures of more than 7 days ago.

reports  to merge at most, all of one minute
rows     to delete at most

Returns: reports merged; 0 if another session merges. Locks: an advisory one, trying only. Roles:
internal; the caller pins the plans; READ COMMITTED only.';
comment on function app_jobs.whole_steps(timestamptz, timestamptz, interval) is
'Check a time to be looked at in steps, and round it to whole ones.

from  the step in which this is comes first
to    the step that ends then or later comes last
step  whole minutes

Returns: from the first step''s beginning to the last one''s end. Errors: 22004, 22023. Roles:
internal.';
comment on function app_jobs.task_stats(timestamptz, timestamptz, interval) is
'Tell what workers have counted, per task and step of time: the last 7 days, until a few seconds ago.
What a worker counts comes with its next report, and is of the minute in which that arrived.

from  the step in which this is comes first
to    the step that ends then or later comes last
step  whole minutes; steps begin at multiples of it since 1970 (days: at midnight UTC)

Returns: a row per step and task in which runs ended: at, the step''s beginning; completed, failed
(for good), retried (failed attempts to be tried again); histograms of the time from run_at to the
start of a run and of the time that it took (see histogram_bounds(), histogram_quantile()), and the
sums of these times. Jobs whose worker died are not counted. Errors: 22004, 22023. Roles:
app_jobs_monitor.';
comment on function app_jobs.depths(timestamptz, timestamptz, interval) is
'Tell how many jobs there were and how old the oldest ready one was, by task and by queue: the last
7 days, until a minute and a half ago. tick() looks once a minute, and keeps the 50 deepest tasks
(ready and parked) and the 50 deepest queues.

from  the step in which this is comes first
to    the step that ends then or later comes last
step  whole minutes; steps begin at multiples of it since 1970 (days: at midnight UTC)

Returns: a row per step and task (kind task) or queue (kind queue, of all tenants; *: see metrics)
that had jobs: at, the step''s beginning; the highest of each figure within it. None where nobody
called tick(). Errors: 22004, 22023. Roles: app_jobs_monitor.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:tick to pg
-- requires: cancel_job
-- requires: run_schedules
-- requires: task_stats

set local lock_timeout = '5s';

-- When tick() last ran, in milliseconds since 1970; when it last swept, in seconds. Sequences: no
-- dead rows, no lock.
create sequence app_jobs.ticked_at minvalue 0 start 0;
create sequence app_jobs.swept_at minvalue 0 start 0;
create sequence app_jobs.pruned_to minvalue 0 start 0;
create sequence app_jobs.moved_to minvalue -9223372036854775808;
select
    setval('app_jobs.ticked_at', 0),
    setval('app_jobs.swept_at', 0),
    setval('app_jobs.pruned_to', 0),
    setval('app_jobs.moved_to', -9223372036854775808);

create function app_jobs.due_slots(kind text, now timestamptz, first integer)
returns setof integer
language sql
stable
as $$
    -- once each: a slot that a sweep listed again may have kept its alarm
    select o.slot from app_jobs.open_slots as o
    where o.slot >= due_slots.first
    union
    (
        select a.slot
        from app_jobs.alarms as a
        where a.kind = due_slots.kind and a.due_at <= due_slots.now
        order by a.due_at
        limit 50
    )
$$;

create function app_jobs.anything_due(now timestamptz, first integer) returns setof integer
language sql
stable
as $$
    select a.slot from app_jobs.alarms as a
    where a.kind = 'run' and a.due_at <= anything_due.now
    union all
    select o.slot
    from app_jobs.open_slots as o
    cross join lateral (
        select from app_jobs.jobs as w
        where
            w.slot = o.slot
            and w.line is null
            and w.locked_by is null
            and w.run_at <= anything_due.now
        limit 1
    ) as due
    where o.slot >= anything_due.first
$$;

create function app_jobs.make_due_ready(
    tasks text[], paused text[], most integer
) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_looked_at constant integer := 1000;
    c_spare constant integer := 100;
    c_of_queues constant integer := 10;
    v_now constant timestamptz := clock_timestamp();
    v_first constant integer := app_jobs.first_slot();
    v_due tid[];
    v_wanted integer;
    v_rung boolean;
    v_tids tid[] := '{}'::tid[];
    v_emptied integer[];
begin
    perform from app_jobs.anything_due(v_now, v_first) limit 1;
    if not found then
        return 0;
    end if;

    -- The best of what is due, so that a claim for one job finds it, and some more, since others
    -- may have locked those; then lock as many as are wanted, and those of queues before them, which
    -- may be full.
    select
        array_agg(b.ctid),
        least(
            count(*) filter (where b.others < make_due_ready.most),
            make_due_ready.most + c_of_queues
        ),
        exists (select from app_jobs.alarms as a where a.kind = 'run' and a.due_at <= v_now)
    into v_due, v_wanted, v_rung
    from (
        select
            d.ctid,
            count(*) filter (where d.queue_name is null) over (
                order by d.priority, d.run_at, d.id
                rows between unbounded preceding and 1 preceding
            ) as others
        from (
            select j.ctid, j.priority, j.run_at, j.id, j.queue_name
            from app_jobs.due_slots('run', v_now, v_first) as s(slot)
            -- lateral: slot by slot, whatever the statistics say
            cross join lateral (
                select w.ctid, w.priority, w.run_at, w.id, w.queue_name
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
                    and w.task_identifier <> all(make_due_ready.paused)
                order by w.run_at
                limit c_looked_at
            ) as j
            limit c_looked_at
        ) as d
        order by d.priority, d.run_at, d.id
        limit make_due_ready.most + c_spare
    ) as b;

    if v_due is not null then
        v_tids := array(
            select j.ctid
            from app_jobs.jobs as j
            -- said in a way that no partial index can serve: by address, whatever the statistics
            -- say
            where j.ctid = any(v_due) and coalesce(j.line, j.locked_by) is null
            order by j.priority, j.run_at, j.id
            limit v_wanted
            for update skip locked
        );
    end if;
    if v_tids <> '{}' then
        update app_jobs.jobs as j
        set line = '', slot = app_jobs.enter_slot(), updated_at = v_now
        where j.ctid = any(v_tids);
        perform app_jobs.note_arrivals(cardinality(v_tids));
        perform app_jobs.wake_workers();
    end if;
    if not v_rung then
        return cardinality(v_tids);
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
        returning a.slot
    ),

    set_again as (
        update app_jobs.alarms as a
        set due_at = n.run_at
        from next_due as n
        where a.slot = n.slot and a.kind = 'run' and n.run_at > v_now + interval '0.2 seconds'
    )

    select array_agg(s.slot) into v_emptied from silent as s;
    if v_emptied is not null then
        perform app_jobs.forget_counts(v_emptied, 'scheduled', null, null);
    end if;
    return cardinality(v_tids);
end;
$$;

create function app_jobs.end_leases(tids tid[]) returns void
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_errors text[];
begin
    v_errors := array(
        select case
            when j.locked_at + t.timeout <= v_now then format('timed out after %s', t.timeout)
            else 'lease expired'
        end
        from unnest(end_leases.tids) with ordinality as e(tid, n)
        inner join app_jobs.jobs as j on j.ctid = e.tid
        left join app_jobs.tasks as t on t.task_identifier = j.task_identifier
        order by e.n
    );
    insert into app_jobs.job_errors (job_id, lease, attempt, worker_id, failed_at, error_message)
    select j.id, j.lease, j.attempts, j.locked_by, v_now, e.message
    from unnest(end_leases.tids, v_errors) as e(tid, message)
    inner join app_jobs.jobs as j on j.ctid = e.tid;
    perform app_jobs.let_go(end_leases.tids, null, v_errors, null, true, false);
end;
$$;

create function app_jobs.end_expired_leases(most integer) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_first constant integer := app_jobs.first_slot();
    v_tids tid[];
begin
    v_tids := array(
        select j.ctid
        from app_jobs.due_slots('lease', v_now, v_first) as s(slot)
        cross join lateral (
            select d.ctid
            from app_jobs.jobs as d
            where d.slot = s.slot and d.lease_expires_at <= v_now
            for update skip locked
        ) as j
        limit end_expired_leases.most
    );
    if v_tids <> '{}' then
        perform app_jobs.end_leases(v_tids);
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
    c_start constant bigint := -9223372036854775808;
    v_from constant bigint := pg_sequence_last_value('app_jobs.moved_to');
    v_keys bigint[];
    v_last bigint;
    v_lines text[];
    v_tasks text[];
begin
    -- Each line and task that has parked jobs, once, in the order of the lines' keys from where the
    -- last call ended: with very many lines they take turns. The lines of seats come before '$'.
    with recursive waiting(key, line, task) as (
        (
            select app_jobs.lock_key('queue', s.line), s.line, s.task_identifier
            from app_jobs.streams as s
            where s.line > '$' and app_jobs.lock_key('queue', s.line) > v_from
            order by app_jobs.lock_key('queue', s.line), s.task_identifier
            limit 1
        )
        union all
        select n.key, n.line, n.task
        from waiting as w
        cross join lateral (
            select app_jobs.lock_key('queue', s.line) as key, s.line, s.task_identifier as task
            from app_jobs.streams as s
            where
                s.line > '$'
                and (app_jobs.lock_key('queue', s.line), s.task_identifier) > (w.key, w.task)
            order by app_jobs.lock_key('queue', s.line), s.task_identifier
            limit 1
        ) as n
    ),

    closed as materialized (
        select w.key, w.line, w.task from waiting as w limit move_queues.most
    ),

    parked as (
        select c.line, c.task from closed as c
        union
        (
            select j.line, j.task_identifier
            from app_jobs.open_slots as o
            cross join lateral (
                select distinct p.line, p.task_identifier
                from app_jobs.jobs as p
                where p.slot = o.slot and p.line > ''
            ) as j
            order by random()
            limit move_queues.most
        )
    )

    select array_agg(p.line), array_agg(p.task), (select array_agg(c.key) from closed as c)
    into v_lines, v_tasks, v_keys
    from parked as p;

    -- The next call goes on behind the last line of which all tasks were met, or from the start.
    v_last := v_keys[move_queues.most];
    v_last := coalesce(
        (select max(k.key) from unnest(v_keys) as k(key) where k.key < v_last), v_last
    );
    perform setval('app_jobs.moved_to', coalesce(v_last, c_start));
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
    v_table regclass;
    v_sequence regclass;
    v_unlisted integer[];
    v_current integer;
    v_listed integer;
begin
    perform setval('app_jobs.swept_at', extract(epoch from clock_timestamp())::bigint);
    perform setval('app_jobs.pruned_to', 0);
    -- A sequence is only ever set forward, and only if it is behind: others draw numbers meanwhile.
    -- Finished jobs keep the ids that jobs have drawn; every other table draws its own.
    v_last_id := (select f.id from app_jobs.finished_jobs as f order by f.id desc limit 1);
    if v_last_id > coalesce(pg_sequence_last_value(v_ids), 0) then
        perform setval(v_ids, v_last_id);
    end if;
    for v_table, v_sequence in
        select c.oid, pg_get_serial_sequence(c.oid::regclass::text, a.attname)
        from pg_class as c
        inner join pg_attribute as a on a.attrelid = c.oid
        where c.relnamespace = 'app_jobs'::regnamespace and a.attidentity <> '' and a.attname = 'id'
    loop
        -- dynamic, for whatever tables there are
        execute format('select max(t.id) from %s as t', v_table) into v_last_id;
        if v_last_id > coalesce(pg_sequence_last_value(v_sequence), 0) then
            perform setval(v_sequence, v_last_id);
        end if;
    end loop;
    if pg_sequence_last_value('app_jobs.activity') is null then
        perform setval('app_jobs.activity', 0);
    end if;

    -- Each slot that holds jobs or schedules must be listed: closed, with bounds, or else open.
    -- Slot after slot, by index.
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

    planned(slot) as (
        (
            select s.slot from app_jobs.scheduled_jobs as s
            where s.due_at is not null order by s.slot limit 1
        )
        union all
        select (
            select s.slot from app_jobs.scheduled_jobs as s
            where s.due_at is not null and s.slot > p.slot order by s.slot limit 1
        )
        from planned as p where p.slot is not null
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
        union
        select p.slot from planned as p
        where (
            select a.slot from app_jobs.alarms as a where a.slot = p.slot and a.kind = 'schedule'
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
        union all
        select p.slot from planned as p
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
    perform setval('app_jobs.slot_first', 0);  -- until the next tick() has looked
    return v_listed;
end;
$$;

create function app_jobs.forget_finished(tids tid[]) returns void
language plpgsql
volatile
as $$
declare
    v_ids bigint[];
begin
    with gone as (
        delete from app_jobs.finished_jobs as f
        where f.ctid = any(forget_finished.tids)
        returning f.id
    )

    select array_agg(g.id) into v_ids from gone as g;
    delete from app_jobs.job_errors as e where e.job_id = any(v_ids);
    delete from app_jobs.effects as e where e.job_id = any(v_ids);
end;
$$;

create function app_jobs.prune_finished(most integer) returns integer
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_late constant interval := interval '1 minute';
    v_now constant timestamptz := clock_timestamp();
    -- read here, since within the query it would be no index condition but a filter: it is volatile
    v_from constant timestamptz := to_timestamp(pg_sequence_last_value('app_jobs.pruned_to'));
    v_tids tid[];
    v_until timestamptz;
begin
    -- The mark lets us pass over rows deleted before that an old snapshot still holds; each sweep
    -- sets it back, and finds what was committed long after it had finished.
    with expired as materialized (
        select f.ctid as tid, f.keep_until
        from app_jobs.finished_jobs as f
        where
            f.keep_until >= v_from
            and f.keep_until <= v_now
        order by f.keep_until
        limit prune_finished.most
        for update skip locked
    )

    select coalesce(array_agg(e.tid), '{}'), max(e.keep_until) into v_tids, v_until
    from expired as e;
    perform app_jobs.forget_finished(v_tids);
    if cardinality(v_tids) < prune_finished.most then
        v_until := greatest(v_until, v_now - c_late);
    end if;
    perform setval('app_jobs.pruned_to', floor(extract(epoch from v_until))::bigint);
    return cardinality(v_tids);
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
    c_queues constant integer := 250;
    -- no more, so that several workers share what is due at once
    c_schedules constant integer := 100;
    c_reports constant integer := 100;
    v_now constant timestamptz := clock_timestamp();
begin
    perform app_jobs.find_first_slot();
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
    perform app_jobs.fire_schedules(least(most, c_schedules));
    made_ready := app_jobs.make_due_ready(null, '{}', most);
    expired := app_jobs.end_expired_leases(most);
    moved := app_jobs.move_queues(least(most, c_queues, app_jobs.queues_at_most()));
    pruned := app_jobs.prune_finished(most);
    perform app_jobs.count_idle();
    perform app_jobs.merge_stats(least(most, c_reports), most);
    -- however many workers call tick()
    if coalesce(pg_sequence_last_value('app_jobs.counted_at'), 0) < extract(epoch from v_now) - 1
    then
        perform setval('app_jobs.counted_at', extract(epoch from v_now)::bigint);
        perform app_jobs.count_again(4);
    end if;
end;
$$;

create function app_jobs.tick(
    every interval default null,
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
    c_lot constant integer := 1000;
    v_now timestamptz;
    v_first integer;
    v_lot integer;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'tick() cannot run at isolation level %',
            current_setting('transaction_isolation')
            using errcode = 'JQ002',
                detail = 'It locks, and then must see what others did before.',
                hint = 'Call it at READ COMMITTED.';
    end if;
    -- a clock that was set back must not stop it
    if extract(epoch from clock_timestamp()) - pg_sequence_last_value('app_jobs.ticked_at') / 1000.0
        between 0 and extract(epoch from tick.every)
    then
        select 0, 0, 0, 0, 0, 0 into made_ready, expired, moved, closed, relisted, pruned;
    else
        select h.made_ready, h.expired, h.moved, h.closed, h.relisted, h.pruned
        into made_ready, expired, moved, closed, relisted, pruned
        from app_jobs.keep_house(c_lot) as h;
        -- Where much is kept for a while, as much must go: a tenth of the time may be spent on it.
        v_now := clock_timestamp();
        v_lot := pruned;
        while v_lot = c_lot loop
            v_lot := app_jobs.prune_finished(c_lot);
            pruned := pruned + v_lot;
            exit when clock_timestamp() > v_now + interval '0.1 seconds';
        end loop;
    end if;

    v_now := clock_timestamp();
    v_first := app_jobs.first_slot();
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
        from app_jobs.due_slots('run', v_now, v_first) as s(slot)
        cross join lateral (
            select j.run_at
            from app_jobs.jobs as j
            where j.slot = s.slot and j.line is null and j.locked_by is null
            order by j.run_at
            limit 1
        ) as h
        union all
        select app_jobs.next_schedule_at(v_now)
    ) as d;
end;
$$;

revoke all on function app_jobs.due_slots(text, timestamptz, integer) from public;
revoke all on function app_jobs.anything_due(timestamptz, integer) from public;
revoke all on function app_jobs.make_due_ready(text[], text[], integer) from public;
revoke all on function app_jobs.end_leases(tid[]) from public;
revoke all on function app_jobs.end_expired_leases(integer) from public;
revoke all on function app_jobs.move_queues(integer) from public;
revoke all on function app_jobs.sweep() from public;
revoke all on function app_jobs.forget_finished(tid[]) from public;
revoke all on function app_jobs.prune_finished(integer) from public;
revoke all on function app_jobs.count_idle() from public;
revoke all on function app_jobs.keep_house(integer) from public;
revoke all on function app_jobs.tick(interval) from public;
grant execute on function app_jobs.tick(interval) to app_jobs_worker;
grant execute on function app_jobs.sweep() to app_jobs_operator;

comment on sequence app_jobs.ticked_at is 'When tick() last ran, or get_jobs() in its place: milliseconds since 1970.';
comment on sequence app_jobs.swept_at is 'When sweep() last ran: seconds since 1970.';
comment on sequence app_jobs.pruned_to is 'Up to which keep_until finished_jobs is pruned: seconds since 1970.';
comment on sequence app_jobs.moved_to is 'Up to which lock key of a queue''s line move_queues() has come.';
comment on function app_jobs.due_slots(text, timestamptz, integer) is
'List the slots in which something may be due: the open ones, and those whose alarm has gone off.

kind   run or lease
now    the time
first  as first_slot() says; 0: look at all rows

Roles: internal; the caller pins the plans.';
comment on function app_jobs.anything_due(timestamptz, integer) is
'Name slots in which scheduled jobs may be due. Most claims ask for the first alone, and there is none.

now    the time
first  as first_slot() says

Roles: internal; the caller pins the plans.';
comment on function app_jobs.make_due_ready(text[], text[], integer) is
'Put scheduled jobs whose time has come into the ready line, the best first.

tasks   tasks wanted; null: all
paused  tasks not wanted
most    jobs at most, and up to ten of queues before them

Returns: jobs made ready. Locks: those jobs, skipping locked ones. Roles: internal; READ COMMITTED
only.';
comment on function app_jobs.end_leases(tid[]) is
'Take back leased jobs: ready again, or finished if their attempts are used up. The attempt counts,
and has failed because the lease has expired or the run has taken longer than its task''s timeout.

tids  jobs, locked by the caller

Locks: queues, trying only. Roles: internal; the caller pins the plans.';
comment on function app_jobs.end_expired_leases(integer) is
'Take back jobs whose lease is over: ready again, or finished if their attempts are used up.

most  jobs at most

Returns: leases ended. Locks: those jobs, skipping locked ones; queues, trying only. Roles:
internal; READ COMMITTED only.';
comment on function app_jobs.move_queues(integer) is
'Let queues move on that have a free seat and a parked job: what others had to skip.

most  queues and tasks at most of those parked in open slots, and as many in closed ones, where they
      take turns

Returns: jobs made ready. Locks: queues, trying only. Roles: internal; READ COMMITTED only.';
comment on function app_jobs.sweep() is
'Repair the sequences and list any slot that holds jobs or schedules and is not listed: after a
restore or a failover, and hourly.

Returns: slots listed; 0 in a healthy database. Roles: app_jobs_operator.';
comment on function app_jobs.forget_finished(tid[]) is
'Delete finished jobs, with their errors and effects.

tids  rows of finished_jobs, locked by the caller

Roles: internal; the caller pins the plans.';
comment on function app_jobs.prune_finished(integer) is
'Delete finished jobs that are over their time, with their errors and effects.

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
comment on function app_jobs.tick(interval) is
'Keep house: open and close slots, run due schedules, make due jobs ready, end expired leases, move
queues on, prune. Any worker, pg_cron or a shell may call it at any time. get_jobs() does the same
if nobody has for a second.

every  do it only if nobody has for this time: for many workers that share the work; null: do it

Returns: next_due_at, when the next scheduled job or schedule is due (null: none); made_ready,
expired, moved: jobs; closed, relisted: slots; pruned: rows of finished_jobs. Errors: JQ002 at
another level than READ COMMITTED. Locks: rows and queues, skipping locked ones. Roles:
app_jobs_worker.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
    v_effects boolean;
begin
    perform
        app_jobs.check_worker_id(complete_jobs.worker_id),
        app_jobs.check_not_null(
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
        v_ids := array(
            select f.id
            from app_jobs.finish_jobs(v_tids, 'completed', null, null, v_results) as f(id)
        );
    else
        -- Nothing is kept: this is where most jobs end, so it is the bare minimum.
        with gone as (
            delete from app_jobs.jobs as j
            where j.ctid = any(v_tids)
            returning j.id, j.lease, j.has_effects
        )

        select array_agg(g.id), bool_or(g.lease > 1), bool_or(g.has_effects)
        into v_ids, v_claimed_again, v_effects
        from gone as g;
        if v_claimed_again then
            delete from app_jobs.job_errors as e where e.job_id = any(v_ids);
        end if;
        if v_effects then
            delete from app_jobs.effects as e where e.job_id = any(v_ids);
        end if;
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
    v_bad text;
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
    perform app_jobs.check_objects(
        'failures', fail_jobs.failures,
        'Give an array of objects whose keys are fail_job()''s argument names.'
    );
    select k.key into v_unknown
    from json_array_elements(fail_jobs.failures) as e(failure),
    json_object_keys(e.failure) as k(key)
    where k.key not in ('job_id', 'error_message', 'lease', 'retry_in', 'detail', 'permanent');
    if found then
        raise exception 'failures has an unknown key: "%"', v_unknown
            using errcode = '22023', hint = 'Its keys are fail_job()''s argument names.';
    end if;
    -- not the whole of it: what a handler raised belongs into no log of the server's
    select format(
        'failures[%s] has job_id %s and retry_in %s',
        f.n - 1, coalesce(f.job_id::text, 'null'), coalesce(f.retry_in::text, 'null')
    )
    into v_bad
    from rows from (
        json_to_recordset(fail_jobs.failures) as (job_id bigint, retry_in interval)
    ) with ordinality as f(job_id, retry_in, n)
    where f.job_id is null or not f.retry_in between interval '0' and interval '100 years'
    limit 1;
    if found then
        raise exception '%', v_bad
            using errcode = '22023',
                hint = 'Each needs a job_id, and a retry_in from 0 to 100 years, or none.';
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
retry_in       delay before the next attempt, 0 to 100 years; null: the task''s backoff, or
               exp(least(attempts, 10)) seconds plus up to 10 %
detail         more: a stack trace, say; kept in job_errors
permanent      true: no further attempt

Returns: the job as it waits now, or as it was if it is finished; a row of nulls if the worker does
not hold it, or another transaction has its row locked. Errors: 22004, 22023. Locks: the job,
skipping a locked one; its queue. Roles: app_jobs_worker.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
    perform app_jobs.check_delay('delay', snooze_job.delay);
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
    v_leases jsonb;
    v_timeouts jsonb;
    v_ids bigint[];
    v_tids tid[];
    v_over tid[];
begin
    perform app_jobs.check_worker_id(heartbeat.worker_id);
    perform app_jobs.check_positive('job_expiry', heartbeat.job_expiry);
    v_ids := coalesce(heartbeat.job_ids,
    array(select h.id from app_jobs.held_by(heartbeat.worker_id) as h(id)));

    select
        jsonb_object_agg(t.task_identifier, t.retry_after) filter (where t.retry_after is not null),
        jsonb_object_agg(t.task_identifier, t.timeout) filter (where t.timeout is not null)
    into v_leases, v_timeouts
    from app_jobs.tasks as t;
    v_now := clock_timestamp();

    -- Rows that a producer has locked are skipped: still held, and nobody can take them over
    -- meanwhile.
    select
        array_agg(h.ctid) filter (where not h.over), array_agg(h.ctid) filter (where h.over)
    into v_tids, v_over
    from (
        select
            j.ctid,
            coalesce(
                j.locked_at + (v_timeouts ->> j.task_identifier)::interval <= v_now, false
            ) as over
        from app_jobs.jobs as j
        where
            j.id = any(v_ids)
            and j.locked_by = heartbeat.worker_id
            -- said in a way that no partial index can serve: by id, whatever the statistics say
            and coalesce(j.lease_expires_at, '-infinity') > '-infinity'
            and j.cancel_reason is null
        for update skip locked
    ) as h;
    if v_over is not null then
        perform app_jobs.end_leases(v_over);
    end if;
    if v_tids is not null then
        v_slot := app_jobs.enter_slot();
        v_now := clock_timestamp();
        update app_jobs.jobs as j
        set
            lease_expires_at = least(
                v_now + coalesce(
                    j.retry_after, (v_leases ->> j.task_identifier)::interval,
                    heartbeat.job_expiry, j.lease_length
                ),
                j.locked_at + (v_timeouts ->> j.task_identifier)::interval
            ),
            lease_length = coalesce(
                j.retry_after, (v_leases ->> j.task_identifier)::interval, heartbeat.job_expiry,
                j.lease_length
            ),
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
            own retry_after goes first, then its task''s

A run that has taken longer than its task''s timeout is ended here, as if its lease had expired.

Returns: the jobs still held; one that is missing was taken over, has timed out or is to be
cancelled: stop its handler. Errors: 22004, 22023. Locks: the jobs, skipping locked ones; the current slot, shared; its
row of workers. Roles: app_jobs_worker.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:one_job to pg
-- requires: release_jobs

set local lock_timeout = '5s';

create type app_jobs.job_detail as (
    id bigint,
    task_identifier text,
    state text,
    payload json,
    attributes jsonb,
    run_at timestamptz,
    started_at timestamptz,
    created_at timestamptz,
    retry_after interval,
    database_id uuid,
    queue_name text,
    key text,
    priority integer,
    attempts integer,
    max_attempts integer,
    lease integer,
    last_error text,
    locked_by text,
    lease_expires_at timestamptz,
    finished_at timestamptz,
    finished_by text,
    result json
);

create function app_jobs.job_details(job_id bigint) returns app_jobs.job_detail
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_job app_jobs.job_detail;
begin
    perform app_jobs.check_not_null(
        'job_id', job_details.job_id is null, 'Give the id of the job to look at.'
    );
    select
        j.id, j.task_identifier,
        case
            when j.locked_by is null then 'created'
            when j.lease_expires_at is null then 'processing'
            else 'active'
        end,
        j.payload, j.attributes, j.run_at, j.locked_at, j.created_at, j.retry_after, j.database_id,
        j.queue_name, j.key, j.priority, j.attempts, j.max_attempts, j.lease, j.last_error,
        j.locked_by, j.lease_expires_at, null::timestamptz, null::text, null::json
    into v_job
    from app_jobs.jobs as j
    where j.id = job_details.job_id;
    if not found then
        select
            f.id, f.task_identifier, f.state, f.payload, f.attributes, f.run_at, f.started_at,
            f.created_at, f.retry_after, f.database_id, f.queue_name, f.key, f.priority,
            f.attempts, f.max_attempts, f.lease, f.last_error, null::text, null::timestamptz,
            f.finished_at, f.finished_by, f.result
        into v_job
        from app_jobs.finished_jobs as f
        where f.id = job_details.job_id;
    end if;
    return v_job;
end;
$$;

create function app_jobs.set_attributes(job_id bigint, attributes jsonb) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_merged jsonb;
begin
    perform app_jobs.check_not_null(
        'job_id', set_attributes.job_id is null, 'Give the id of the job to change.'
    );
    perform app_jobs.check_not_null(
        'attributes', set_attributes.attributes is null, 'Give a json object.'
    );
    if jsonb_typeof(set_attributes.attributes) <> 'object' then
        raise exception 'attributes is of type %', jsonb_typeof(set_attributes.attributes)
            using errcode = '22023', hint = 'Give a json object: its members are set.';
    end if;
    select j.attributes || set_attributes.attributes into v_merged
    from app_jobs.jobs as j where j.id = set_attributes.job_id for update;
    if not found then
        return false;
    end if;
    perform app_jobs.check_sizes(null, v_merged);
    update app_jobs.jobs as j
    set attributes = v_merged, updated_at = clock_timestamp()
    where j.id = set_attributes.job_id;
    return true;
end;
$$;

create function app_jobs.set_retry_after(job_id bigint, retry_after interval) returns boolean
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
        'job_id', set_retry_after.job_id is null, 'Give the id of the job to change.'
    );
    perform app_jobs.check_not_null(
        'retry_after', set_retry_after.retry_after is null,
        'Give a positive interval, like ''1 minute''.'
    );
    perform app_jobs.check_positive('retry_after', set_retry_after.retry_after);
    select j.* into v_job from app_jobs.jobs as j where j.id = set_retry_after.job_id for update;
    if not found then
        return false;
    end if;
    if v_job.lease_expires_at is not null then
        v_job.slot := app_jobs.enter_slot();
        v_job.lease_expires_at := clock_timestamp() + set_retry_after.retry_after;
        perform app_jobs.note_arrivals(1);
    end if;
    update app_jobs.jobs as j
    set
        retry_after = set_retry_after.retry_after,
        lease_expires_at = v_job.lease_expires_at,
        slot = v_job.slot,
        updated_at = clock_timestamp()
    where j.id = v_job.id;
    return true;
end;
$$;

create function app_jobs.set_run_at(job_id bigint, run_at timestamptz) returns boolean
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
        'job_id', set_run_at.job_id is null, 'Give the id of the job to change.'
    );
    perform app_jobs.check_not_null(
        'run_at', set_run_at.run_at is null, 'Give a time, or now() to run it at once.'
    );
    perform app_jobs.check_time('run_at', set_run_at.run_at);
    select j.* into v_job from app_jobs.jobs as j where j.id = set_run_at.job_id for update;
    if not found or (v_job.locked_by is not null and v_job.lease_expires_at is null) then
        return false;
    end if;
    if v_job.locked_by is null then
        -- Whatever line it stood in: a claim parks it again if its queue is full.
        v_job.slot := app_jobs.enter_slot();
        v_job.line := case when set_run_at.run_at <= clock_timestamp() then '' end;
        perform app_jobs.note_arrivals(1);
        -- as add_job() does
        if set_run_at.run_at < clock_timestamp() + interval '1 minute' then
            perform app_jobs.wake_workers();
        end if;
    end if;
    update app_jobs.jobs as j
    set
        run_at = set_run_at.run_at,
        line = v_job.line,
        slot = v_job.slot,
        updated_at = clock_timestamp()
    where j.id = v_job.id;
    return true;
end;
$$;

create function app_jobs.move_job_to_processing(job_id bigint) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    perform app_jobs.check_not_null(
        'job_id', move_job_to_processing.job_id is null, 'Give the id of the job to move.'
    );
    -- One that is to be cancelled stays leased, since nothing would cancel it any more.
    update app_jobs.jobs as j
    set lease_expires_at = null, updated_at = clock_timestamp()
    where
        j.id = move_job_to_processing.job_id
        and coalesce(j.locked_by, '') <> ''
        and j.cancel_reason is null;
    return found;
end;
$$;

create function app_jobs.end_job(job_id bigint, state text, keep interval) returns boolean
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_tid tid;
begin
    -- Waits for whoever else has it: a claim, an expiry, a producer that moves its key.
    select j.ctid into v_tid from app_jobs.jobs as j where j.id = end_job.job_id for update;
    if not found then
        return false;
    end if;
    perform app_jobs.end_jobs(array[v_tid], end_job.state, null, end_job.keep);
    return true;
end;
$$;

create function app_jobs.move_job_to_done(
    job_id bigint,
    delete_on_complete boolean default false
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
    v_keep interval;
begin
    perform app_jobs.check_not_null(
        'job_id', move_job_to_done.job_id is null, 'Give the id of the job to move.'
    );
    if move_job_to_done.delete_on_complete then
        v_keep := interval '0';
    else
        -- Its application still wants to look at it, so it stays as long as a failed one, at least.
        select greatest(t.keep_completed, coalesce(t.keep_failed, interval '30 days')) into v_keep
        from app_jobs.jobs as j
        left join app_jobs.tasks as t on t.task_identifier = j.task_identifier
        where j.id = move_job_to_done.job_id;
    end if;
    return app_jobs.end_job(move_job_to_done.job_id, 'completed', v_keep);
end;
$$;

create function app_jobs.move_job_to_failed(
    job_id bigint,
    delete_on_fail boolean default false
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
    perform app_jobs.check_not_null(
        'job_id', move_job_to_failed.job_id is null, 'Give the id of the job to move.'
    );
    return app_jobs.end_job(
        move_job_to_failed.job_id, 'failed',
        case when move_job_to_failed.delete_on_fail then interval '0' end
    );
end;
$$;

create function app_jobs.delete_job(job_id bigint) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_tid tid;
begin
    perform app_jobs.check_not_null(
        'job_id', delete_job.job_id is null, 'Give the id of the job to delete.'
    );
    if app_jobs.end_job(delete_job.job_id, 'cancelled', interval '0') then
        return true;
    end if;
    -- A new statement: one that has ended while we waited for its row is seen here.
    select f.ctid into v_tid
    from app_jobs.finished_jobs as f where f.id = delete_job.job_id
    for update;
    if not found then
        return false;
    end if;
    perform app_jobs.forget_finished(array[v_tid]);
    return true;
end;
$$;

revoke all on type app_jobs.job_detail from public;
revoke all on function app_jobs.job_details(bigint) from public;
revoke all on function app_jobs.set_attributes(bigint, jsonb) from public;
revoke all on function app_jobs.set_retry_after(bigint, interval) from public;
revoke all on function app_jobs.set_run_at(bigint, timestamptz) from public;
revoke all on function app_jobs.move_job_to_processing(bigint) from public;
revoke all on function app_jobs.end_job(bigint, text, interval) from public;
revoke all on function app_jobs.move_job_to_done(bigint, boolean) from public;
revoke all on function app_jobs.move_job_to_failed(bigint, boolean) from public;
revoke all on function app_jobs.delete_job(bigint) from public;
grant execute on function app_jobs.job_details(bigint) to app_jobs_worker;
grant execute on function app_jobs.set_attributes(bigint, jsonb) to app_jobs_worker;
grant execute on function app_jobs.set_retry_after(bigint, interval) to app_jobs_worker;
grant execute on function app_jobs.set_run_at(bigint, timestamptz) to app_jobs_worker;
grant execute on function app_jobs.move_job_to_processing(bigint) to app_jobs_worker;
grant execute on function app_jobs.move_job_to_done(bigint, boolean) to app_jobs_worker;
grant execute on function app_jobs.move_job_to_failed(bigint, boolean) to app_jobs_worker;
grant execute on function app_jobs.delete_job(bigint) to app_jobs_worker;

comment on type app_jobs.job_detail is
'A job, live or finished. state is created (it waits), active (leased), processing (held with no
expiry), completed, failed or cancelled; started_at is when its last run was claimed.';
comment on function app_jobs.job_details(bigint) is
'Look at a job, live or finished.

job_id  the job

Returns: the job; a row of nulls if there is none (any more). Errors: 22004. Roles:
app_jobs_worker.';
comment on function app_jobs.set_attributes(bigint, jsonb) is
'Set attributes of a live job. Those that are not named stay.

job_id      the job
attributes  a json object, merged into the top level of the job''s

Returns: true; false if no live job has the id. Errors: 22004, 22023. Locks: the job; waits for it.
Roles: app_jobs_worker.';
comment on function app_jobs.set_retry_after(bigint, interval) is
'Set the length of a live job''s leases. If it is active, its lease lasts that long from now.

job_id       the job
retry_after  positive

Returns: true; false if no live job has the id. Errors: 22004, 22023. Locks: the job; waits for it;
the current slot, shared. Roles: app_jobs_worker.';
comment on function app_jobs.set_run_at(bigint, timestamptz) is
'Set the time before which a job does not run. An active one goes on; it counts when that job waits
again without a delay of its own.

job_id  the job
run_at  in the past: at once

Returns: true; false if it is processing, or no live job has the id. Errors: 22004. Locks: the job;
waits for it; the current slot, shared. Roles: app_jobs_worker.';
comment on function app_jobs.move_job_to_processing(bigint) is
'Let the lease of an active job never end: whoever processes it moves it on by itself. It keeps its
seat of a queue.

job_id  the job

Returns: true, also if it is processing already; false if it is not held (claim it first), or to be
cancelled, or no live job has the id. Errors: 22004. Locks: the job; waits for it. Roles:
app_jobs_worker.';
comment on function app_jobs.end_job(bigint, text, interval) is
'End a live job, whatever its state and whoever holds it. Its queue moves on.

job_id  the job
state   completed, failed or cancelled
keep    as in finish_jobs()

Returns: true; false if no live job has the id. Locks: the job; waits for it; its queue. Roles:
internal; the caller pins the plans.';
comment on function app_jobs.move_job_to_done(bigint, boolean) is
'Complete a live job, whatever its state and whoever holds it.

job_id              the job
delete_on_complete  true: nothing of it is kept; false: as long as the task''s keep_completed or
                    keep_failed, whichever is longer

Returns: true; false if no live job has the id. Errors: 22004. Locks: the job; waits for it; its
queue. Roles: app_jobs_worker.';
comment on function app_jobs.move_job_to_failed(bigint, boolean) is
'Fail a live job for good, whatever its state and whoever holds it.

job_id          the job
delete_on_fail  true: nothing of it is kept; false: as long as the task''s keep_failed

Returns: true; false if no live job has the id. Errors: 22004. Locks: the job; waits for it; its
queue. Roles: app_jobs_worker.';
comment on function app_jobs.delete_job(bigint) is
'Delete a job, live or finished, with its errors and effects.

job_id  the job

Returns: true; false if no job has the id. Errors: 22004. Locks: the job; waits for it; its queue.
Roles: app_jobs_worker.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:set_queue to pg
-- requires: release_jobs

set local lock_timeout = '5s';

create function app_jobs.set_queue(
    queue_name text, db_id uuid, max_running integer, paused boolean
) returns app_jobs.queue_settings
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_line text;
    v_queue app_jobs.queue_settings;
begin
    perform app_jobs.check_not_null(
        'queue_name', set_queue.queue_name is null, 'Name the queue, 1 to 200 characters.'
    );
    perform app_jobs.check_length('queue_name', set_queue.queue_name, 200);

    -- With the queue's lock, so that a claim has either happened before or goes by what we write.
    v_line := app_jobs.queue_line(set_queue.db_id, set_queue.queue_name);
    perform pg_advisory_xact_lock(app_jobs.lock_key('queue', v_line));
    insert into app_jobs.queue_settings as s (line, database_id, queue_name, max_running, paused)
    values (
        v_line, set_queue.db_id, set_queue.queue_name, coalesce(set_queue.max_running, 1),
        coalesce(set_queue.paused, false)
    )
    on conflict on constraint queue_settings_pkey do update set
        max_running = coalesce(set_queue.max_running, s.max_running),
        paused = coalesce(set_queue.paused, s.paused)
    returning s.* into v_queue;
    perform app_jobs.advance_queues(array[v_line], null, false);
    return v_queue;
end;
$$;

create function app_jobs.pause_queue(
    queue_name text, db_id uuid default null
) returns app_jobs.queue_settings
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    select app_jobs.set_queue(pause_queue.queue_name, pause_queue.db_id, null, true)
$$;

create function app_jobs.resume_queue(
    queue_name text, db_id uuid default null
) returns app_jobs.queue_settings
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    select app_jobs.set_queue(resume_queue.queue_name, resume_queue.db_id, null, false)
$$;

create function app_jobs.set_queue_limit(
    queue_name text, max_running integer, db_id uuid default null
) returns app_jobs.queue_settings
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform app_jobs.check_not_null(
        'max_running', set_queue_limit.max_running is null, 'Give 1 to 10000 jobs.'
    );
    if set_queue_limit.max_running not between 1 and 10000 then
        raise exception 'max_running is %', set_queue_limit.max_running
            using errcode = '22023',
                hint = 'Give 1 to 10000 jobs; to stop a queue call pause_queue().';
    end if;
    return app_jobs.set_queue(
        set_queue_limit.queue_name, set_queue_limit.db_id, set_queue_limit.max_running, null
    );
end;
$$;

revoke all on function app_jobs.set_queue(text, uuid, integer, boolean) from public;
revoke all on function app_jobs.pause_queue(text, uuid) from public;
revoke all on function app_jobs.resume_queue(text, uuid) from public;
revoke all on function app_jobs.set_queue_limit(text, integer, uuid) from public;
grant execute on function app_jobs.pause_queue(text, uuid) to app_jobs_operator;
grant execute on function app_jobs.resume_queue(text, uuid) to app_jobs_operator;
grant execute on function app_jobs.set_queue_limit(text, integer, uuid) to app_jobs_operator;

comment on function app_jobs.set_queue(text, uuid, integer, boolean) is
'Set what is given of a queue''s settings; its parked jobs move on as far as these allow.

queue_name   the queue, 1 to 200 characters
db_id        its tenant; null: none
max_running  jobs that may run at once; null: as it is
paused       whether none may be claimed; null: as it is

Returns: the settings as they are now. Errors: 22004, 22023. Locks: the queue; waits for it. Roles:
internal.';
comment on function app_jobs.pause_queue(text, uuid) is
'Pause a queue: its running jobs go on, no other is claimed.

queue_name  the queue, 1 to 200 characters; it need not have jobs
db_id       its tenant; null: none

Returns: the queue''s settings. Errors: 22004, 22023. Locks: the queue; waits for transactions that
have claimed or ended one of its jobs. Roles: app_jobs_operator.';
comment on function app_jobs.resume_queue(text, uuid) is
'Let a paused queue go on, at once.

queue_name  the queue, 1 to 200 characters
db_id       its tenant; null: none

Returns: the queue''s settings. Errors: 22004, 22023. Locks: as pause_queue(). Roles:
app_jobs_operator.';
comment on function app_jobs.set_queue_limit(text, integer, uuid) is
'Set how many jobs of a queue may run at once. A higher limit is used at once; under a lower one the
jobs that run go on, and none is claimed before so many have ended.

queue_name   the queue, 1 to 200 characters
max_running  1 to 10000; the default of a queue is 1
db_id        its tenant; null: none

Returns: the queue''s settings. Errors: 22004, 22023. Locks: as pause_queue(). Roles:
app_jobs_operator.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:set_task to pg
-- requires: set_queue

set local lock_timeout = '5s';

create function app_jobs.set_task(task text, settings json) returns app_jobs.tasks
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    c_longest constant interval := interval '100 years';
    c_allowed constant jsonb := jsonb '{
        "max_attempts": "an integer, 1 or more",
        "retry_after": "a positive interval, up to 100 years",
        "timeout": "a positive interval, up to 100 years",
        "backoff": "an object like {\"type\": \"linear\", \"base\": \"1s\", \"cap\": \"6h\"}",
        "keep_completed": "an interval, 0 to 100 years",
        "keep_failed": "an interval, 0 to 100 years",
        "paused": "true or false"
    }';
    v_key text;
    v_given json;
    v_value text;
    v_valid boolean;
    v_why text;
    v_was_paused boolean;
    v_task app_jobs.tasks;
begin
    perform app_jobs.check_not_null(
        'task', set_task.task is null, 'Name the task, 1 to 126 characters.'
    );
    perform app_jobs.check_length('task', set_task.task, 126);
    perform app_jobs.check_not_null(
        'settings', set_task.settings is null, 'Give an object, like {"max_attempts": 5}.'
    );
    if json_typeof(set_task.settings) <> 'object' then
        raise exception 'settings is of type %', json_typeof(set_task.settings)
            using errcode = '22023', hint = 'Give an object, like {"max_attempts": 5}.';
    end if;

    select k.key into v_key
    from json_object_keys(set_task.settings) as k(key) where not c_allowed ? k.key;
    if found then
        raise exception 'settings has an unknown key: "%"', v_key
            using errcode = '22023',
                hint = format(
                    'It takes %s.',
                    (select string_agg(k.key, ', ') from jsonb_object_keys(c_allowed) as k(key))
                );
    end if;

    insert into app_jobs.tasks (task_identifier) values (set_task.task)
    on conflict on constraint tasks_pkey do nothing;
    select t.* into v_task
    from app_jobs.tasks as t where t.task_identifier = set_task.task for update;
    v_was_paused := v_task.paused;

    for v_key, v_given, v_value in
        select s.key, s.value, s.value #>> '{}' from json_each(set_task.settings) as s
    loop
        begin
            v_why := '';
            v_valid := true;
            case v_key
                when 'max_attempts' then
                    v_task.max_attempts := v_value::integer;
                    v_valid := v_task.max_attempts >= 1;
                when 'retry_after' then
                    v_task.retry_after := v_value::interval;
                    v_valid := v_task.retry_after > interval '0'
                        and v_task.retry_after <= c_longest;
                when 'timeout' then
                    v_task.timeout := v_value::interval;
                    v_valid := v_task.timeout > interval '0' and v_task.timeout <= c_longest;
                when 'backoff' then
                    v_task.backoff := case when v_value is not null then v_given end;
                    v_valid := v_value is null
                        or app_jobs.backoff_delay(v_given, 1000) <= c_longest;
                when 'keep_completed' then
                    v_task.keep_completed := coalesce(v_value::interval, interval '0');
                    v_valid := v_task.keep_completed between interval '0' and c_longest;
                when 'keep_failed' then
                    v_task.keep_failed := coalesce(v_value::interval, interval '30 days');
                    v_valid := v_task.keep_failed between interval '0' and c_longest;
                when 'paused' then
                    v_task.paused := coalesce(v_value::boolean, false);
            end case;
        exception when data_exception then
            -- no interval, no integer …
            get stacked diagnostics v_why = message_text;
            v_valid := false;
        end;
        if not v_valid then
            raise exception 'settings: % is %', v_key, v_given
                using errcode = '22023', detail = v_why,
                    hint = format('Give %s, or null for the default.', c_allowed ->> v_key);
        end if;
    end loop;

    update app_jobs.tasks as t
    set
        max_attempts = v_task.max_attempts,
        retry_after = v_task.retry_after,
        timeout = v_task.timeout,
        backoff = v_task.backoff,
        keep_completed = v_task.keep_completed,
        keep_failed = v_task.keep_failed,
        paused = v_task.paused
    where t.task_identifier = set_task.task;
    if v_was_paused and not v_task.paused then
        perform app_jobs.wake_workers();
    end if;
    return v_task;
end;
$$;

create function app_jobs.pause_task(task text) returns app_jobs.tasks
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    select app_jobs.set_task(pause_task.task, '{"paused": true}')
$$;

create function app_jobs.resume_task(task text) returns app_jobs.tasks
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
    select app_jobs.set_task(resume_task.task, '{"paused": false}')
$$;

revoke all on function app_jobs.set_task(text, json) from public;
revoke all on function app_jobs.pause_task(text) from public;
revoke all on function app_jobs.resume_task(text) from public;
grant execute on function app_jobs.set_task(text, json) to app_jobs_operator;
grant execute on function app_jobs.pause_task(text) to app_jobs_operator;
grant execute on function app_jobs.resume_task(text) to app_jobs_operator;

comment on function app_jobs.set_task(text, json) is
'Set a task''s settings. They hold at once, without a restart of anybody; what was decided before
stands: a job''s max_attempts, and how long a finished one is kept.

task      the task, 1 to 126 characters; it need not have jobs
settings  object of columns of tasks and their new values; null: back to the default. What is not
          there stays as it is

Returns: the settings as they are now. Errors: 22004, 22023. Locks: the task''s row. Roles:
app_jobs_operator.';
comment on function app_jobs.pause_task(text) is
'Pause a task: its running jobs go on, no other is claimed.

task  the task, 1 to 126 characters

Returns: the task''s settings. Errors: 22004, 22023. Locks: the task''s row. Roles:
app_jobs_operator.';
comment on function app_jobs.resume_task(text) is
'Let a paused task go on, at once; its jobs that are parked in queues follow with tick().

task  the task, 1 to 126 characters

Returns: the task''s settings. Errors: 22004, 22023. Locks: the task''s row. Roles:
app_jobs_operator.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:steer_jobs to pg
-- requires: set_task

set local lock_timeout = '5s';

create function app_jobs.lock_jobs(job_ids bigint[], leased boolean) returns tid[]
language plpgsql
volatile
as $$
#variable_conflict use_column
begin
    perform app_jobs.check_not_null(
        'job_ids', lock_jobs.job_ids is null, 'Give the ids of the jobs.'
    );
    -- in the order of ids, so that no two who steer jobs wait for each other
    perform from (
        select distinct g.id from unnest(lock_jobs.job_ids) as g(id) order by g.id
    ) as given
    cross join lateral (
        select from app_jobs.jobs as w
        where
            w.id = given.id
            -- said in a way that no partial index can serve: by id, whatever the statistics say
            and (lock_jobs.leased or coalesce(w.lease_expires_at, '-infinity') = '-infinity')
        for update
    ) as j;
    -- A new statement, a new snapshot: it sees what those have done for whom we waited.
    return array(
        select j.ctid
        from app_jobs.jobs as j
        where
            j.id = any(lock_jobs.job_ids)
            and (lock_jobs.leased or coalesce(j.lease_expires_at, '-infinity') = '-infinity')
        order by j.id
    );
end;
$$;

create function app_jobs.slots_for(jobs integer, out slots integer[], out closed boolean)
language plpgsql
volatile
as $$
declare
    c_slot_size constant integer := 1000;
begin
    closed := slots_for.jobs >= c_slot_size;
    if closed then
        slots := array(
            select nextval('app_jobs.slot_number')
            from generate_series(1, (slots_for.jobs + c_slot_size - 1) / c_slot_size)
        );
    else
        slots := array[app_jobs.enter_slot()];
        perform app_jobs.note_arrivals(slots_for.jobs);
    end if;
end;
$$;

create function app_jobs.complete_jobs(job_ids bigint[]) returns setof app_jobs.jobs
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
    v_tids constant tid[] := app_jobs.lock_jobs(complete_jobs.job_ids, false);
begin
    return query
    select j.*
    from unnest(v_tids) with ordinality as g(tid, n)
    inner join app_jobs.jobs as j on j.ctid = g.tid
    order by g.n;
    perform app_jobs.end_jobs(v_tids, 'completed', null);
end;
$$;

create function app_jobs.permanently_fail_jobs(
    job_ids bigint[], error_message text default null
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
    v_tids constant tid[] := app_jobs.lock_jobs(permanently_fail_jobs.job_ids, false);
begin
    return query
    select j.*
    from unnest(v_tids) with ordinality as g(tid, n)
    inner join app_jobs.jobs as j on j.ctid = g.tid
    order by g.n;
    perform app_jobs.end_jobs(v_tids, 'failed', permanently_fail_jobs.error_message);
end;
$$;

create function app_jobs.cancel_jobs(
    job_ids bigint[], reason text default null
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
    v_tids constant tid[] := app_jobs.lock_jobs(cancel_jobs.job_ids, true);
begin
    return query
    select j.*
    from unnest(v_tids) with ordinality as g(tid, n)
    inner join app_jobs.jobs as j on j.ctid = g.tid
    order by g.n;
    perform app_jobs.cancel_locked(v_tids, cancel_jobs.reason);
end;
$$;

create function app_jobs.reschedule_jobs(
    job_ids bigint[],
    run_at timestamptz default null,
    priority integer default null,
    attempts integer default null,
    max_attempts integer default null
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
    v_now timestamptz;
    v_tids tid[];
    v_ids bigint[];
    v_slots integer[];
    v_closed boolean;
    v_lines text[];
    v_tasks text[];
begin
    perform app_jobs.check_time('run_at', reschedule_jobs.run_at);
    if reschedule_jobs.attempts not between 0 and 1000000 then
        raise exception 'attempts is %', reschedule_jobs.attempts
            using errcode = '22023', hint = 'Give 0 to 1000000 runs, or null for as many as it had.';
    elsif reschedule_jobs.max_attempts < 1 then
        raise exception 'max_attempts is %', reschedule_jobs.max_attempts
            using errcode = '22023', hint = 'Give at least 1, or null for as many as it has.';
    end if;
    v_tids := app_jobs.lock_jobs(reschedule_jobs.job_ids, false);
    v_tids := array(
        select g.tid
        from unnest(v_tids) with ordinality as g(tid, n)
        inner join app_jobs.jobs as j on j.ctid = g.tid
        where j.locked_by is null
        order by g.n
    );
    if v_tids = '{}' then
        return;
    end if;

    -- A new position needs a new slot, since the old one's bounds do not reckon with it. A parked
    -- job that is due is met by a claim again.
    select q.queue_lines, q.tasks into v_lines, v_tasks from app_jobs.queues_left(v_tids) as q;
    select s.slots, s.closed into v_slots, v_closed
    from app_jobs.slots_for(cardinality(v_tids)) as s;
    v_now := clock_timestamp();
    with changed as (
        update app_jobs.jobs as j
        set
            run_at = coalesce(reschedule_jobs.run_at, j.run_at),
            priority = coalesce(reschedule_jobs.priority, j.priority),
            attempts = coalesce(reschedule_jobs.attempts, j.attempts),
            max_attempts = coalesce(reschedule_jobs.max_attempts, j.max_attempts),
            slot = v_slots[1 + (g.n - 1) * cardinality(v_slots) / cardinality(v_tids)],
            line = case when coalesce(reschedule_jobs.run_at, j.run_at) <= v_now then '' end,
            updated_at = v_now
        from unnest(v_tids) with ordinality as g(tid, n)
        where j.ctid = g.tid
        returning j.id
    )

    select array_agg(c.id) into v_ids from changed as c;
    if v_closed then
        perform app_jobs.close_slot(s.slot) from unnest(v_slots) as s(slot);
    end if;
    perform app_jobs.wake_workers();
    if v_lines is not null then
        perform app_jobs.advance_queues(v_lines, v_tasks, true);
    end if;
    return query select j.* from app_jobs.jobs as j where j.id = any(v_ids) order by j.id;
end;
$$;

revoke all on function app_jobs.lock_jobs(bigint[], boolean) from public;
revoke all on function app_jobs.slots_for(integer) from public;
revoke all on function app_jobs.complete_jobs(bigint[]) from public;
revoke all on function app_jobs.permanently_fail_jobs(bigint[], text) from public;
revoke all on function app_jobs.cancel_jobs(bigint[], text) from public;
revoke all on function app_jobs.reschedule_jobs(
    bigint[], timestamptz, integer, integer, integer
) from public;
grant execute on function app_jobs.complete_jobs(bigint[]) to app_jobs_operator;
grant execute on function app_jobs.permanently_fail_jobs(bigint[], text) to app_jobs_operator;
grant execute on function app_jobs.cancel_jobs(bigint[], text) to app_jobs_operator;
grant execute on function app_jobs.reschedule_jobs(
    bigint[], timestamptz, integer, integer, integer
) to app_jobs_operator;

comment on function app_jobs.lock_jobs(bigint[], boolean) is
'Lock live jobs, in the order of their ids.

job_ids  the jobs
leased   true: also those that a worker has leased

Returns: their rows; unknown ids are left out. Errors: 22004. Locks: the jobs; waits for them.
Roles: internal; the caller pins the plans.';
comment on function app_jobs.slots_for(integer) is
'Choose slots for jobs that are about to come to where they stand: the current one, or, from a
thousand jobs on, slots of their own.

jobs  how many

Returns: the slots, to be used evenly; closed: they are the jobs'' own, so call close_slot() for
each once the jobs are there. Errors: JQ090. Locks: the current slot, shared. Roles: internal.';
comment on function app_jobs.complete_jobs(bigint[]) is
'Complete jobs that no worker has leased: those that wait, and those that are processing. What is
kept of them is the task''s keep_completed.

job_ids  the jobs

Returns: those completed, as they were; a job that is leased, finished or unknown is left out.
Errors: 22004. Locks: the jobs; waits for other transactions that have them locked; their queues.
Roles: app_jobs_operator.';
comment on function app_jobs.permanently_fail_jobs(bigint[], text) is
'Fail jobs for good that no worker has leased: those that wait, and those that are processing. They
are kept as dead letters, for the task''s keep_failed.

job_ids        the jobs
error_message  kept as last_error; null: the error that they have

Returns: those failed, as they were; a job that is leased, finished or unknown is left out. Errors:
22004. Locks: as complete_jobs(job_ids). Roles: app_jobs_operator.';
comment on function app_jobs.cancel_jobs(bigint[], text) is
'Cancel jobs. Those that wait or are processing are finished as cancelled. Those that are leased are
marked, and their workers learn of it at the next heartbeat: one that is completed all the same is
completed, otherwise it is cancelled, not retried.

job_ids  the jobs
reason   kept as last_error; null: "cancelled"

Returns: the jobs as they were (lease_expires_at not null: marked); one that is finished or unknown
is left out. Errors: 22004. Locks: as complete_jobs(job_ids). Roles: app_jobs_operator.';
comment on function app_jobs.reschedule_jobs(bigint[], timestamptz, integer, integer, integer) is
'Change when and how jobs that wait will run.

job_ids       the jobs
run_at        not before this time; null: as it is
priority      lower runs first; null: as it is
attempts      runs so far, 0 to 1000000; null: as it is
max_attempts  1 or more; null: as it is

Returns: those changed, as they are now; a job that runs, is finished or unknown is left out.
Errors: 22004, 22023. Locks: as complete_jobs(job_ids). Roles: app_jobs_operator.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:retry_jobs to pg
-- requires: steer_jobs

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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:prune to pg
-- requires: retry_jobs

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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:running_jobs to pg
-- requires: metrics

set local lock_timeout = '5s';

create function app_jobs.running_jobs() returns table (
    worker_id text,
    task_identifier text,
    jobs bigint,
    since timestamptz
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    -- As metrics() does it: leases slot by slot, or dead entries of the index would be walked.
    return query
    with slots as (
        select o.slot from app_jobs.open_slots as o
        union
        select a.slot from app_jobs.alarms as a where a.kind = 'lease'
    ),

    held as (
        select j.*
        from slots as s
        cross join lateral (
            select l.locked_by, l.task_identifier, l.locked_at
            from app_jobs.jobs as l
            where l.slot = s.slot and l.lease_expires_at is not null
            offset 0
        ) as j
        union all
        select p.locked_by, p.task_identifier, p.locked_at
        from app_jobs.jobs as p
        where p.locked_by is not null and p.lease_expires_at is null
    )

    select h.locked_by, h.task_identifier, count(*), min(h.locked_at)
    from held as h
    group by h.locked_by, h.task_identifier
    order by h.locked_by, min(h.locked_at), h.task_identifier;
end;
$$;

revoke all on function app_jobs.running_jobs() from public;
grant execute on function app_jobs.running_jobs() to app_jobs_monitor;

comment on function app_jobs.running_jobs() is
'Tell what each worker holds, processing jobs included; exact, and cheap however many jobs wait.

Returns: a row per worker and task: how many jobs, and since when the first of them has been held.
Roles: app_jobs_monitor.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:explain_job to pg
-- requires: metrics

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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:doctor to pg
-- requires: explain_job
-- requires: run_schedules

set local lock_timeout = '5s';

create type app_jobs.finding as (severity text, finding text, figure text, remedy text);

create function app_jobs.diagnose_jobs() returns setof app_jobs.finding
language plpgsql
volatile
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_listed constant integer := 20;
    c_counted constant integer := 1000;
    v_now constant timestamptz := clock_timestamp();
    v_metrics constant app_jobs.metrics[] := array(select m from app_jobs.metrics as m);
    v_workers constant bigint := (
        select count(*) from app_jobs.workers as w
        where w.last_seen_at > v_now - interval '5 minutes'
    );
    v_idle_for constant interval := v_now - to_timestamp(
        coalesce(pg_sequence_last_value('app_jobs.ticked_at'), 0) / 1000.0
    );
begin
    -- what waits too long
    return query
    select
        case when max(m.oldest_ready_age) > interval '1 hour' then 'critical' else 'warning' end,
        format('jobs of task "%s" wait', m.task_identifier),
        format('%s ready, the oldest for %s', sum(m.ready),
        app_jobs.in_words(max(m.oldest_ready_age))),
        'start more workers; app_jobs.explain_job() tells what keeps one of them'
    from unnest(v_metrics) as m
    where
        m.ready > 0
        and m.task_identifier not in (
            select t.task_identifier from app_jobs.tasks as t where t.paused
        )
    group by m.task_identifier
    having max(m.oldest_ready_age) > interval '5 minutes'
    order by max(m.oldest_ready_age) desc
    limit c_listed;

    -- what nobody serves
    if v_workers = 0 then
        return query
        select
            'critical', 'no live worker is known', format('%s jobs are ready', sum(m.ready)),
            'start workers; those that are no app-jobs workers are known by heartbeat() or '
            'register_worker()'
        from unnest(v_metrics) as m
        where m.ready > 0
        having count(*) > 0;
    else
        return query
        select
            'critical', format('no live worker is known to serve task "%s"', m.task_identifier),
            format('%s jobs are ready, %s live workers', sum(m.ready), v_workers),
            'start a worker that serves it'
        from unnest(v_metrics) as m
        where
            m.ready > 0
            and not exists (
                select from app_jobs.workers as w
                where
                    w.last_seen_at > v_now - interval '5 minutes'
                    and (
                        w.task_identifiers is null
                        or m.task_identifier = any(w.task_identifiers)
                    )
            )
        group by m.task_identifier
        order by sum(m.ready) desc
        limit c_listed;
    end if;

    -- leases that are over; those of the last seconds wait for the next tick()
    return query
    select
        'warning', 'leases are over and nobody has taken the jobs back',
        format('%s, the first %s ago', count(*), app_jobs.in_words(v_now - min(l.ended_at))),
        'call app_jobs.tick(), and see that workers do'
    from app_jobs.due_slots('lease', v_now - interval '10 seconds', 0) as s(slot)
    -- lateral, and offset 0: slot by slot, whatever the statistics say
    cross join lateral (
        select j.lease_expires_at as ended_at
        from app_jobs.jobs as j
        where j.slot = s.slot and j.lease_expires_at < v_now - interval '10 seconds'
        offset 0
    ) as l
    having count(*) > 0;

    return query
    select
        'warning', 'schedules are behind time',
        format('%s, the first for %s', count(*), app_jobs.in_words(v_now - min(l.due_at))),
        'call app_jobs.tick(), and see that workers do'
    from app_jobs.schedule_slots(v_now - interval '1 minute') as p
    cross join lateral (
        select w.due_at
        from app_jobs.scheduled_jobs as w
        where w.slot = p.slot and w.due_at < v_now - interval '1 minute'
        offset 0
    ) as l
    having count(*) > 0;

    -- housekeeping
    return query
    select
        case when v_idle_for > interval '10 minutes' then 'critical' else 'warning' end,
        'nobody keeps house: due jobs, ended leases and queues wait',
        case
            when v_idle_for > interval '1000 days' then 'app_jobs.tick() has never run'
            else format('app_jobs.tick() ran %s ago', app_jobs.in_words(v_idle_for))
        end,
        'start a worker, or call app_jobs.tick() about once a second, from pg_cron, say'
    where
        v_idle_for > interval '1 minute'
        and exists (
            select from unnest(v_metrics) as m
            where m.ready + m.scheduled + m.running + m.parked > 0
        );

    -- what is paused
    return query
    select
        'info', format('task "%s" is paused', t.task_identifier),
        format('%s jobs wait', coalesce(sum(m.ready + m.parked + m.scheduled), 0)),
        format('when it is time: app_jobs.resume_task(%L)', t.task_identifier)
    from app_jobs.tasks as t
    left join unnest(v_metrics) as m on m.task_identifier = t.task_identifier
    where t.paused
    group by t.task_identifier
    order by t.task_identifier
    limit c_listed;

    return query
    select
        'info', 'schedules are paused: by an operator, or since they cannot be read any more',
        count(*) || case when count(*) = c_counted then ' or more' else '' end,
        'when they are right: update app_jobs.scheduled_jobs set paused = false where paused'
    from (
        select s.id from app_jobs.scheduled_jobs as s where s.paused limit c_counted
    ) as d
    having count(*) > 0;

    return query
    select
        'info',
        format(
            'queue "%s" is paused%s', q.queue_name, ' (tenant ' || q.database_id || ')'
        ),
        format('%s jobs wait', coalesce(sum(m.ready + m.parked + m.scheduled), 0)),
        format('when it is time: app_jobs.resume_queue(%s)', concat_ws(
            ', ', quote_literal(q.queue_name), quote_literal(q.database_id)
        ))
    from app_jobs.queue_settings as q
    left join unnest(v_metrics) as m
        on m.queue_name = q.queue_name and m.database_id is not distinct from q.database_id
    where q.paused
    group by q.queue_name, q.database_id
    order by q.queue_name, q.database_id
    limit c_listed;

    -- dead letters
    return query
    select
        'warning', format('jobs of task "%s" have failed for good', m.task_identifier),
        format('%s within the last hour', sum(m.failed_1h)),
        'app_jobs.finished_jobs.last_error says why; app_jobs.retry_jobs() tries again'
    from unnest(v_metrics) as m
    where m.failed_1h > 0
    group by m.task_identifier
    order by sum(m.failed_1h) desc
    limit c_listed;

    return query
    select
        'info', 'dead letters are kept',
        count(*) || case when count(*) = c_counted then ' or more' else '' end,
        'app_jobs.retry_jobs() tries again; tasks.keep_failed says how long they are kept'
    from (
        select f.id from app_jobs.finished_jobs as f
        where f.state = 'failed'
        order by f.finished_at
        limit c_counted
    ) as d
    having count(*) > 0;
end;
$$;

create function app_jobs.diagnose_slots() returns setof app_jobs.finding
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_current constant integer := pg_sequence_last_value('app_jobs.slot_current');
begin
    perform from app_jobs.open_slots as o where o.slot = v_current;
    if not found then
        return next row(
            'critical', 'the current slot is not listed', coalesce(v_current::text, 'null'),
            'sequences were not restored with the tables: call app_jobs.sweep()'
        )::app_jobs.finding;
    end if;

    -- slots that cannot be closed, since a transaction that has entered them is still open
    return query
    select
        'warning', 'an open transaction has added or changed jobs: each claim looks there, too',
        format(
            'slot %s, open for %s; %s', o.slot, app_jobs.in_words(v_now - o.opened_at),
            coalesce(
                'session ' || l.pid || ' of ' || a.usename || coalesce(
                    ', ' || a.state || ' since ' || app_jobs.at_time(a.state_change), ''
                ),
                'a prepared transaction, or nobody keeps house'
            )
        ),
        coalesce(
            'end the transaction: select pg_terminate_backend(' || l.pid || ')',
            'see pg_prepared_xacts, and that app_jobs.tick() is called'
        )
    from app_jobs.open_slots as o
    left join pg_locks as l
        on
            l.locktype = 'advisory'
            and (l.classid::bigint << 32 | l.objid::bigint)
            = app_jobs.lock_key('slot', o.slot::text)
            and l.pid is not null
            and l.granted
    left join pg_stat_activity as a on a.pid = l.pid
    where o.slot < v_current and o.opened_at < v_now - interval '5 minutes'
    order by o.opened_at;
end;
$$;

create function app_jobs.diagnose_server(patience interval) returns setof app_jobs.finding
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_usage constant double precision := pg_notification_queue_usage();
begin
    -- The session that pins the oldest snapshot: what has gone since stays, in tables and indexes.
    return query
    select
        case when a.xact_start < v_now - interval '1 hour' then 'critical' else 'warning' end,
        'an open transaction keeps dead rows',
        format(
            'session %s of %s%s, %s, since %s, for %s', a.pid, a.usename,
            ' (' || nullif(a.application_name, '') || ')', coalesce(a.state, a.backend_type),
            app_jobs.at_time(a.xact_start), app_jobs.in_words(v_now - a.xact_start)
        ),
        case a.backend_type
            when 'walsender' then 'end what runs on the standby, or set hot_standby_feedback = off '
                'there'
            else format('select pg_terminate_backend(%s)', a.pid)
        end
    from pg_stat_activity as a
    where
        (a.datname = current_database() or a.backend_type = 'walsender')
        and a.pid <> pg_backend_pid()
        and a.backend_type <> 'autovacuum worker'
        and coalesce(a.backend_xmin, a.backend_xid) is not null
        and a.xact_start <= v_now - diagnose_server.patience
    order by greatest(age(a.backend_xmin), age(a.backend_xid)) desc
    limit 1;

    return query
    select
        case when p.prepared < v_now - interval '1 hour' then 'critical' else 'warning' end,
        'a prepared transaction keeps dead rows and locks',
        format('%L, for %s', p.gid, app_jobs.in_words(v_now - p.prepared)),
        format('commit prepared %L, or rollback prepared %L', p.gid, p.gid)
    from pg_prepared_xacts as p
    where p.database = current_database() and p.prepared <= v_now - diagnose_server.patience
    order by p.prepared
    limit 5;

    return query
    select
        'warning', 'a replication slot keeps dead rows',
        format(
            '%s, %s, %s transactions behind', r.slot_name,
            case when r.active then 'active' else 'not active' end, age(r.xmin)
        ),
        case
            when r.active then 'set hot_standby_feedback = off there, or end what runs there'
            else format('select pg_drop_replication_slot(%L), if nobody needs it', r.slot_name)
        end
    from pg_replication_slots as r
    where r.xmin is not null and (not r.active or age(r.xmin) > 1000000)
    order by age(r.xmin) desc
    limit 5;

    if v_usage > 0.1 then
        return next row(
            case when v_usage > 0.5 then 'critical' else 'warning' end,
            'the queue of notifications fills: full, every NOTIFY fails',
            format('%s %%', round((100 * v_usage)::numeric)),
            'a session that listens is in a long transaction: end it'
        )::app_jobs.finding;
    end if;

    return query
    select
        case when d.age > 1500000000 then 'critical' else 'warning' end,
        'transaction ids of this database run out: nothing has frozen them',
        format('%s million old', d.age / 1000000),
        'vacuum (freeze) the oldest tables; what keeps dead rows keeps these, too'
    from (
        select age(b.datfrozenxid) as age from pg_database as b
        where b.datname = current_database()
    ) as d
    where d.age > greatest(2 * current_setting('autovacuum_freeze_max_age')::bigint, 500000000);

    if not pg_has_role('pg_read_all_stats', 'usage') then
        return next row(
            'info', 'other users'' sessions are not seen', current_user::text,
            format('grant pg_read_all_stats to %I', current_user)
        )::app_jobs.finding;
    end if;
    if not current_setting('track_activities')::boolean then
        return next row(
            'info', 'what sessions do is not seen', 'track_activities = off',
            'set track_activities = on in postgresql.conf'
        )::app_jobs.finding;
    end if;
end;
$$;

create function app_jobs.diagnose_tables() returns setof app_jobs.finding
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    -- as in the table's definition
    c_options constant text[] := array[
        'autovacuum_vacuum_scale_factor=0.01', 'autovacuum_vacuum_threshold=5000',
        'autovacuum_vacuum_insert_scale_factor=0.2', 'autovacuum_analyze_scale_factor=0.2',
        'autovacuum_analyze_threshold=50000'
    ];
    v_setting text;
begin
    foreach v_setting in array array['autovacuum', 'track_counts'] loop
        if not current_setting(v_setting)::boolean then
            return next row(
                'critical', 'autovacuum does not run', v_setting || ' = off',
                format('set %s = on in postgresql.conf', v_setting)
            )::app_jobs.finding;
        end if;
    end loop;

    return query
    select
        'critical', format('autovacuum leaves table %s out', c.relname), o.option,
        format('alter table app_jobs.%I reset (autovacuum_enabled)', c.relname)
    from pg_class as c
    cross join unnest(c.reloptions) as o(option)
    where
        c.relnamespace = 'app_jobs'::regnamespace
        and c.relkind = 'r'
        and o.option ~* '^autovacuum_enabled=(off|false|no|0|f|n)$';

    return query
    select
        'info', 'settings of table jobs differ from those deployed', d.differences,
        'measured with fillfactor 100 and: ' || array_to_string(c_options, ', ')
    from (
        select string_agg(concat_ws(' ', case when g.option is null then 'without' end,
        coalesce(g.option, w.option)), ', ') as differences
        from (
            select u.option
            from pg_class as c
            cross join unnest(c.reloptions) as u(option)
            where c.oid = 'app_jobs.jobs'::regclass
        ) as g
        full join unnest(c_options) as w(option) on w.option = g.option
        where g.option is null or w.option is null
    ) as d
    where d.differences is not null;

    -- one that is starved, or that a snapshot keeps from its work
    return query
    select
        'warning', format('table %s is full of dead rows', s.relname),
        format(
            '%s dead, %s live, vacuumed %s', s.n_dead_tup, s.n_live_tup,
            coalesce(
                app_jobs.in_words(clock_timestamp() - greatest(s.last_autovacuum, s.last_vacuum))
                || ' ago', 'never'
            )
        ),
        format('vacuum app_jobs.%I; see what else is said of dead rows and autovacuum', s.relname)
    from pg_stat_all_tables as s
    where
        s.schemaname = 'app_jobs'
        and s.n_dead_tup > 50000
        and s.n_dead_tup > s.n_live_tup / 2
    order by s.n_dead_tup desc;
end;
$$;

create function app_jobs.diagnose_rights() returns setof app_jobs.finding
language plpgsql
volatile
as $$
#variable_conflict use_column
declare
    c_path constant text := 'search_path=pg_catalog, pg_temp';
begin
    return query
    select
        'critical', 'the public has a right on schema app_jobs', string_agg(g.privilege_type, ', '),
        'revoke all on schema app_jobs from public'
    from pg_namespace as n
    cross join aclexplode(n.nspacl) as g
    where n.nspname = 'app_jobs' and g.grantee = 0
    having count(*) > 0;

    return query
    select
        'critical', 'the public may call a function', p.oid::regprocedure::text,
        format('revoke all on function %s from public', p.oid::regprocedure)
    from pg_proc as p
    cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as g
    where p.pronamespace = 'app_jobs'::regnamespace and g.grantee = 0;

    return query
    select
        'critical', 'the public has a right on a table', format('%s: %s', c.relname,
        string_agg(g.privilege_type, ', ')),
        format('revoke all on app_jobs.%I from public', c.relname)
    from pg_class as c
    cross join aclexplode(c.relacl) as g
    where c.relnamespace = 'app_jobs'::regnamespace and g.grantee = 0
    group by c.relname;

    -- Our rights on somebody else's path, or the caller's rights: neither works safely.
    return query
    select
        'critical', 'a function that others call has lost its definer''s rights or its path',
        p.oid::regprocedure::text,
        format(
            'alter function %s security definer set search_path = pg_catalog, pg_temp',
            p.oid::regprocedure
        )
    from pg_proc as p
    where
        p.pronamespace = 'app_jobs'::regnamespace
        and not (p.prosecdef and c_path = any(coalesce(p.proconfig, '{}')))
        and exists (
            select from aclexplode(p.proacl) as g where g.grantee not in (0, p.proowner)
        );

    return query
    select
        'warning', 'a function or table has another owner than the schema', o.name,
        format('let %s own it', n.nspowner::regrole)
    from pg_namespace as n
    cross join lateral (
        select p.oid::regprocedure::text as name, p.proowner as owner
        from pg_proc as p where p.pronamespace = n.oid
        union all
        select c.oid::regclass::text, c.relowner
        from pg_class as c where c.relnamespace = n.oid and c.relkind in ('r', 'v', 'S')
    ) as o
    where n.nspname = 'app_jobs' and o.owner <> n.nspowner;
end;
$$;

create function app_jobs.doctor() returns setof app_jobs.finding
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
    return query
    select f.severity, f.finding, f.figure, f.remedy
    from (
        select j.*, 1 as part from app_jobs.diagnose_jobs() as j
        union all
        select s.*, 2 from app_jobs.diagnose_slots() as s
        union all
        select v.*, 3 from app_jobs.diagnose_server(interval '5 minutes') as v
        union all
        select t.*, 4 from app_jobs.diagnose_tables() as t
        union all
        select r.*, 5 from app_jobs.diagnose_rights() as r
    ) as f
    order by array_position(array['critical', 'warning', 'info'], f.severity), f.part;
    if not found then
        return next row('ok', 'nothing found', '', '')::app_jobs.finding;
    end if;
end;
$$;

revoke all on type app_jobs.finding from public;
revoke all on function app_jobs.diagnose_jobs() from public;
revoke all on function app_jobs.diagnose_slots() from public;
revoke all on function app_jobs.diagnose_server(interval) from public;
revoke all on function app_jobs.diagnose_tables() from public;
revoke all on function app_jobs.diagnose_rights() from public;
revoke all on function app_jobs.doctor() from public;
grant execute on function app_jobs.doctor() to app_jobs_monitor;

comment on type app_jobs.finding is
'What doctor() finds: severity critical, warning, info or ok; what; how much; what to do.';
comment on function app_jobs.diagnose_jobs() is
'Find jobs that wait too long or for nobody, ended leases and schedules that nobody has seen to,
that nobody calls tick(), paused tasks and queues, dead letters.

Returns: findings. Roles: internal.';
comment on function app_jobs.diagnose_slots() is
'Find slots that cannot be closed and sequences that are off.

Returns: findings. Roles: internal.';
comment on function app_jobs.diagnose_server(interval) is
'Find what keeps dead rows or lets the server run out of notifications or transaction ids.

patience  age of a transaction from which it is one

Returns: findings. Roles: internal.';
comment on function app_jobs.diagnose_tables() is
'Find tables that autovacuum does not keep clean.

Returns: findings. Roles: internal.';
comment on function app_jobs.diagnose_rights() is
'Find rights, owners and paths that are not those deployed.

Returns: findings. Roles: internal.';
comment on function app_jobs.doctor() is
'Look for trouble: jobs that nobody takes, what keeps dead rows, housekeeping, autovacuum, rights.
Costs the same however many jobs wait; counts are those of metrics.

Returns: a row per finding, the worst first: severity (critical, warning, info), finding, figure,
remedy; one row of severity ok if there is none. Roles: app_jobs_monitor.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:vital_signs to pg
-- requires: doctor

set local lock_timeout = '5s';

create function app_jobs.vital_signs(
    out ticked_ago interval,
    out schedules_behind bigint,
    out schedule_delay interval,
    out oldest_transaction interval,
    out transactions_behind bigint,
    out sees_sessions boolean
)
language plpgsql
stable
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
begin
    ticked_ago := v_now - to_timestamp(
        nullif(pg_sequence_last_value('app_jobs.ticked_at'), 0) / 1000.0
    );

    -- lateral, and offset 0: slot by slot, whatever the statistics say
    select count(*), coalesce(v_now - min(l.due_at), interval '0')
    into schedules_behind, schedule_delay
    from app_jobs.schedule_slots(v_now - interval '1 minute') as p
    cross join lateral (
        select w.due_at
        from app_jobs.scheduled_jobs as w
        where w.slot = p.slot and w.due_at < v_now - interval '1 minute'
        offset 0
    ) as l;

    select
        coalesce(max(v_now - s.since), interval '0'),
        coalesce(max(age(s.xid)), 0)
    into oldest_transaction, transactions_behind
    from (
        select a.xact_start as since, coalesce(a.backend_xmin, a.backend_xid) as xid
        from pg_stat_activity as a
        where
            (a.datname = current_database() or a.backend_type = 'walsender')
            and a.pid <> pg_backend_pid()
            and a.backend_type <> 'autovacuum worker'
            and coalesce(a.backend_xmin, a.backend_xid) is not null
        union all
        select p.prepared, p.transaction
        from pg_prepared_xacts as p
        where p.database = current_database()
        union all
        select null, r.xmin
        from pg_replication_slots as r
        where r.xmin is not null
    ) as s;
    sees_sessions := pg_has_role('pg_read_all_stats', 'usage');
end;
$$;

revoke all on function app_jobs.vital_signs() from public;
grant execute on function app_jobs.vital_signs() to app_jobs_monitor;

comment on function app_jobs.vital_signs() is
'Tell in figures what doctor() looks at and metrics does not show: for alarms. Costs the same however
many jobs wait.

Returns: ticked_ago, time since tick() ran (null: never); schedules_behind, more than a minute late
(those in slots that are due: at least one if there is any), and schedule_delay, of the first of
them; oldest_transaction, age of the oldest one that keeps dead rows, and transactions_behind, how many
transactions have begun since the oldest snapshot of a session, a prepared transaction or a
replication slot; sees_sessions, whether the schema''s owner has pg_read_all_stats: without it only
his own sessions count. Roles: app_jobs_monitor.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:lists to pg
-- requires: explain_job

set local lock_timeout = '5s';

create type app_jobs.listed_job as (
    id bigint,
    state text,
    task_identifier text,
    queue_name text,
    database_id uuid,
    key text,
    priority integer,
    run_at timestamptz,
    attempts integer,
    max_attempts integer,
    created_at timestamptz,
    held_by text,
    held_since timestamptz,
    finished_at timestamptz,
    last_error text
);

create function app_jobs.check_list(
    state text, states text[], most integer, most_allowed integer
) returns void
language plpgsql
immutable
as $$
begin
    if check_list.state is not null and check_list.state <> all(check_list.states) then
        raise exception 'state is "%"', check_list.state
            using errcode = '22023',
                hint = format('Use %s, or null for all.', array_to_string(check_list.states, ', '));
    end if;
    perform app_jobs.check_not_null(
        'most', check_list.most is null, format('Give 1 to %s jobs.', check_list.most_allowed)
    );
    if check_list.most not between 1 and check_list.most_allowed then
        raise exception 'most is %', check_list.most
            using errcode = '22023', hint = format('Give 1 to %s jobs.', check_list.most_allowed);
    end if;
end;
$$;

create function app_jobs.is_wanted(
    job app_jobs.listed_job, task text, queue text, db_id uuid, state text, search text
) returns boolean
language sql
stable
as $$
    select
        (task is null or (job).task_identifier = task)
        and (queue is null or (job).queue_name is not distinct from queue)
        and (db_id is null or (job).database_id is not distinct from db_id)
        and (state is null or (job).state = state)
        and (
            search is null
            or strpos(
                lower(concat_ws(
                    chr(10), (job).task_identifier, (job).queue_name, (job).key, (job).held_by,
                    (job).last_error
                )),
                lower(search)
            ) > 0
        )
$$;

create function app_jobs.list_jobs(
    task text default null,
    queue text default null,
    db_id uuid default null,
    state text default null,
    search text default null,
    before bigint default null,
    most integer default 50
) returns setof app_jobs.listed_job
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_look_at constant integer := 20000;
    c_time constant interval := interval '0.25 seconds';
    v_start constant timestamptz := clock_timestamp();
    v_before bigint;
    v_from bigint;
    v_span bigint := 1000;
    v_seen integer := 0;
    v_found integer := 0;
    v_job app_jobs.listed_job;
    v_end app_jobs.listed_job;
begin
    perform app_jobs.check_list(
        list_jobs.state, array['ready', 'parked', 'scheduled', 'running', 'processing'],
        list_jobs.most, 1000
    );
    v_before := coalesce(
        list_jobs.before,
        pg_sequence_last_value('app_jobs.jobs_id_seq') + 1,
        (select max(j.id) + 1 from app_jobs.jobs as j)
    );
    -- Span by span, each twice as long, so that neither a table full of dead entries nor an empty
    -- one makes a look long.
    while v_before > 1 loop
        v_from := greatest(v_before - v_span, 1);
        for v_job in
            select
                j.id,
                case
                    when j.line = '' then 'ready'
                    when j.line is not null then 'parked'
                    when j.locked_by is null then 'scheduled'
                    when j.lease_expires_at is null then 'processing'
                    else 'running'
                end,
                j.task_identifier, j.queue_name, j.database_id, j.key, j.priority, j.run_at,
                j.attempts, j.max_attempts, j.created_at, j.locked_by, j.locked_at,
                null::timestamptz, app_jobs.first_line(left(j.last_error, 1000))
            from app_jobs.jobs as j
            where j.id >= v_from and j.id < v_before
            order by j.id desc
        loop
            if v_seen >= c_look_at
                or (v_seen % 500 = 499 and clock_timestamp() > v_start + c_time)
            then
                v_end.id := v_job.id + 1;
                return next v_end;
                return;
            end if;
            v_seen := v_seen + 1;
            continue when not app_jobs.is_wanted(
                v_job, list_jobs.task, list_jobs.queue, list_jobs.db_id, list_jobs.state,
                list_jobs.search
            );
            if v_found = list_jobs.most then
                v_end.id := v_job.id + 1;
                return next v_end;
                return;
            end if;
            v_found := v_found + 1;
            return next v_job;
        end loop;
        v_before := v_from;
        v_span := v_span * 2;
        if v_before > 1 and clock_timestamp() > v_start + c_time then
            v_end.id := v_before;
            return next v_end;
            return;
        end if;
    end loop;
end;
$$;

create function app_jobs.list_finished(
    task text default null,
    queue text default null,
    db_id uuid default null,
    state text default null,
    search text default null,
    since timestamptz default null,
    before timestamptz default null,
    before_id bigint default null,
    most integer default 50
) returns setof app_jobs.listed_job
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
-- in the order of the index, and by id only within one time: a sort would read all there is
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_look_at constant integer := 20000;
    c_time constant interval := interval '0.25 seconds';
    v_start constant timestamptz := clock_timestamp();
    v_since constant timestamptz := coalesce(list_finished.since, '-infinity');
    v_before constant timestamptz := coalesce(list_finished.before, 'infinity');
    v_before_id constant bigint := coalesce(list_finished.before_id, 0);
    v_failed constant boolean := coalesce(list_finished.state = 'failed', false);
    v_seen integer := 0;
    v_found integer := 0;
    v_job app_jobs.listed_job;
    v_end app_jobs.listed_job;
begin
    perform app_jobs.check_list(
        list_finished.state, array['completed', 'failed', 'cancelled'], list_finished.most, 10000
    );
    for v_job in
        select
            f.id, f.state, f.task_identifier, f.queue_name, f.database_id, f.key, f.priority,
            f.run_at, f.attempts, f.max_attempts, f.created_at, f.finished_by, f.started_at,
            f.finished_at, app_jobs.first_line(left(f.last_error, 1000))
        from (
            -- one of the two, whose index has no others
            (
                select d.* from app_jobs.finished_jobs as d
                where
                    v_failed
                    and d.state = 'failed'
                    and d.finished_at >= v_since
                    and (d.finished_at, d.id) < (v_before, v_before_id)
                order by d.finished_at desc, d.id desc
            )
            union all
            (
                select a.* from app_jobs.finished_jobs as a
                where
                    not v_failed
                    and a.finished_at >= v_since
                    and (a.finished_at, a.id) < (v_before, v_before_id)
                order by a.finished_at desc, a.id desc
            )
        ) as f
    loop
        v_seen := v_seen + 1;
        if v_seen > c_look_at
            or (v_seen % 500 = 0 and clock_timestamp() > v_start + c_time)
        then
            v_end.finished_at := v_job.finished_at;
            v_end.id := v_job.id + 1;
            return next v_end;
            return;
        end if;
        continue when not app_jobs.is_wanted(
            v_job, list_finished.task, list_finished.queue, list_finished.db_id,
            list_finished.state, list_finished.search
        );
        if v_found = list_finished.most then
            v_end.finished_at := v_job.finished_at;
            v_end.id := v_job.id + 1;
            return next v_end;
            return;
        end if;
        v_found := v_found + 1;
        return next v_job;
    end loop;
end;
$$;

create function app_jobs.list_queues(
    search text default null, most integer default 100
) returns table (
    database_id uuid,
    queue_name text,
    ready bigint,
    scheduled bigint,
    running bigint,
    parked bigint,
    oldest_ready_age interval,
    max_running integer,
    paused boolean
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_look_at constant integer := 10000;
begin
    perform app_jobs.check_list(null, null, list_queues.most, 1000);
    return query
    with busy as materialized (
        select
            app_jobs.queue_line(m.database_id, m.queue_name) as line, m.database_id, m.queue_name,
            sum(m.ready)::bigint as ready, sum(m.scheduled)::bigint as scheduled,
            sum(m.running)::bigint as running, sum(m.parked)::bigint as parked,
            max(m.oldest_ready_age) as oldest_ready_age
        from app_jobs.metrics() as m
        where m.queue_name is not null and m.ready + m.scheduled + m.running + m.parked > 0
        group by m.database_id, m.queue_name
    ),

    listed as (
        select b.*, coalesce(s.max_running, 1) as max_running, coalesce(s.paused, false) as paused
        from busy as b
        left join app_jobs.queue_settings as s on s.line = b.line
        union all
        select s.line, s.database_id, s.queue_name, 0, 0, 0, 0, null, s.max_running, s.paused
        from (
            select q.* from app_jobs.queue_settings as q order by q.line limit c_look_at
        ) as s
        where s.line not in (select b.line from busy as b)
    )

    select
        l.database_id, l.queue_name, l.ready, l.scheduled, l.running, l.parked, l.oldest_ready_age,
        l.max_running, l.paused
    from listed as l
    where
        list_queues.search is null
        or strpos(lower(l.queue_name), lower(list_queues.search)) > 0
    order by l.ready + l.scheduled + l.running + l.parked desc, l.queue_name, l.database_id
    limit list_queues.most;
end;
$$;

create function app_jobs.list_tasks() returns table (
    task_identifier text,
    ready bigint,
    scheduled bigint,
    running bigint,
    parked bigint,
    expired bigint,
    oldest_ready_age interval,
    failed_1h bigint,
    workers bigint,
    paused boolean,
    max_attempts integer,
    retry_after interval,
    timeout interval,
    keep_completed interval,
    keep_failed interval
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    return query
    with served as materialized (
        select w.task, count(distinct p.worker_id) as workers
        from app_jobs.workers as p cross join unnest(p.task_identifiers) as w(task)
        group by w.task
    ),

    known as materialized (
        select
            m.task_identifier, m.ready, m.scheduled, m.running, m.parked, m.expired,
            m.oldest_ready_age, m.failed_1h
        from app_jobs.metrics() as m
        union all
        select t.task_identifier, 0, 0, 0, 0, 0, null, 0 from app_jobs.tasks as t
        union all
        select s.task, 0, 0, 0, 0, 0, null::interval, 0 from served as s
    ),

    counted as (
        select
            k.task_identifier, sum(k.ready)::bigint as ready, sum(k.scheduled)::bigint as scheduled,
            sum(k.running)::bigint as running, sum(k.parked)::bigint as parked,
            sum(k.expired)::bigint as expired, max(k.oldest_ready_age) as oldest_ready_age,
            sum(k.failed_1h)::bigint as failed_1h
        from known as k
        group by k.task_identifier
    )

    select
        c.task_identifier, c.ready, c.scheduled, c.running, c.parked, c.expired,
        c.oldest_ready_age, c.failed_1h,
        coalesce(s.workers, 0)
        + (select count(*) from app_jobs.workers as w where w.task_identifiers is null),
        coalesce(t.paused, false), t.max_attempts, t.retry_after, t.timeout, t.keep_completed,
        t.keep_failed
    from counted as c
    left join app_jobs.tasks as t on t.task_identifier = c.task_identifier
    left join served as s on s.task = c.task_identifier
    order by c.ready + c.parked desc, c.running desc, c.task_identifier;
end;
$$;

revoke all on type app_jobs.listed_job from public;
revoke all on function app_jobs.check_list(text, text[], integer, integer) from public;
revoke all on function app_jobs.is_wanted(
    app_jobs.listed_job, text, text, uuid, text, text
) from public;
revoke all on function app_jobs.list_jobs(
    text, text, uuid, text, text, bigint, integer
) from public;
revoke all on function app_jobs.list_finished(
    text, text, uuid, text, text, timestamptz, timestamptz, bigint, integer
) from public;
revoke all on function app_jobs.list_queues(text, integer) from public;
revoke all on function app_jobs.list_tasks() from public;
grant execute on function app_jobs.list_jobs(
    text, text, uuid, text, text, bigint, integer
) to app_jobs_monitor;
grant execute on function app_jobs.list_finished(
    text, text, uuid, text, text, timestamptz, timestamptz, bigint, integer
) to app_jobs_monitor;
grant execute on function app_jobs.list_queues(text, integer) to app_jobs_monitor;
grant execute on function app_jobs.list_tasks() to app_jobs_monitor;

comment on type app_jobs.listed_job is
'A job in a list, live or finished, without its payload. held_by and held_since: who runs it, or has
run it last, and since when. last_error: its first line.';
comment on function app_jobs.check_list(text, text[], integer, integer) is
'Refuse a state that no job of a list has, and a number of rows that is too high.

state         the state asked for; null passes
states        those that there are
most          rows asked for
most_allowed  rows allowed

Errors: 22004, 22023. Roles: internal.';
comment on function app_jobs.is_wanted(
    app_jobs.listed_job, text, text, uuid, text, text
) is
'Say whether a job is in a list; a filter that is null lets all pass.

job     the job
task    its task
queue   its queue
db_id   its tenant
state   its state
search  a part of its task, queue, key, worker or error, in whatever case

Roles: internal.';
comment on function app_jobs.list_jobs(text, text, uuid, text, text, bigint, integer) is
'List live jobs, those added last first, without payloads. Bounded: a call looks at 20,000 jobs or
for a quarter of a second, whichever is less. If it has not come to the end, its last row has nothing
but an id: give that as before to go on.

task    only of this task
queue   only of this queue
db_id   only of this tenant; null: all
state   only ready, parked, scheduled, running or processing; null: all
search  only with this in task, queue, key, worker or the error''s first line, in whatever case
before  only ids below this; null: from the newest on
most    jobs at most, 1 to 1000

Returns: jobs, and perhaps the row that says where to go on. Errors: 22004, 22023. Roles:
app_jobs_monitor.';
comment on function app_jobs.list_finished(
    text, text, uuid, text, text, timestamptz, timestamptz, bigint, integer
) is
'List finished jobs that are kept, those that ended last first, without payloads. Bounded as
list_jobs() is: a last row that has nothing but finished_at and id says where to go on.

task       only of this task
queue      only of this queue
db_id      only of this tenant; null: all
state      only completed, failed (the dead letters) or cancelled; null: all
search     only with this in task, queue, key, worker or the error''s first line, in whatever case
since      only those that ended then or later
before     only those that ended before this
before_id  to go on: with finished_at as before, only ids below this among those that ended then
most       jobs at most, 1 to 10000

Returns: jobs, and perhaps the row that says where to go on. Errors: 22004, 22023. Roles:
app_jobs_monitor.';
comment on function app_jobs.list_queues(text, integer) is
'List named queues that have jobs or settings, those with most jobs first. Unlike the view
job_queues it counts as metrics() does, at the same cost however many jobs wait; of queues with
settings and without jobs it looks at 10,000.

search  only with this in the name, in whatever case
most    queues at most, 1 to 1000

Returns: a row per tenant and queue. Errors: 22004, 22023. Roles: app_jobs_monitor.';
comment on function app_jobs.list_tasks() is
'List tasks that have jobs, settings or a worker, with their counts as in metrics(), the workers that
serve them, and their settings (null: the default).

Returns: a row per task. Roles: app_jobs_monitor.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:redrive_jobs to pg
-- requires: lists
-- requires: retry_jobs

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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:operator_actions to pg
-- requires: arguments

set local lock_timeout = '5s';

create table app_jobs.operator_actions (
    id bigint generated always as identity,
    at timestamptz not null default clock_timestamp(),
    actor text not null,
    role text not null default session_user,
    action text not null,
    details jsonb not null default '{}',
    constraint operator_actions_pkey primary key (id)
);

create function app_jobs.record_action(
    actor text, action text, details jsonb default '{}'
) returns bigint
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
    c_kept constant interval := interval '400 days';
    v_id bigint;
begin
    perform app_jobs.check_not_null('actor', record_action.actor is null, 'Name who acts.');
    perform app_jobs.check_length('actor', record_action.actor, 200);
    perform app_jobs.check_not_null('action', record_action.action is null, 'Say what is done.');
    perform app_jobs.check_length('action', record_action.action, 200);
    delete from app_jobs.operator_actions as a
    where a.id = any(array(
        select o.id
        from (
            select g.id, g.at from app_jobs.operator_actions as g
            order by g.id limit 100 for update skip locked
        ) as o
        where o.at < clock_timestamp() - c_kept
    ));
    insert into app_jobs.operator_actions as a (actor, action, details)
    values (
        record_action.actor, record_action.action, coalesce(record_action.details, '{}')
    )
    returning a.id into v_id;
    return v_id;
end;
$$;

revoke all on function app_jobs.record_action(text, text, jsonb) from public;
grant execute on function app_jobs.record_action(text, text, jsonb) to app_jobs_operator;
grant select on app_jobs.operator_actions to app_jobs_operator;

comment on table app_jobs.operator_actions is
'What people have done through a dashboard, or another tool that calls record_action(). Kept for 400
days.';
comment on column app_jobs.operator_actions.id is 'Order.';
comment on column app_jobs.operator_actions.at is 'When.';
comment on column app_jobs.operator_actions.actor is 'Who, as the tool knows them.';
comment on column app_jobs.operator_actions.role is 'The database role that the tool is connected as.';
comment on column app_jobs.operator_actions.action is 'What: the name of a function, say.';
comment on column app_jobs.operator_actions.details is 'With what: its arguments.';
comment on function app_jobs.record_action(text, text, jsonb) is
'Record who does what, in the transaction that does it: both are committed, or neither. Deletes some
records that are older than 400 days.

actor    who, 1 to 200 characters
action   what, 1 to 200 characters: the name of a function, say
details  with what: its arguments

Returns: the record''s id. Errors: 22004, 22023. Locks: none that anybody waits for. Roles:
app_jobs_operator.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
-- Deploy app_jobs:progress to pg
-- requires: doctor

set local lock_timeout = '5s';

-- One row per worker, not one per job: jobs and their indexes are not touched, and nothing is left
-- over when a job ends.
alter table app_jobs.workers add column progress jsonb;

create function app_jobs.set_progress(worker_id text, reports json) returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now constant timestamptz := clock_timestamp();
    v_bad bigint;
begin
    perform app_jobs.check_worker_id(set_progress.worker_id);
    perform app_jobs.check_objects(
        'reports', set_progress.reports,
        'Give an array of objects with the keys job_id, lease, done and note.'
    );
    select r.n - 1 into v_bad
    from rows from (
        json_to_recordset(set_progress.reports) as (job_id bigint, lease integer, done real)
    ) with ordinality as r(job_id, lease, done, n)
    where r.job_id is null or r.lease is null or coalesce(r.done, -1) not between 0 and 1
    limit 1;
    if found then
        raise exception 'reports[%] is %', v_bad, set_progress.reports -> v_bad::integer
            using errcode = '22023',
                hint = 'Each needs job_id, lease, and done from 0 to 1; note may say more.';
    end if;
    update app_jobs.workers as w
    set progress = (
        select
            jsonb_agg(jsonb_build_object(
                'job_id', r.job_id, 'lease', r.lease, 'done', r.done, 'note', r.note,
                'since', coalesce(o.since, v_now)
            ))
        from json_to_recordset(set_progress.reports) as r(
            job_id bigint, lease integer, done real, note text
        )
        -- what says the same as before has said it since then
        left join jsonb_to_recordset(w.progress) as o(
            job_id bigint, lease integer, done real, note text, since timestamptz
        ) on
            o.job_id = r.job_id
            and o.lease = r.lease
            and o.done = r.done
            and o.note is not distinct from r.note
    )
    where w.worker_id = set_progress.worker_id;
end;
$$;

create function app_jobs.progress() returns table (
    worker_id text,
    id bigint,
    task_identifier text,
    done real,
    note text,
    since timestamptz
)
language plpgsql
stable
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
begin
    return query
    select w.worker_id, p.job_id, j.task_identifier, p.done, p.note, p.since
    from app_jobs.workers as w
    cross join lateral jsonb_to_recordset(w.progress) as p(
        job_id bigint, lease integer, done real, note text, since timestamptz
    )
    cross join lateral (
        select h.task_identifier, h.locked_by, h.lease
        from app_jobs.jobs as h
        where h.id = p.job_id
        offset 0
    ) as j
    where j.locked_by = w.worker_id and j.lease = p.lease
    order by w.worker_id, p.job_id;
end;
$$;

revoke all on function app_jobs.set_progress(text, json) from public;
revoke all on function app_jobs.progress() from public;
grant execute on function app_jobs.set_progress(text, json) to app_jobs_worker;
grant execute on function app_jobs.progress() to app_jobs_monitor;

comment on column app_jobs.workers.progress is
'What its jobs say of their progress: see progress(); null: nothing.';
comment on function app_jobs.set_progress(text, json) is
'Say how far the jobs of a worker are, for operators to see. It changes nothing else.

worker_id  the holder, as given to get_jobs(); one that is not registered is passed over
reports    an array of objects: job_id, lease, done (0 to 1) and note. It replaces what was said
           before, so give all jobs that say something, once a second or less

Returns: nothing. Errors: 22004, 22023. Locks: its row of workers. Roles: app_jobs_worker.';
comment on function app_jobs.progress() is
'Tell how far running jobs are, as their handlers say.

Returns: a row per job that is still held and says something: done is 0 to 1, note its own words,
since when it has said just that. Roles: app_jobs_monitor.';
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
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
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;

do $do$
begin
    execute replace($script$
do $$
declare
    v_relation record;
begin
    -- one by one, since each call changes the extension's row
    for v_relation in
        select c.oid, case c.relname when 'open_slots' then 'where slot <> 1' else '' end as rows
        from pg_class as c
        inner join pg_depend as d on d.classid = 'pg_class'::regclass and d.objid = c.oid
        inner join pg_extension as e
            on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
        where
            c.relnamespace = to_regnamespace('app_jobs')
            and d.deptype = 'e'
            and c.relkind in ('r', 'p', 'S')
            and c.relname not in ('error_codes')
            and c.oid <> all (coalesce(e.extconfig, '{}'))
    loop
        perform pg_extension_config_dump(v_relation.oid, v_relation.rows);
    end loop;
end;
$$;
$script$, 'app_jobs', case '@extschema@' when 'public' then 'app_jobs' else '@extschema@' end);
end;
$do$;
