begin;
\ir include/helpers.sql
select no_plan();

-- Texts without an offset are times in the session's zone, which no answer may depend on.
set local timezone = 'America/New_York';
set local datestyle = 'sql, dmy';
set local intervalstyle = 'sql_standard';

-- The next times as that zone's clock shows them; the offset tells the two hours of autumn apart.
create function pg_temp.times(info text, zone text, after text, count integer) returns text[]
language sql
as $$
    select coalesce(array_agg(
        to_char(p.at at time zone zone, 'YYYY-MM-DD HH24:MI:SS')
        || case when o.lead < interval '0' then '-' else '+' end
        || to_char(greatest(o.lead, -o.lead), 'HH24:MI')
        order by p.at
    ), '{}')
    from app_jobs.preview_schedule(
        info::json, count, case
            when after ~ ':.*[+-]\d\d$' then after::timestamptz else after::timestamp at time zone zone
        end, zone
    ) as p(at)
    cross join lateral (
        select (p.at at time zone zone) - (p.at at time zone 'UTC')
    ) as o(lead)
$$;

-- The expected times are abbreviated: what is left out at their front or end is not compared.
create function pg_temp.runs(info text, zone text, after text, expected text[]) returns text
language plpgsql
as $$
declare
    v_times text[] := pg_temp.times(info, zone, after, greatest(cardinality(expected), 1));
    v_shown text[];
begin
    select array_agg(
        case when strpos(t.at, e.at) > 0 then e.at else t.at end order by number
    ) into v_shown
    from unnest(v_times) with ordinality as t(at, number)
    left join unnest(expected) with ordinality as e(at, number) using (number);
    return is(
        coalesce(v_shown, '{}'), expected, concat_ws(' ', info, 'in', zone, 'after', after)
    );
end;
$$;

-- rules
select pg_temp.runs(json_build_object('rule', rule)::text, 'UTC', after, expected)
from (
    values
    -- minute hour day-of-month month day-of-week
    ('* * * * *', '2026-01-31 23:58:30', array['01-31 23:59:00', '02-01 00:00:00']),
    ('* * * * *', '2026-12-31 23:59:00', array['2027-01-01 00:00:00']),
    ('*/15 9-10 * * *', '2026-03-02 09:40', array['02 09:45', '02 10:00', '02 10:15']),
    ('5,10-12 0 * * *', '2026-03-02', array['00:05:00', '00:10:00', '00:11:00', '00:12:00']),
    ('50/5 0 * * *', '2026-03-02', array['02 00:50', '02 00:55', '03 00:50']),
    ('10-20/4,0 0 * * *', '2026-03-02', array['00:10', '00:14', '00:18', '03 00:00']),
    ('7 */11 * * *', '2026-03-02', array['02 00:07', '02 11:07', '02 22:07', '03 00:07']),
    ('0 0 * jan,DEC *', '2026-12-30', array['2026-12-31', '2027-01-01', '2027-01-02']),
    ('0 0 1 FEB-apr *', '2026-02-01', array['2026-03-01', '2026-04-01', '2027-02-01']),
    ('0 0 * * mon-FRI', '2026-03-06', array['2026-03-09', '2026-03-10']),
    ('0 0 * * 0', '2026-03-02', array['2026-03-08']),
    ('0 0 * * 7', '2026-03-02', array['2026-03-08']),
    ('0 0 * * 5-7', '2026-03-02', array['2026-03-06', '2026-03-07', '2026-03-08', '2026-03-13']),
    ('0 0 * * FRI-SUN', '2026-03-02', array['03-06', '03-07', '03-08', '03-13']),
    ('0 0 * * */3', '2026-03-02', array['03-04', '03-07', '03-08', '03-11']),
    ('0 0 ? * 3', '2026-03-02', array['03-04', '03-11']),
    -- seconds in front
    ('*/20 * * * * *', '2026-03-02', array['00:00:20', '00:00:40', '00:01:00']),
    ('30 59 23 31 12 *', '2026-03-02', array['2026-12-31 23:59:30', '2027-12-31 23:59:30']),
    -- both days restricted: either; one begins with *: both
    (
        '0 0 13 * 5', '2026-03-01',
        array['03-06', '03-13', '03-20', '03-27', '04-03', '04-10', '04-13']
    ),
    ('0 0 */2 * 1', '2026-03-01', array['2026-03-09', '2026-03-23', '2026-04-13']),
    ('0 0 13 * *', '2026-03-01', array['2026-03-13', '2026-04-13']),
    -- last, and by number in the month
    ('0 0 L * *', '2028-01-31', array['2028-02-29', '2028-03-31', '2028-04-30']),
    ('0 0 15,L * *', '2026-02-01', array['02-15', '02-28', '03-15', '03-31']),
    ('0 0 * * 5L', '2026-02-01', array['02-27', '03-27', '04-24', '05-29']),
    ('0 0 * * SUNL', '2026-02-01', array['2026-02-22', '2026-03-29']),
    ('0 0 * * 7#1,MON#5', '2026-03-02', array['03-30', '04-05', '05-03', '06-07', '06-29']),
    ('0 0 L * 5L', '2026-03-01', array['03-27', '03-31', '04-24', '04-30']),
    -- rare, or never
    ('0 0 29 2 *', '2026-03-01', array['2028-02-29', '2032-02-29']),
    ('0 0 29 2 *', '2096-03-01', array['2104-02-29']),
    ('59 23 */28 2 1', '2072-03-01', array['2077-02-01', '2083-02-01']),
    ('0 0 * 2 MON#5', '2072-03-01', array['2112-02-29', '2140-02-29']),
    ('0 0 30 2 *', '2026-03-01', '{}'),
    ('0 0 31 4,6,9,11 *', '2026-03-01', '{}'),
    ('0 0 */30 * 1#2', '2026-03-01', '{}'),
    -- by name
    (' @hourly ', '2026-03-02 10:20', array['2026-03-02 11:00', '2026-03-02 12:00']),
    ('@daily', '2026-03-02', array['2026-03-03', '2026-03-04']),
    ('@Midnight', '2026-03-02', array['2026-03-03', '2026-03-04']),
    ('@weekly', '2026-03-02', array['2026-03-08', '2026-03-15']),
    ('@monthly', '2026-03-02', array['2026-04-01', '2026-05-01']),
    ('@yearly', '2026-03-02', array['2027-01-01', '2028-01-01']),
    ('@annually', '2026-03-02', array['2027-01-01', '2028-01-01'])
) as c (rule, after, expected);

