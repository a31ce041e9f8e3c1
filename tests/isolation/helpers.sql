-- What the specs share. Steps say what a user would do; these say it briefly, and show nothing that
-- differs from run to run.

create schema spec;

-- Back to an empty schema. Housekeeping is left to the steps: get_jobs() would do it whenever a
-- second has passed.
create procedure spec.reset()
language plpgsql
as $$
begin
    truncate app_jobs.jobs, app_jobs.finished_jobs, app_jobs.job_errors, app_jobs.effects,
        app_jobs.queue_settings, app_jobs.tasks, app_jobs.workers, app_jobs.streams,
        app_jobs.alarms, app_jobs.open_slots, app_jobs.scheduled_jobs
    restart identity;
    insert into app_jobs.open_slots (slot) values (1);
    perform setval('app_jobs.slot_number', 1);
    perform setval('app_jobs.slot_current', 1);
    perform setval('app_jobs.slot_first', 0);
    perform setval('app_jobs.activity', 0);
    perform setval('app_jobs.moved_to', -9223372036854775808);
    perform setval('app_jobs.ticked_at', 1e15::bigint);
    perform setval('app_jobs.swept_at', extract(epoch from now())::bigint);
    perform setval('app_jobs.went_idle', 1);
    perform setval('app_jobs.went_busy', 1);
end;
$$;

create function spec.tick(
    out made_ready integer, out expired integer, out moved integer, out closed integer
)
language plpgsql
as $$
begin
    select t.made_ready, t.expired, t.moved, t.closed into made_ready, expired, moved, closed
    from app_jobs.tick() as t;
    perform setval('app_jobs.ticked_at', 1e15::bigint);
end;
$$;

-- As if a thousand jobs had come.
create procedure spec.fill_slot()
language sql
as $$
    select setval('app_jobs.activity', 1000)
$$;

-- A new slot is listed, made current, and the one before it closed if nobody is in it.
create procedure spec.turn_slots()
language plpgsql
as $$
begin
    call spec.fill_slot();
    perform spec.tick();
    commit;
    perform spec.tick();
    commit;
    perform spec.tick();
end;
$$;

create procedure spec.add(
    queue_name text default null,
    key text default null,
    run_at timestamptz default now(),
    jobs integer default 1
)
language plpgsql
as $$
begin
    for i in 1..add.jobs loop
        perform app_jobs.add_job(
            identifier => 'task', queue_name => add.queue_name, job_key => add.key,
            run_at => add.run_at
        );
    end loop;
    -- A claim looks at this where a queue is locked: let it be young, however slow the machine.
    update app_jobs.jobs set updated_at = 'infinity';
end;
$$;

-- A schedule that is due now, or later, and then not for long.
create procedure spec.schedule(
    task_identifier text, next_run_at timestamptz default now() - interval '1 second'
)
language sql
as $$
    insert into app_jobs.scheduled_jobs (task_identifier, schedule_info, next_run_at)
    values (schedule.task_identifier, '{"every": "100 days"}', schedule.next_run_at)
$$;

create procedure spec.claim(worker_id text, jobs integer default 1)
language sql
as $$
    select app_jobs.get_jobs(claim.worker_id, job_limit => claim.jobs)
$$;

create procedure spec.expire(job_id bigint)
language sql
as $$
    update app_jobs.jobs set lease_expires_at = now() - interval '1 second'
    where id = expire.job_id
$$;

create procedure spec.lock_queue(queue_name text)
language sql
as $$
    select pg_advisory_xact_lock(
        app_jobs.lock_key('queue', app_jobs.queue_line(null, lock_queue.queue_name))
    )
$$;

create view spec.jobs as
select
    j.id,
    case
        when j.locked_by is not null then 'running'
        when j.line = '' then 'ready'
        when j.line is not null then 'parked'
        else 'scheduled'
    end as state,
    j.locked_by, j.lease, j.attempts
from app_jobs.jobs as j
order by j.id;

create view spec.slots as
select o.slot, o.slot = c.last_value as current
from app_jobs.open_slots as o, app_jobs.slot_current as c
order by o.slot;

-- Jobs and schedules that stand where nobody would ever look for them. There must be none, ever.
create view spec.lost as
select j.id
from app_jobs.jobs as j
where
    j.slot not in (
        select o.slot from app_jobs.open_slots as o where o.slot >= app_jobs.first_slot()
    )
    and (
        j.line is not null and not exists (
            select from app_jobs.streams as s
            where
                s.slot = j.slot and s.line = j.line and s.task_identifier = j.task_identifier
                and (s.priority, s.run_at, s.id) <= (j.priority, j.run_at, j.id)
        )
        or j.line is null and j.locked_by is null and not exists (
            select from app_jobs.alarms as a
            where a.slot = j.slot and a.kind = 'run' and a.due_at <= j.run_at
        )
        or j.lease_expires_at is not null and not exists (
            select from app_jobs.alarms as a
            where a.slot = j.slot and a.kind = 'lease' and a.due_at <= j.lease_expires_at
        )
        or j.seat is not null and not exists (
            select from app_jobs.streams as s
            where
                s.slot = j.slot
                and s.line = app_jobs.seat_line(app_jobs.queue_line(j.database_id, j.queue_name))
        )
    )
union all
select d.id
from app_jobs.scheduled_jobs as d
where
    d.slot not in (
        select o.slot from app_jobs.open_slots as o where o.slot >= app_jobs.first_slot()
    )
    and not exists (
        select from app_jobs.alarms as a
        where a.slot = d.slot and a.kind = 'schedule' and a.due_at <= d.due_at
    );
