-- Deploy app_jobs:triggers to pg
-- requires: add_jobs

begin;

set local lock_timeout = '5s';

create function app_jobs.is_built_in(type oid) returns boolean
language sql
stable
as $$
    with recursive part(type) as (
        select is_built_in.type
        union all
        select case t.typtype when 'd' then t.typbasetype else t.typelem end
        from part as p
        inner join pg_catalog.pg_type as t on t.oid = p.type
        where
            p.type >= 16384
            and (t.typtype = 'd' or t.typsubscript = 'array_subscript_handler'::regproc)
    )

    -- what initdb has made has a lower number
    select exists (select from part as p where p.type < 16384)
$$;

create function app_jobs.json_expression(type oid, value text) returns text
language plpgsql
stable
as $$
declare
    v_type pg_catalog.pg_type;
    v_as_text constant text := format(
        'case when %1$s is distinct from null then to_json(format(''%%s'', %1$s)) end', value
    );
    v_index text;
begin
    -- to_json() runs a cast to json that the owner of a type has made, and here it would run with
    -- our rights. To look for one is not enough: it may be made the next moment, or be newer than
    -- our snapshot. So only values of built-in types ever get there, with the type asked in the
    -- same statement; what is made of them is taken apart, and the rest goes through its type's
    -- output function, which is what format() calls (a cast to text may be theirs, too).
    if app_jobs.is_built_in(json_expression.type) then
        return format(
            'case when pg_typeof(%1$s) = %2$s::regtype then to_json(%1$s) else %3$s end',
            value, json_expression.type, v_as_text
        );
    end if;
    select t.* into v_type from pg_catalog.pg_type as t where t.oid = json_expression.type;
    if v_type.typtype = 'c' then
        return format(
            'case when %1$s is distinct from null'
            ' then (select to_json(r) from (select %2$s) as r) end',
            value, app_jobs.json_columns(v_type.typrelid, format('(%s)', value))
        );
    elsif v_type.typsubscript = 'array_subscript_handler'::regproc then
        -- of its own, since one array may be inside of another
        v_index := 'i' || length(value);
        return format(
            'case when array_ndims(%1$s) > 1 then %2$s when %1$s is distinct from null then'
            ' to_json(array(select %3$s from generate_subscripts(%1$s, 1) as %4$s)) end',
            value, v_as_text,
            app_jobs.json_expression(v_type.typelem, format('(%s)[%s]', value, v_index)), v_index
        );
    end if;
    return v_as_text;
end;
$$;

create function app_jobs.json_columns(relation oid, value text) returns text
language sql
stable
as $$
    select string_agg(
        format(
            '%s as %I',
            app_jobs.json_expression(
                a.atttypid, format('%s.%I', json_columns.value, a.attname)
            ),
            a.attname
        ),
        ', ' order by a.attnum
    )
    from pg_catalog.pg_attribute as a
    where a.attrelid = json_columns.relation and a.attnum > 0 and not a.attisdropped
$$;

create function app_jobs.has_built_in_columns(relation oid) returns boolean
language sql
stable
as $$
    -- Whoever fires a trigger holds a lock on the table, so its columns stay; but an older snapshot
    -- may not show them as they are.
    select current_setting('transaction_isolation') = 'read committed' and not exists (
        select
        from pg_catalog.pg_attribute as a
        where
            a.attrelid = has_built_in_columns.relation
            and a.attnum > 0
            and not a.attisdropped
            and not app_jobs.is_built_in(a.atttypid)
    )
$$;

create function app_jobs.field_as_json(row_given record, type oid, name text) returns json
language plpgsql
stable
as $$
declare
    v_value json;
begin
    -- a record's field can only be named in dynamic SQL, as a quoted identifier
    execute 'select ' || app_jobs.json_expression(
        field_as_json.type, format('($1).%I', field_as_json.name)
    )
    into v_value using field_as_json.row_given;
    return v_value;
end;
$$;

create function app_jobs.row_as_json(row_given record, relation oid) returns json
language plpgsql
stable
as $$
declare
    v_columns text;
    v_object json;
