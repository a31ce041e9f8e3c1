-- Names that need quotes are wanted here.
-- noqa: disable=RF05
begin;
\ir include/helpers.sql
set local client_min_messages = warning;
select no_plan();

-- jobs added since the last look, as tenant's last digit, task and payload
create function pg_temp.added() returns setof text
language sql
as $$
    with gone as (delete from app_jobs.jobs returning id, database_id, task_identifier, payload)

    select concat_ws(' ', right(database_id::text, 1), task_identifier, payload) from gone order by id
$$;
create function pg_temp.make(
    form text, arguments text, event text default 'after insert', level text default 'row'
)
returns void
language plpgsql
as $$
begin
    drop trigger if exists "our trigger" on pg_temp."it""s";
    execute format(
        'create trigger "our trigger" %s on pg_temp."it""s" %s for each %s execute function app_jobs.%I(%s)',
        event,
        case
            when level = 'row' then ''
            when event like '%delete' then 'referencing old table as old_rows'
            else 'referencing new table as new_rows'
        end,
        level, form, arguments
    );
end;
$$;
-- of a table with odd names
create temporary table "it""s" (
    id integer,
    "the ""tenant""" uuid,
    "a'b; drop table x --" text,
    n numeric,
    j jsonb,
    t timestamptz
);
create function pg_temp.fill(new_id integer) returns void
language sql
as $$
    insert into pg_temp."it""s" values
    (new_id, '00000000-0000-0000-0000-00000000000a', 'it''s "x"', 1.50, '{"k": [1, null]}', '2020-01-01 00:00+00')
$$;
set local timezone = 'UTC';

-- each of the row-level three, for each event, after and before
create function pg_temp.fire(
    form text, arguments text, event text, level text default 'row'
) returns text
language plpgsql
as $$
begin
    drop trigger if exists "our trigger" on pg_temp."it""s";
    delete from pg_temp."it""s";
    if event not like '%insert' then
        perform pg_temp.fill(7);
    end if;
    perform pg_temp.make(form, arguments, event, level);
    if event like '%insert' then
        perform pg_temp.fill(7);
    elsif event like '%update' then
        update pg_temp."it""s" set id = 8;
    else
        delete from pg_temp."it""s";
    end if;
    return (select count(*) || ' left' from pg_temp."it""s") || ', ' || (
        select coalesce(string_agg(a.job, ', '), 'no job') from pg_temp.added() as a(job)
    );
end;
$$;
select
    is(
        pg_temp.fire('tg_add_job_with_row_id', $$'', 't'$$, event),
        outcome,
        'tg_add_job_with_row_id ' || event
    )
from (
    values
    ('after insert', '1 left, t {"id" : 7}'),
    ('before insert', '1 left, t {"id" : 7}'),
    ('after update', '1 left, t {"id" : 8}'),
    ('before update', '1 left, t {"id" : 8}'),
    ('after delete', '0 left, t {"id" : 7}'),
    ('before delete', '0 left, t {"id" : 7}')
) as c (event, outcome);
select
    '{"id":7,"the \"tenant\"":"00000000-0000-0000-0000-00000000000a",'
    '"a''b; drop table x --":"it''s \"x\"",'
    '"n":1.50,"j":{"k": [1, null]},"t":"2020-01-01T00:00:00+00:00"}' as row
\gset
select
    is(
        pg_temp.fire(form, $$'', 't'$$, event, level),
        format('%s left, t %s', case when event like '%delete' then 0 else 1 end, case
            when event like '%update' then regexp_replace(:'row', '7', '8') else :'row'
        end),
        concat_ws(' ', form, event)
    )
