"""A verify script that passes on a broken change proves nothing: so break each one and look."""

from __future__ import annotations

import psycopg

from app_jobs import migrate
from app_jobs._plan import Change, Plan

# One way to break each object, as a statement. Parts that cannot be dropped alone (the index of a
# constraint, the sequence of an identity column) are left to what they are part of.
BREAKAGES = """
with ours as (select to_regnamespace('app_jobs') as oid),
our_role as (select oid, rolname from pg_roles where rolname like 'app\\_jobs\\_%'),
grants (object, acl) as (
    select format('schema %I', nspname), nspacl from pg_namespace, ours
    where pg_namespace.oid = ours.oid
    union all
    select format('%s %s', case relkind when 'S' then 'sequence' else 'table' end,
        pg_class.oid::regclass), relacl
    from pg_class, ours where relnamespace = ours.oid
    union all
    select format('routine %s', pg_proc.oid::regprocedure), proacl
    from pg_proc, ours where pronamespace = ours.oid
)
select format('drop schema %s cascade', ours.oid::regnamespace) from ours
where ours.oid is not null
union all
select format('alter role %I rename to renamed', rolname) from our_role
union all
select format('drop %s %s cascade', case relkind
        when 'r' then 'table' when 'p' then 'table' when 'v' then 'view'
        when 'm' then 'materialized view' when 'S' then 'sequence' else 'index' end,
    pg_class.oid::regclass)
from pg_class, ours
where relnamespace = ours.oid and relkind in ('r', 'p', 'v', 'm', 'S', 'i')
    and not exists (
        select 1 from pg_depend
        where classid = 'pg_class'::regclass and objid = pg_class.oid and deptype in ('i', 'I')
    )
union all
select format('drop routine %s cascade', pg_proc.oid::regprocedure) from pg_proc, ours
where pronamespace = ours.oid
union all
select format('alter routine %s reset all', pg_proc.oid::regprocedure) from pg_proc, ours
where pronamespace = ours.oid and prosecdef
union all
select format('alter routine %s security invoker', pg_proc.oid::regprocedure) from pg_proc, ours
where pronamespace = ours.oid and prosecdef
union all
select format('drop trigger %I on %s', tgname, tgrelid::regclass)
from pg_trigger join pg_class on pg_class.oid = tgrelid join ours on relnamespace = ours.oid
where not tgisinternal
union all
select format('alter table %s drop constraint %I cascade', conrelid::regclass, conname)
from pg_constraint, ours where connamespace = ours.oid and contype in ('p', 'u', 'c', 'f', 'x')
    and conrelid <> 0
union all
select distinct format('revoke all on %s from %I', grants.object, our_role.rolname)
from grants cross join aclexplode(grants.acl) as item join our_role on our_role.oid = item.grantee
"""


def breakages(connection: psycopg.Connection[tuple[str]]) -> set[str]:
    return {statement for (statement,) in connection.execute(BREAKAGES)}


def survives(
    connection: psycopg.Connection[tuple[str]], plan: Plan, change: Change, statement: str
) -> bool:
    """Whether the change's verify script still passes after the statement."""
    with connection.transaction(force_rollback=True):
        connection.execute(statement.encode())
        try:
            migrate._run_verify(connection, plan, change)
        except migrate.MigrationError:
            return False
    return True


def test_every_verify_fails_when_its_change_is_broken(empty_database: str) -> None:
    plan = Plan.load()
    survivors = []
    with psycopg.connect(empty_database, autocommit=True) as connection:
        for change in plan.changes:
            before = breakages(connection)
            migrate.migrate(empty_database, to=change.name, log=lambda _: None)
            made = sorted(breakages(connection) - before)
            assert made, f"no way is known to break {change.name}"
            survivors += [
                f"{change.name}: {statement}"
                for statement in made
                if survives(connection, plan, change, statement)
            ]
    assert survivors == [], "verify passed after:\n" + "\n".join(survivors)
