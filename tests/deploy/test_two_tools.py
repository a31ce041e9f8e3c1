"""Sqitch and the migrator: one plan and one registry, so that either goes on from the other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from roads import (
    BIN_DIR,
    CHANGES,
    HALF,
    ROOT,
    Step,
    libpq,
    migrator_deploy,
    migrator_revert,
    product,
    registry_rows,
    sqitch,
    sqitch_deploy,
    sqitch_revert,
)

from app_jobs import migrate
from app_jobs.embedded import throw_away
from app_jobs.errors import ForeignSchema

pytestmark = pytest.mark.once


def test_each_change_reverts_to_what_was_before_it(empty_database: str) -> None:
    states = []
    for name in CHANGES:
        states.append(product(empty_database))
        migrator_deploy(empty_database, to=name)
    for index in range(len(CHANGES) - 1, 0, -1):
        migrator_revert(empty_database, to=CHANGES[index - 1])
        assert product(empty_database) == states[index], f"revert of {CHANGES[index]}"


@pytest.mark.parametrize(
    ("first", "second"), [(sqitch_deploy, migrator_deploy), (migrator_deploy, sqitch_deploy)]
)
def test_each_goes_on_where_the_other_stopped(
    first: Step, second: Step, empty_database: str
) -> None:
    first(empty_database, to=HALF)
    assert migrate.status(empty_database).deployed == CHANGES[: CHANGES.index(HALF) + 1]
    second(empty_database)
    assert migrate.status(empty_database) == migrate.Status(CHANGES, [], [])
    assert "Verify successful" in sqitch("verify", empty_database)
    assert "Nothing to deploy (up-to-date)" in sqitch("status", empty_database)
    sqitch("check", empty_database)


@pytest.mark.parametrize(
    ("deploy", "first", "second"),
    [
        (sqitch_deploy, migrator_revert, sqitch_revert),
        (migrator_deploy, sqitch_revert, migrator_revert),
    ],
)
def test_each_reverts_what_the_other_deployed(
    deploy: Step, first: Step, second: Step, empty_database: str
) -> None:
    before = product(empty_database)
    deploy(empty_database)
    first(empty_database, to=HALF)
    second(empty_database)
    assert product(empty_database) == before
    assert registry_rows(empty_database)[2] == []


def test_sqitch_waits_for_the_migrator(
    empty_database: str, wait_until_blocked: Callable[[str, int], None]
) -> None:
    """tests/python/test_migrate.py shows that the migrator waits under the same lock."""
    with (
        psycopg.connect(empty_database, autocommit=True) as connection,
        ThreadPoolExecutor() as pool,
    ):
        migrate._lock(connection, print)
        waiting = pool.submit(sqitch_deploy, empty_database, to=CHANGES[1])
        pid = None
        while pid is None and not waiting.done():
            pid = connection.execute(
                "select pid from pg_locks where locktype = 'advisory' and not granted"
                " and database = (select oid from pg_database where datname = current_database())"
            ).fetchone()
        assert pid is not None, "it did not wait"
        wait_until_blocked(empty_database, pid[0])
        assert migrate.status(empty_database).deployed == []
        connection.close()
        waiting.result()
    assert migrate.status(empty_database).deployed == CHANGES[:2]


@pytest.mark.parametrize("schema", ["app_jobs", "other"])
def test_make_deploy_does_with_either_tool(schema: str, empty_database: str) -> None:
    """Sqitch takes no keywords for a database, so those are left to the migrator."""

    def make(target: str, **variables: str) -> str:
        return subprocess.run(
            ["make", "--no-print-directory", target, f"SCHEMA={schema}"],
            check=True,
            cwd=ROOT,
            env={**libpq(empty_database), **variables},
            capture_output=True,
            text=True,
        ).stdout

    keywords = {"DATABASE_URL": empty_database}
    said = make("deploy", **keywords)
    assert said.startswith("Through the migrator of app-jobs\n")
    assert "nothing to deploy" in make("deploy", **keywords)
    said = make("deploy")
    assert said.startswith("Through sqitch")
    assert "Nothing to deploy" in said
    assert "up-to-date" in make("status")
    assert migrate.status(empty_database, schema=schema).up_to_date
    make("revert", **keywords)
    assert migrate.status(empty_database, schema=schema).deployed == []


def test_both_notice_a_changed_script(empty_database: str) -> None:
    migrator_deploy(empty_database)
    with psycopg.connect(empty_database) as connection:
        connection.execute(
            "update sqitch.changes set script_hash = 'other' where change = %s", [HALF]
        )
    assert migrate.status(empty_database).drifted == [HALF]
    with pytest.raises(AssertionError, match="Script signatures diverge"):
        sqitch("check", empty_database)


def test_both_refuse_a_foreign_schema(empty_database: str) -> None:
    with psycopg.connect(empty_database) as connection:
        connection.execute("create schema app_jobs")
    refusal = 'schema "app_jobs" exists and was not made by this deployment'
    with pytest.raises(ForeignSchema, match=refusal) as error:
        migrator_deploy(empty_database)
    assert error.value.sqlstate == "JQ091"
    assert error.value.hint
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("select to_regnamespace('sqitch')").fetchone() == (None,)
    with pytest.raises(AssertionError, match=refusal):
        sqitch_deploy(empty_database)


def test_neither_loses_a_schedule(empty_database: str) -> None:
    migrator_deploy(empty_database)
    before = product(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(
            "insert into app_jobs.scheduled_jobs (task_identifier, schedule_info)"
            """ values ('t', '{"every": "1 day"}')"""
        )
        with pytest.raises(migrate.MigrationError, match="1 schedules would be lost"):
            migrator_revert(empty_database)
        with pytest.raises(AssertionError, match="1 schedules would be lost"):
            sqitch_revert(empty_database)
        assert product(empty_database) == before
        connection.execute("delete from app_jobs.scheduled_jobs")
        migrator_revert(empty_database, "cancel_job")
        connection.execute("select app_jobs.add_job(identifier => 't')")


def test_roles_stay_as_long_as_another_database_uses_them() -> None:
    def roles(dsn: str) -> list[str]:
        with psycopg.connect(dsn) as connection:
            rows = connection.execute(
                "select rolname from pg_roles where rolname like 'app\\_jobs\\_%' order by rolname"
            )
            return [name for (name,) in rows]

    with throw_away(bin_dir=BIN_DIR) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create database other")
        other = make_conninfo(dsn, dbname="other")
        migrator_deploy(dsn)
        migrator_deploy(other)
        both = roles(dsn)
        assert both == [
            f"app_jobs_{name}" for name in ("monitor", "operator", "producer", "worker")
        ]
        migrator_revert(dsn)
        assert roles(dsn) == both
        assert migrate.verify(other) == []
        migrator_revert(other)
        assert roles(dsn) == []


def test_the_wheel_carries_the_sql_files(tmp_path: Path, empty_database: str) -> None:
    """Built by way of the sdist, installed outside the checkout, run there."""

    def python(*arguments: str | Path) -> None:
        subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.DEVNULL)

    python("build", "--no-isolation", "--outdir", tmp_path, ROOT / "python-client")
    (wheel,) = tmp_path.glob("app_jobs-*.whl")
    site = tmp_path / "site"
    python("pip", "install", "--quiet", "--no-deps", "--target", site, wheel)
    env = {**os.environ, "PYTHONPATH": str(site)}
    script = "import app_jobs.migrate as m; print(m.__file__); m.main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "migrate", "--dsn", empty_database],
        check=True,
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(str(site))
    assert migrate.status(empty_database) == migrate.Status(CHANGES, [], [])
