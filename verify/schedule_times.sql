-- Verify app_jobs:schedule_times on pg

begin;

select set_config('plpgsql.check_asserts', 'on', true);
set local search_path = pg_catalog;

-- columns
do $$
declare
    v_wrong text;
begin
    select string_agg(e.part, ', ') into v_wrong
    from unnest(array[
        'parsed_schedule.time_zone text',
        'parsed_schedule.start_at timestamp with time zone',
        'parsed_schedule.end_at timestamp with time zone',
        'parsed_schedule.run_at timestamp with time zone',
        'parsed_schedule.every interval',
        'parsed_schedule.seconds bit varying',
        'parsed_schedule.minutes bit varying',
        'parsed_schedule.hours bit varying',
        'parsed_schedule.dates bit varying',
        'parsed_schedule.months bit varying',
        'parsed_schedule.weekdays bit varying',
        'parsed_schedule.years bit varying',
        'parsed_schedule.either_day boolean',
        'parsed_schedule.names_hour boolean'
    ]) as e(part)
    where e.part not in (
        select concat_ws(' ', c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod))
        from pg_class as c
        inner join pg_attribute as a on a.attrelid = c.oid
        where
            c.relnamespace = 'app_jobs'::regnamespace
            and a.attnum > 0
            and c.relkind = 'c'
    );
    assert v_wrong is null, format('missing or changed: %s', v_wrong);
end;
$$;

-- functions: arguments, result, who else than the owner may call them; those are pinned
do $$
declare
    v_wrong text;
begin
    select string_agg(e.signature, ', ') into v_wrong
    from (
        values
        ('next_bit(bits bit varying, first integer)', 'integer', ''),
        ('check_time_zone(argument text, time_zone text)', 'void', ''),
        (
            'clock_change(time_zone text, since timestamp with time zone, '
            'until timestamp with time zone)',
            'timestamp with time zone', ''
        ),
        (
            'first_reading(wall timestamp without time zone, time_zone text)',
            'timestamp with time zone', ''
        ),
        ('read_moment(key text, value json, time_zone text)', 'timestamp with time zone', ''),
        ('read_every(value json)', 'interval', ''),
        ('cron_number(value text, names text[], first_name integer)', 'integer', ''),
        (
            'cron_field(field text, value text, low integer, high integer, names text[])',
            'bit varying', ''
        ),
        (
            'calendar_field(key text, value json, low integer, high integer, shift integer)',
            'bit varying', ''
        ),
        (
            'read_schedule(schedule_info json, time_zone text)',
            'app_jobs.parsed_schedule', ''
        ),
        (
            'next_match(schedule app_jobs.parsed_schedule, wall timestamp without time zone)',
            'timestamp without time zone', ''
        ),
        (
            'next_step(schedule app_jobs.parsed_schedule, after timestamp with time zone)',
            'timestamp with time zone', ''
        ),
        (
            'next_time(schedule app_jobs.parsed_schedule, after timestamp with time zone)',
            'timestamp with time zone', ''
        ),
        ('check_schedule(schedule_info json, time_zone text)', 'void', ''),
        (
            'next_run_at(schedule_info json, after timestamp with time zone, time_zone text)',
            'timestamp with time zone', 'monitor producer'
        ),
        (
            'preview_schedule(schedule_info json, count integer, after timestamp with time zone, '
            'time_zone text)',
            'SETOF timestamp with time zone', 'monitor producer'
        )
    ) as e(signature, result, callers)
    where not exists (
        select
        from pg_proc as p
        where
            p.pronamespace = 'app_jobs'::regnamespace
            and format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)) = e.signature
            and pg_get_function_result(p.oid) = e.result
            and e.callers = coalesce((
                select string_agg(replace(g.role, 'app_jobs_', ''), ' ' order by g.role)
                from (
                    select a.grantee::regrole::text
                    from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
                ) as g(role)
                where g.role ~ '^(-|app_jobs_(producer|worker|operator|monitor))$'
            ), '')
            and (
                e.callers = ''
                or (p.prosecdef and p.proconfig @> array['search_path=pg_catalog, pg_temp'])
            )
    );
    assert v_wrong is null, format('missing or changed: %s', v_wrong);
end;
$$;

-- what a bad argument is answered with
do $$
declare
    v_call text;
    v_expected text;
    v_state text;
begin
    for v_call, v_expected in
        values
        ('next_run_at(null)', '22004'),
        ('next_run_at(''{"hour": 24}'')', '22023'),
        ('next_run_at(''{"hour": 9}'', time_zone => ''none'')', '22023'),
        ('preview_schedule(''{"hour": 9}'', 0)', '22023'),
        ('check_schedule(null, ''UTC'')', '22004'),
        ('check_schedule(''{"rule": "@reboot"}'', ''UTC'')', '22023')
    loop
        begin
            execute 'select app_jobs.' || v_call;
            v_state := '00000';
        exception when others then
            v_state := sqlstate;
        end;
        assert v_state = v_expected, format('%s answers %s, not %s', v_call, v_state, v_expected);
    end loop;
end;
$$;

-- and a good one
do $$
begin
    assert app_jobs.next_run_at('{"rule": "30 2 * * *"}', '2026-03-28 12:00+00', 'Europe/Berlin')
        = '2026-03-29 01:00+00', 'a skipped time does not run after the gap';
end;
$$;

rollback;
