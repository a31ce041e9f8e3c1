"""The migrator by itself, on a small plan; tests/deploy has it side by side with Sqitch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app_jobs import _plan, migrate
from app_jobs.errors import SchemaTooNew

PLANNED = "2026-01-01T00:00:00Z app_jobs contributors <app_jobs@localhost>"
PLAN = f"""%syntax-version=1.0.0
%project=app_jobs

schema {PLANNED} # the schema
one [schema] {PLANNED} # a table
two [one] {PLANNED} # another table
"""
SCRIPTS = {
    "schema": ("create schema app_jobs;", "drop schema app_jobs;"),
    "one": ("create table app_jobs.one ();", "drop table app_jobs.one;"),
    "two": ("create table app_jobs.two ();", "drop table app_jobs.two;"),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a plan with three changes, which the migrator takes for its own."""
    (tmp_path / "sqitch.plan").write_text(PLAN)
    for name, (deploy, revert) in SCRIPTS.items():
        write(tmp_path, "deploy", name, deploy)
        write(tmp_path, "revert", name, revert)
        write(tmp_path, "verify", name, "select 1;", end="rollback;")
    monkeypatch.setattr(_plan, "schema_folder", lambda: tmp_path)
    return tmp_path


def write(project: Path, kind: str, name: str, sql: str, end: str = "commit;") -> None:
    script = project / kind / f"{name}.sql"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"begin;\n\n{sql}\n\n{end}\n")


def tables(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select relname from pg_class where relnamespace = to_regnamespace('app_jobs')"
            " order by relname"
        )
        return [name for (name,) in rows]


def quiet(_: str) -> None:
    """Instead of print."""


def test_deploys_reverts_and_tells_where_it_stands(project: Path, empty_database: str) -> None:
    lines: list[str] = []
    assert migrate.status(empty_database).pending == ["schema", "one", "two"]
    assert migrate.migrate(empty_database, to="one", log=lines.append) == ["schema", "one"]
    assert lines == ["  + schema", "  + one"]
    assert migrate.status(empty_database) == migrate.Status(["schema", "one"], ["two"], [])
    assert migrate.migrate(empty_database, log=quiet) == ["two"]
    assert migrate.migrate(empty_database, log=quiet) == []
    assert migrate.verify(empty_database) == []
    assert tables(empty_database) == ["one", "two"]
    assert migrate.revert(empty_database, to="schema", log=quiet) == ["two", "one"]
    assert migrate.revert(empty_database, log=quiet) == ["schema"]
    assert migrate.migrate(empty_database, log=quiet) == ["schema", "one", "two"]


def test_a_failing_change_leaves_the_one_before_it(project: Path, empty_database: str) -> None:
    write(project, "deploy", "two", "create table app_jobs.two ();\ncreate table nowhere.x ();")
    with pytest.raises(migrate.MigrationError) as failure:
        migrate.migrate(empty_database, log=quiet)
    assert failure.value.message.startswith("deploy/two.sql:4: ")
    assert failure.value.sqlstate == "3F000"
    assert tables(empty_database) == ["one"]
    assert migrate.status(empty_database).pending == ["two"]
    write(project, "deploy", "two", *SCRIPTS["two"][:1])
    assert migrate.migrate(empty_database, log=quiet) == ["two"]


def test_a_change_whose_verify_fails_is_not_committed(project: Path, empty_database: str) -> None:
    write(project, "verify", "two", "select 1 / 0;", end="rollback;")
    with pytest.raises(migrate.MigrationError, match=r"verify/two\.sql: division by zero"):
        migrate.migrate(empty_database, log=quiet)
    assert tables(empty_database) == ["one"]
    assert migrate.migrate(empty_database, verify=False, log=quiet) == ["two"]
    assert migrate.verify(empty_database) == ["two: verify/two.sql: division by zero"]


def test_verify_writes_nothing(project: Path, empty_database: str) -> None:
    migrate.migrate(empty_database, log=quiet)
    write(project, "verify", "two", "create table app_jobs.debris ();", end="rollback;")
    assert migrate.verify(empty_database) == []
    assert tables(empty_database) == ["one", "two"]


def test_a_reworked_change_is_verified_as_it_is_now(project: Path, empty_database: str) -> None:
    (project / "sqitch.plan").write_text(
        f"{PLAN}@v1 {PLANNED} # a release\none [one@v1] {PLANNED} # the table, otherwise\n"
    )
    for kind in ("deploy", "revert", "verify"):
        script = project / kind / "one.sql"
        script.rename(script.with_stem("one@v1"))
    write(project, "verify", "one@v1", "select from app_jobs.one;", end="rollback;")
    write(project, "deploy", "one", "drop table app_jobs.one; create table app_jobs.first ();")
    write(project, "verify", "one", "select from app_jobs.first;", end="rollback;")
    assert migrate.migrate(empty_database, log=quiet) == ["schema", "one", "two", "one"]
    assert migrate.verify(empty_database) == []


def test_a_changed_script_is_noticed(project: Path, empty_database: str) -> None:
    migrate.migrate(empty_database, to="one", log=quiet)
    write(project, "deploy", "one", "create table app_jobs.one (x integer);")
    assert migrate.status(empty_database).drifted == ["one"]
    assert "one: its deploy script has changed" in migrate.verify(empty_database)[0]
    with pytest.raises(migrate.MigrationError, match='deploy script of "one" has changed') as drift:
        migrate.migrate(empty_database, log=quiet)
    assert drift.value.hint
    assert tables(empty_database) == ["one"]
    # The way out that the hint names.
    migrate.revert(empty_database, to="schema", log=quiet)
    assert migrate.migrate(empty_database, log=quiet) == ["one", "two"]


