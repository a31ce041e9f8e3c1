-- Deploy app_jobs:triggers to pg
-- requires: add_jobs

begin;

set local lock_timeout = '5s';

create function app_jobs.has_own_cast_to_json(type oid) returns boolean
language sql
stable
as $$
    with recursive part(type) as (
        select has_own_cast_to_json.type
        union
        select n.type
        from part as p
        inner join pg_catalog.pg_type as t on t.oid = p.type
        cross join lateral (
            select t.typelem as type where t.typelem <> 0
            union all
            select t.typbasetype where t.typbasetype <> 0
            union all
            select r.rngsubtype from pg_catalog.pg_range as r where t.oid in (r.rngtypid,
            r.rngmultitypid)
            union all
            select a.atttypid
            from pg_catalog.pg_attribute as a
            where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
        ) as n
    )

    select exists (
        select
        from part as p
        inner join pg_catalog.pg_cast as c on c.castsource = p.type
        where c.casttarget in ('json'::regtype, 'jsonb'::regtype) and c.castfunc >= 16384
    )
$$;

create function app_jobs.field_as_json(row_given record, type oid, name text) returns json
language plpgsql
stable
as $$
declare
    v_value json;
begin
    -- to_json() would run a cast to json that the owner of a type has made, and here it would run
    -- with our rights: such a value goes through its type's output function, which is what format()
    -- calls (a cast to text may be theirs, too). A record's field can only be named in dynamic SQL,
    -- as a quoted identifier.
    if app_jobs.has_own_cast_to_json(field_as_json.type) then
        execute format(
            'select to_json(format(''%%s'', ($1).%1$I)) where ($1).%1$I is distinct from null',
            field_as_json.name
        )
        into v_value using field_as_json.row_given;
    else
        execute format('select to_json(($1).%I)', field_as_json.name)
        into v_value using field_as_json.row_given;
    end if;
    return v_value;
end;
$$;

create function app_jobs.row_as_json(row_given record, relation oid) returns json
language plpgsql
stable
as $$
declare
    v_object text;
begin
    if not app_jobs.has_own_cast_to_json(
        (select c.reltype from pg_catalog.pg_class as c where c.oid = row_as_json.relation)
    ) then
        return to_json(row_as_json.row_given);
    end if;
    select string_agg(
        to_json(a.attname) || ':' || coalesce(
            app_jobs.field_as_json(row_as_json.row_given, a.atttypid, a.attname)::text, 'null'
        ),
        ',' order by a.attnum
    )
    into v_object
    from pg_catalog.pg_attribute as a
    where a.attrelid = row_as_json.relation and a.attnum > 0 and not a.attisdropped;
    return ('{' || v_object || '}')::json;
end;
$$;

create function app_jobs.column_type(
    relation oid, trigger_name text, argument text, name text
) returns oid
language plpgsql
stable
as $$
declare
    v_type oid;
begin
    select a.atttypid into v_type
    from pg_catalog.pg_attribute as a
    where
        a.attrelid = column_type.relation
        and a.attname = column_type.name
        and a.attnum > 0
        and not a.attisdropped;
    if not found then
        raise exception 'trigger "%" on table %: argument % is "%", and there is no such column',
            column_type.trigger_name, column_type.relation::regclass, column_type.argument,
            column_type.name
            using errcode = '22023',
                hint = 'Create the trigger again with a column''s name as the catalogue has it.';
    end if;
    return v_type;
end;
$$;

create function app_jobs.tenant_column(relation oid, trigger_name text, tenant text) returns text
language plpgsql
stable
as $$
declare
    v_type oid;
