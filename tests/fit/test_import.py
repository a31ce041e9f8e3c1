"""The way over from other queues, from their real schemas, made by their own migrations."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import procrastinate
import psycopg
import pytest
from applications import APP_JOBS, ROOT, run

from app_jobs import AppJobsError, BadArgument, Client, importer
from app_jobs.importer import Imported, import_jobs

Connection = psycopg.Connection[Any]
PACKAGES = ["graphile-worker@0.16", "@pgpm/database-jobs@0.16"]
LATER = datetime(2031, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
TENANT = UUID(int=7)


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder of the packages from npm; kept, for they take a while."""
    folder = ROOT / "build/fit"
    modules = folder / "node_modules"
    if not all((modules / name.rpartition("@")[0]).exists() for name in PACKAGES):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        options = ["--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        subprocess.run(["npm", "install", *options, *PACKAGES], cwd=folder, check=True)
    return modules


@pytest.fixture
def graphile(packages: Path, url: str, connection: Connection) -> Connection:
    command = [packages / ".bin/graphile-worker", "--schema-only", "-c", url]
    subprocess.run(command, cwd=packages.parent, check=True, capture_output=True)
    return connection


@pytest.fixture
def pgpm(packages: Path, connection: Connection) -> Connection:
    """Theirs has the name of ours, which is called `ours` here."""
    folder = packages / "@pgpm/database-jobs"
    connection.execute(
        """
        alter schema app_jobs rename to ours;
        create or replace function public.gen_random_uuid() returns uuid language sql
        as 'select pg_catalog.gen_random_uuid()';
        do $$ begin create role administrator; exception when duplicate_object then end $$
        """
    )
    for change in re.findall(r"^(schemas/\S+)", (folder / "pgpm.plan").read_text(), re.MULTILINE):
        connection.execute((folder / "deploy" / f"{change}.sql").read_text().encode())
    return connection


def imported(client: Client, task: str) -> list[Any]:
    """Jobs by what they were."""
    connection = client._connect()
    rows = connection.execute(
        """
        select
            id, payload, key, queue_name, priority, run_at, attempts, max_attempts,
            attributes - 'imported_id' as attributes, database_id
        from app_jobs.jobs where task_identifier = %s order by priority, run_at, id
        """,
        [task],
    ).fetchall()
    return [row[1:] for row in rows]


def fates(done: Imported) -> dict[tuple[str, str | None], tuple[int, int]]:
    return {(row["task"], row["why_not"]): (row["due"], row["later"]) for row in done.jobs}


def test_graphile_worker(
    graphile: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH", 3)
    add = "select (graphile_worker.add_job(%s, %s::json, queue_name := %s, run_at := %s,"
    add += " max_attempts := %s, job_key := %s, priority := %s)).id"

    def job(task: str, *options: Any) -> int:
        values = [*options, *[None] * (6 - len(options))]
        found = graphile.execute(add, [task, *values]).fetchone()
        assert found
        return int(found[0])

    private = "graphile_worker._private_jobs"
    job("mail", '{"to":  "ada"}', "line", None, 3, "key", -2)
    job("mail", '{"to":  "bob"}', None, LATER, None, None, 5)
    retried = job("mail", "{}", None, LATER)
    graphile.execute(f"update {private} set attempts = 4, last_error = 'x' where id = {retried}")
    dead = job("mail", "{}")
    graphile.execute(f"update {private} set attempts = 25 where id = {dead}")
    with Client(database) as client:
        client.add_job(identifier="mail", job_key="taken")
        job("mail", "{}", None, None, None, "taken")
        job("x" * 127)
        job("heavy", "{}", "busy")
        graphile.execute(
            f"update {private} set locked_at = now(), locked_by = 'w', attempts = 1"
            " where id = (select max(id) from graphile_worker._private_jobs)"
        )
        graphile.execute(
            "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'w'"
            " where queue_name = 'busy'"
        )
        job("heavy", "{}", "busy")
        graphile.execute(
            "insert into graphile_worker._private_known_crontabs (identifier, known_since)"
            " values ('nightly', now())"
        )

        expected = {
            ("mail", None): (1, 2),
            ("mail", "failed for good"): (1, 0),
            ("mail", "its key is in use here"): (1, 0),
            ("heavy", "running"): (1, 0),
            ("heavy", "behind a running job in its queue"): (1, 0),
            ("x" * 127, "name of the task above 126 characters"): (1, 0),
        }
        dry = import_jobs(database, "graphile-worker")
        assert fates(dry) == expected
        assert "cron item nightly" in dry.notes[0]
        assert len(imported(client, "mail")) == 1  # its own
        assert graphile.execute(f"select count(*) from {private}").fetchone() == (8,)

        assert fates(import_jobs(database, "graphile-worker", apply=True)) == expected
        assert graphile.execute(f"select count(*) from {private}").fetchone() == (5,)
        first, _own, third, second = imported(client, "mail")
        source = {"imported_from": "graphile-worker"}
        assert first[:4] == ({"to": "ada"}, "key", "line", -2)
        assert first[5:] == (0, 3, source, None)
        assert second[:8] == ({"to": "bob"}, None, None, 5, LATER, 0, 25, source)
        assert third[4:8] == (LATER, 4, 25, {**source, "last_error": "x"})

        again = import_jobs(database, "graphile-worker", apply=True)
        assert again.carried == 0


def test_a_crontab_of_graphile_worker(graphile: Connection, database: str) -> None:
    crontab = """
        # nightly
        0 2 * * 1-5 nightly ?id=late&fill=1d&max=3&queue=q&priority=-1 {"to": "ada"}
        */5  *  *  * * often
        0 * * * * keyed ?jobKey=k
        0 * * * * odd {to: "ada"}
        99 * * * * never
    """
    done = import_jobs(
        database, "graphile-worker", crontab=crontab, time_zone="Asia/Tokyo", apply=True
    )
    assert [row["task"] for row in done.schedules if row["why_not"]] == ["keyed", "odd", "never"]
    with Client(database) as client:
        late, often = client.list_scheduled_jobs("graphile-worker:")
    assert (late.key, late.task_identifier, late.schedule_info, late.time_zone) == (
        "graphile-worker:late",
        "nightly",
        {"rule": "0 2 * * 1-5"},
        "Asia/Tokyo",
    )
    assert (late.payload, late.queue_name, late.max_attempts, late.priority, late.missed) == (
        {"to": "ada"},
        "q",
        3,
        -1,
        "all",
    )
    assert (often.key, often.missed, often.payload) == ("graphile-worker:often", "skip", {})
    with pytest.raises(BadArgument, match="line 1 of the crontab cannot be read: hello"):
        import_jobs(database, "graphile-worker", crontab="hello")
    with pytest.raises(BadArgument, match="procrastinate has no crontab"):
        import_jobs(database, "procrastinate", crontab="")


def test_procrastinate(connection: Connection, database: str, url: str) -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=database))

    async def fill() -> None:
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            one = app.configure_task("mail", priority=3, lock="line", queueing_lock="key")
            await one.defer_async(to="ada")
            await app.configure_task("mail", schedule_at=LATER, queue="slow").defer_async(to="bob")
            for name in ("heavy", "heavy", "old"):
                await app.configure_task(name, lock=name).defer_async()

    asyncio.run(fill())
    connection.execute(
        """
        update procrastinate_jobs set status = 'doing' where id = 3;
        update procrastinate_jobs set status = 'failed' where task_name = 'old';
        update procrastinate_jobs set attempts = 2 where id = 2;
        insert into procrastinate_periodic_defers (task_name, defer_timestamp, periodic_id, job_id)
        values ('nightly', 1, 'a', 1)
        """
    )
    expected = {
        ("mail", None): (1, 1),
        ("heavy", "running"): (1, 0),
        ("heavy", "behind a running job with its lock"): (1, 0),
        ("old", "failed"): (1, 0),
    }
    assert fates(import_jobs(database, "procrastinate")) == expected
    done = import_jobs(database, "procrastinate", apply=True)
    assert fates(done) == expected
    assert "periodic task nightly (a)" in done.notes[0]
    rest = "select count(*) from procrastinate_jobs"
    assert connection.execute(rest).fetchone() == (3,)
    with Client(database) as client:
        first, second = imported(client, "mail")
    source = {"imported_from": "procrastinate", "queue": "default"}
    assert first[:4] == ({"to": "ada"}, "key", "line", -3)
    assert first[5:8] == (0, 25, source)
    assert second[:7] == ({"to": "bob"}, None, None, 0, LATER, 2, 25)


