"""SCHEMA=name: rendered files, a registry of their own, installations that do not meet."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg
import pytest
from roads import (
    CHANGES,
    PLAN,
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

from app_jobs import Client, _render, migrate
from app_jobs.errors import BadArgument

pytestmark = pytest.mark.once

# Names that are also those of a table, a function, a column or a role's last part, or are long.
NAMES = ["other", "jobs", "add_job", "x" * 40]


def test_default_files_stay_as_they_are() -> None:
    for change in PLAN.changes:
        assert PLAN.script("deploy", change).encode() == (
            (ROOT / "deploy" / f"{change.script}.sql").read_bytes()
        )


def test_nothing_is_left_of_the_default_name(tmp_path: Path) -> None:
    _render.render_checkout("other", ROOT, tmp_path)
    rendered = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(rendered) == 2 + 3 * len(CHANGES)
    assert [path for path in rendered if "app_jobs" in path.read_text("utf-8")] == []
    before = {path: path.stat().st_ino for path in rendered}
    (tmp_path / "deploy" / "stale.sql").touch()
    _render.render_checkout("other", ROOT, tmp_path)
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", NAMES)
def test_every_name_works_like_the_default(name: str, empty_database: str) -> None:
    """Deployed, verified, used and reverted; the dump is the default one's, renamed."""
    migrator_deploy(empty_database)
    expected = product(empty_database)
    migrator_revert(empty_database)
    before = product(empty_database)
    migrator_deploy(empty_database, schema=name)
    if name == "other":  # in the others the dump's order, that of names, is another one
        assert product(empty_database) == expected.replace("app_jobs", name)
    with Client(empty_database, schema=name) as client:
        job = client.add_job(identifier="work", queue_name="line")
        claimed = client.get_job("me")
        assert claimed is not None
        assert claimed.id == job.id
        client.tick()
        assert client.complete_job("me", job.id, claimed.lease) is not None
    assert migrate.verify(empty_database, schema=name) == []
    migrator_revert(empty_database, schema=name)
    assert product(empty_database) == before


def test_pgtap_passes_on_a_rendered_installation(server: str, tmp_path: Path) -> None:
    """All of the contract's tests, rendered like the schema that they look at."""
    name = "other_jobs"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("create database app_jobs_other")
    dsn = f"{server.replace('/postgres?', '/app_jobs_other?')}"
    try:
        migrator_deploy(dsn, schema=name)
        with psycopg.connect(dsn) as connection:
            connection.execute("create extension pgtap")
            if os.environ["APP_JOBS_TEST_VERSION"] == "15":
                connection.execute("create extension plpgsql_check")
        for path in (ROOT / "tests" / "pgtap").rglob("*.sql"):
            copy = tmp_path / path.relative_to(ROOT / "tests" / "pgtap")
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(_render.render(path.read_text("utf-8"), name), "utf-8")
        done = subprocess.run(
            ["pg_prove", "--jobs", "2", *sorted(map(str, tmp_path.glob("*.sql")))],
            check=False,
            env=libpq(dsn),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("drop database app_jobs_other with (force)")


@pytest.mark.parametrize(
    ("first", "second"), [(sqitch_deploy, migrator_deploy), (migrator_deploy, sqitch_deploy)]
)
def test_both_tools_keep_one_registry(first: Step, second: Step, empty_database: str) -> None:
    migrator_deploy(empty_database, to=CHANGES[1])
    registry = registry_rows(empty_database)
    first(empty_database, to=CHANGES[2], schema="other")
    second(empty_database, to=CHANGES[5], schema="other")
    status = migrate.status(empty_database, schema="other")
    assert status == migrate.Status(CHANGES[:6], CHANGES[6:], [])
    assert "Verify successful" in sqitch("verify", empty_database, schema="other")
    sqitch("check", empty_database, schema="other")
    assert registry_rows(empty_database) == registry
    sqitch_revert(empty_database, to=CHANGES[2], schema="other")
    migrator_revert(empty_database, schema="other")
    assert migrate.status(empty_database, schema="other").deployed == []
    assert migrate.verify(empty_database) == []


def test_installations_in_one_database_do_not_meet(empty_database: str) -> None:
    names = ["app_jobs", "other"]
    for name in names:
        migrator_deploy(empty_database, schema=name)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        keys = {
            connection.execute(f"select {name}.lock_key('slot', '1')").fetchone() for name in names
        }
        assert len(keys) == 2
        for name in names:
            connection.execute(f"listen {name}")
        with Client(empty_database, schema="other") as client:
            client.set_worker_idle("me", True)
            client.add_job(identifier="work")
            channels = [notice.channel for notice in connection.notifies(timeout=5, stop_after=1)]
            assert channels == ["other"]
            connection.execute("set other.notify = off")
            client.add_job(identifier="work", connection=connection)
            assert list(connection.notifies(timeout=0)) == []
        assert connection.execute("select count(*) from app_jobs.jobs").fetchone() == (0,)
        with pytest.raises(migrate.MigrationError, match="2 unfinished jobs would be lost"):
            migrator_revert(empty_database, schema="other")
        migrator_revert(empty_database)
        connection.execute("select other.add_job(identifier => 'work')")


@pytest.mark.parametrize(
    "name", ["Other", "1st", "pg_jobs", "a-b", "", "x" * 41, "order", "tabl\u00e9"]
)
def test_names_that_cannot_be(name: str, empty_database: str) -> None:
    for command in (migrate.migrate, migrate.verify, migrate.revert, migrate.status):
        with pytest.raises(BadArgument):
            command(empty_database, schema=name)
