"""Workers killed with SIGKILL and connections cut: every job is done, and completed exactly once.

APP_JOBS_CHAOS_JOBS is the number of jobs: 1,500 if not set; `make chaos` says 10,000.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
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


def test_nothing_is_lost(database: str, fleet_of: Callable[..., Any]) -> None:
    with psycopg.connect(database, autocommit=True) as connection:

        def count(query: str, *values: object) -> Any:
            row = connection.execute(query.encode(), values or None).fetchone()
            return row and row[0]

        connection.execute(SETUP)
        connection.execute(ADD, [JOBS])
        started = time.monotonic()
        kills = cuts = steps = 0
        with fleet_of(WORKERS, LEASE) as fleet:
            # Until nearly all have been claimed once: then the last kill has jobs to bring back.
            while count("select count(*) from app_jobs.jobs where lease = 0") > 50:
                assert time.monotonic() < started + PATIENCE, fleet.log()
                time.sleep(1)
                steps += 1
                cuts += bool(count(CUT))
                if steps % 2 == 0:
                    kills += count(HOLDS, fleet.kill_one())
            ended_at = count("select clock_timestamp()")
            while count("select count(*) from app_jobs.jobs"):
                assert time.monotonic() < started + PATIENCE, fleet.log()
                time.sleep(0.05)
            seconds = time.monotonic() - started
            # Before a worker has registered it does not hear the signal.
            while count(REGISTERED, [name for name, _ in fleet.workers]) < WORKERS:
                assert time.monotonic() < started + PATIENCE, fleet.log()
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
        assert exit_codes == [0] * WORKERS, fleet.log()
        if kills < KILLS:
            pytest.fail(f"only {kills} kills hit a worker that held jobs: this run proves nothing")
