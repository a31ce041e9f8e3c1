-- Deploy app_jobs:schedule_times to pg
-- requires: arguments

begin;

set local lock_timeout = '5s';

create type app_jobs.parsed_schedule as (
    time_zone text,
    start_at timestamptz,
    end_at timestamptz,
    run_at timestamptz,
    every interval,
    seconds bit varying,
    minutes bit varying,
    hours bit varying,
    dates bit varying,
    months bit varying,
    weekdays bit varying,
    years bit varying,
    either_day boolean,
    names_hour boolean
);

create function app_jobs.next_bit(bits bit varying, first integer) returns integer
language sql
immutable
as $$
    select first - 1 + nullif(position(b'1' in substring(bits from first + 1)), 0);
$$;

create function app_jobs.check_time_zone(argument text, time_zone text) returns void
language plpgsql
stable
as $$
declare
    v_known boolean := true;
begin
    -- AT TIME ZONE also takes abbreviations, CET among them, and POSIX rules: offsets that no clock
    -- change moves, or a typing error that is taken for one. Both lack the slash, or have a digit.
    if check_time_zone.time_zone !~* '^(utc|gmt|etc/gmt[+-]1?[0-9]|[a-z_]+(/[a-z_-]+)+)$' then
        v_known := false;
    else
        begin
            perform timezone(check_time_zone.time_zone, now());
        exception when invalid_parameter_value then
            v_known := false;
        end;
    end if;
    if not v_known then
        raise exception '% is "%"', check_time_zone.argument, left(check_time_zone.time_zone, 60)
            using errcode = '22023',
                hint = 'Give UTC, or a name like Europe/Berlin: see pg_timezone_names.';
    end if;
end;
$$;

create function app_jobs.clock_change(
    time_zone text, since timestamptz, until timestamptz
) returns timestamptz
language plpgsql
stable
as $$
declare
    v_lead interval := timezone(clock_change.time_zone, since) - timezone('UTC', since);
    v_from bigint := floor(extract(epoch from since));
    v_to bigint := ceil(extract(epoch from until));
    v_middle timestamptz;
begin
    while v_to - v_from > 1 loop
        v_middle := to_timestamp((v_from + v_to) / 2);
        if timezone(clock_change.time_zone, v_middle) - timezone('UTC', v_middle) = v_lead then
            v_from := (v_from + v_to) / 2;
        else
            v_to := (v_from + v_to) / 2;
        end if;
    end loop;
    return to_timestamp(v_to);
end;
$$;

create function app_jobs.first_reading(wall timestamp, time_zone text) returns timestamptz
language plpgsql
stable
as $$
declare
    -- Of two possible instants timezone() gives the later one: after the change, if the clock was
    -- put back; without the change, if the time was skipped.
    v_last timestamptz := timezone(first_reading.time_zone, wall);
    v_day_before timestamptz := v_last - interval '24 hours';
    v_gained interval := timezone(first_reading.time_zone, v_last)
        - timezone(first_reading.time_zone, v_day_before) - interval '24 hours';
begin
    if v_gained > interval '0' and timezone(first_reading.time_zone, v_last) <> wall then
        return app_jobs.clock_change(first_reading.time_zone, v_day_before, v_last);
    elsif v_gained < interval '0'
        and timezone(first_reading.time_zone, v_last + v_gained) = wall
    then
        return v_last + v_gained;
    end if;
    return v_last;
end;
$$;

create function app_jobs.read_moment(
    key text, value json, time_zone text
) returns timestamptz
language plpgsql
stable
as $$
declare
    v_text text := value #>> '{}';
    v_part text[] := regexp_match(
        v_text collate "C",  -- or \d may be a digit of any script
        '^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)? ?(Z|[+-]\d\d(?::?\d\d)?)?$'
    );
begin
    if value is null then
        return null;
    end if;
    if json_typeof(value) = 'string' and v_part is not null then
        begin
            -- with the year in front no setting of DateStyle matters
            if v_part[1] is null then
                return app_jobs.first_reading(v_text::timestamp, read_moment.time_zone);
            end if;
            return v_text::timestamptz;
        exception when datetime_field_overflow or invalid_datetime_format
            or invalid_time_zone_displacement_value
        then
            null;
        end;
    end if;
    raise exception 'schedule_info.% is %', key, left(value::text, 60)
        using errcode = '22023',
            hint = 'Write "2031-02-03T04:05:06+01:00", or without an offset for local time.';