-- calendars: all fields given must match
select pg_temp.runs(info, 'UTC', after, expected)
from (
    values
    ('{"hour": 9, "minute": 30}', '2026-03-02', array['02 09:30:00', '03 09:30:00']),
    ('{"hour": 9}', '2026-03-02', array['09:00:00', '09:01:00']),
    ('{"minute": 5}', '2026-03-02', array['00:05:00', '01:05:00']),
    (
        '{"second": {"start": 10, "step": 20}}', '2026-03-02',
        array['00:00:10', '00:00:30', '00:00:50']
    ),
    ('{"second": [50, 0, 50]}', '2026-03-02', array['00:00:50', '00:01:00', '00:01:50']),
    (
        '{"hour": [8, {"start": 20, "end": 22, "step": 2}], "minute": 0}', '2026-03-02',
        array['08', '20', '22', '03 08']
    ),
    (
        '{"date": 13, "dayOfWeek": 5, "hour": 0, "minute": 0}', '2026-01-01',
        array['02-13', '03-13', '11-13']
    ),
    ('{"dayOfWeek": 0, "hour": 0, "minute": 0}', '2026-03-02', array['2026-03-08']),
    ('{"dayOfWeek": 7, "hour": 0, "minute": 0}', '2026-03-02', array['2026-03-08']),
    (
        '{"dayOfWeek": {"start": 4, "step": 2}, "hour": 0, "minute": 0}', '2026-03-02',
        array['05', '07', '12']
    ),
    ('{"month": 0, "date": 1, "hour": 0, "minute": 0}', '2026-03-02', array['2027-01-01']),
    ('{"month": 11, "date": 31, "hour": 0, "minute": 0}', '2026-03-02', array['2026-12-31']),
    ('{"month": 1, "date": 29, "hour": 0, "minute": 0}', '2096-03-02', array['2104-02-29']),
    ('{"month": 1, "date": 29, "dayOfWeek": 1}', '2072-03-02', array['2112-02-29']),
    ('{"month": 1, "date": 30}', '2026-03-02', '{}'),
    ('{"year": 2030}', '2026-03-02', array['2030-01-01 00:00:00', '2030-01-01 00:01:00']),
    (
        '{"year": [2027, 2099], "month": 5, "date": 1, "hour": 0, "minute": 0}', '2026-03-02',
        array['2027-06-01', '2099-06-01']
    ),
    ('{"year": 2025}', '2026-03-02', '{}'),
    (
        '{"hour": 9, "minute": 0, "second": null, "date": null, "end": null}', '2026-03-02',
        array['09:00:00', '09:00:00']
    )
) as c (info, after, expected);

