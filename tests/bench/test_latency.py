"""How soon an idle worker starts a job. A benchmark: it prints figures and asserts none."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg

JOBS = 200
SCHEDULED = 50
PAUSE = 0.05  # seconds between two jobs, so that the worker is idle in between
READY = "select exists (select from app_jobs.workers where idle)"
PERCENTILES = """
    select percentile_cont(array[0.5, 0.9, 0.99, 1]) within group (
        order by 1000 * extract(epoch from s.at - w.wanted_at)
    )
    from wanted as w
    inner join starts as s on s.id = w.id
"""


def wait_for(connection: psycopg.Connection[tuple[object]], query: str) -> None:
    deadline = time.monotonic() + 30
    while connection.execute(query.encode()).fetchone() != (True,):
        assert time.monotonic() < deadline, query


def report(connection: psycopg.Connection[tuple[list[float]]], what: str) -> None:
    row = connection.execute(PERCENTILES.encode()).fetchone()
    assert row
    p50, p90, p99, worst = row[0]
    print(f"{what}: p50 {p50:.1f}, p90 {p90:.1f}, p99 {p99:.1f}, max {worst:.1f} ms")
    connection.execute("truncate wanted, starts")


def test_latency(database: str) -> None:
    all_started = "select (select count(*) from starts) = (select count(*) from wanted)"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create table wanted (id bigint, wanted_at timestamptz)")
        connection.execute("create table starts (id bigint, at timestamptz)")
        worker = subprocess.Popen(
            [sys.executable, "-m", "app_jobs", "worker", "latency_tasks:tasks"],
            cwd=Path(__file__).parent,
            env={**os.environ, "DATABASE_URL": database},
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(connection, READY)
            print()
            for _ in range(JOBS):
                time.sleep(PAUSE)
                with connection.transaction():
                    row = connection.execute("select id from app_jobs.add_job(identifier => 'note')")
                    job = row.fetchone()
                committed_at = time.time()
                connection.execute("insert into wanted values (%s, to_timestamp(%s))", [*job, committed_at])
            wait_for(connection, all_started)
            report(connection, f"commit to start, {JOBS} jobs")

            connection.execute(
                "insert into wanted select j.id, j.run_at from generate_series(1, %s) as n,"
                " app_jobs.add_job(identifier => 'note', run_at => now() + interval '1 s' + n * interval '0.1 s'"
                " + random() * interval '0.05 s') as j",
                [SCHEDULED],
            )
            wait_for(connection, all_started)
            report(connection, f"due to start, {SCHEDULED} scheduled jobs")
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait()