end;
$$;

create function app_jobs.read_every(value json) returns interval
language plpgsql
stable
as $$
declare
    v_text text := value #>> '{}';
    v_every interval;
    v_months interval;
    v_days interval;
begin
    if value is null then
        return null;
    end if;
    -- not a bare number, which PostgreSQL takes for seconds
    if json_typeof(value) = 'string' and v_text ~ '[A-Za-z:]' then
        begin
            v_every := v_text::interval;
        exception when invalid_datetime_format or datetime_field_overflow
            or interval_field_overflow
        then
            null;
        end;
    end if;
    if v_every between interval '1 second' and interval '1000 years' then
        v_months := make_interval(
            years => extract(year from v_every)::integer,
            months => extract(month from v_every)::integer
        );
        v_days := make_interval(days => extract(day from v_every)::integer);
        if least(v_months, v_days, v_every - v_months - v_days) >= interval '0' then
            return v_every;
        end if;
    end if;
    raise exception 'schedule_info.every is %', left(value::text, 60)
        using errcode = '22023',
            hint = 'Give 1 second to 1000 years, with units and no part negative: "15 minutes".';
end;
$$;

create function app_jobs.cron_number(
    value text, names text[], first_name integer
) returns integer
language sql
immutable
as $$
    select case
        when value ~ '^[0-9]{1,4}$' then value::integer
        else array_position(names, value) - 1 + first_name
    end;
$$;

create function app_jobs.cron_field(
    field text, value text, low integer, high integer, names text[] default null
) returns bit varying
language plpgsql
immutable
as $$
declare
    v_bits bit varying := repeat('0', 60)::bit varying;
    v_item text;
    v_part text[];
    v_first integer;
    v_last integer;
    v_step integer;
begin
    foreach v_item in array string_to_array(value, ',') loop
        if field = 'day of month' and v_item = 'L' then
            v_bits := set_bit(v_bits, 0, 1);
            continue;
        end if;
        v_part := regexp_match(v_item, '^([0-9]|[A-Z]{3})(?:(L)|#([1-5]))$');
        v_first := app_jobs.cron_number(v_part[1], names, low);
        if field = 'day of week' and v_first between 0 and 7 then
            v_bits := set_bit(v_bits, v_first % 7 + 7 * coalesce(v_part[3]::integer, 6), 1);
            continue;
        end if;
        v_part := regexp_match(v_item, '^(?:(\*)|(\w+)(?:-(\w+))?)(?:/([0-9]{1,4}))?$');
        v_step := coalesce(v_part[4]::integer, 1);
        if v_part[1] = '*' then
            v_first := low;
            v_last := high;
        else
            v_first := app_jobs.cron_number(v_part[2], names, low);
            v_last := case
                when v_part[3] is not null then app_jobs.cron_number(v_part[3], names, low)
                when v_part[4] is not null then high
                else v_first
            end;
            -- FRI-SUN, for one
            if field = 'day of week' and v_last = 0 and v_first > 0 then
                v_last := 7;
            end if;
        end if;
        if (v_step > 0 and v_first between low and v_last and v_last <= high) is not true then
            raise exception 'schedule_info.rule has % "%"', field, left(v_item, 60)
                using errcode = '22023',
                    hint = format(
                        'The %s takes %s to %s%s, *, ranges like %s-%s, steps like */2, and lists '
                        'of these with commas%s.',
                        field, low, high, ', ' || names[1] || ' to ' || names[cardinality(names)],
                        low + 1, low + 3, case field
                            when 'day of month' then ', ? for * and L for the last day'
                            when 'day of week' then
                                ', ? for *, 5L for the last Friday and 5#2 for the second'
                        end
                    );
        end if;
        while v_first <= v_last loop
            v_bits := set_bit(
                v_bits, case field when 'day of week' then v_first % 7 else v_first end, 1
            );
            v_first := v_first + v_step;
        end loop;
    end loop;
    return v_bits;
end;
$$;

create function app_jobs.calendar_field(
    key text, value json, low integer, high integer, shift integer default 0
) returns bit varying
language plpgsql
immutable
as $$
declare
    v_bits bit varying := repeat('0', greatest(60, high + shift + 1))::bit varying;
    v_item json;
    v_range text[];
    v_number integer;
    v_is_good boolean := false;
