"""Each release that was kept, and this tree, is upgraded to what comes after it, under load."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import release_dump
from releases import ROOT, THIS, Release, installed, released
from roads import psql

from app_jobs import _sql
from app_jobs.errors import VersionMismatch

KEPT = sorted(release_dump.RELEASES.glob("*/"))
LIFE = Path(__file__).with_name("life.py")
# Rows that nobody who works on other jobs has a reason to change, but for where jobs stand.
DURABLE = ["jobs", "finished_jobs", "job_errors", "effects", "tasks", "queue_settings"]
DURABLE += ["scheduled_jobs", "operator_actions", "task_figures", "depth_figures"]
FLEETING = {"slot", "line", "updated_at"}

LEDGER = """
create table public.added (id bigint primary key);
create table public.done (id bigint primary key, by text);
grant all on public.added, public.done to public;
create function public.nothing_is_rewritten() returns event_trigger language plpgsql as $$
begin
    raise exception '% is rewritten', pg_event_trigger_table_rewrite_oid()::regclass;
end $$;
create event trigger rewrites on table_rewrite execute function public.nothing_is_rewritten();
"""


@pytest.fixture(scope="module")
def this_release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return installed(THIS, ROOT, tmp_path_factory.mktemp("this"))


@pytest.fixture(scope="module")
def this_kept(tmp_path_factory: pytest.TempPathFactory, server: str, this_release: Release) -> Path:
    """The tree, as `make release-dump` will keep it once it is a release."""
    folder = tmp_path_factory.mktemp("kept") / THIS
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("create database test_this template app_jobs_template")
        try:
            dsn = psycopg.conninfo.make_conninfo(server, dbname="test_this")
            release_dump.fill(dsn)
            assert [table for table, rows in contents(dsn).items() if not rows] == []
            release_dump.write(dsn, folder)
        finally:
            connection.execute("drop database test_this with (force)")
    return folder


@pytest.fixture(params=[*KEPT, None], ids=lambda folder: folder.name if folder else "this")
def kept(request: pytest.FixtureRequest, this_kept: Path) -> Path:
    """A release that was kept, or this tree as if it were one."""
    return request.param or this_kept


@pytest.fixture
def older(kept: Path, tmp_path: Path) -> Release:
    return released(kept, tmp_path / "older")


@pytest.fixture
def newer(kept: Path, this_kept: Path, this_release: Release, next_release: Release) -> Release:
    """What comes after it: for this tree the next release, else this tree."""
    return next_release if kept == this_kept else this_release


@pytest.fixture
def restored(kept: Path, empty_database: str) -> str:
    """A database with what the dump has."""
    psql(empty_database, gzip.decompress((kept / "dump.sql.gz").read_bytes()).decode())
    psql(empty_database, LEDGER)
    return empty_database


def contents(dsn: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of all tables."""
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "select relname from pg_class"
            " where relnamespace = 'app_jobs'::regnamespace and relkind = 'r' order by 1"
        ).fetchall()
        return {
            name: [
                row
                for (row,) in connection.execute(f"select to_jsonb(t) from app_jobs.{name} as t")
            ]
            for (name,) in tables
        }


def lost(before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]) -> Any:
    """Rows of durable tables that are not there any more as they were, but for new columns."""
    missing = []
    for table in DURABLE:
        columns = [column for column in before[table][0] if column not in FLEETING]
        there = [[row[column] for column in columns] for row in after[table]]
        rows = [[row[column] for column in columns] for row in before[table]]
        now = set(map(json.dumps, there))
        missing += [(table, row) for row in rows if json.dumps(row) not in now]
    return missing


@contextmanager
def longest_exclusive_lock(dsn: str) -> Iterator[list[float]]:
    """Say afterwards for how many seconds, at the longest, nobody could read one of our tables."""
    query = """
        select l.virtualtransaction, l.relation from pg_locks as l
        inner join pg_class as c on c.oid = l.relation
        where
            l.mode = 'AccessExclusiveLock' and l.granted and c.relkind in ('r', 'i')
            and c.relnamespace = 'app_jobs'::regnamespace
            and l.database = (select d.oid from pg_database as d where datname = current_database())
    """
    longest = [0.0]
    since: dict[Any, float] = {}
    done = threading.Event()

    def watch() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not done.is_set():
                held = connection.execute(query).fetchall()
                now = time.monotonic()
                for lock in since.keys() - set(held):
                    del since[lock]
                for lock in held:
                    longest[0] = max(longest[0], now - since.setdefault(lock, now))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield longest
    finally:
        done.set()
        watcher.join()


def wait_until_done(dsn: str, by: str, more: int) -> None:
    """Wait until somebody has done so many more jobs than now."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        count = "select count(*) from public.done where by = %s"
        (start,) = connection.execute(count, [by]).fetchone() or (0,)
        for _ in range(3000):
            connection.execute("select pg_sleep(0.01)")
            if connection.execute(count, [by]).fetchone() >= (start + more,):
                return
    raise AssertionError(f"{by} has not done {more} more jobs")


@contextmanager
def life(release: Release, dsn: str, name: str, *more: str) -> Iterator[None]:
    """An application of that release lives as long as the block."""
    process = release.python(LIFE, dsn, name, *more)
    try:
        yield
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
    except BaseException:
        process.kill()
        print(process.communicate()[0])
        raise


def test_an_upgrade_under_old_and_new_workers(
    older: Release, newer: Release, restored: str
) -> None:
    """Nothing that was there is lost or changed, and each job that is added is done once."""
    before = contents(restored)
    migrate = ["-m", "app_jobs.migrate"]
    try:
        _sql.check_version(newer.version, older.version)
    except VersionMismatch:  # two versions and more: its clients have to stop first
        newer.run(*migrate, "migrate", "--dsn", restored)
    else:
        with life(older, restored, "old"):
            wait_until_done(restored, "old", 50)
            newer.run(*migrate, "migrate", "--dsn", restored)
            wait_until_done(restored, "old", 50)
            with life(newer, restored, "new"):
                wait_until_done(restored, "new", 50)
                wait_until_done(restored, "old", 50)
    with life(newer, restored, "last", "finish"):
        pass
    assert "pending: nothing" in newer.run(*migrate, "status", "--dsn", restored)
    assert newer.run(*migrate, "verify", "--dsn", restored) == "verified\n"
    assert lost(before, contents(restored)) == []
    with psycopg.connect(restored) as connection:
        left = connection.execute("select id from public.added except select id from public.done")
        assert left.fetchall() == []
        left = connection.execute("select id from app_jobs.jobs where task_identifier = 'work'")
        assert left.fetchall() == []


@pytest.mark.skipif(os.environ.get("APP_JOBS_FULL") != "1", reason="make test-upgrade")
def test_no_change_shuts_out_everybody_for_long(
    database: str, next_release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lock that shuts out readers, with a million jobs: a second at most."""
    with psycopg.connect(database, autocommit=True) as connection:
        for _ in range(20):
            connection.execute(
                "select count(*) from app_jobs.add_jobs('t', "
                "array(select '{}'::json from generate_series(1, 50000)))"
            )
    with longest_exclusive_lock(database) as longest:
        next_release.run("-m", "app_jobs.migrate", "migrate", "--dsn", database)
    with capsys.disabled():
        print(f"\nlongest lock that shuts out readers, a million jobs: {longest[0] * 1000:.0f} ms")
    assert longest[0] < 1
