"""Many workers, queues with a limit of three, processes killed: never more than three at once.

In `make chaos` these are 100 workers in 10 processes, and 20,000 jobs of 30 queues.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
from processes import processes

FULL = "APP_JOBS_FULL" in os.environ
# More workers than all queues together let run: so each of them must be full at some time.
PROCESSES, WORKERS, QUEUES, JOBS, KILLS = (10, 10, 30, 20_000, 10) if FULL else (3, 4, 3, 1200, 2)
LIMIT = 3
LEASE = 10 if FULL else 5  # seconds
SLACK = 10  # seconds until somebody ticks and a handler has run again
PATIENCE = 600 if FULL else 120  # seconds

SETUP = """
    create table runs (
        job_id bigint, lease integer, queue text, process integer, at_once bigint,
        began_at timestamptz default clock_timestamp(), ended_at timestamptz,
        primary key (job_id, lease)
    );
    create index runs_now on runs (queue) where ended_at is null;

    create function begin_run(job_id bigint, lease integer, queue text, process integer)
    returns void language plpgsql as $$
    begin
        -- One after the other, each in a snapshot of its own: all that run are counted.
        perform pg_advisory_xact_lock(hashtext(begin_run.queue));
        insert into runs (job_id, lease, queue, process, at_once)
        select begin_run.job_id, begin_run.lease, begin_run.queue, begin_run.process, 1 + count(*)
        from runs as r where r.queue = begin_run.queue and r.ended_at is null;
    end
    $$;

    create function end_run(job_id bigint, lease integer) returns void language sql as $$
        update runs as r set ended_at = clock_timestamp()
        where r.job_id = end_run.job_id and r.lease = end_run.lease
    $$;
"""
SET_LIMITS = """
    select count(app_jobs.set_queue_limit('queue ' || q, %s)) from generate_series(1, %s) as q
"""
ADD = """
    select count(*)
    from app_jobs.add_jobs((
        select json_agg(json_build_object(
            'identifier', 'limited', 'queue_name', 'queue ' || 1 + n %% %s
        ))
        from generate_series(1, %s) as n
    ))
"""
# A run ends with its process, once the server has noticed that it is gone.
GONE = "select count(*) = 0 from pg_stat_activity where application_name = %s"
END_RUNS = """
    with ended as (
        update runs set ended_at = clock_timestamp()
        where process = %s and ended_at is null returning 1
    )
    select count(*) from ended
"""
LONGEST_PAUSE = """
    select extract(epoch from max(p.pause))
    from (
        select r.began_at - lag(r.began_at) over (partition by r.queue order by r.began_at) as pause
        from runs as r
    ) as p
"""


def command(number: int) -> list[str]:
    """What process `number` runs."""
    return [sys.executable, "limited.py", str(number), str(WORKERS), str(LEASE)]


def test_never_more_than_the_limit(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database, autocommit=True) as connection:

        def get(query: str, *values: object) -> Any:
            row = connection.execute(query.encode(), values or None).fetchone()
            return row and row[0]

        connection.execute(SETUP)
        get(SET_LIMITS, LIMIT, QUEUES)
        get(ADD, QUEUES, JOBS)
        started = time.monotonic()
        kills = killed_runs = 0
        env, log = {"DATABASE_URL": database}, tmp_path / "workers.log"
        with processes(PROCESSES, command, env, log) as running:

            def wait_until(query: str, *values: object) -> None:
                while not get(query, *values):
                    assert time.monotonic() < started + PATIENCE, running.log()
                    time.sleep(0.05)

            # Kills are spread over the run, and go on until one has hit a run.
            for share in range(1, KILLS + 1):
                wait_until("select count(*) >= %s from runs", JOBS * share // (KILLS + 2))
                killed = 0
                while not killed:
                    number = running.kill()
                    wait_until(GONE, f"process {number}")
                    killed = get(END_RUNS, number)
                    kills += 1
                killed_runs += killed
            wait_until("select count(*) = 0 from app_jobs.jobs")
            seconds = time.monotonic() - started
            exit_codes = running.stop()

        at_once = get("select max(at_once) from runs")
        full_queues = get("select count(distinct queue) from runs where at_once = %s", LIMIT)
        pause = get(LONGEST_PAUSE)
        print(
            f"\n{JOBS} jobs of {QUEUES} queues, {PROCESSES * WORKERS} workers: {seconds:.0f} s,"
            f" {kills} processes killed with {killed_runs} runs, at most {at_once} of a queue at"
            f" once, {pause:.1f} s at most from a start to the next"
        )
        assert get("select count(distinct job_id) from runs where ended_at is not null") == JOBS
        assert at_once <= LIMIT
        assert exit_codes == [0] * PROCESSES, running.log()
        assert pause < LEASE + SLACK, "a queue stood still"
        assert full_queues == QUEUES, "a queue was never full, with workers that had nothing to do"
