-- Helpers for tests in SQL, with pgTAP, of what adds or runs jobs. Load it within the test's
-- transaction, at READ COMMITTED, as the owner of app_jobs; what it makes is temporary:
--
--     begin;
--     \ir …/sql/app_jobs_testing.sql
--     select plan(2);
--     insert into users (email) values ('ada@example.org');
--     select pg_temp.is_enqueued('send-welcome', '{"email": "ada@example.org"}');
--     select is(pg_temp.drain('send-welcome', 'my_schema.send_welcome(json)'), 1, 'it is sent');
--     rollback;

create function pg_temp.enqueued(task text, payload jsonb default null) returns setof app_jobs.jobs
language sql
stable
as $$
    select j.*
    from app_jobs.jobs as j
    where
        j.task_identifier = enqueued.task
        and j.locked_by is null
        and (enqueued.payload is null or j.payload::jsonb = enqueued.payload)
    order by j.priority, j.run_at, j.id
$$;
comment on function pg_temp.enqueued(text, jsonb) is
'Jobs of a task that wait, in order of service; with a payload, if one is given.';

create function pg_temp.is_enqueued(
    task text, payload jsonb default null, description text default null
) returns text
language sql
as $$
    select
        ok(
            e.found,
            coalesce(is_enqueued.description, 'a job of task ' || is_enqueued.task || ' waits')
        )
        || case
            when e.found then ''
            else e'\n' || diag(
                'there are: ' || coalesce(
                    (
                        select string_agg(
                            j.task_identifier || ' ' || j.payload::text, e'\n' order by j.id
                        )
                        from app_jobs.jobs as j
                        where j.locked_by is null
                    ),
                    'none'
                )
            )
        end
    from (
        select exists (select from pg_temp.enqueued(is_enqueued.task, is_enqueued.payload)) as found
    ) as e
$$;
comment on function pg_temp.is_enqueued(text, jsonb, text) is
'A test: a job of the task waits, with this payload.';

create function pg_temp.isnt_enqueued(
    task text, payload jsonb default null, description text default null
) returns text
language sql
as $$
    select ok(
        not exists (select from pg_temp.enqueued(isnt_enqueued.task, isnt_enqueued.payload)),
        coalesce(isnt_enqueued.description, 'no job of task ' || isnt_enqueued.task || ' waits')
    )
$$;
comment on function pg_temp.isnt_enqueued(text, jsonb, text) is
'A test: no job of the task waits, with this payload.';

create function pg_temp.make_due(task text default null) returns integer
language plpgsql
as $$
declare
    v_jobs integer;
    v_schedules integer;
begin
    perform from app_jobs.reschedule_jobs(
        array(
            select j.id from app_jobs.jobs as j
            where
                j.run_at > clock_timestamp() and j.locked_by is null
                and (make_due.task is null or j.task_identifier = make_due.task)
        ),
        run_at => now()
    );
    get diagnostics v_jobs = row_count;
    update app_jobs.scheduled_jobs as s set next_run_at = now()
    where
        s.next_run_at is not null
        and (make_due.task is null or s.task_identifier = make_due.task);
    get diagnostics v_schedules = row_count;
    perform from app_jobs.run_due_schedules();
    return v_jobs + v_schedules;
end;
$$;
comment on function pg_temp.make_due(text) is
'Let the time come for scheduled jobs, retries and schedules, of a task or of all; return how many.';

create function pg_temp.expire_leases(task text default null) returns integer
language plpgsql
as $$
declare
    v_jobs integer;
begin
    update app_jobs.jobs as j
    set lease_expires_at = clock_timestamp() - interval '1 second', slot = app_jobs.enter_slot()
    where
        j.lease_expires_at is not null
        and (expire_leases.task is null or j.task_identifier = expire_leases.task);
    get diagnostics v_jobs = row_count;
    perform from app_jobs.tick();
    return v_jobs;
end;
$$;
comment on function pg_temp.expire_leases(text) is
'End the leases of claimed jobs, as if their workers had died, of a task or of all; return how many.';

create function pg_temp.drain(task text, handler regprocedure) returns integer
language plpgsql
as $$
declare
    v_job app_jobs.jobs;
    v_runs integer := 0;
begin
    loop
        v_job := app_jobs.get_job('app_jobs_testing', array[drain.task]);
        exit when v_job.id is null;
        begin
            execute format('select %s($1)', drain.handler::regproc) using v_job.payload;
        exception when others then
            perform app_jobs.fail_job('app_jobs_testing', v_job.id, sqlerrm, v_job.lease);
        end;
        -- changes nothing if it has failed
        perform app_jobs.complete_job('app_jobs_testing', v_job.id, v_job.lease);
        v_runs := v_runs + 1;
    end loop;
    return v_runs;
end;
$$;
comment on function pg_temp.drain(text, regprocedure) is
'Run the ready jobs of a task by a function that takes the payload as json; what it raises fails the
job. Return how many runs there were.';
