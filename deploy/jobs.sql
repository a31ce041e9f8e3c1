-- Deploy app_jobs:jobs to pg
-- requires: tasks

begin;

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

commit;
