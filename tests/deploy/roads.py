"""The roads into a database, as functions, and what a test compares at their ends."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import build_sql
import psycopg
from psycopg.conninfo import conninfo_to_dict
from release_dump import TENANT

from app_jobs import Client, _render, migrate
from app_jobs._plan import Plan

ROOT = Path(__file__).resolve().parent.parent.parent
BIN_DIR = Path(os.environ.get("APP_JOBS_TEST_BIN", ""))
VERSION = (ROOT / "VERSION").read_text("utf-8").strip()
PLAN = Plan.load(ROOT)
CHANGES = [change.name for change in PLAN.changes]
HALF = CHANGES[len(CHANGES) // 2]

Step = Callable[..., object]


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


def psql(dsn: str, script: str, *, fails: bool = False) -> str:
    """Run a script as psql -f does, up to its first error; return what it printed."""
    if "ON_ERROR_STOP" not in script:
        script = f"\\set ON_ERROR_STOP on\n{script}"
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".sql") as file:
        file.write(script)
        file.flush()
        return run([BIN_DIR / "psql", "-Xqf", file.name], dsn, fails=fails)


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


def migrator_verify(dsn: str, schema: str = "app_jobs") -> None:
    if problems := migrate.verify(dsn, schema=schema):
        raise AssertionError(problems)


# --- every road, in all that it can do -----------------------------------------------------------


@dataclass(frozen=True)
class Road:
    """A road from end to end. An older version is the first half of the plan, called 0.0.1."""

    name: str
    install: Callable[[str], object]
    install_older: Callable[[str], object]
    verify: Callable[[str], object]
    upgrade: Callable[[str], object]
    downgrade: Callable[[str], object]
    uninstall: Callable[[str], object]
    schema: str = "app_jobs"

    @property
    def is_extension(self) -> bool:
        return self.name.startswith("extension")


def file_of(name: str, schema: str = "app_jobs", plan: Plan | None = None) -> str:
    """One of the files for psql, for another name or from another plan."""
    files = build_sql.for_psql(plan or Plan.load(ROOT, schema), VERSION)
    return files[f"{schema}{name}.sql"]


OLDER = replace(PLAN, changes=PLAN.changes[: CHANGES.index(HALF) + 1])
ANOTHER_PLACE = "create schema another_place; create extension app_jobs schema another_place"

ROADS = [
    Road(
        "sqitch",
        install=sqitch_deploy,
        install_older=lambda dsn: sqitch_deploy(dsn, to=HALF),
        verify=lambda dsn: sqitch("verify", dsn),
        upgrade=sqitch_deploy,
        downgrade=lambda dsn: sqitch_revert(dsn, to=HALF),
        uninstall=sqitch_revert,
    ),
    Road(
        "migrator",
        install=migrator_deploy,
        install_older=lambda dsn: migrator_deploy(dsn, to=HALF),
        verify=migrator_verify,
        upgrade=migrator_deploy,
        downgrade=lambda dsn: migrator_revert(dsn, to=HALF),
        uninstall=migrator_revert,
    ),
    Road(
        "psql",
        install=lambda dsn: psql(dsn, file_of("")),
        install_older=lambda dsn: psql(dsn, file_of("", plan=OLDER)),
        verify=lambda dsn: psql(dsn, file_of("_verify")),
        upgrade=migrator_deploy,
        downgrade=lambda dsn: migrator_revert(dsn, to=HALF),
        uninstall=lambda dsn: psql(dsn, file_of("_uninstall")),
    ),
    Road(
        "extension",
        install=lambda dsn: psql(dsn, "create extension app_jobs"),
        install_older=lambda dsn: psql(dsn, "create extension app_jobs version '0.0.1'"),
        verify=migrator_verify,
        upgrade=lambda dsn: psql(dsn, "alter extension app_jobs update"),
        downgrade=lambda dsn: psql(dsn, "alter extension app_jobs update to '0.0.1'"),
        uninstall=lambda dsn: psql(dsn, file_of("_uninstall")),
    ),
    Road(
        "extension-in-another_place",
        install=lambda dsn: psql(dsn, ANOTHER_PLACE),
        install_older=lambda dsn: psql(dsn, f"{ANOTHER_PLACE} version '0.0.1'"),
        verify=lambda dsn: psql(dsn, file_of("_verify", "another_place")),
        upgrade=lambda dsn: psql(dsn, "alter extension app_jobs update"),
        downgrade=lambda dsn: psql(dsn, "alter extension app_jobs update to '0.0.1'"),
        uninstall=lambda dsn: psql(dsn, file_of("_uninstall", "another_place")),
        schema="another_place",
    ),
]


def with_older_release(folder: Path) -> dict[str, str]:
    """sql/ as it will be once there are tags: half of the plan is tagged as 0.0.1."""
    for kind in ("deploy", "revert", "verify"):
        (folder / kind).symlink_to(ROOT / kind)
    lines = []
    for line in (ROOT / "sqitch.plan").read_text("utf-8").splitlines():
        lines.append(line)
        if line.startswith(f"{HALF} "):
            date_and_planner = line[re.search(r"\d{4}-", line).start() : line.index(" #")]
            lines.append(f"@v0.0.1 {date_and_planner} # the first half")
    (folder / "sqitch.plan").write_text("\n".join(lines), "utf-8")
    return build_sql.build(Plan.load(folder), VERSION)


FORGET_GRANTS = """
    -- those on the schema given count as the extension's, so that pg_dump would leave them out
    delete from pg_init_privs as p
    using pg_extension as e
    where
        e.extname = 'app_jobs'
        and p.classoid = 'pg_namespace'::regclass and p.objoid = e.extnamespace;