from (
    values
    ('tg_add_job_with_row', 'after insert', 'row'),
    ('tg_add_job_with_row', 'before insert', 'row'),
    ('tg_add_job_with_row', 'after update', 'row'),
    ('tg_add_job_with_row', 'before update', 'row'),
    ('tg_add_job_with_row', 'after delete', 'row'),
    ('tg_add_job_with_row', 'before delete', 'row'),
    ('tg_add_jobs_with_rows', 'after insert', 'statement'),
    ('tg_add_jobs_with_rows', 'after update', 'statement'),
    ('tg_add_jobs_with_rows', 'after delete', 'statement')
) as c (form, event, level);
select
    is(
        pg_temp.fire(
            'tg_add_job_with_fields', $$'', 't', 'n', 'j', 'a''b; drop table x --', 'id'$$, event
        ),
        format(
            '%s left, t { "n" : 1.50, "j" : {"k": [1, null]}, '
            '"a''b; drop table x --" : "it''s \"x\"", "id" : %s }',
            left_over, id
        ),
        'tg_add_job_with_fields ' || event
    )
from (
    values
    ('after insert', 1, 7),
    ('before insert', 1, 7),
    ('after update', 1, 8),
    ('before update', 1, 8),
    ('after delete', 0, 7),
    ('before delete', 0, 7)
) as c (event, left_over, id);

-- the tenant: none, a uuid, a column; another id column
select is(pg_temp.fire('tg_add_job_with_row_id', arguments, 'after insert'), outcome, arguments)
from (
    values
    ($$'', 't'$$, '1 left, t {"id" : 7}'),
    ($$'00000000-0000-0000-0000-00000000000b', 't'$$, '1 left, b t {"id" : 7}'),
    ($$'00000000-0000-0000-0000-00000000000B', 't'$$, '1 left, b t {"id" : 7}'),
    ($$'the "tenant"', 't'$$, '1 left, a t {"id" : 7}'),
    ($$'', 't', 'n'$$, '1 left, t {"id" : 1.50}'),
    ($$'the "tenant"', 't', 'a''b; drop table x --'$$, '1 left, a t {"id" : "it''s \"x\""}')
) as c (arguments, outcome);
select
    matches(
        pg_temp.fire(form, $$'the "tenant"', 't'$$, 'after insert', level),
        '^1 left, a t ',
        form || ': the tenant'
    )
from (
    values ('tg_add_job_with_row', 'row'), ('tg_add_jobs_with_rows', 'statement')
) as c (form, level);
select is(
    pg_temp.fire('tg_add_job_with_fields', $$'the "tenant"', 't', 'id'$$, 'after insert'),
    '1 left, a t { "id" : 7 }', 'tg_add_job_with_fields: the tenant'
);
select is(
    pg_temp.fire(
        'tg_add_jobs_with_rows',
        $$'00000000-0000-0000-0000-00000000000b', 't'$$,
        'after delete',
        'statement'
    ),
    '0 left, b t ' || :'row', 'tg_add_jobs_with_rows: a uuid'
);

-- rows of several tenants, and of none, in one statement; no rows at all; more than a thousand
delete from "it""s";
select lives_ok(
    $$select pg_temp.make(
        'tg_add_jobs_with_rows', '''the "tenant"'', ''t''', 'after insert', 'statement'
    )$$,
    'made'
);
insert into "it""s" (id, "the ""tenant""")
select
    n,
    case n
        when 1 then '00000000-0000-0000-0000-00000000000a' when
            3
            then '00000000-0000-0000-0000-00000000000b'
    end::uuid
from generate_series(1, 4) as g (n);
select results_eq(
    $$select concat_ws(' ', right(j.database_id::text, 1), j.payload ->> 'id')
    from app_jobs.jobs as j order by j.id$$,
    array['a 1', '2', 'b 3', '4'], 'each row has its own tenant'
);
select lives_ok('delete from app_jobs.jobs', 'done');
insert into "it""s" (id) select 1
where false;
select is_empty('select from app_jobs.jobs', 'no rows, no jobs');
insert into "it""s" (id) select n from generate_series(1, 2500) as g (n);
select results_eq(
    $$select count(*), count(distinct j.payload ->> 'id') from app_jobs.jobs as j$$,
    $$values (2500::bigint, 2500::bigint)$$, 'a job for each of 2500 rows'
);
select lives_ok('delete from app_jobs.jobs', 'done');