-- intervals: from the start, or from Monday, the first of January 2001
select pg_temp.runs(info, zone, after, expected)
from (
    values
    ('{"every": "15 minutes"}', 'UTC', '2026-03-02 10:07', array['10:15:00', '10:30:00']),
    (
        '{"every": "15 minutes", "start": "2026-03-02T10:05"}', 'UTC', '2026-03-02',
        array['10:05:00', '10:20:00']
    ),
    (
        '{"every": "PT1M30S", "start": "2026-03-02"}', 'UTC', '2026-03-02',
        array['00:01:30', '00:03:00']
    ),
    (
        '{"every": "00:00:07.5", "start": "2026-03-02"}', 'UTC', '2026-03-02',
        array['00:00:07', '00:00:15']
    ),
    ('{"every": "7 hours"}', 'UTC', '1900-06-01', array['1900-06-01 02', '1900-06-01 09']),
    ('{"every": "1 day"}', 'Asia/Kolkata', '2026-03-02 10:07', array['03 00:00', '04 00:00']),
    ('{"every": "1 week"}', 'Asia/Kolkata', '2026-03-02', array['2026-03-09', '2026-03-16']),
    ('{"every": "3 months"}', 'Asia/Kolkata', '2026-03-02', array['2026-04-01', '2026-07-01']),
    ('{"every": "1 year"}', 'Asia/Kolkata', '2026-03-02', array['2027-01-01', '2028-01-01']),
    (
        '{"every": "1 month", "start": "2026-01-31T08:00"}', 'UTC', '2026-01-31 08:00',
        array['02-28 08:00', '03-31 08:00', '04-30 08:00']
    ),
    (
        '{"every": "1 year", "start": "2024-02-29"}', 'UTC', '2026-01-01',
        array['2026-02-28', '2027-02-28', '2028-02-29']
    ),
    (
        '{"every": "1 month 1 day", "start": "2026-01-31"}', 'UTC', '2026-01-31',
        array['2026-03-01', '2026-04-02', '2026-05-03']
    ),
    ('{"every": "1000 years", "start": "2026-01-31"}', 'UTC', '2026-01-31', array['3026-01-31']),
    ('{"every": "1000 years"}', 'UTC', '9000-12-31', array['9001-01-01'])
) as c (info, zone, after, expected);

-- once, and bounds: both belong to it
select pg_temp.runs(info, zone, after, expected)
from (
    values
    ('{"at": "2026-03-02T10:00:00Z"}', 'UTC', '2026-03-02 09:59', array['10:00:00']),
    ('{"at": "2026-03-02T10:00:00Z"}', 'UTC', '2026-03-02 10:00', '{}'),
    ('{"at": "2026-03-02T10:00:00.5+05:30"}', 'UTC', '2026-03-01', array['04:30:00']),
    ('{"at": "2026-03-02 10:00-0330"}', 'UTC', '2026-03-01', array['13:30:00']),
    ('{"at": "2026-03-02"}', 'Asia/Kolkata', '2026-03-01', array['02 00:00:00+05:30']),
    ('{"at": "2026-03-02", "tz": "Asia/Kolkata"}', 'UTC', '2026-03-01', array['01 18:30:00']),
    ('{"rule": "@daily", "tz": "Asia/Kolkata"}', 'UTC', '2026-03-01', array['01 18:30:00']),
    (
        '{"rule": "@daily", "start": "2026-03-02", "end": "2026-03-03"}', 'Asia/Kolkata',
        '2026-01-01', array['2026-03-02', '2026-03-03']
    ),
    (
        '{"hour": 0, "minute": 0, "start": "2026-03-02T00:00:00.000001", "end": "2026-03-04"}',
        'UTC', '2026-01-01', array['2026-03-03', '2026-03-04']
    ),
    (
        '{"every": "1 day", "start": "2026-03-02", "end": "2026-03-03"}', 'UTC', '2026-01-01',
        array['2026-03-02', '2026-03-03']
    )
) as c (info, zone, after, expected);
select is_empty(
    format(
        'select app_jobs.preview_schedule(%L, after => ''2026-03-03'')',
        '{"rule": "@daily", "tz": "UTC", "end": "2026-03-02"}'
    ),
    'nothing after the end'
);

