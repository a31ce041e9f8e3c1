-- Deploy app_jobs:workers to pg
-- requires: arguments

begin;

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

commit;