-- nulls, and much
drop trigger "our trigger" on "it""s";
select lives_ok($$select pg_temp.make('tg_add_job_with_row_id', ''''', ''t''')$$, 'made');
insert into "it""s" (id) values (null);
select results_eq('select pg_temp.added()', array['t {"id" : null}'], 'an id that is null');
select lives_ok($$select pg_temp.make('tg_add_job_with_row', '''the "tenant"'', ''t''')$$, 'made');
insert into "it""s" (id, "a'b; drop table x --") values (1, repeat('x', 2000000));
select results_eq(
    'select length(payload ->> $$a''b; drop table x --$$), database_id is null from app_jobs.jobs',
    $$values (2000000, true)$$, 'a row of two megabytes, of no tenant'
);
select lives_ok('delete from app_jobs.jobs', 'done');

-- casts to json that others have made must not run: here one raises, alone and inside of others
create type pg_temp.mood as enum ('sad');
create function pg_temp.mood_to_json(pg_temp.mood) returns json
language plpgsql
as $$
begin
    raise exception 'somebody''s code ran as %', current_user;
end;
$$;
create cast (pg_temp.mood as json) with function pg_temp.mood_to_json(pg_temp.mood);
-- nor must one to text
create function pg_temp.mood_to_text(pg_temp.mood) returns text
language plpgsql
as $$
begin
    raise exception 'somebody''s code ran as %', current_user;
end;
$$;
create cast (pg_temp.mood as text) with function pg_temp.mood_to_text(pg_temp.mood);
create domain pg_temp.mood_domain as pg_temp.mood;
create type pg_temp.nest as (m pg_temp.mood, x integer);
create temporary table casts (
    id pg_temp.mood,
    ids pg_temp.mood[],
    of_domain pg_temp.mood_domain,
    nested pg_temp.nest,
    tenant uuid,
    n integer
);
create function pg_temp.fire_casts(
    form text, arguments text, level text default 'row'
) returns text
language plpgsql
as $$
begin
    drop trigger if exists t on pg_temp.casts;
    execute format(
        'create trigger t after insert on pg_temp.casts %s for each %s execute function app_jobs.%I(%s)',
        case level when 'statement' then 'referencing new table as new_rows' end, level, form, arguments
    );
    insert into pg_temp.casts values (
        'sad', '{sad}', 'sad', row('sad', 2), '00000000-0000-0000-0000-00000000000a', 3
    );
    return (select string_agg(a.job, ', ') from pg_temp.added() as a(job));
exception when others then
    return sqlerrm;
end;
$$;
select throws_ok(
    $$select to_json('sad'::pg_temp.mood)$$, 'P0001', 'somebody''s code ran as ' || current_user,
    'the cast does run elsewhere'
);
select
    is(
        pg_temp.fire_casts(form, arguments, level), outcome,
        form || ': such values go as text, the others keep their JSON types'
    )
from (
    values
    ('tg_add_job_with_row_id', $$'tenant', 't'$$, 'row', 'a t {"id" : "sad"}'),
    (
        'tg_add_job_with_fields', $$'tenant', 't', 'ids', 'of_domain', 'nested', 'n'$$, 'row',
        'a t { "ids" : ["sad"], "of_domain" : "sad", "nested" : {"m":"sad","x":2}, "n" : 3 }'
    ),
    (
        'tg_add_job_with_row', $$'tenant', 't'$$, 'row',
        'a t {"id":"sad","ids":["sad"],"of_domain":"sad","nested":{"m":"sad","x":2},'
        '"tenant":"00000000-0000-0000-0000-00000000000a","n":3}'
    ),
    (
        'tg_add_jobs_with_rows', $$'tenant', 't'$$, 'statement',
        'a t {"id":"sad","ids":["sad"],"of_domain":"sad","nested":{"m":"sad","x":2},'
        '"tenant":"00000000-0000-0000-0000-00000000000a","n":3}'
    )
) as c (form, arguments, level, outcome);

