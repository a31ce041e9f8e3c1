-- Deploy app_jobs:add_jobs to pg
-- requires: add_job

begin;

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

commit;