begin
    -- as a record it has no cast of its own
    if app_jobs.has_built_in_columns(row_as_json.relation) then
        return to_json(row_as_json.row_given);
    end if;
    v_columns := app_jobs.json_columns(row_as_json.relation, '($1)');
    if v_columns is null then
        raise exception 'table % has no columns in the snapshot of this transaction',
            row_as_json.relation::regclass
            using errcode = 'JQ002', hint = 'It is newer: begin another transaction.';
    end if;
    execute format('select to_json(r) from (select %s) as r', v_columns)
    into v_object using row_as_json.row_given;
    return v_object;
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
    v_rows constant text := case tg_op when 'DELETE' then 'old_rows' else 'new_rows' end;
    v_column text;
    v_payloads json[];
    v_tenants uuid[];
begin
    perform app_jobs.check_trigger(
        tg_relid, tg_name, v_arguments, tg_level, 'STATEMENT', 2, 2, '(''tenant'', ''task'')'
    );
    -- Without a transition table the name would mean a temporary table, or a view of the caller's,
    -- whose functions would run with our rights. An older snapshot may not show the trigger as it
    -- is, so such a relation is refused in any case.
    perform from pg_catalog.pg_trigger as t
    where
        t.tgrelid = tg_relid
        and t.tgname = tg_name
        and v_rows = case tg_op when 'DELETE' then t.tgoldtable else t.tgnewtable end;
    if not found then
        raise exception 'trigger "%" on table % has no transition table "%"',
            tg_name, tg_relid::regclass, v_rows
            using errcode = '22023', hint = format(
                'Create it again, referencing %s table as %s.', left(v_rows, 3), v_rows
            );
    elsif to_regclass('pg_temp.' || v_rows) is not null then
        raise exception 'trigger "%" on table %: there is a temporary relation "%"',
            tg_name, tg_relid::regclass, v_rows
            using errcode = '22023', hint = 'Give the temporary table or view another name.';
    end if;
    v_column := app_jobs.tenant_column(tg_relid, tg_name, v_arguments[1]);
    if not app_jobs.has_built_in_columns(tg_relid) then
        -- columns can only be listed in dynamic SQL, as quoted identifiers
        execute format(
            'select array(select to_json(r) from (select %s from %I as r) as r)',
            app_jobs.json_columns(tg_relid, 'r'), v_rows
        )
        into v_payloads;
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

revoke all on function app_jobs.is_built_in(oid) from public;
revoke all on function app_jobs.json_expression(oid, text) from public;
revoke all on function app_jobs.json_columns(oid, text) from public;
revoke all on function app_jobs.has_built_in_columns(oid) from public;
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

comment on function app_jobs.is_built_in(oid) is
'Tell whether a type is PostgreSQL''s own, or an array or a domain of such a type: to_json() then
runs nobody''s code.

type  the type

Roles: internal.';
comment on function app_jobs.json_expression(oid, text) is
'Write an expression that turns a value into json without running anybody''s code.

type   the value''s type
value  an expression for it

Returns: SQL. Roles: internal.';
comment on function app_jobs.json_columns(oid, text) is
'Write the select list that turns each column of a row into json without running anybody''s code.

relation  the table, or that of a composite type
value     an expression for the row

Returns: SQL. Roles: internal.';
comment on function app_jobs.has_built_in_columns(oid) is
'Tell whether to_json() may be given a whole row of a table: all of its columns are of built-in
types, and the snapshot is sure to show them.

relation  the table

Roles: internal.';
comment on function app_jobs.field_as_json(record, oid, text) is
'Turn one field of a row into json without running anybody''s code.

row_given  the row
type       the field''s type
name       the field

Returns: json; what is neither of a built-in type nor made of such goes as text. Roles: internal.';
comment on function app_jobs.row_as_json(record, oid) is
'Turn a row into json without running anybody''s code.

row_given  the row
relation   its table

Returns: an object. Errors: JQ002. Roles: internal.';
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

Errors: 22023, naming table, trigger and argument; JQ002 if the table is newer than the snapshot.
Roles: as tg_add_job_with_row_id().';
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