def test_pgpm_jobs(pgpm: Connection, database: str) -> None:
    pgpm.execute(
        """
        insert into app_jobs.jobs (
            database_id, task_identifier, payload, queue_name, run_at, attempts, max_attempts, key,
            priority
        )
        values
            (%(tenant)s, 'mail', '{"to":  "ada"}', 'line', now(), 0, 3, 'key', -2),
            (%(tenant)s, 'mail', '{"to":  "bob"}', default, %(later)s, 2, 25, null, 5),
            (%(tenant)s, 'dead', '{}', null, now(), 25, 25, null, 0),
            (%(tenant)s, 'heavy', '{}', 'busy', now() - interval '1 h', 0, 25, null, 0),
            (%(tenant)s, 'heavy', '{}', 'busy', now(), 0, 25, null, 0)
        """,
        {"tenant": TENANT, "later": LATER},
    )
    pgpm.execute("select app_jobs.get_job('work', array['heavy'])")
    pgpm.execute(
        """
        insert into app_jobs.scheduled_jobs (
            database_id, task_identifier, schedule_info, key, queue_name, payload, priority
        )
        values
            (
                %(tenant)s, 'nightly', '{"hour": 2, "minute": [0, 30], "dayOfWeek": [1, 2]}', 'n',
                'q', '{"a": 1}', 4
            ),
            (%(tenant)s, 'rule', '{"rule": "*/5 * * * *"}', null, default, '{}', 0),
            (%(tenant)s, 'wrong', '{"hour": 77}', null, null, '{}', 0)
        """,
        {"tenant": TENANT},
    )
    # as docs/coming-from/pgpm-jobs.md says
    pgpm.execute("alter schema app_jobs rename to app_jobs_before")
    pgpm.execute("alter schema ours rename to app_jobs")
    with pytest.raises(BadArgument, match="are both") as refused:
        import_jobs(database, "pgpm-jobs")
    assert "alter schema app_jobs rename" in str(refused.value.hint)
    expected = {
        ("mail", None): (1, 1),
        ("dead", "failed for good"): (1, 0),
        ("heavy", "running"): (1, 0),
        ("heavy", "behind a running job in its queue"): (1, 0),
    }
    options: dict[str, Any] = {"from_schema": "app_jobs_before", "time_zone": "Europe/Berlin"}
    dry = import_jobs(database, "pgpm-jobs", **options)
    assert fates(dry) == expected
    done = import_jobs(database, "pgpm-jobs", **options, apply=True)
    assert fates(done) == expected
    assert [row["why_not"] is None for row in done.schedules] == [True, True, False]
    assert dry.schedules == done.schedules
    left = pgpm.execute("select task_identifier from app_jobs_before.scheduled_jobs").fetchall()
    assert left == [("wrong",)]
    with Client(database) as client:
        first, second = imported(client, "mail")
        nightly, rule = client.list_scheduled_jobs()
    source = {"imported_from": "pgpm-jobs"}
    assert first[:4] == ({"to": "ada"}, "key", "line", -2)
    assert first[5:] == (0, 3, source, TENANT)
    assert second == ({"to": "bob"}, None, None, 5, LATER, 2, 25, source, TENANT)
    assert (nightly.key, nightly.queue_name, nightly.payload, nightly.priority) == (
        "n",
        "q",
        {"a": 1},
        4,
    )
    assert (nightly.time_zone, nightly.overlap, rule.queue_name) == ("Europe/Berlin", "skip", None)
    assert nightly.next_run_at is not None


