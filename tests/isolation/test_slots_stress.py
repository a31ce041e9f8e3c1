"""Producers of all kinds, claims, ticks, sweeps, queues at once: nothing lost, doubled, overrun."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psycopg
from psycopg import IsolationLevel

SECONDS = 5  # of production
PATIENCE = 90  # seconds within which all must be done
TASKS = ["t0", "t1", "t2", "t3"]
QUEUES = [None, None, None, "q0", "q1", "q2", "q3"]

ADD = """
    select app_jobs.add_jobs(
        %s, array(select to_json(g) from generate_series(1, %s) as g), queue_name => %s,
        priority => %s, run_at => clock_timestamp() + %s::interval
    )
"""
CLAIM = "select id, lease from app_jobs.get_jobs(%s, %s, %s::interval, %s)"
COMPLETE = "select app_jobs.complete_jobs(%s, %s, %s)"
FAIL = "select app_jobs.fail_jobs(%s, %s)"
MISCOUNTED = """
    with said as (
        select state, task_identifier, queue_line, sum(jobs) as jobs from app_jobs.totals
        group by 1, 2, 3 having sum(jobs) <> 0
    ),
    noted as (
        select state, task_identifier, queue_line, sum(jobs) as jobs from app_jobs.slot_counts
        group by 1, 2, 3
    )
    select * from said full join noted using (state, task_identifier, queue_line, jobs)
    where said is null or noted is null
"""
CLOSED = """
    select pg_sequence_last_value('app_jobs.slot_number') - count(*) from app_jobs.open_slots
"""
OVERRUN = """
    select j.queue_name, count(*)
    from app_jobs.jobs as j
    where j.queue_name is not null and j.locked_by is not null
    group by j.queue_name
    having count(*) > case j.queue_name when 'q3' then 3 else 1 end
"""

Rows = list[tuple[Any, ...]]


class Stress:
    """What the threads share, and what each of them does."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.started = time.monotonic()
        self.lock = threading.Lock()
        self.producing = 6
        self.added: set[int] = set()
        self.done: Counter[int] = Counter()
        self.stopped = False

    def age(self) -> float:
        age = time.monotonic() - self.started
        assert age < PATIENCE and not self.stopped, (
            f"{len(self.added)} added, {len(self.done)} done"
        )
        return age

    def all_done(self) -> bool:
        with self.lock:
            return not self.producing and len(self.done) == len(self.added)

    def produce(self, number: int) -> None:
        rng = random.Random(number)
        with psycopg.connect(self.database) as connection:
            while self.age() < SECONDS:
                repeatable = rng.random() < 0.3
                connection.isolation_level = (
                    IsolationLevel.REPEATABLE_READ if repeatable else IsolationLevel.READ_COMMITTED
                )
                connection.execute("select 1 from pg_class limit 1")  # the snapshot is taken here
                if rng.random() < 0.2:
                    time.sleep(rng.random() * 0.3)
                jobs = rng.choice([1, 7, 100, 1300])
                queue = rng.choice(QUEUES) if jobs < 1000 else None
                delay = "0.4 s" if rng.random() < 0.2 else "0 s"
                values = [rng.choice(TASKS), jobs, queue, rng.randrange(3), delay]
                rows = connection.execute(ADD, values).fetchall()
                if rng.random() < 0.3:
                    time.sleep(rng.random() * 0.5)
                if rng.random() < 0.1:
                    connection.rollback()
                    continue
                with self.lock:
                    self.added.update(job_id for (job_id,) in rows)
                connection.commit()
                time.sleep(rng.random() * 0.02)
        with self.lock:
            self.producing -= 1

    def work(self, number: int) -> None:
        rng = random.Random(100 + number)
        worker = f"w{number}"
        with psycopg.connect(self.database, autocommit=True) as connection:

            def until_all(jobs: Rows, call: Callable[[Rows], Rows]) -> None:
                """Repeat an acknowledgement for those that it had to skip."""
                while jobs:
                    self.age()
                    accepted = {job_id for (job_id,) in call(jobs)}
                    jobs = [job for job in jobs if job[0] not in accepted]

            def complete(jobs: Rows) -> Rows:
                ids, leases = zip(*jobs, strict=True)
                return connection.execute(COMPLETE, [worker, [*ids], [*leases]]).fetchall()

            def fail(jobs: Rows) -> Rows:
                failures = json.dumps(
                    [{"job_id": job[0], "lease": job[1], "retry_in": "0.1 s"} for job in jobs]
                )
                return connection.execute(FAIL, [worker, failures]).fetchall()

            while not self.all_done():
                self.age()
                tasks = rng.choice([None, TASKS, [rng.choice(TASKS)]])
                dies = rng.random() < 0.02
                values = [worker, tasks, "0.2 s" if dies else "10 min", rng.choice([1, 3, 50, 500])]
                jobs = connection.execute(CLAIM, values).fetchall()
                if dies:
                    continue  # its leases end
                if not jobs:
                    time.sleep(0.005)
                    continue
                if rng.random() < 0.1:
                    time.sleep(rng.random() * 0.05)
                bad = [job for job in jobs if rng.random() < 0.05]
                good = [job for job in jobs if job not in bad]
                until_all(bad, fail)
                until_all(good, complete)
                with self.lock:
                    self.done.update(job_id for job_id, _ in good)

    def watch(self) -> None:
        with psycopg.connect(self.database, autocommit=True) as connection:
            while not self.all_done():
                self.age()
                row = connection.execute("select relisted from app_jobs.tick()").fetchone()
                assert row == (0,), "a slot was not listed"
                assert connection.execute("select app_jobs.sweep()").fetchone() == (0,)
                assert connection.execute("select * from spec.lost").fetchall() == []
                assert connection.execute(OVERRUN.encode()).fetchall() == []
                assert connection.execute(MISCOUNTED.encode()).fetchall() == []
                time.sleep(0.03)


def test_nothing_is_lost_doubled_or_overrun(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute((Path(__file__).parent / "helpers.sql").read_bytes())
        connection.execute(
            "insert into app_jobs.queue_settings (line, queue_name, max_running)"
            " values (':q3', 'q3', 3)"
        )
    stress = Stress(database)
    with ThreadPoolExecutor(11) as pool:
        threads = [pool.submit(stress.produce, number) for number in range(6)]
        threads += [pool.submit(stress.work, number) for number in range(4)]
        threads += [pool.submit(stress.watch)]
        ended, others = wait(threads, return_when=FIRST_EXCEPTION)
        stress.stopped = bool(others)
        for thread in ended:
            thread.result()

    assert set(stress.done) == stress.added
    assert max(stress.done.values()) == 1
    with psycopg.connect(database) as connection:
        row = connection.execute(CLOSED).fetchone()
        assert row
        assert row[0] > 10, "slots came and went"
        assert connection.execute("select count(*) from app_jobs.jobs").fetchone() == (0,)
        connection.execute("select app_jobs.count_again(1000)")
        assert connection.execute("select * from app_jobs.metrics").fetchall() == []
    print(f"{len(stress.added)} jobs in {stress.age():.0f} s, {row[0]} slots closed")