-- clock changes
select pg_temp.runs(info, zone, after, expected)
from (
    values
    -- forward at 2026-03-29 02:00 by one hour
    (
        '{"rule": "30 2 * * *"}', 'Europe/Berlin', '2026-03-28',
        array['28 02:30:00+01:00', '29 03:00:00+02:00', '30 02:30:00+02:00']
    ),
    (
        '{"rule": "*/20 1-3 * * *"}', 'Europe/Berlin', '2026-03-29 01:30',
        array['29 01:40:00+01:00', '29 03:00:00+02:00', '29 03:20:00+02:00']
    ),
    (
        '{"rule": "30 * * * *"}', 'Europe/Berlin', '2026-03-29 01:00',
        array['29 01:30:00+01:00', '29 03:30:00+02:00', '29 04:30:00+02:00']
    ),
    (
        '{"rule": "0 */2 * * *"}', 'Europe/Berlin', '2026-03-28 23:00',
        array['29 00:00:00+01:00', '29 04:00:00+02:00']
    ),
    (
        '{"hour": 2, "minute": [15, 45]}', 'Europe/Berlin', '2026-03-28 02:20',
        array['28 02:45:00+01:00', '29 03:00:00+02:00', '30 02:15:00+02:00']
    ),
    (
        '{"minute": 15}', 'Europe/Berlin', '2026-03-29 00:20',
        array['29 01:15:00+01:00', '29 03:15:00+02:00']
    ),
    (
        '{"every": "1 hour"}', 'Europe/Berlin', '2026-03-29 00:20',
        array['29 01:00:00+01:00', '29 03:00:00+02:00']
    ),
    (
        '{"every": "1 day", "start": "2026-03-01T02:30"}', 'Europe/Berlin', '2026-03-28',
        array['28 02:30:00+01:00', '29 03:00:00+02:00', '30 02:30:00+02:00']
    ),
    (
        '{"every": "24 hours", "start": "2026-03-01T02:30"}', 'Europe/Berlin', '2026-03-28',
        array['28 02:30:00+01:00', '29 03:30:00+02:00', '30 03:30:00+02:00']
    ),
    ('{"at": "2026-03-29T02:30"}', 'Europe/Berlin', '2026-03-28', array['29 03:00:00+02:00']),
    -- back at 2026-10-25 03:00 by one hour
    (
        '{"rule": "30 2 * * *"}', 'Europe/Berlin', '2026-10-24 12:00',
        array['25 02:30:00+02:00', '26 02:30:00+01:00']
    ),
    (
        '{"rule": "*/30 2,3 * * *"}', 'Europe/Berlin', '2026-10-25 00:15+00',
        array['25 02:30:00+02:00', '25 03:00:00+01:00']
    ),
    (
        '{"rule": "*/30 2,3 * * *"}', 'Europe/Berlin', '2026-10-25 01:15+00',
        array['25 03:00:00+01:00', '25 03:30:00+01:00']
    ),
    (
        '{"rule": "30 0-23 * * *"}', 'Europe/Berlin', '2026-10-25 01:00',
        array['25 01:30:00+02:00', '25 02:30:00+02:00', '25 03:30:00+01:00']
    ),
    (
        '{"rule": "30 * * * *"}', 'Europe/Berlin', '2026-10-25 01:00',
        array['25 01:30:00+02:00', '25 02:30:00+02:00', '25 02:30:00+01:00', '25 03:30:00+01:00']
    ),
    (
        '{"rule": "10 * * * *"}', 'Europe/Berlin', '2026-10-25 00:45+00',
        array['25 02:10:00+01:00', '25 03:10:00+01:00']
    ),
    (
        '{"rule": "10 * * * *"}', 'Europe/Berlin', '2026-10-25 01:45+00',
        array['25 03:10:00+01:00', '25 04:10:00+01:00']
    ),
    (
        '{"hour": 2, "minute": 0}', 'Europe/Berlin', '2026-10-24 12:00',
        array['25 02:00:00+02:00', '26 02:00:00+01:00']
    ),
    (
        '{"minute": 0}', 'Europe/Berlin', '2026-10-24 23:00+00',
        array['25 02:00:00+02:00', '25 02:00:00+01:00', '25 03:00:00+01:00']
    ),
    (
        '{"every": "1 hour"}', 'Europe/Berlin', '2026-10-24 23:00+00',
        array['25 02:00:00+02:00', '25 02:00:00+01:00', '25 03:00:00+01:00']
    ),
    (
        '{"every": "1 day", "start": "2026-03-01T02:30"}', 'Europe/Berlin', '2026-10-24',
        array['24 02:30:00+02:00', '25 02:30:00+02:00', '26 02:30:00+01:00']
    ),
    (
        '{"every": "1 day", "start": "2026-10-25T02:30+01:00"}', 'Europe/Berlin', '2026-10-24',
        array['25 02:30:00+01:00', '26 02:30:00+01:00']
    ),
    ('{"at": "2026-10-25T02:30"}', 'Europe/Berlin', '2026-10-24', array['25 02:30:00+02:00']),
    -- forward at 2026-03-08 02:00, back at 2026-11-01 02:00
    (
        '{"rule": "15 2 * * *"}', 'America/New_York', '2026-03-07',
        array['07 02:15:00-05:00', '08 03:00:00-04:00', '09 02:15:00-04:00']
    ),
    (
        '{"rule": "15 * * * *"}', 'America/New_York', '2026-03-08 01:00',
        array['08 01:15:00-05:00', '08 03:15:00-04:00']
    ),
    (
        '{"rule": "15 1 * * *"}', 'America/New_York', '2026-11-01',
        array['01 01:15:00-04:00', '02 01:15:00-05:00']
    ),
    (
        '{"rule": "15 * * * *"}', 'America/New_York', '2026-11-01 04:30+00',
        array['01 01:15:00-04:00', '01 01:15:00-05:00', '01 02:15:00-05:00']
    ),
    (
        '{"every": "6 hours", "start": "2026-10-31T19:00"}', 'America/New_York', '2026-11-01',
        array['01 01:00:00-04:00', '01 06:00:00-05:00']
    ),
    -- back at 2026-04-05 02:00 by half an hour, forward at 2026-10-04 02:00
    (
        '{"rule": "45 1 * * *"}', 'Australia/Lord_Howe', '2026-04-05',
        array['05 01:45:00+11:00', '06 01:45:00+10:30']
    ),
    (
        '{"rule": "*/15 * * * *"}', 'Australia/Lord_Howe', '2026-04-05 01:20',
        array[
            '01:30:00+11:00', '01:45:00+11:00', '01:30:00+10:30', '01:45:00+10:30', '02:00:00+10:30'
        ]
    ),
    (
        '{"rule": "*/10 2 * * *"}', 'Australia/Lord_Howe', '2026-10-04',
        array['04 02:30:00+11:00', '04 02:40:00+11:00']
    ),
    (
        '{"rule": "*/10 * * * *"}', 'Australia/Lord_Howe', '2026-10-04 01:45',
        array['04 01:50:00+10:30', '04 02:30:00+11:00', '04 02:40:00+11:00']
    ),
    (
        '{"rule": "15 * * * *"}', 'Australia/Lord_Howe', '2026-10-04 01:00',
        array['04 01:15:00+10:30', '04 03:15:00+11:00']
    ),
    (
        '{"every": "1 hour"}', 'Australia/Lord_Howe', '2026-10-04 00:40',
        array['04 01:30:00+10:30', '04 03:00:00+11:00']
    ),
    -- 2011-12-30 was skipped
    (
        '{"rule": "30 10 * * *"}', 'Pacific/Apia', '2011-12-29',
        array['29 10:30:00-10:00', '31 00:00:00+14:00', '31 10:30:00+14:00']
    ),
    (
        '{"rule": "0 0 * * *"}', 'Pacific/Apia', '2011-12-28 12:00',
        array['29 00:00:00-10:00', '31 00:00:00+14:00', '2012-01-01 00:00:00+14:00']
    ),
    (
        '{"rule": "30 * * * *"}', 'Pacific/Apia', '2011-12-29 23:00',
        array['29 23:30:00-10:00', '31 00:30:00+14:00']
    ),
    (
        '{"rule": "* * 30 12 *"}', 'Pacific/Apia', '2011-12-01', array['2012-12-30 00:00:00+14:00']
    ),
    (
        '{"hour": 9, "minute": 0, "date": 30, "month": 11}', 'Pacific/Apia', '2011-12-01',
        array['2011-12-31 00:00:00+14:00', '2012-12-30 09:00:00+14:00']
    ),
    (
        '{"every": "1 day"}', 'Pacific/Apia', '2011-12-28 12:00',
        array['2011-12-29 00:00:00-10:00', '2011-12-31 00:00:00+14:00', '2012-01-01 00:00:00+14:00']
    ),
    -- midnight was skipped
    (
        '{"rule": "@daily"}', 'America/Santiago', '2026-09-05',
        array['06 01:00:00-03:00', '07 00:00:00-03:00']
    ),
    -- back over midnight, from 00:01
    (
        '{"rule": "30 23 * * *"}', 'America/St_Johns', '2010-11-06',
        array['06 23:30:00-02:30', '07 23:30:00-03:30']
    ),
    (
        '{"rule": "0 0 * * *"}', 'America/St_Johns', '2010-11-06',
        array['07 00:00:00-02:30', '08 00:00:00-03:30']
    ),
    (
        '{"rule": "*/30 * * * SAT"}', 'America/St_Johns', '2010-11-07 01:45+00',
        array['06 23:30:00-02:30', '06 23:30:00-03:30', '13 00:00:00-03:30']
    ),
    -- no change
    (
        '{"rule": "30 2 * * *"}', 'Asia/Kolkata', '2026-03-28',
        array['28 02:30:00+05:30', '29 02:30:00+05:30']
    ),
    (
        '{"rule": "30 * * * *"}', 'Asia/Kolkata', '2026-10-25 01:00',
        array['25 01:30:00+05:30', '25 02:30:00+05:30']
    ),
    (
        '{"every": "1 hour"}', 'Asia/Kolkata', '2026-10-25 01:10',
        array['25 02:00:00+05:30', '25 03:00:00+05:30']
    ),
    -- named by their distance from Greenwich, with the sign turned
    ('{"rule": "@daily"}', 'Etc/GMT-3', '2026-03-02', array['03 00:00:00+03:00'])
) as c (info, zone, after, expected);