-- what is made of built-in types keeps its JSON type, however deep; nulls stay nulls
create domain pg_temp.cents as numeric(10, 2) check (value >= 0);
create domain pg_temp.more_cents as pg_temp.cents;
create type pg_temp.pair as (c pg_temp.more_cents, moods pg_temp.mood []);
create temporary table shapes (
    id pg_temp.more_cents,
    many pg_temp.cents[],
    pairs pg_temp.pair[],
    moods pg_temp.mood[],
    span int4range,
    "r ""i3" pg_temp.pair
);
select lives_ok(
    $$create trigger t after insert on pg_temp.shapes for each row
    execute function app_jobs.tg_add_job_with_row('', 't')$$,
    'made'
);
insert into shapes values
(
    1.50, '{2.00,null}', array[row(3, '{sad,null}')::pg_temp.pair, null],
    '{{sad},{sad}}', '[1,3)', row(null, '{}')
),
(null, null, null, null, null, null);
select results_eq(
    'select pg_temp.added()',
    array[
        't {"id":1.50,"many":[2.00,null],"pairs":[{"c":3.00,"moods":["sad",null]},null],'
        '"moods":"{{sad},{sad}}","span":"[1,3)","r \"i3":{"c":null,"moods":[]}}',
        't {"id":null,"many":null,"pairs":null,"moods":null,"span":null,"r \"i3":null}'
    ],
    'domains, arrays and composite types are taken apart'
);

-- a user who may write the table, and has no right here
create table public.app_jobs_test (id integer, tenant uuid);
grant insert, update, delete on public.app_jobs_test to pg_signal_backend;
create trigger with_row_id before insert on public.app_jobs_test
for each row execute function app_jobs.tg_add_job_with_row_id('tenant', 't');
create trigger with_row after update on public.app_jobs_test
for each row execute function app_jobs.tg_add_job_with_row('', 't');
create trigger with_fields after delete on public.app_jobs_test
for each row execute function app_jobs.tg_add_job_with_fields('', 't', 'id');
create trigger with_rows after insert on public.app_jobs_test referencing new table as new_rows
for each statement execute function app_jobs.tg_add_jobs_with_rows('', 't');
set local role pg_signal_backend;
select throws_ok('select app_jobs.add_job(identifier => ''t'')', '42501', null, 'may not add jobs');
select lives_ok('insert into public.app_jobs_test values (1)', 'but insert');
select lives_ok('update public.app_jobs_test set id = 2', 'update');
select lives_ok('delete from public.app_jobs_test', 'and delete');
reset role;
select is((select count(*) from pg_temp.added()), 4::bigint, 'and jobs are added');
select throws_ok(
    $$
    grant create on schema public to pg_signal_backend;
    set local role pg_signal_backend;
    create table public.app_jobs_test_2 (id integer);
    create trigger t after insert on public.app_jobs_test_2
    for each row execute function app_jobs.tg_add_job_with_row('', 't')
    $$,
    '42501', null, 'to create a trigger takes app_jobs_producer'
);

-- bad arguments: table, trigger and argument are named, and the row is not lost silently
create function pg_temp.complaint(arguments text, form text, level text default 'row') returns text
language plpgsql
as $$
declare
    v_message text;
    v_hint text;
begin
    perform pg_temp.make(form, arguments, 'after insert', level);
    insert into pg_temp."it""s" (id) values (1);
    return 'no error';
exception when others then
    get stacked diagnostics v_message = message_text, v_hint = pg_exception_hint;
    return concat_ws(' ', sqlstate, v_message, case when v_hint = '' then 'WITHOUT A HINT' end);