def test_an_import_waits_for_nobody_for_long(graphile: Connection, database: str) -> None:
    with psycopg.connect(database) as other:
        other.execute("select graphile_worker.add_job('t')")
        with pytest.raises(AppJobsError, match="in use by a long transaction"):
            import_jobs(f"{database} options='-c lock_timeout=1'", "graphile-worker", apply=True)
    assert import_jobs(database, "graphile-worker", apply=True).carried == 1


def test_nobody_takes_a_job_that_is_being_imported(
    graphile: Connection, database: str, wait_until_blocked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker there waits for the import, and then finds nothing."""
    graphile.execute("select graphile_worker.add_job('t')")
    claimed: list[Any] = []
    worker = psycopg.connect(database, autocommit=True)
    pid = worker.info.backend_pid
    # their worker's own statement: what it asks for, in the same way
    claim = (
        "select id from graphile_worker._private_jobs where is_available"
        " order by priority, run_at limit 1 for update skip locked"
    )
    thread = threading.Thread(target=lambda: claimed.extend(worker.execute(claim).fetchall()))
    add = importer._add

    def add_while_they_look(*arguments: Any) -> None:
        thread.start()
        wait_until_blocked(database, pid)
        add(*arguments)

    monkeypatch.setattr(importer, "_add", add_while_they_look)
    assert import_jobs(database, "graphile-worker", apply=True).carried == 1
    thread.join()
    worker.close()
    assert claimed == []


def test_sources_that_are_not_there(database: str) -> None:
    with pytest.raises(BadArgument, match="there is no table graphile_worker"):
        import_jobs(database, "graphile-worker")
    with pytest.raises(BadArgument, match="no such source: celery"):
        import_jobs(database, "celery")


def test_the_console_command(graphile: Connection, database: str, url: str, tmp_path: Path) -> None:
    graphile.execute("select graphile_worker.add_job('mail')")
    dry = run(url, tmp_path, APP_JOBS, "import", "graphile-worker")
    assert re.search(r"mail +1 +0 +comes over", dry.stdout)
    assert "1 jobs would come over; nothing was changed: --apply does it" in dry.stderr
    done = run(url, tmp_path, APP_JOBS, "import", "graphile-worker", "--apply", "--json")
    assert json.loads(done.stdout)["applied"] is True
    with Client(database) as client:
        assert len(imported(client, "mail")) == 1
