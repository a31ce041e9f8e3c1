"""Each user tries everything that is in the schema: what the grants allow works, nothing else.

Which grants there are is written down in tests/pgtap/catalog.sql, object by object.
"""

from __future__ import annotations

from typing import Any

import psycopg
from users import USERS, Login

# A statement for each privilege on a table; {name} and {column} are quoted. What it does is undone.
ON_TABLES = {
    "select": "select {column} from {name} limit 1",
    "insert": "insert into {name} default values",
    "update": "update {name} set {column} = {column} where false",
    "delete": "delete from {name} where false",
    "truncate": "truncate {name}",
    "trigger": "create trigger mine before truncate on {name} for each statement"
    " execute function pg_catalog.suppress_redundant_updates_trigger()",
}
ON_SEQUENCES = {
    "usage": "select nextval('{name}')",
    "select": "select last_value from {name}",
    "update": "select setval('{name}', 1)",
}
# Nobody but the owner may, whatever is granted.
FOR_OWNERS = {
    "r": ["drop table {name}", "alter table {name} disable trigger all", "lock table {name}"],
    "v": ["drop view {name}", "create or replace view {name} as select 1"],
    "S": ["drop sequence {name}", "alter sequence {name} restart"],
    "f": ["alter function {name} security invoker"],
}
OBJECTS = """
    select
        c.oid::regclass::text, c.relkind::text,
        (
            select quote_ident(a.attname) from pg_attribute as a
            where a.attrelid = c.oid and a.attnum > 0 and a.attidentity = '' limit 1
        )
    from pg_class as c
    where c.relnamespace = 'app_jobs'::regnamespace and c.relkind in ('r', 'v', 'S')
"""
FUNCTIONS = """
    select
        p.oid::regprocedure::text, p.prorettype = 'trigger'::regtype,
        format('select %s(%s)', p.oid::regproc, (
            select string_agg(format('null::%s', t.type::regtype), ', ' order by t.n)
            from unnest(p.proargtypes::oid[]) with ordinality as t(type, n)
        ))
    from pg_proc as p
    where p.pronamespace = 'app_jobs'::regnamespace
"""


def is_refused(connection: psycopg.Connection[Any], statement: str) -> bool:
    """Whether a right is missing; what else is wrong with the statement does not matter."""
    with connection.transaction(force_rollback=True):
        try:
            connection.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege:
            return True
        except psycopg.Error:
            return False
    return False


def has(admin: psycopg.Connection[Any], kind: str, user: str, name: str, privilege: str) -> bool:
    row = admin.execute(
        f"select has_schema_privilege(%(user)s, 'app_jobs', 'usage')"
        f" and has_{kind}_privilege(%(user)s, %(name)s, %(privilege)s)",
        {"user": f"hostile_{user}", "name": name, "privilege": privilege},
    ).fetchone()
    assert row is not None
    return bool(row[0])


def test_tables_views_and_sequences(admin: psycopg.Connection[Any], login: Login) -> None:
    wrong = []
    objects = admin.execute(OBJECTS).fetchall()
    assert {kind for _, kind, _ in objects} == {"r", "v", "S"}
    for user in USERS:
        connection = login(user)
        for name, kind, column in objects:
            for privilege, form in (ON_SEQUENCES if kind == "S" else ON_TABLES).items():
                if kind == "v" and privilege != "select":
                    continue  # these views cannot be written
                statement = form.format(name=name, column=column)
                may = has(admin, "sequence" if kind == "S" else "table", user, name, privilege)
                if is_refused(connection, statement) == may:
                    wrong.append((user, statement))
            for form in FOR_OWNERS[kind]:
                statement = form.format(name=name)
                # who may write a table may lock it, too
                may = "lock" in form and has(admin, "table", user, name, "update")
                if is_refused(connection, statement) == may:
                    wrong.append((user, statement))
    assert wrong == []


def test_functions(admin: psycopg.Connection[Any], login: Login) -> None:
    """What is granted must not lack a right inside either: the owner is no superuser."""
    wrong = []
    functions = admin.execute(FUNCTIONS).fetchall()
    assert len(functions) > 100
    for user in USERS:
        connection = login(user)
        connection.execute("create temporary table mine (id integer)")
        for name, is_trigger, select in functions:
            create = f"create trigger t after insert on mine execute function {name}"
            call = create if is_trigger else select
            if is_refused(connection, call) == has(admin, "function", user, name, "execute"):
                wrong.append((user, call))
            for form in FOR_OWNERS["f"]:
                if not is_refused(connection, form.format(name=name)):
                    wrong.append((user, form.format(name=name)))
    assert wrong == []


def test_the_schema_and_other_roles(login: Login) -> None:
    allowed = [
        (user, statement)
        for user, connection in [(user, login(user)) for user in USERS]
        for statement in (
            "create table app_jobs.mine (id integer)",
            "create function app_jobs.mine() returns integer language sql as 'select 1'",
            "create view app_jobs.mine as select 1",
            "alter schema app_jobs rename to mine",
            "grant app_jobs_operator to hostile_nobody",
            "alter default privileges for role hostile_owner grant all on tables to public",
            "set role hostile_owner",
            "set session authorization hostile_owner",
            "reassign owned by hostile_owner to current_user",
            "comment on schema app_jobs is 'mine'",
        )
        if not is_refused(connection, statement)
    ]
    assert allowed == []