"""


def catalogue(road: Road, dsn: str) -> str:
    """What a road has made, as any other one would have: detached, under the default name."""
    psql(dsn, FORGET_GRANTS + _render.render(build_sql.DETACH, road.schema))
    return product(dsn).replace(road.schema, "app_jobs")


def dump(dsn: str, *options: str) -> str:
    """The schema as pg_dump prints it, without what differs from run to run."""
    text = run([BIN_DIR / "pg_dump", "--schema-only", *options], dsn)
    return re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.MULTILINE)


def whole_dump(dsn: str) -> str:
    """The database as pg_dump prints it, for a server of the same version.

    Those before 17 are dumped by 18's program, which sets what they do not know.
    """
    return run([BIN_DIR / "pg_dump"], dsn).replace("\nSET transaction_timeout = 0;", "")


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


def contents(dsn: str, schema: str) -> dict[str, list[Any]]:
    """Rows of all tables and positions of all sequences."""
    with psycopg.connect(dsn) as connection:
        connection.execute(f"set search_path = {schema}")
        relations = connection.execute(
            "select relname, relkind from pg_class where relnamespace = %s::regnamespace"
            " and relkind in ('r', 'S') order by relname",
            [schema],
        ).fetchall()
        return {
            name: connection.execute(
                f"select last_value, is_called from {name}"
                if kind == "S"
                else f"select t::text from {name} as t order by 1"
            ).fetchall()
            for name, kind in relations
        }


def works_on(dsn: str, schema: str, before: dict[str, list[Any]]) -> None:
    """Every job that was there can be finished, in order, and new ids are new."""
    with Client(dsn, schema=schema) as client, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"set search_path = {schema}")
        assert client.add_job(identifier="b").id > before["jobs_id_seq"][0][0]
        connection.execute("update jobs set run_at = now() - interval '1 s' where line is null")
        connection.execute(
            "update jobs set lease_expires_at = now() where lease_expires_at > now()"
        )
        connection.execute("update alarms set due_at = now()")
        client.resume_queue("paused", TENANT)
        client.tick()
        filler = client.get_jobs("you", ["filler"], job_limit=700)
        places = [(job.priority, job.run_at, job.id) for job in filler]
        assert len(places) == 700
        assert places == sorted(places)
        done = len(client.complete_jobs("you", [job.id for job in filler]))
        processing = "select id from jobs where locked_by = 'me' and lease_expires_at is null"
        for (job_id,) in connection.execute(processing).fetchall():
            done += client.move_job_to_done(job_id)
        for _ in range(20):
            client.tick()
            found = client.get_jobs("you", job_limit=1000)
            done += len(client.complete_jobs("you", [job.id for job in found]))
        # the new one more, and one less: that was to be cancelled when its lease ended
        assert done == len(before["jobs"])
        assert connection.execute("select count(*) from jobs").fetchone() == (0,)