def test_a_schema_newer_than_the_plan_is_left_alone(project: Path, empty_database: str) -> None:
    migrate.migrate(empty_database, log=quiet)
    (project / "sqitch.plan").write_text(PLAN.rsplit("two", 1)[0])
    for command in (migrate.migrate, migrate.verify, migrate.revert, migrate.status):
        with pytest.raises(SchemaTooNew, match='change "two", which this version does not know'):
            command(empty_database)
    assert tables(empty_database) == ["one", "two"]


def test_a_rewritten_plan_is_refused(project: Path, empty_database: str) -> None:
    migrate.migrate(empty_database, log=quiet)
    (project / "sqitch.plan").write_text(PLAN.replace("a table", "one table"))
    with pytest.raises(migrate.MigrationError, match='"one" is not the one in the plan'):
        migrate.migrate(empty_database, log=quiet)


def test_a_second_deployer_waits(
    project: Path, empty_database: str, wait_until_blocked: Callable[[str, int], None]
) -> None:
    lines: list[str] = []
    with psycopg.connect(empty_database, autocommit=True) as first:
        first.execute("select pg_advisory_lock(75474063)")
        second = threading.Thread(
            target=migrate.migrate, args=[empty_database], kwargs={"log": lines.append}
        )
        second.start()
        pid = None
        while pid is None and second.is_alive():
            pid = first.execute(
                "select pid from pg_locks where locktype = 'advisory' and not granted"
                " and database = (select oid from pg_database where datname = current_database())"
            ).fetchone()
        assert pid is not None, "it did not wait"
        wait_until_blocked(empty_database, pid[0])
        assert tables(empty_database) == []
    second.join()
    assert lines[0].startswith("another deployment is at work")
    assert tables(empty_database) == ["one", "two"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_cut_off_at_any_message_it_stands_between_two_changes(
    when: str, project: Path, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message in turn is the last one to arrive, or the first one that does not."""
    steps = {
        "schema": ("create table app_jobs.schema ();", "drop table app_jobs.schema;"),
        **{name: SCRIPTS[name] for name in ("one", "two")},
    }
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("create schema app_jobs")
    for name, (deploy, revert) in steps.items():
        write(project, "deploy", name, deploy)
        write(project, "revert", name, revert)
    wait = psycopg.Connection.wait
    left = 0

    def wait_and_cut(connection: psycopg.Connection[Any], *arguments: Any, **more: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            if when == "after":
                wait(connection, *arguments, **more)
            connection.pgconn.finish()
            raise psycopg.OperationalError("cut off")
        return wait(connection, *arguments, **more)

    def cut_at_each_message(command: Callable[..., object], cuts: int = 0) -> int:
        nonlocal left
        names = list(steps)
        while True:
            left = cuts + 1
            with monkeypatch.context() as patch:
                patch.setattr(psycopg.Connection, "wait", wait_and_cut)
                try:
                    command(empty_database, log=quiet)
                except psycopg.OperationalError:
                    cuts += 1
                else:
                    return cuts
            deployed = migrate.status(empty_database).deployed
            assert tables(empty_database) == sorted(deployed)
            assert deployed == names[: len(deployed)]

    left = 0
    assert cut_at_each_message(migrate.migrate) > 20
    assert tables(empty_database) == ["one", "schema", "two"]
    assert cut_at_each_message(migrate.revert) > 10
    assert tables(empty_database) == []


def test_a_tag_may_be_younger_than_its_change(project: Path, empty_database: str) -> None:
    migrate.migrate(empty_database, log=quiet)
    (project / "sqitch.plan").write_text(f"{PLAN}@v1 {PLANNED} # first release\n")
    assert migrate.migrate(empty_database, log=quiet) == []
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("select tag, note from sqitch.tags").fetchall() == [
            ("@v1", "first release")
        ]
    assert migrate.revert(empty_database, to="@v1", log=quiet) == []


def test_notices_of_scripts_are_shown(project: Path, empty_database: str) -> None:
    write(project, "deploy", "one", "do $$ begin raise notice 'look here'; end $$;")
    write(project, "revert", "one", "select 1;")
    lines: list[str] = []
    migrate.migrate(empty_database, to="one", log=lines.append)
    assert "    NOTICE: look here" in lines


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (f"{PLAN}three\n", "line 7: cannot read 'three'"),
        (f"{PLAN}three [four] {PLANNED}\n", '"three" depends on four'),
        (f"{PLAN}three [!one] {PLANNED}\n", '"three" depends on !one'),
    ],
)
def test_a_plan_that_is_not_understood(project: Path, plan: str, message: str) -> None:
    (project / "sqitch.plan").write_text(plan)
    with pytest.raises(migrate.MigrationError, match=message):
        _plan.Plan.load()


def test_unknown_change_and_undeployed_database(project: Path, empty_database: str) -> None:
    with pytest.raises(migrate.MigrationError, match='no change or tag "nine"') as unknown:
        migrate.migrate(empty_database, to="nine", log=quiet)
    assert "schema, one, two" in str(unknown.value.hint)
    with pytest.raises(migrate.MigrationError, match="not deployed"):
        migrate.verify(empty_database)
    assert migrate.revert(empty_database, log=quiet) == []
