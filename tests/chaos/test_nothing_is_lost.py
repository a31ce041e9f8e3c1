"""Workers killed with SIGKILL and connections cut: every job is done, and completed exactly once.

APP_JOBS_CHAOS_JOBS is the number of jobs: 1,500 if not set; `make chaos` says 10,000.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

JOBS = int(os.environ.get("APP_JOBS_CHAOS_JOBS", "1500"))
KILLS = 10 if JOBS >= 10_000 else 3  # of workers that held jobs: fewer prove nothing
WORKERS = 3
LEASE = 5  # seconds
SLACK = 5  # seconds until somebody ticks and a handler has run again
PATIENCE = 60 + JOBS // 50  # seconds

SETUP = """
    create table added (id bigint);
    create table effects (job_id bigint, lease integer, at timestamptz default clock_timestamp());
    insert into app_jobs.tasks (task_identifier, keep_completed, backoff)
    select t.name, '1 day', '{"type": "constant", "base": "100ms"}'
    from unnest(array['in_loop', 'in_thread']) as t(name)
"""
ADD = """
    insert into added
    select app_jobs.add_jobs((
        select json_agg(json_build_object(
            'identifier', case when n %% 2 = 0 then 'in_loop' else 'in_thread' end,
            'queue_name', case when n %% 15 = 0 then 'queue ' || n %% 150 / 15 end
        ))
        from generate_series(1, %s) as n
    ))
"""
CUT = """
    select pg_terminate_backend(a.pid)
    from pg_stat_activity as a
    where a.datname = current_database() and a.pid <> pg_backend_pid()
    order by random()
    limit 1
"""
HOLDS = "select count(*) > 0 from app_jobs.jobs where locked_by = %s"
REGISTERED = "select count(*) from app_jobs.workers where worker_id = any(%s)"
# Each must be found empty.
PROOFS = {
    "jobs that are not finished": "select id from app_jobs.jobs",
    "jobs without an accepted completion": """
        select a.id from added as a
        where a.id not in (select f.id from app_jobs.finished_jobs as f where f.state = 'completed')
    """,
    "completions of no job": """
        select f.id, f.state from app_jobs.finished_jobs as f
        where f.id not in (select a.id from added as a) or f.state <> 'completed'
    """,
    "completions whose run has left no effect": """
        select f.id from app_jobs.finished_jobs as f
        where (f.id, f.lease) not in (select e.job_id, e.lease from effects as e)
    """,
    "effects of one lease that are there twice": """
        select e.job_id from effects as e group by e.job_id, e.lease having count(*) > 1
    """,
}


class Fleet:
    """Worker processes, in places that are taken again after a kill."""

    def __init__(self, database: str, log: Path) -> None:
        self._env = {**os.environ, "DATABASE_URL": database}
        self._log = log
        self._started = 0
        self.workers = [self._start() for _ in range(WORKERS)]

    def _start(self) -> tuple[str, subprocess.Popen[bytes]]:
        self._started += 1
        name = f"worker-{self._started}"
        options = ["--worker-id", name, "--lease", str(LEASE), "--concurrency", "1"]
        command = [sys.executable, "-m", "app_jobs", "worker", "effects:tasks", *options]
        with self._log.open("ab") as log:
            folder = Path(__file__).parent
            return name, subprocess.Popen(command, cwd=folder, env=self._env, stderr=log)

    def kill_one(self) -> str:
        """Kill a worker and start another one in its place; return the dead one's name."""
        place = random.randrange(WORKERS)
        name, process = self.workers[place]
        assert process.poll() is None, (
            f"{name} has ended by itself: {self._log.read_text()[-5000:]}"
        )
        process.kill()
        process.wait()
        self.workers[place] = self._start()
        return name

    def stop(self) -> list[int]:
        """Tell all workers to end; return their exit codes."""
        for _, process in self.workers:
            process.send_signal(signal.SIGTERM)
        return [process.wait() for _, process in self.workers]


@contextmanager
def fleet_of(database: str, log: Path) -> Iterator[Fleet]:
    fleet = Fleet(database, log)
    try:
        yield fleet
    finally:
        for _, process in fleet.workers:
            process.kill()
            process.wait()


def test_nothing_is_lost(database: str, tmp_path: Path) -> None:
    log = tmp_path / "workers.log"
    with psycopg.connect(database, autocommit=True) as connection:

        def count(query: str, *values: object) -> Any:
            row = connection.execute(query.encode(), values or None).fetchone()
            return row and row[0]

        connection.execute(SETUP)
        connection.execute(ADD, [JOBS])
        started = time.monotonic()
        kills = cuts = steps = 0
        with fleet_of(database, log) as fleet:
            # Until nearly all have been claimed once: then the last kill has jobs to bring back.
            while count("select count(*) from app_jobs.jobs where lease = 0") > 50:
                assert time.monotonic() < started + PATIENCE, log.read_text()[-5000:]
                time.sleep(1)
                steps += 1
                cuts += bool(count(CUT))
                if steps % 2 == 0:
                    kills += count(HOLDS, fleet.kill_one())
            ended_at = count("select clock_timestamp()")
            while count("select count(*) from app_jobs.jobs"):
                assert time.monotonic() < started + PATIENCE, log.read_text()[-5000:]
                time.sleep(0.05)
            seconds = time.monotonic() - started
            # Before a worker has registered it does not hear the signal.
            while count(REGISTERED, [name for name, _ in fleet.workers]) < WORKERS:
                assert time.monotonic() < started + PATIENCE, log.read_text()[-5000:]
            exit_codes = fleet.stop()

        late = count("select extract(epoch from max(at) - %s) from effects", ended_at)
        effects = count("select count(*) from effects")
        print(
            f"\n{JOBS} jobs in {seconds:.0f} s, {kills} workers killed that held jobs, {cuts}"
            f" connections cut, {effects - JOBS} runs repeated, last effect {max(late, 0):.1f} s"
            f" after the disturbance (lease: {LEASE} s)"
        )
        for what, query in PROOFS.items():
            assert connection.execute(query.encode()).fetchall() == [], what
        assert late < LEASE + SLACK
        assert exit_codes == [0] * WORKERS, log.read_text()[-5000:]
        if kills < KILLS:
            pytest.fail(f"only {kills} kills hit a worker that held jobs: this run proves nothing")