end;
$$;
drop trigger if exists "our trigger" on "it""s";
select
    is(
        pg_temp.complaint(arguments, form),
        format('22023 trigger "our trigger" on table "it""s"%s', message),
        format('%s(%s)', form, left(arguments, 60))
    )
from (
    values
    ('', 'tg_add_job_with_row_id', ' has 0 arguments'),
    ($$''$$, 'tg_add_job_with_row_id', ' has 1 arguments'),
    ($$'', 't', 'id', 'n'$$, 'tg_add_job_with_row_id', ' has 4 arguments'),
    ('', 'tg_add_job_with_row', ' has 0 arguments'),
    ($$'', 't', 'id'$$, 'tg_add_job_with_row', ' has 3 arguments'),
    ($$'', 't'$$, 'tg_add_job_with_fields', ' has 2 arguments'),
    ($$'', ''$$, 'tg_add_job_with_row_id', ': argument task is ""'),
    (
        format($$'', '%s'$$, repeat('t', 127)),
        'tg_add_job_with_row',
        format(': argument task is "%s"', repeat('t', 127))
    ),
    (
        $$'', 't', 'ID'$$,
        'tg_add_job_with_row_id',
        ': argument id column is "ID", and there is no such column'
    ),
    (
        $$'', 't', 'id', 'x'$$,
        'tg_add_job_with_fields',
        ': argument field is "x", and there is no such column'
    ),
    (
        $$'', 't', 'ctid'$$,
        'tg_add_job_with_fields',
        ': argument field is "ctid", and there is no such column'
    ),
    ($$'x', 't'$$, 'tg_add_job_with_row', ': argument tenant is "x"'),
    ($$'n', 't'$$, 'tg_add_job_with_row', ': argument tenant is "n"'),
    (
        $$'00000000-0000-0000-0000-00000000000x', 't'$$, 'tg_add_job_with_row',
        ': argument tenant is "00000000-0000-0000-0000-00000000000x"'
    )
) as c (arguments, form, message);
select
    is(
        pg_temp.complaint(arguments, 'tg_add_jobs_with_rows', 'statement'),
        format('22023 trigger "our trigger" on table "it""s"%s', message),
        format('tg_add_jobs_with_rows(%s)', arguments)
    )
from (
    values
    ('', ' has 0 arguments'),
    ($$'', 't', 'id'$$, ' has 3 arguments'),
    ($$'', ''$$, ': argument task is ""'),
    ($$'x', 't'$$, ': argument tenant is "x"')
) as c (arguments, message);
select throws_matching(
    $$
    create trigger s after insert on pg_temp.shapes for each statement
    execute function app_jobs.tg_add_jobs_with_rows('', 't');
    insert into pg_temp.shapes values (1)
    $$,
    'trigger "s" on table shapes has no transition table "new_rows"', 'no transition table'
);
select throws_matching(
    $$
    create temporary view old_rows as select 1 as id;
    create trigger s after delete on pg_temp.shapes
    referencing old table as old_rows for each statement
    execute function app_jobs.tg_add_jobs_with_rows('', 't');
    delete from pg_temp.shapes
    $$,
    'trigger "s" on table shapes: there is a temporary relation "old_rows"',
    'a name that might mean something else'
);
select is(
    pg_temp.complaint($$'', 't'$$, 'tg_add_jobs_with_rows'),
    '22023 trigger "our trigger" on table "it""s" fires for each row', 'row-level'
);
select
    matches(
        pg_temp.complaint($$'', 't', 'id'$$, form, 'statement'),
        '^22023 trigger "our trigger" on table "it""s"',
        form || ' for each statement'
    )
from unnest(array['tg_add_job_with_row_id', 'tg_add_job_with_fields']) as f (form);
select matches(
    pg_temp.complaint($$'', 't'$$, 'tg_add_job_with_row', 'statement'),
    '^22023 trigger "our trigger" on table "it""s"', 'tg_add_job_with_row for each statement'
);
select is_empty('select from app_jobs.jobs', 'none of them has added a job');

select finish();
rollback;
