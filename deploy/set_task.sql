-- Deploy app_jobs:set_task to pg
-- requires: set_queue

begin;

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

commit;
