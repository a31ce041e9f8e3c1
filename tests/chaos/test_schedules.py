"""Schedules that run every second, workers killed, connections cut: each due time, exactly once.

`make chaos` runs 500 schedules and 8 workers for a minute, and kills a worker every 5 s.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
from processes import processes

LONG = "APP_JOBS_FULL" in os.environ
SCHEDULES, WORKERS, SECONDS, KILL_EVERY = (500, 8, 60, 5) if LONG else (50, 3, 8, 2)
LEASE, PATIENCE = 5, 120  # seconds

SETUP = f"""
    insert into app_jobs.tasks (task_identifier, keep_completed) values ('scheduled', '1 day');

    create view due as
    select
        (j.attributes #>> '{{schedule,id}}')::bigint as id,
        (j.attributes #>> '{{schedule,due_at}}')::timestamptz as due_at,
        j.created_at,
        j.started_at,
        j.state
    from (
        select f.attributes, f.created_at, f.started_at, f.state
        from app_jobs.finished_jobs as f
        union all
        select w.attributes, w.created_at, w.locked_at, 'live'
        from app_jobs.jobs as w
    ) as j;

    insert into app_jobs.scheduled_jobs (task_identifier, schedule_info)
    select 'scheduled', '{{"every": "1 second"}}' from generate_series(1, {SCHEDULES});

    create table first as select s.id, s.next_run_at as due_at from app_jobs.scheduled_jobs as s;
"""
EXPECTED = """
    select f.id, t.due_at
    from first as f
    inner join app_jobs.scheduled_jobs as s on s.id = f.id
    cross join lateral generate_series(f.due_at, s.last_scheduled, '1 second') as t(due_at)
"""
CUT = """
    select pg_terminate_backend(a.pid)
    from pg_stat_activity as a
    where a.datname = current_database() and a.pid <> pg_backend_pid()
    order by random()
    limit 1
"""
# Each must be found empty.
PROOFS = {
    "due times with two jobs": "select id, due_at from due group by 1, 2 having count(*) > 1",
    "due times without a job": f"{EXPECTED} except select id, due_at from due",
    "jobs without a due time": f"select id, due_at from due except {EXPECTED}",
    # by the claim's clock: created_at is the start of a transaction that may have been open before
    "jobs before their due time": "select id, due_at from due where started_at < due_at",
    "jobs that were not completed": "select id, due_at from due where state <> 'completed'",
}


def test_every_due_time_exactly_once(database: str, tmp_path: Path) -> None:
    env = {"DATABASE_URL": database, "CHAOS_LOG": os.devnull, "CHAOS_CONCURRENCY": "1"}

    def command(_: int) -> list[str]:
        options = ["--concurrency", "1", "--lease", str(LEASE)]
        return [sys.executable, "-m", "app_jobs", "worker", "orders:tasks", *options]

    with psycopg.connect(database, autocommit=True) as connection:

        def value(query: str) -> Any:
            row = connection.execute(query.encode()).fetchone()
            return row and row[0]

        with processes(WORKERS, command, env, tmp_path / "workers.log") as workers:
            while value("select count(*) from app_jobs.workers") < WORKERS:
                time.sleep(0.05)
            connection.execute(SETUP)
            started = time.monotonic()
            kills = cuts = 0
            while (passed := time.monotonic() - started) < SECONDS:
                cuts += bool(value(CUT))
                if passed > (kills + 1) * KILL_EVERY:
                    workers.kill()
                    kills += 1
                time.sleep(0.5)
            connection.execute("update app_jobs.scheduled_jobs set paused = true")
            while value("select count(*) from app_jobs.jobs"):
                assert time.monotonic() < started + SECONDS + PATIENCE, workers.log()
                time.sleep(0.05)
        jobs = value("select count(*) from due")
        late = value("select extract(epoch from max(created_at - due_at)) from due")
        seconds = value(
            "select min(s.last_scheduled - f.due_at) from first as f"
            " inner join app_jobs.scheduled_jobs as s on s.id = f.id"
        )
        print(
            f"\n{SCHEDULES} schedules, {WORKERS} workers, {SECONDS} s: {jobs} due times, the latest"
            f" job {late:.2f} s late; {kills} workers killed, {cuts} connections cut"
        )
        for what, query in PROOFS.items():
            assert connection.execute(query.encode()).fetchall() == [], what
        assert seconds.total_seconds() > SECONDS / 2
        assert kills >= SECONDS // KILL_EVERY - 1