begin
    if value is null then
        return overlay(
            v_bits placing repeat('1', high - low + 1)::bit varying from low + shift + 1
        );
    end if;
    for v_item in
        select e.item
        from json_array_elements(
            case json_typeof(value) when 'array' then value else json_build_array(value) end
        ) as e(item)
    loop
        if json_typeof(v_item) = 'number' then
            v_range := array[v_item #>> '{}', v_item #>> '{}', '1'];
        elsif json_typeof(v_item) = 'object' and v_item::text <> '{}' and not exists (
            select from json_object_keys(v_item) as k(key)
            where k.key not in ('start', 'end', 'step')
        ) then
            v_range := array[
                coalesce(v_item ->> 'start', low::text), coalesce(v_item ->> 'end', high::text),
                coalesce(v_item ->> 'step', '1')
            ];
        else
            v_range := null;
        end if;
        v_is_good := v_range is not null
            and array_to_string(v_range, ' ') ~ '^[0-9]{1,4} [0-9]{1,4} [1-9][0-9]{0,3}$'
            and v_range[1]::integer between low and v_range[2]::integer
            -- Sunday is 7 as well
            and v_range[2]::integer <= case key when 'dayOfWeek' then 7 else high end;
        exit when not v_is_good;
        v_number := v_range[1]::integer;
        while v_number <= v_range[2]::integer loop
            v_bits := set_bit(
                v_bits, shift + case key when 'dayOfWeek' then v_number % 7 else v_number end, 1
            );
            v_number := v_number + v_range[3]::integer;
        end loop;
    end loop;
    if not v_is_good then
        raise exception 'schedule_info.% is %', key, left(value::text, 60)
            using errcode = '22023',
                hint = format(
                    'Give whole numbers from %s to %s: one, an array, or {"start": …, "end": …, '
                    '"step": …}.', low, high
                );
    end if;
    return v_bits;
end;
$$;

create function app_jobs.read_schedule(
    schedule_info json, time_zone text
) returns app_jobs.parsed_schedule
language plpgsql
stable
as $$
declare
    c_calendar constant text[] := array[
        'second', 'minute', 'hour', 'dayOfWeek', 'date', 'month', 'year'
    ];
    v_info json := json_strip_nulls(schedule_info);
    v_keys text[];
    v_unknown text;
    v_forms text[];
    v_rule text;
    v_fields text[];
    v_schedule app_jobs.parsed_schedule;
begin
    perform app_jobs.check_not_null(
        'schedule_info', schedule_info is null, 'Give an object like {"rule": "0 9 * * MON-FRI"}.'
    );
    if json_typeof(schedule_info) <> 'object' then
        raise exception 'schedule_info is %', left(schedule_info::text, 60)
            using errcode = '22023', hint = 'Give an object like {"rule": "0 9 * * MON-FRI"}.';
    elsif char_length(schedule_info::text) > 4000 then
        raise exception 'schedule_info has % characters: %',
            char_length(schedule_info::text), left(schedule_info::text, 60)
            using errcode = '22023',
                hint = 'It takes up to 4000: give ranges and steps instead of many values.';
    end if;
    v_keys := array(select k.key from json_object_keys(v_info) as k(key));
    select k.key into v_unknown
    from unnest(v_keys) as k(key)
    where k.key <> all (c_calendar || array['rule', 'every', 'at', 'start', 'end', 'tz']);
    if found then
        raise exception 'schedule_info has an unknown key: "%"', left(v_unknown, 60)
            using errcode = '22023',
                hint = format(
                    'It takes rule, every or at, or one or more of %s; besides start, end and tz.',
                    array_to_string(c_calendar, ', ')
                );
    end if;
    v_forms := array(
        select distinct case when k.key = any (c_calendar) then 'calendar fields' else k.key end
        from unnest(v_keys) as k(key)
        where k.key not in ('start', 'end', 'tz') or (k.key <> 'tz' and 'at' = any (v_keys))
        order by 1
    );
    if cardinality(v_forms) <> 1 then
        raise exception 'schedule_info has %: %',
            coalesce(nullif(array_to_string(v_forms, ' and '), ''), 'no times'),
            left(schedule_info::text, 60)
            using errcode = '22023',
                hint = 'Give either rule, every, at (without start and end) or calendar fields.';
    end if;

    perform app_jobs.check_time_zone('time_zone', read_schedule.time_zone);
    perform app_jobs.check_time_zone('schedule_info.tz', v_info ->> 'tz');
    v_schedule.time_zone := coalesce(v_info ->> 'tz', read_schedule.time_zone, 'UTC');
    v_schedule.run_at := app_jobs.read_moment('at', v_info -> 'at', v_schedule.time_zone);
    v_schedule.start_at := app_jobs.read_moment('start', v_info -> 'start', v_schedule.time_zone);
    v_schedule.end_at := app_jobs.read_moment('end', v_info -> 'end', v_schedule.time_zone);
    if v_schedule.start_at > v_schedule.end_at then
        raise exception 'schedule_info has start % after end %', v_info -> 'start', v_info -> 'end'
            using errcode = '22023', hint = 'Give an end that is not before the start.';
    end if;
    v_schedule.every := app_jobs.read_every(v_info -> 'every');

    if v_forms[1] = 'rule' then
        v_rule := btrim(upper((v_info ->> 'rule') collate "C"));
        v_rule := case v_rule
            when '@YEARLY' then '0 0 1 1 *'
            when '@ANNUALLY' then '0 0 1 1 *'
            when '@MONTHLY' then '0 0 1 * *'
            when '@WEEKLY' then '0 0 * * 0'
            when '@DAILY' then '0 0 * * *'
            when '@MIDNIGHT' then '0 0 * * *'
            when '@HOURLY' then '0 * * * *'
            else v_rule
        end;
        v_fields := regexp_split_to_array(v_rule, '\s+');
        if cardinality(v_fields) = 5 then
            v_fields := array_prepend('0', v_fields);
        elsif cardinality(v_fields) <> 6 then
            raise exception 'schedule_info.rule is %', left((v_info -> 'rule')::text, 60)
                using errcode = '22023',
                    hint = 'Give minute, hour, day of month, month and day of week, with or '
                    'without a second in front, or @hourly, @daily, @weekly, @monthly or @yearly.';
        end if;
        v_schedule.seconds := app_jobs.cron_field('second', v_fields[1], 0, 59);
        v_schedule.minutes := app_jobs.cron_field('minute', v_fields[2], 0, 59);
        v_schedule.hours := app_jobs.cron_field('hour', v_fields[3], 0, 23);
        v_fields[4] := case v_fields[4] when '?' then '*' else v_fields[4] end;
        v_schedule.dates := app_jobs.cron_field('day of month', v_fields[4], 1, 31);
        v_schedule.months := app_jobs.cron_field('month', v_fields[5], 1, 12, array[
            'JAN', 'FEB', 'MAR', 'APR', 'MAY', 'JUN', 'JUL', 'AUG', 'SEP', 'OCT', 'NOV', 'DEC'
        ]);
        v_fields[6] := case v_fields[6] when '?' then '*' else v_fields[6] end;
        v_schedule.weekdays := app_jobs.cron_field('day of week', v_fields[6], 0, 7, array[
            'SUN', 'MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT'
        ]);
        v_schedule.either_day := v_fields[4] !~ '^\*' and v_fields[6] !~ '^\*';
        v_schedule.names_hour := v_fields[3] !~ '^\*';
    elsif v_forms[1] = 'calendar fields' then
        v_schedule.seconds := app_jobs.calendar_field(
            'second', coalesce(v_info -> 'second', '0'), 0, 59
        );
        v_schedule.minutes := app_jobs.calendar_field('minute', v_info -> 'minute', 0, 59);
        v_schedule.hours := app_jobs.calendar_field('hour', v_info -> 'hour', 0, 23);
        v_schedule.dates := app_jobs.calendar_field('date', v_info -> 'date', 1, 31);
        v_schedule.months := app_jobs.calendar_field('month', v_info -> 'month', 0, 11, 1);
        v_schedule.weekdays := app_jobs.calendar_field('dayOfWeek', v_info -> 'dayOfWeek', 0, 6);
        if 'year' = any (v_keys) then
            v_schedule.years := app_jobs.calendar_field(
                'year', v_info -> 'year', 1970, 2099, -1970
            );
        end if;
        v_schedule.either_day := false;
        v_schedule.names_hour := 'hour' = any (v_keys);
    end if;
    return v_schedule;
end;
$$;

create function app_jobs.next_match(
    schedule app_jobs.parsed_schedule, wall timestamp
) returns timestamp
language plpgsql
immutable
as $$
declare
    -- Every kind of year (its length, its first weekday) comes again within 40 years.
    c_horizon constant integer := 40;
    c_sunday constant date := date '1899-12-31';
    c_no_days constant bit varying := b'0000000000000000000000000000000';
    v_first_minute constant integer := app_jobs.next_bit(schedule.minutes, 0);
    v_first_second constant integer := app_jobs.next_bit(schedule.seconds, 0);
    v_any_day constant time := make_time(
        app_jobs.next_bit(schedule.hours, 0), v_first_minute, v_first_second
    );
    v_hour constant integer := extract(hour from wall);
    v_minute constant integer := extract(minute from wall);
    v_today constant time := coalesce(
        case when get_bit(schedule.hours, v_hour) = 1 then coalesce(
            case when get_bit(schedule.minutes, v_minute) = 1 then make_time(
                v_hour, v_minute,
                app_jobs.next_bit(schedule.seconds, extract(second from wall)::integer)
            ) end,
            make_time(v_hour, app_jobs.next_bit(schedule.minutes, v_minute + 1), v_first_second)
        ) end,
        make_time(app_jobs.next_bit(schedule.hours, v_hour + 1), v_first_minute, v_first_second)
    );
    v_first_year constant integer := extract(year from wall);
    v_last_year constant integer := case
        when schedule.years is null then v_first_year + c_horizon else 2099
    end;
    v_month integer := extract(month from wall);
    v_day integer := extract(day from wall) + case when v_today is null then 1 else 0 end;
    v_next_month integer;
    v_first date;
    v_weekday integer;
    v_length integer;
    v_days bit varying;
    v_dates bit varying;
    v_week bit varying;
    v_weeks bit varying := b'';
    v_found integer;
    v_kind integer;
    v_in_vain bit varying := b'00000000000000';
begin
    -- Sunday to Saturday twice, for the first, second, …, fifth and last seven days of a month:
    -- from the weekday on which they begin, seven bits are those days.
    for v_number in 1 .. 6 loop
        v_week := substring(schedule.weekdays for 7)
            | substring(schedule.weekdays from 7 * v_number + 1 for 7);
        v_weeks := v_weeks || v_week || v_week;
    end loop;
    for v_year in v_first_year .. v_last_year loop
        if v_year > v_first_year then
            v_month := 1;
            v_day := 1;
        end if;
        v_first := make_date(v_year, 1, 1);
        v_kind := (v_first - c_sunday) % 7 + 7 * (make_date(v_year + 1, 1, 1) - v_first - 365);
        continue when get_bit(v_in_vain, v_kind) = 1
            or (v_year < 1970 or get_bit(schedule.years, v_year - 1970) = 0)
                and schedule.years is not null;
        v_next_month := app_jobs.next_bit(schedule.months, v_month);
        while v_next_month is not null loop
            if v_next_month <> v_month then
                v_day := 1;
            end if;
            v_month := v_next_month;
            v_first := make_date(v_year, v_month, 1);
            v_weekday := (v_first - c_sunday) % 7;
            v_length := (v_first + interval '1 month')::date - v_first;
            v_days := substring(
                substring(v_weeks from v_weekday + 1 for 7)
                || substring(v_weeks from v_weekday + 15 for 7)
                || substring(v_weeks from v_weekday + 29 for 7)
                || substring(v_weeks from v_weekday + 43 for 7)
                || substring(v_weeks from v_weekday + 57 for 7)
                for v_length
            );
            v_days := v_days | overlay(
                substring(c_no_days for v_length)
                placing substring(v_weeks from (v_weekday + v_length) % 7 + 71 for 7)
                from v_length - 6
            );
            v_dates := substring(schedule.dates from 2 for v_length);
            if get_bit(schedule.dates, 0) = 1 then
                v_dates := set_bit(v_dates, v_length - 1, 1);
            end if;
            if schedule.either_day then
                v_days := v_days | v_dates;
            else
                v_days := v_days & v_dates;
            end if;
            v_found := app_jobs.next_bit(v_days, v_day - 1);
            if v_found is not null then
                v_first := v_first + v_found;
                return v_first + case when v_first = wall::date then v_today else v_any_day end;
            end if;
            v_next_month := app_jobs.next_bit(schedule.months, v_month + 1);
        end loop;
        if v_year > v_first_year then
            v_in_vain := set_bit(v_in_vain, v_kind, 1);
        end if;
    end loop;
    return null;
end;
$$;

create function app_jobs.next_step(
    schedule app_jobs.parsed_schedule, after timestamptz
) returns timestamptz
language plpgsql
stable
as $$
declare
    v_zone constant text := schedule.time_zone;
    v_every constant interval := schedule.every;
    v_months constant integer := extract(year from v_every) * 12 + extract(month from v_every);
    v_has_days constant boolean := v_months > 0 or extract(day from v_every) > 0;
    -- a Monday, and the first day of a year
    v_start constant timestamptz := coalesce(
        schedule.start_at, timezone(v_zone, timestamp '2001-01-01')
    );
    v_start_wall constant timestamp := timezone(v_zone, v_start);
    v_steps double precision;
    v_next timestamptz;
begin
    -- The step before, in months of mean length, which a real one never leaves by more than half.
    v_steps := floor(
        extract(epoch from case
            when v_has_days then timezone(v_zone, after) - v_start_wall else after - v_start
        end)
        / (v_months * 2629746.0 + extract(epoch from v_every - make_interval(months => v_months)))
    ) - 1;
    if schedule.start_at is not null then
        v_steps := greatest(v_steps, 0);
    end if;
    loop
        -- Always from the start, so that the 31st comes back after a February.
        v_next := case
            when v_has_days then greatest(
                app_jobs.first_reading(v_start_wall + v_steps * v_every, v_zone), schedule.start_at
            )
            else v_start + v_steps * v_every
        end;
        exit when v_next > after;
        v_steps := v_steps + 1;
    end loop;
    return v_next;
end;
$$;

create function app_jobs.next_time(
    schedule app_jobs.parsed_schedule, after timestamptz
) returns timestamptz
language plpgsql
stable
as $$
declare
    v_zone constant text := schedule.time_zone;
    v_after constant timestamptz := greatest(
        after, timestamptz '1900-01-01 00:00+00', schedule.start_at - interval '1 microsecond'
    );
    v_end constant timestamptz := least(
        schedule.end_at, timestamptz '9999-12-31 00:00+00'
    );
    v_wall timestamp;
    v_from timestamp;
    v_match timestamp;
    v_other timestamptz;
    v_change timestamptz;
    v_put_back timestamp;
    v_next timestamptz;
begin
    if schedule.run_at is not null then
        return case when schedule.run_at > next_time.after then schedule.run_at end;
    elsif v_after >= v_end then
        return null;
    end if;
    v_wall := timezone(v_zone, v_after);
    v_from := date_trunc('second', v_wall) + interval '1 second';

    if schedule.every is not null then
        v_next := app_jobs.next_step(schedule, v_after);

    elsif schedule.names_hour then
        -- A time of the clock runs when it is first read, so the hour that comes again is over.
        v_other := app_jobs.first_reading(v_wall, v_zone);
        if v_other < v_after then
            v_change := app_jobs.clock_change(v_zone, v_other, v_after);
            v_from := v_wall + (v_change - v_other);
        end if;
        v_next := app_jobs.first_reading(app_jobs.next_match(schedule, v_from), v_zone);

    else
        -- Real time: in the hour that comes again, look up to where the clock is put back, then
        -- from there. Skipped times do not run.
        v_other := timezone(v_zone, v_wall);
        if v_other > v_after then
            v_change := app_jobs.clock_change(v_zone, v_after, v_other);
            v_put_back := v_wall + (v_change - v_after);
        end if;
        loop
            v_match := app_jobs.next_match(schedule, v_from);
            v_next := app_jobs.first_reading(v_match, v_zone);
            if v_next <= v_after then
                v_next := timezone(v_zone, v_match);
                exit;
            elsif v_match >= v_put_back then
                v_from := timezone(v_zone, v_change);
                v_put_back := null;
            elsif timezone(v_zone, v_next) <> v_match then
                v_from := timezone(v_zone, v_next);
            else
                exit;
            end if;
        end loop;
    end if;
    return case when v_next <= v_end then v_next end;
end;
$$;

create function app_jobs.check_schedule(schedule_info json, time_zone text) returns void
language plpgsql
stable
as $$
begin
    perform app_jobs.read_schedule(check_schedule.schedule_info, check_schedule.time_zone);
end;
$$;

create function app_jobs.next_run_at(
    schedule_info json,
    after timestamptz default now(),
    time_zone text default 'UTC'
) returns timestamptz
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return app_jobs.next_time(
        app_jobs.read_schedule(next_run_at.schedule_info, next_run_at.time_zone),
        coalesce(next_run_at.after, now())
    );
end;
$$;

create function app_jobs.preview_schedule(
    schedule_info json,
    count integer default 10,
    after timestamptz default now(),
    time_zone text default 'UTC'
) returns setof timestamptz
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_schedule constant app_jobs.parsed_schedule := app_jobs.read_schedule(
        preview_schedule.schedule_info, preview_schedule.time_zone
    );
    v_next timestamptz := coalesce(preview_schedule.after, now());
begin
    if preview_schedule.count not between 1 and 1000 then
        raise exception 'count is %', preview_schedule.count
            using errcode = '22023', hint = 'Give 1 to 1000, or leave it out for 10.';
    end if;
    for v_number in 1 .. coalesce(preview_schedule.count, 10) loop
        v_next := app_jobs.next_time(v_schedule, v_next);
        exit when v_next is null;
        return next v_next;
    end loop;
end;
$$;

revoke all on type app_jobs.parsed_schedule from public;
revoke all on function app_jobs.next_bit(bit varying, integer) from public;
revoke all on function app_jobs.check_time_zone(text, text) from public;
revoke all on function app_jobs.clock_change(text, timestamptz, timestamptz) from public;
revoke all on function app_jobs.first_reading(timestamp, text) from public;
revoke all on function app_jobs.read_moment(text, json, text) from public;
revoke all on function app_jobs.read_every(json) from public;
revoke all on function app_jobs.cron_number(text, text[], integer) from public;
revoke all on function app_jobs.cron_field(text, text, integer, integer, text[]) from public;
revoke all on function app_jobs.calendar_field(text, json, integer, integer, integer) from public;
revoke all on function app_jobs.read_schedule(json, text) from public;
revoke all on function app_jobs.next_match(app_jobs.parsed_schedule, timestamp) from public;
revoke all on function app_jobs.next_step(app_jobs.parsed_schedule, timestamptz) from public;
revoke all on function app_jobs.next_time(app_jobs.parsed_schedule, timestamptz) from public;
revoke all on function app_jobs.check_schedule(json, text) from public;
revoke all on function app_jobs.next_run_at(json, timestamptz, text) from public;
revoke all on function app_jobs.preview_schedule(json, integer, timestamptz, text) from public;
grant execute on function app_jobs.next_run_at(json, timestamptz, text)
to app_jobs_producer, app_jobs_monitor;
grant execute on function app_jobs.preview_schedule(json, integer, timestamptz, text)
to app_jobs_producer, app_jobs_monitor;

comment on type app_jobs.parsed_schedule is
'A schedule_info as it is computed with. run_at: of the form "at"; every: of that form; the others
have bit strings, in which bit n says whether n is allowed. dates: bit 0 is the last day of the
month. months: 1 to 12. weekdays: seven bits for each week''s Sunday to Saturday, then seven each
for those of the first, second, …, fifth and last of the month. years: from 1970. either_day: dates
or weekdays must match, not both. names_hour: a time runs once, when the clock first reads it;
otherwise the hours follow real time.';
comment on function app_jobs.next_bit(bit varying, integer) is
'Find the first bit that is set, at or after one.

bits   counted from 0
first  where to begin

Returns: its number, or null. Roles: internal.';
comment on function app_jobs.check_time_zone(text, text) is
'Refuse a time zone that is not known by its full name; null passes.

argument   its name, for the message
time_zone  UTC, GMT, or Area/City

Errors: 22023. Roles: internal.';
comment on function app_jobs.clock_change(text, timestamptz, timestamptz) is
'Find when the clock was changed between two instants whose distance from UTC differs.

time_zone  where
since      an instant before the change
until      an instant at or after it, and not after another one

Returns: the first instant of the new time. Roles: internal.';
comment on function app_jobs.first_reading(timestamp, text) is
'Find the first instant at which the clock shows a time, or a later one if that was skipped.

wall       what the clock shows
time_zone  where it hangs

Roles: internal.';
comment on function app_jobs.read_moment(text, json, text) is
'Read a moment in a schedule_info; null for none.

key        its name, for the message
value      an ISO 8601 date, or date and time
time_zone  whose time it is if it has no offset

Errors: 22023. Roles: internal.';
comment on function app_jobs.read_every(json) is
'Read the interval of a schedule_info; null for none.

value  a text that PostgreSQL takes for an interval

Errors: 22023. Roles: internal.';
comment on function app_jobs.cron_number(text, text[], integer) is
'Read a number or name in a cron rule; null if it is neither.

value       digits or an upper case name
names       the names
first_name  the number of the first one

Roles: internal.';
comment on function app_jobs.cron_field(text, text, integer, integer, text[]) is
'Read a field of a cron rule.

field  its name, for the message and for what only days can be
value  the field, in upper case
low    the smallest number allowed
high   the greatest one
names  of the numbers from low on, or null

Returns: bits as in parsed_schedule. Errors: 22023. Roles: internal.';
comment on function app_jobs.calendar_field(text, json, integer, integer, integer) is
'Read a calendar field of a schedule_info.

key    its name
value  a number, a range, or an array of these; null: all numbers
low    the smallest number allowed
high   the greatest one
shift  what is added to a number to make it that of a bit

Returns: bits as in parsed_schedule. Errors: 22023. Roles: internal.';
comment on function app_jobs.read_schedule(json, text) is
'Read a schedule_info, and refuse what is not well said.

schedule_info  as in docs/schedules.md
time_zone      used where it has no tz; null: UTC

Errors: 22004, 22023. Roles: internal.';
comment on function app_jobs.next_match(app_jobs.parsed_schedule, timestamp) is
'Find the first time that matches a rule or calendar, at or after one, on a clock that is never
changed.

schedule  its bits
wall      whole seconds

Returns: null if there is none within 40 years, in which the calendar shows all it can; with years,
none until 2099. Roles: internal.';
comment on function app_jobs.next_step(app_jobs.parsed_schedule, timestamptz) is
'Find the first step of an interval after an instant. Days and months are those of the calendar,
hours are real ones.

schedule  its every, start and time zone
after     an instant, not before the start but for a microsecond

Roles: internal.';
comment on function app_jobs.next_time(app_jobs.parsed_schedule, timestamptz) is
'Find when a schedule runs next.

schedule  from read_schedule()
after     the instant after which; 1900 stands for any before

Returns: null if never, that is, not before 9999-12-31. Roles: internal.';
comment on function app_jobs.check_schedule(json, text) is
'Refuse a schedule_info or time zone that cannot be used.

schedule_info  as in docs/schedules.md
time_zone      used where it has no tz; null: UTC

Errors: 22004, 22023. Roles: internal.';
comment on function app_jobs.next_run_at(json, timestamptz, text) is
'Say when a schedule runs next.

schedule_info  one of
               {"rule": "0 9 * * MON-FRI"}  cron, 5 fields or 6 with seconds in front
               {"hour": 9, "minute": 0}     second, minute, hour, dayOfWeek (0–6, 7 = Sunday), date
                                            (1–31), month (0–11), year (1970–2099): a number, a
                                            {"start", "end", "step"}, or an array; second defaults
                                            to 0, the others to any
               {"every": "15 minutes"}      counted from start, or from 2001-01-01
               {"at": "2031-02-03T04:05"}   once
               and with it tz (goes before time_zone) and, but for at, start and end, both inclusive
after          the answer is later than this; null: now()
time_zone      by name; null: UTC

A time that a clock change skips runs at the first instant after the gap; one that comes twice runs
once, the first time, if the schedule names the hour; otherwise hours follow real time.

Returns: null if never again. Errors: 22004, 22023. Roles: app_jobs_producer, app_jobs_operator,
app_jobs_monitor.';
comment on function app_jobs.preview_schedule(json, integer, timestamptz, text) is
'List the next times at which a schedule runs.

schedule_info  as for next_run_at()
count          how many, 1 to 1000; null: 10
after          the first one is later than this; null: now()
time_zone      by name; null: UTC

Returns: fewer if there are no more. Errors: 22004, 22023. Roles: app_jobs_producer,
app_jobs_operator, app_jobs_monitor.';

commit;