-- how far next_match() looks
select
    is(
        max(k.years),
        40,
        'each kind of year, by length and first weekday, comes again within 40 years'
    )
from (
    select
        y.n - lag(y.n) over (
            partition by
                extract(dow from make_date(y.n, 1, 1)),
                make_date(y.n + 1, 1, 1) - make_date(y.n, 1, 1)
            order by y.n
        ) as years
    from generate_series(1900, 2800) as y (n)
) as k;

-- defaults
select is(
    app_jobs.next_run_at('{"rule": "@hourly"}'), date_trunc('hour', now()) + interval '1 hour',
    'after now'
);
select is(
    app_jobs.next_run_at('{"rule": "@hourly"}', null, null),
    app_jobs.next_run_at('{"rule": "@hourly"}'), 'null is the default'
);
select is(
    (select count(*) from app_jobs.preview_schedule('{"rule": "@hourly"}')), 10::bigint, 'ten times'
);
select is(
    (select count(*) from app_jobs.preview_schedule('{"rule": "@hourly"}', null, null, null)),
    10::bigint, 'or null'
);
select is(
    (select count(*) from app_jobs.preview_schedule('{"rule": "@hourly"}', 1000)), 1000::bigint,
    'up to a thousand'
);
select is(app_jobs.next_run_at('{"rule": "@hourly"}', 'infinity'), null, 'after the end of time');
select is(
    app_jobs.next_run_at('{"every": "1000 years"}', '9998-12-31'),
    null,
    'not in years of five digits'
);
select is(
    app_jobs.next_run_at('{"rule": "@hourly"}', '-infinity'), '1900-01-01 01:00+00', 'at its begin'
);

