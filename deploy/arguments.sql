-- Deploy app_jobs:arguments to pg
-- requires: error_codes

begin;

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

commit;
