"""Cut off in the middle, a deployment stands before a change or after it, and goes on from there.

A trigger on DDL ends the session at its n-th statement, whoever sent it. What the migrator sends
beside scripts is cut, message by message, in tests/python/test_migrate.py.
"""

from __future__ import annotations

import os
from itertools import count

import psycopg
import pytest
from roads import (
    CHANGES,
    HALF,
    PLAN,
    ROADS,
    Road,
    migrator_deploy,
    migrator_revert,
    psql,
    sqitch,
    sqitch_deploy,
)

from app_jobs import migrate

# Every statement takes half a minute and more, so `make test` takes some of them.
STEP = 1 if os.environ.get("APP_JOBS_FULL") else 9

CUTTER = """
create sequence public.until_cut minvalue -1000000;
create function public.cut() returns event_trigger language plpgsql as $$
begin
    if nextval('public.until_cut') = 0 then
        perform pg_terminate_backend(pg_backend_pid()), pg_sleep(10);
    end if;
end $$;
create event trigger cut on ddl_command_end execute function public.cut();
"""
NEVER = 500_000

STATE = """
select md5(string_agg(part, chr(10) order by part)) from (
    select format('%s %s %s %s', relname, relkind, relacl, obj_description(oid, 'pg_class'))
    from pg_class where relnamespace = to_regnamespace('app_jobs')
    union all
    select concat_ws(' ', proname, prosrc, proconfig, proacl, obj_description(oid, 'pg_proc'))
    from pg_proc where pronamespace = to_regnamespace('app_jobs')
    union all
    select conname || pg_get_constraintdef(oid) from pg_constraint
    where connamespace = to_regnamespace('app_jobs')
    union all
    select format('%s', nspacl) from pg_namespace where nspname = 'app_jobs'
) as parts (part)
"""


@pytest.fixture
def cut_database(own_database: str) -> str:
    """A database in which cut_after() tells when the next session is to end."""
    psql(own_database, CUTTER)
    return own_database


def cut_after(dsn: str, statements: int) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("select setval('public.until_cut', %s)", [-statements])


def state(dsn: str) -> tuple[list[str], str]:
    """What is deployed according to the registry, and what is there."""
    with psycopg.connect(dsn) as connection:
        (found,) = connection.execute(STATE).fetchone() or ("",)
    return migrate.status(dsn).deployed, found


def test_migrate_and_revert_at_every_statement(cut_database: str) -> None:
    states = [state(cut_database)]
    cuts = 0
    for index, name in enumerate(CHANGES):
        for statements in count(1 + index % STEP, STEP):
            cut_after(cut_database, statements)
            try:
                migrator_deploy(cut_database, to=name)
            except psycopg.OperationalError:
                cuts += 1
                assert state(cut_database) == states[-1], f"{name}, statement {statements}"
            else:
                break
        states.append(state(cut_database))
        assert states[-1][0] == CHANGES[: index + 1]
    assert cuts > 2 * len(CHANGES) / STEP
    for index in reversed(range(len(CHANGES))):
        for statements in count(1 + index % STEP, STEP):
            cut_after(cut_database, statements)
            try:
                migrator_revert(cut_database, **({"to": CHANGES[index - 1]} if index else {}))
            except psycopg.OperationalError:
                assert state(cut_database) == states[index + 1]
            else:
                break
        assert state(cut_database) == states[index]


@pytest.mark.parametrize(
    "road", [road for road in ROADS if road.name in ("psql", "extension")], ids=lambda r: r.name
)
def test_file_and_extension_are_all_or_nothing(road: Road, cut_database: str) -> None:
    before = state(cut_database)
    cuts = 0
    for statements in count(1, 7 * STEP):
        cut_after(cut_database, statements)
        try:
            road.install(cut_database)
        except AssertionError:
            cuts += 1
            assert state(cut_database) == before
        else:
            break
    assert cuts > 3
    assert migrate.status(cut_database).up_to_date
    assert migrate.verify(cut_database) == []


def test_sqitch_goes_on_after_a_cut(cut_database: str) -> None:
    """Inside a script, that is: between a script and its row in the registry it cannot."""
    for statements in (60, 140):  # Sqitch makes its registry first
        cut_after(cut_database, statements)
        with pytest.raises(AssertionError):
            sqitch_deploy(cut_database, to=HALF)
        deployed, _ = state(cut_database)
        assert deployed == CHANGES[: len(deployed)]
        if deployed:
            assert migrate.verify(cut_database) == []
    assert deployed
    cut_after(cut_database, NEVER)
    sqitch_deploy(cut_database, to=HALF)
    assert migrate.status(cut_database).deployed[-1] == HALF
    sqitch("check", cut_database)


def test_every_change_gives_up_rather_than_make_others_wait() -> None:
    for change in PLAN.changes:
        for kind in ("deploy", "revert"):
            assert "\nset local lock_timeout = '5s';\n" in PLAN.script(kind, change), change.name