-- refusals
select
    pg_temp.refuses(
        format('select app_jobs.next_run_at(%L, ''2026-01-01'', ''UTC'')', info), '22023',
        'schedule_info' || message
    )
from (
    values
    ('[]', ' is []'),
    ('"@daily"', ' is "@daily"'),
    (
        format('{"hour": [0%s]}', repeat(', 0', 1500)),
        ' has 4513 characters: {"hour": [0' || repeat(', 0', 16) || ','
    ),
    ('{}', ' has no times: {}'),
    ('{"tz": "UTC", "hour": null}', ' has no times: {"tz": "UTC", "hour": null}'),
    ('{"hours": 9}', ' has an unknown key: "hours"'),
    (
        '{"rule": "@daily", "hour": 9}',
        ' has calendar fields and rule: {"rule": "@daily", "hour": 9}'
    ),
    (
        '{"at": "2026-02-03", "end": "2027-01-01"}',
        ' has at and end: {"at": "2026-02-03", "end": "2027-01-01"}'
    ),
    ('{"rule": "@daily", "tz": "Europe/Berln"}', '.tz is "Europe/Berln"'),
    ('{"rule": "@daily", "tz": "CEST"}', '.tz is "CEST"'),
    ('{"rule": "@daily", "tz": "Foo/Bar+3"}', '.tz is "Foo/Bar+3"'),
    ('{"rule": "@daily", "tz": 1}', '.tz is "1"'),
    ('{"rule": "@daily", "start": "2026-02-30"}', '.start is "2026-02-30"'),
    ('{"rule": "@daily", "start": "yesterday"}', '.start is "yesterday"'),
    ('{"rule": "@daily", "end": 1767225600}', '.end is 1767225600'),
    ('{"at": "2026-02-03T04:05:06+25:00"}', '.at is "2026-02-03T04:05:06+25:00"'),
    ('{"at": "infinity"}', '.at is "infinity"'),
    (
        '{"rule": "@daily", "start": "2026-02-03", "end": "2026-02-02"}',
        ' has start "2026-02-03" after end "2026-02-02"'
    ),
    -- rules
    ('{"rule": "* * * *"}', '.rule is "* * * *"'),
    ('{"rule": "0 0 * * * * 2026"}', '.rule is "0 0 * * * * 2026"'),
    ('{"rule": ""}', '.rule is ""'),
    ('{"rule": {"hour": 9}}', '.rule is {"hour":9}'),
    ('{"rule": "@reboot"}', '.rule is "@reboot"'),
    ('{"rule": "60 * * * * *"}', '.rule has second "60"'),
    ('{"rule": "60 * * * *"}', '.rule has minute "60"'),
    ('{"rule": "5-3 * * * *"}', '.rule has minute "5-3"'),
    ('{"rule": "*/0 * * * *"}', '.rule has minute "*/0"'),
    ('{"rule": "1,,2 * * * *"}', '.rule has minute ""'),
    ('{"rule": "1, * * * *"}', '.rule has minute ""'),
    ('{"rule": "*-5 * * * *"}', '.rule has minute "*-5"'),
    ('{"rule": "-5 * * * *"}', '.rule has minute "-5"'),
    ('{"rule": "1.5 * * * *"}', '.rule has minute "1.5"'),
    ('{"rule": "? * * * *"}', '.rule has minute "?"'),
    ('{"rule": "L * * * *"}', '.rule has minute "L"'),
    ('{"rule": "* 24 * * *"}', '.rule has hour "24"'),
    ('{"rule": "* 99999 * * *"}', '.rule has hour "99999"'),
    ('{"rule": "* * 0 * *"}', '.rule has day of month "0"'),
    ('{"rule": "* * 32 * *"}', '.rule has day of month "32"'),
    ('{"rule": "* * LW * *"}', '.rule has day of month "LW"'),
    ('{"rule": "* * 1L * *"}', '.rule has day of month "1L"'),
    ('{"rule": "* * * 0 *"}', '.rule has month "0"'),
    ('{"rule": "* * * 13 *"}', '.rule has month "13"'),
    ('{"rule": "* * * MON *"}', '.rule has month "MON"'),
    ('{"rule": "* * * * 8"}', '.rule has day of week "8"'),
    ('{"rule": "* * * * L"}', '.rule has day of week "L"'),
    ('{"rule": "* * * * 8L"}', '.rule has day of week "8L"'),
    ('{"rule": "* * * * 1#6"}', '.rule has day of week "1#6"'),
    ('{"rule": "* * * * JAN#1"}', '.rule has day of week "JAN#1"'),
    -- calendars
    ('{"second": 60}', '.second is 60'),
    ('{"minute": -1}', '.minute is -1'),
    ('{"hour": 1.5}', '.hour is 1.5'),
    ('{"hour": 1e1}', '.hour is 1e1'),
    ('{"hour": "9"}', '.hour is "9"'),
    ('{"hour": true}', '.hour is true'),
    ('{"hour": []}', '.hour is []'),
    ('{"hour": [1, [2]]}', '.hour is [1,[2]]'),
    ('{"hour": [1, null]}', '.hour is [1,null]'),
    ('{"hour": {}}', '.hour is {}'),
    ('{"hour": {"from": 1}}', '.hour is {"from":1}'),
    ('{"hour": {"start": 5, "end": 3}}', '.hour is {"start":5,"end":3}'),
    ('{"hour": {"start": 5, "step": 0}}', '.hour is {"start":5,"step":0}'),
    ('{"hour": {"start": 5, "end": 24}}', '.hour is {"start":5,"end":24}'),
    ('{"dayOfWeek": 8}', '.dayOfWeek is 8'),
    ('{"date": 0}', '.date is 0'),
    ('{"date": 32}', '.date is 32'),
    ('{"month": 12}', '.month is 12'),
    ('{"year": 1969}', '.year is 1969'),
    ('{"year": 2100}', '.year is 2100'),
    ('{"hour": {"start": "٣"}}', '.hour is {"start":"٣"}'),
    ('{"hour": "٣"}', '.hour is "٣"'),
    -- intervals
    ('{"every": "0 minutes"}', '.every is "0 minutes"'),
    ('{"every": "-1 day"}', '.every is "-1 day"'),
    ('{"every": "1 month -1 day"}', '.every is "1 month -1 day"'),
    ('{"every": "0.5 seconds"}', '.every is "0.5 seconds"'),
    ('{"every": "1001 years"}', '.every is "1001 years"'),
    ('{"every": "infinity"}', '.every is "infinity"'),
    ('{"every": "99999999999 years"}', '.every is "99999999999 years"'),
    ('{"every": "often"}', '.every is "often"'),
    ('{"every": "900"}', '.every is "900"'),
    ('{"every": 900}', '.every is 900')
) as c (info, message);
select pg_temp.refuses(call, state, message)
from (
    values
    ('select app_jobs.next_run_at(null)', '22004', 'schedule_info is null'),
    ('select app_jobs.check_schedule(null, ''UTC'')', '22004', 'schedule_info is null'),
    ('select app_jobs.preview_schedule(null)', '22004', 'schedule_info is null'),
    (
        'select app_jobs.next_run_at(''{"hour": 9, "tz": "UTC"}'', time_zone => ''Mars'')',
        '22023', 'time_zone is "Mars"'
    ),
    ('select app_jobs.check_schedule(''{"hour": 9}'', '''')', '22023', 'time_zone is ""'),
    (
        'select app_jobs.check_schedule(''{"hour": 99}'', ''UTC'')', '22023',
        'schedule_info.hour is 99'
    ),
    ('select app_jobs.preview_schedule(''{"hour": 9}'', 0)', '22023', 'count is 0'),
    ('select app_jobs.preview_schedule(''{"hour": 9}'', 1001)', '22023', 'count is 1001')
) as c (call, state, message);
select lives_ok(
    'select app_jobs.check_schedule(''{"rule": "0 0 30 2 *"}'', null)', 'a good schedule_info'
);

select is(
    pg_temp.callers('select app_jobs.next_run_at(''{"hour": 9}'')'),
    'producer operator monitor', 'who may ask for a time'
);
select is(
    pg_temp.callers('select app_jobs.preview_schedule(''{"hour": 9}'')'),
    'producer operator monitor', 'who may ask for several'
);

select finish();
rollback;