begin
    -- '' and a uuid name no column
    if tenant_column.tenant = ''
        or tenant_column.tenant ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
    then
        return null;
    end if;
    select a.atttypid into v_type
    from pg_catalog.pg_attribute as a
    where
        a.attrelid = tenant_column.relation
        and a.attname = tenant_column.tenant
        and a.attnum > 0
        and not a.attisdropped;
    if v_type is distinct from 'uuid'::regtype then
        raise exception 'trigger "%" on table %: argument tenant is "%"',
            tenant_column.trigger_name, tenant_column.relation::regclass, tenant_column.tenant
            using errcode = '22023',
                hint = 'Give a uuid, the name of a column of type uuid, or '''' for no tenant.';
    end if;
    return tenant_column.tenant;
end;
$$;

create function app_jobs.check_trigger(
    relation oid, trigger_name text, arguments text[], level text, wanted_level text,
    fewest integer, most integer, form text
) returns void
language plpgsql
immutable
as $$
begin
    if cardinality(check_trigger.arguments)
        not between check_trigger.fewest and check_trigger.most
    then
        raise exception 'trigger "%" on table % has % arguments',
            check_trigger.trigger_name, check_trigger.relation::regclass,
            cardinality(check_trigger.arguments)
            using errcode = '22023', hint = format('Create it again with %s.', check_trigger.form);
    elsif check_trigger.level <> check_trigger.wanted_level then
        raise exception 'trigger "%" on table % fires for each %',
            check_trigger.trigger_name, check_trigger.relation::regclass,
            lower(check_trigger.level)
            using errcode = '22023',
                hint = format('Create it again for each %s.', lower(check_trigger.wanted_level));
    elsif char_length(check_trigger.arguments[2]) not between 1 and 126 then
        raise exception 'trigger "%" on table %: argument task is "%"',
            check_trigger.trigger_name, check_trigger.relation::regclass,
            left(check_trigger.arguments[2], 200)
            using errcode = '22023', hint = 'Name the task to run, 1 to 126 characters.';
    end if;
end;
$$;

create function app_jobs.add_job_for_row(
    row_given record, relation oid, trigger_name text, arguments text[], payload json
) returns void
language plpgsql
volatile
as $$
declare
    v_column text := app_jobs.tenant_column(relation, trigger_name, arguments[1]);
    v_tenant uuid;
begin
    if v_column is null then
        v_tenant := nullif(arguments[1], '')::uuid;
    else
        v_tenant := (
            app_jobs.field_as_json(row_given, 'uuid'::regtype, v_column) #>> '{}'
        )::uuid;
    end if;
    perform app_jobs.add_job(v_tenant, arguments[2], payload);
end;
$$;

create function app_jobs.tg_add_job_with_row_id() returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_arguments constant text[] := coalesce(tg_argv[:], '{}');
    v_column constant text := coalesce(tg_argv[2], 'id');
    v_row record := case when tg_op = 'DELETE' then old else new end;
begin
    perform app_jobs.check_trigger(
        tg_relid, tg_name, v_arguments, tg_level, 'ROW', 2, 3,
        '(''tenant'', ''task'') or (''tenant'', ''task'', ''id column'')'
    );
    perform app_jobs.add_job_for_row(v_row, tg_relid, tg_name, v_arguments, json_build_object(
        'id',
        app_jobs.field_as_json(
            v_row, app_jobs.column_type(tg_relid, tg_name, 'id column', v_column), v_column
        )
    ));
    return v_row;
end;
$$;

create function app_jobs.tg_add_job_with_row() returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_arguments constant text[] := coalesce(tg_argv[:], '{}');
    v_row record := case when tg_op = 'DELETE' then old else new end;
begin
    perform app_jobs.check_trigger(
        tg_relid, tg_name, v_arguments, tg_level, 'ROW', 2, 2, '(''tenant'', ''task'')'
    );
    perform app_jobs.add_job_for_row(
        v_row, tg_relid, tg_name, v_arguments, app_jobs.row_as_json(v_row, tg_relid)
    );
    return v_row;
end;
$$;

create function app_jobs.tg_add_job_with_fields() returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_arguments constant text[] := coalesce(tg_argv[:], '{}');
    v_row record := case when tg_op = 'DELETE' then old else new end;
    v_payload json;
begin
    perform app_jobs.check_trigger(
        tg_relid, tg_name, v_arguments, tg_level, 'ROW', 3, 1602, '(''tenant'', ''task'', ''field'', …)'
    );
    select json_object_agg(
        f.name,
        app_jobs.field_as_json(
            v_row, app_jobs.column_type(tg_relid, tg_name, 'field', f.name), f.name
        )
        order by f.n
    )
    into v_payload
    from unnest(v_arguments[3:]) with ordinality as f(name, n);
    perform app_jobs.add_job_for_row(v_row, tg_relid, tg_name, v_arguments, v_payload);
    return v_row;
end;
$$;

create function app_jobs.tg_add_jobs_with_rows() returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_arguments constant text[] := coalesce(tg_argv[:], '{}');
    v_column text;
    v_payloads json[];
    v_tenants uuid[];
begin
    perform app_jobs.check_trigger(
        tg_relid, tg_name, v_arguments, tg_level, 'STATEMENT', 2, 2, '(''tenant'', ''task'')'
    );
    v_column := app_jobs.tenant_column(tg_relid, tg_name, v_arguments[1]);
    -- asked once per statement, not once per row
    if app_jobs.has_own_cast_to_json(
        (select c.reltype from pg_catalog.pg_class as c where c.oid = tg_relid)
    ) then
        -- as in field_as_json(); columns can only be listed in dynamic SQL, as quoted identifiers
        execute (
            select format(
                'select array(select to_json(r) from (select %s from %s) as r)',
                string_agg(format(
                    case when app_jobs.has_own_cast_to_json(a.atttypid)
                        then 'case when %1$I is distinct from null'
                            ' then format(''%%s'', %1$I) end as %1$I'
                        else '%1$I'
                    end,
                    a.attname
                ), ', ' order by a.attnum),
                case tg_op when 'DELETE' then 'old_rows' else 'new_rows' end
            )
            from pg_catalog.pg_attribute as a
            where a.attrelid = tg_relid and a.attnum > 0 and not a.attisdropped
        ) into v_payloads;
    elsif tg_op = 'DELETE' then
        v_payloads := array(select to_json(r) from old_rows as r);
    else
        v_payloads := array(select to_json(r) from new_rows as r);
    end if;
    if cardinality(v_payloads) > 0 then
        v_tenants := case
            when v_column is null then array[nullif(v_arguments[1], '')::uuid]
            else array(
                select (p.payload ->> v_column)::uuid
                from unnest(v_payloads) with ordinality as p(payload, n)
                order by p.n
            )
        end;
        perform app_jobs.insert_jobs(
            null, v_arguments[2], v_payloads, v_tenants, cardinality(v_payloads), null, null, null,
            null, null, null
        );
    end if;
    return null;
end;
$$;

revoke all on function app_jobs.has_own_cast_to_json(oid) from public;
revoke all on function app_jobs.field_as_json(record, oid, text) from public;
revoke all on function app_jobs.row_as_json(record, oid) from public;
revoke all on function app_jobs.column_type(oid, text, text, text) from public;
revoke all on function app_jobs.tenant_column(oid, text, text) from public;
revoke all on function app_jobs.check_trigger(
    oid, text, text[], text, text, integer, integer, text
) from public;
revoke all on function app_jobs.add_job_for_row(record, oid, text, text[], json) from public;
revoke all on function app_jobs.tg_add_job_with_row_id() from public;
revoke all on function app_jobs.tg_add_job_with_row() from public;
revoke all on function app_jobs.tg_add_job_with_fields() from public;
revoke all on function app_jobs.tg_add_jobs_with_rows() from public;
grant execute on function app_jobs.tg_add_job_with_row_id() to app_jobs_producer;
grant execute on function app_jobs.tg_add_job_with_row() to app_jobs_producer;
grant execute on function app_jobs.tg_add_job_with_fields() to app_jobs_producer;
grant execute on function app_jobs.tg_add_jobs_with_rows() to app_jobs_producer;

comment on function app_jobs.has_own_cast_to_json(oid) is
'Tell whether somebody has made a cast from this type, or from a part of it, to json: to_json()
would run it.

type  the type; elements, attributes and base types are looked at, too

Roles: internal.';
comment on function app_jobs.field_as_json(record, oid, text) is
'Turn one field of a row into json without running anybody''s code.

row_given  the row
type       the field''s type
name       the field

Returns: json of its own type; as text if its type has a cast to json of its own. Roles: internal.';
comment on function app_jobs.row_as_json(record, oid) is
'Turn a row into json without running anybody''s code.

row_given  the row
relation   its table

Returns: an object. Roles: internal.';
comment on function app_jobs.column_type(oid, text, text, text) is
'Find the type of the column that a trigger''s argument names.

relation      the table
trigger_name  the trigger
argument      what the argument is called
name          the column

Errors: 22023. Roles: internal.';
comment on function app_jobs.tenant_column(oid, text, text) is
'Read the tenant argument of a trigger.

relation      the table
trigger_name  the trigger
tenant        a uuid, the name of a uuid column, or ''''

