"""How soon an idle worker starts a job. A benchmark: it prints figures and asserts none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

JOBS = 200
SCHEDULED = 50
PAUSE = 0.05  # seconds between two jobs: the worker is idle meanwhile
IDLE = "select exists (select from app_jobs.workers where idle)"
ALL_STARTED = "select (select count(*) from starts) = (select count(*) from wanted)"
ADD = "select id from app_jobs.add_job(identifier => 'note')"
SCHEDULE = """
    insert into wanted
    select j.id, j.run_at
    from generate_series(1, %s) as n
    cross join app_jobs.add_job(
        identifier => 'note',
        run_at => now() + interval '1 second' + (n + random() / 2) * interval '0.1 seconds'
    ) as j
"""
PERCENTILES = """
    select percentile_cont(array[0.5, 0.9, 0.99, 1]) within group (
        order by 1000 * extract(epoch from s.at - w.wanted_at)
    )
    from wanted as w
    inner join starts as s on s.id = w.id
"""


def wait_for(connection: psycopg.Connection[Any], query: str) -> None:
    """Ask until the answer is true."""
    deadline = time.monotonic() + 60
    while connection.execute(query.encode()).fetchone() != (True,):
        assert time.monotonic() < deadline, query


def report(connection: psycopg.Connection[Any], what: str) -> None:
    """Print how long after the time that was wanted the jobs have started."""
    wait_for(connection, ALL_STARTED)
    row = connection.execute(PERCENTILES).fetchone()
    assert row
    p50, p90, p99, worst = row[0]
    print(f"{what}: p50 {p50:.1f}, p90 {p90:.1f}, p99 {p99:.1f}, max {worst:.1f} ms")
    connection.execute("truncate wanted, starts")


def test_latency(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create table wanted (id bigint, wanted_at timestamptz)")
        connection.execute("create table starts (id bigint, at timestamptz)")
        worker = subprocess.Popen(
            [sys.executable, "-m", "app_jobs", "worker", "latency_tasks:tasks"],
            cwd=Path(__file__).parent,
            env={**os.environ, "DATABASE_URL": database},
            stderr=subprocess.DEVNULL,
        )
        print()
        try:
            wait_for(connection, IDLE)
            for _ in range(JOBS):
                time.sleep(PAUSE)
                connection.execute("begin")
                row = connection.execute(ADD).fetchone()
                assert row
                commit_at = time.time()
                connection.execute("commit")
                connection.execute(
                    "insert into wanted values (%s, to_timestamp(%s))", [row[0], commit_at]
                )
            report(connection, f"from commit to start, {JOBS} jobs")
            connection.execute(SCHEDULE, [SCHEDULED])
            report(connection, f"from run_at to start, {SCHEDULED} scheduled jobs")
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait()
