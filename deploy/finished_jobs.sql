-- Deploy app_jobs:finished_jobs to pg
-- requires: jobs

begin;

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

commit;
