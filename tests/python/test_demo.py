"""The demo: its exit code is its verdict."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest

from app_jobs.demo import TABLES, add_up_package, connection, count_document

pytestmark = pytest.mark.once

PROVED = "Proved: each document was counted exactly once."


def demo(dsn: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app_jobs.demo", *options],
        check=False,
        env={**os.environ, "DATABASE_URL": dsn},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


def test_a_killed_worker_costs_nothing(database: str) -> None:
    ran = demo(database, "--documents", "300")
    assert ran.returncode == 0, ran.stdout
    assert "300 documents, 300 of them counted, 300 added up" in ran.stdout
    assert "totals, 0 of which differ" in ran.stdout
    assert PROVED in ran.stdout

    # What a newcomer is told to try: the recovered jobs, and a row that becomes a job.
    *_, recovered, totals, insert = ran.stdout.split("\n\n-- ")
    with psycopg.connect(database, autocommit=True) as db:
        assert db.execute("-- " + recovered).fetchall()
        assert db.execute("-- " + totals).fetchall()
        db.execute("-- " + insert)
        assert db.execute("select task_identifier from app_jobs.jobs").fetchall() == [
            ("demo_count_document",)
        ]


def test_it_fails_when_nothing_had_to_be_recovered(database: str) -> None:
    for _ in range(2):  # the second run replaces what the first one made
        ran = demo(database, "--documents", "20", "--no-kill")
        assert ran.returncode == 1, ran.stdout
        assert "20 documents, 20 of them counted, 20 added up" in ran.stdout
        assert "nothing had to be recovered" in ran.stdout


def test_a_job_that_runs_again_does_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    with connection() as db:
        db.execute(TABLES)
        row = db.execute(
            "insert into app_jobs_demo.documents (path, package, content)"
            " values ('a.py', 'a', E'one two;\n') returning id::text"
        ).fetchone()
        assert row is not None
        payload = {"id": row[0]}
        for outcome in ("done", "already done"):
            assert count_document(payload) == outcome
        for outcome in ("done", "already done"):
            assert add_up_package(payload) == outcome
        jobs = "select task_identifier, queue_name from app_jobs.jobs order by id"
        assert db.execute(jobs).fetchall() == [
            ("demo_count_document", None),
            ("demo_add_up_package", "demo.a"),
        ]
        totals = "select * from app_jobs_demo.package_stats"
        assert db.execute(totals).fetchall() == [("a", 1, 2, 1, 1)]


def test_it_complains_about_a_database_that_is_not_there() -> None:
    ran = demo("host=/nowhere dbname=nothing")
    assert ran.returncode == 3
    assert ran.stdout.startswith("error: the database is not reachable: ")


def test_it_refuses_to_count_nothing(database: str) -> None:
    ran = demo(database, "--documents", "0")
    assert ran.returncode == 2
    assert "--documents is 0: give 1 or more" in ran.stdout
