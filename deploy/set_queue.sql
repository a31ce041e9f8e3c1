-- Deploy app_jobs:set_queue to pg
-- requires: release_jobs

begin;

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

commit;