Returns: the column; null for a uuid or ''''. Errors: 22023. Roles: internal.';
comment on function app_jobs.check_trigger(oid, text, text[], text, text, integer, integer, text) is
'Refuse a trigger with a wrong number of arguments, or no task.

relation      the table
trigger_name  the trigger
arguments     its arguments
level         ROW or STATEMENT: what it fires for
wanted_level  what it should
fewest, most  how many it takes
form          how it should be, for the hint

Errors: 22023. Roles: internal.';
comment on function app_jobs.add_job_for_row(record, oid, text, text[], json) is
'Add the job of a row-level trigger.

row_given     the row
relation      the table
trigger_name  the trigger
arguments     its arguments: tenant, task …
payload       the job''s

Errors: 22023, and add_job()''s. Roles: internal.';
comment on function app_jobs.tg_add_job_with_row_id() is
'Add a job {"id": …} for each row: AFTER or BEFORE INSERT, UPDATE or DELETE (the old row), FOR EACH
ROW.

tenant     a uuid, the name of a column of type uuid, or '''' for none
task       task to run, 1 to 126 characters
id column  column whose value is sent; default: id

Errors: 22023, naming table, trigger and argument. Roles: whoever may create triggers on a table
and is in app_jobs_producer; whoever may write the table fires it.';
comment on function app_jobs.tg_add_job_with_row() is
'Add a job with the whole row for each row: AFTER or BEFORE INSERT, UPDATE or DELETE (the old row),
FOR EACH ROW.

tenant  a uuid, the name of a column of type uuid, or '''' for none
task    task to run, 1 to 126 characters

Errors: 22023, naming table, trigger and argument. Roles: as tg_add_job_with_row_id().';
comment on function app_jobs.tg_add_job_with_fields() is
'Add a job with some fields, JSON types kept, for each row: AFTER or BEFORE INSERT, UPDATE or DELETE
(the old row), FOR EACH ROW.

tenant   a uuid, the name of a column of type uuid, or '''' for none
task     task to run, 1 to 126 characters
field …  columns to send

Errors: 22023, naming table, trigger and argument. Roles: as tg_add_job_with_row_id().';
comment on function app_jobs.tg_add_jobs_with_rows() is
'Add a job with the whole row for each row of a statement, in one go: AFTER INSERT or UPDATE,
REFERENCING NEW TABLE AS new_rows, or AFTER DELETE, REFERENCING OLD TABLE AS old_rows, FOR EACH
STATEMENT.

tenant  a uuid, the name of a column of type uuid, or '''' for none
task    task to run, 1 to 126 characters

Errors: 22023, naming table, trigger and argument. Roles: as tg_add_job_with_row_id().';

commit;
