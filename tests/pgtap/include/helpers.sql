-- Included by each test file at the start of its transaction.

-- The files share a database, keys and sequences: they take turns, even if started side by side.
do $$
begin
    perform pg_advisory_xact_lock(hashtextextended('app_jobs tests', 0));
end;
$$;

-- A refusal has a SQLSTATE, a message and a hint.
create function pg_temp.refuses(call text, state text, message text) returns text
language plpgsql
as $$
declare
    v_state text := '00000';
    v_message text := 'no error';
    v_hint text := '';
begin
    begin
        execute call;
    exception when others then
        get stacked diagnostics
            v_state = returned_sqlstate, v_message = message_text, v_hint = pg_exception_hint;
    end;
    return is(
        concat_ws(' ', v_state, v_message, case when v_hint = '' then 'WITHOUT A HINT' end),
        state || ' ' || message,
        left(call, 120)
    );
end;
$$;

-- Which of our roles may run a statement; "others" is anybody else. Its effects are undone.
create function pg_temp.callers(statement text) returns text
language plpgsql
as $$
declare
    v_role text;
    v_state text;
    v_callers text[] := '{}';
begin
    foreach v_role in array array[
        'app_jobs_producer', 'app_jobs_worker', 'app_jobs_operator', 'app_jobs_monitor',
        'pg_signal_backend'
    ] loop
        begin
            perform set_config('role', v_role, true);
            execute statement;
            raise exception 'undo';
        exception when others then
            get stacked diagnostics v_state = returned_sqlstate;
        end;
        if v_state <> '42501' then
            v_callers := v_callers || replace(
                replace(v_role, 'pg_signal_backend', 'others'), 'app_jobs_', ''
            );
        end if;
    end loop;
    return array_to_string(v_callers, ' ');
end;
$$;
