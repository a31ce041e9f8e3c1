"""The roads into a database, as functions, and what a test compares at their ends."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from app_jobs import _render, migrate
from app_jobs._plan import Plan

ROOT = Path(__file__).resolve().parent.parent.parent
BIN_DIR = Path(os.environ.get("APP_JOBS_TEST_BIN", ""))
PLAN = Plan.load(ROOT)
CHANGES = [change.name for change in PLAN.changes]
HALF = CHANGES[len(CHANGES) // 2]

Road = Callable[..., object]


def libpq(dsn: str, **more: str) -> dict[str, str]:
    """An environment in which libpq's programs connect to dsn, as a DBA would set it."""
    parts = conninfo_to_dict(dsn)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return env | {
        "PGHOST": str(parts["host"]),
        "PGUSER": str(parts["user"]),
        "PGDATABASE": str(parts["dbname"]),
        "PGOPTIONS": str(parts.get("options", "")),
        "SQITCH_FULLNAME": "A DBA",
        "SQITCH_EMAIL": "dba@localhost",
        **more,
    }


def run(command: list[str | Path], dsn: str, *, cwd: Path = ROOT, fails: bool = False) -> str:
    """Run a program against dsn; return what it printed, both streams if it is to fail."""
    done = subprocess.run(
        command, check=False, cwd=cwd, env=libpq(dsn), capture_output=True, text=True
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr if fails else done.stdout


def sqitch(command: str, dsn: str, *options: str, schema: str = "app_jobs") -> str:
    """Run Sqitch as a DBA would; return what it printed."""
    if schema == "app_jobs":
        return run(["sqitch", command, *options, "db:pg:"], dsn)
    with tempfile.TemporaryDirectory() as folder:
        _render.render_checkout(schema, ROOT, Path(folder))
        return run(["sqitch", command, *options, "db:pg:"], dsn, cwd=Path(folder))


def sqitch_deploy(dsn: str, to: str | None = None, schema: str = "app_jobs") -> None:
    sqitch("deploy", dsn, *(["--to-change", to] if to else []), schema=schema)


def sqitch_revert(dsn: str, to: str | None = None, schema: str = "app_jobs") -> None:
    sqitch("revert", dsn, "-y", *(["--to-change", to] if to else []), schema=schema)


def migrator_deploy(dsn: str, to: str | None = None, schema: str = "app_jobs") -> None:
    migrate.migrate(dsn, to=to, schema=schema, log=lambda _: None)


def migrator_revert(dsn: str, to: str | None = None, schema: str = "app_jobs") -> None:
    migrate.revert(dsn, to=to, schema=schema, log=lambda _: None)


def dump(dsn: str, *options: str) -> str:
    """The schema as pg_dump prints it, without what differs from run to run."""
    text = run([BIN_DIR / "pg_dump", "--schema-only", *options], dsn)
    return re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.MULTILINE)


def product(dsn: str) -> str:
    """The schema without Sqitch's registry."""
    return dump(dsn, "--exclude-schema=*sqitch")


def registry_rows(dsn: str, registry: str = "sqitch") -> list[list[tuple[object, ...]]]:
    """What the registry says, apart from who wrote it and when."""
    with psycopg.connect(dsn) as connection:
        connection.execute(f"set search_path = {registry}")
        return [
            connection.execute(query).fetchall()
            for query in (
                "select version from releases",
                "select project, uri from projects",
                "select change_id, script_hash, change, project, note, planned_at, planner_name,"
                " planner_email from changes order by committed_at",
                "select * from dependencies order by change_id, dependency",
                "select tag_id, tag, project, change_id, note, planned_at, planner_name,"
                " planner_email from tags order by tag_id",
                "select event, change_id, change, project, note, requires, conflicts, tags,"
                " planned_at, planner_name from events order by committed_at",
            )
        ]
