-- Deploy app_jobs:scheduled_jobs to pg
-- requires: schedule_times
-- requires: slots

begin;

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

commit;
