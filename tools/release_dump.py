"""Keep what an installation of this release looks like, for the upgrade tests of later ones.

    tools/test_servers.py --on 15 -- tools/release_dump.py     (make release-dump)

Writes tests/upgrade/releases/VERSION: `dump.sql.gz`, a database with rows in every table and jobs
in every state, made by the public functions; and the wheel, whose worker and client the tests run.
Refuses before the release has its tag in sqitch.plan: what can still change is no release.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app_jobs import Client, migrate
from app_jobs._plan import Plan

ROOT = Path(__file__).resolve().parent.parent
RELEASES = ROOT / "tests" / "upgrade" / "releases"
FAR = datetime(2100, 1, 1, tzinfo=timezone.utc)
LONG = timedelta(days=365)
TENANT = "00000000-0000-0000-0000-000000000007"


def main() -> None:
    """Write the folder of this release."""
    version = (ROOT / "VERSION").read_text("utf-8").strip()
    tags = [tag.name.removeprefix("v") for tag in Plan.load(ROOT).changes[-1].tags]
    if version not in tags:
        sys.exit(f"sqitch.plan does not end with a tag v{version}: tag the release first")
    dsn = make_conninfo(os.environ["APP_JOBS_TEST_DSN"], dbname="release")
    with psycopg.connect(os.environ["APP_JOBS_TEST_DSN"], autocommit=True) as connection:
        connection.execute("create database release")
    migrate.migrate(dsn, log=lambda _: None)
    fill(dsn)
    write(dsn, RELEASES / version)


def write(dsn: str, folder: Path) -> None:
    """Put the dump of a database, and the wheel of this tree, into a folder."""
    folder.mkdir(parents=True)
    parts = conninfo_to_dict(dsn)
    names = {"PGHOST": "host", "PGUSER": "user", "PGDATABASE": "dbname"}
    env = os.environ | {variable: str(parts[name]) for variable, name in names.items()}
    pg_dump = Path(os.environ["APP_JOBS_TEST_BIN"], "pg_dump")
    text = subprocess.run([pg_dump], check=True, capture_output=True, env=env).stdout
    (folder / "dump.sql.gz").write_bytes(gzip.compress(text, mtime=0))
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        folder,
    ]
    source = ROOT / "python-client"
    subprocess.run([*build, source], check=True, stdout=subprocess.DEVNULL)


def fill(dsn: str, schema: str = "app_jobs") -> None:
    """Make rows in every table and jobs in every state, in many slots.

    Held jobs are held by the worker "me" for long. Needs the rights of the schema's owner.
    """
    with Client(dsn, schema=schema) as client, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"set search_path = {schema}")
        client.set_task("a", {"keep_completed": "10 years", "keep_failed": "10 years"})
        client.set_queue_limit("two", 2)
        client.pause_queue("paused", TENANT)
        client.register_worker("me")
        client.heartbeat("me", [])
        client.record_action("somebody", "pause_queue", {"queue": "paused"})

        # queues: two run, of which one is completed; the rest is parked
        for _ in range(4):
            client.add_job(identifier="a", queue_name="two")
        client.add_job(identifier="b", run_at=FAR, job_key="later", attributes={"kept": True})
        client.add_job(identifier="a", queue_name="paused", db_id=TENANT, job_key="k")
        running = client.get_jobs("me", ["a"], LONG, job_limit=4)
        assert len(running) == 2
        client.begin_once("me", running[0].id, "paid", running[0].lease)
        client.finish_once("me", running[0].id, "paid", {"receipt": 7}, running[0].lease)
        client.begin_once("me", running[1].id, "in doubt", running[1].lease)
        client.complete_job("me", running[0].id, running[0].lease, result={"done": True})

        # slots that are closed, with jobs in them
        for number in range(4):
            client.add_jobs(
                [{"identifier": "filler", "priority": (7 * n + number) % 5} for n in range(700)]
            )
            client.tick()
        failing, dead, held, cancelled = client.get_jobs("me", ["filler"], LONG, job_limit=4)
        client.fail_job("me", failing.id, "no", failing.lease)
        client.fail_job("me", dead.id, "never", dead.lease, permanent=True)
        client.move_job_to_processing(held.id)
        client.add_job(identifier="filler", job_key="unwanted")
        client.cancel_job("unwanted")
        client.cancel_jobs([cancelled.id])

        for task in ("held", "paused", "due"):
            client.add_scheduled_job(identifier=task, schedule_info={"every": "100 days"})
        outside = client.get_scheduled_job("outside", ["held"])
        assert outside is not None
        connection.execute(
            "update scheduled_jobs set paused = true where task_identifier = 'paused'"
        )

        # figures of a minute that is over, and of this one
        figures = '[{"task_identifier": "a", "completed": 1, "failed": 0, "retried": 0}]'
        connection.execute("select record_stats('me', %s)", [figures])
        connection.execute("update stat_reports set at = at - interval '2 minutes'")
        hour_ago = "extract(epoch from now() - interval '1 hour')::bigint"
        connection.execute(f"select setval('stats_merged_to', {hour_ago})")
        connection.execute("select merge_stats(100, 100)")
        connection.execute("select record_stats('me', %s)", [figures])
        connection.execute("select record_depths(date_trunc('minute', now()))")


if __name__ == "__main__":
    main()
