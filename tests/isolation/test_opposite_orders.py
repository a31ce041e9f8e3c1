"""Whoever handles several jobs, in whatever order they are named: no two wait for each other.

Each call is played against each, itself included, the first naming the jobs upwards and the second
downwards. They meet in the middle: odd jobs, finished jobs and queues are held by one session, even
ones by another, until both calls wait or have ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import product
from typing import Any

import psycopg
import pytest
import races
from psycopg import errors, sql

Connection = psycopg.Connection[tuple[Any, ...]]

# Jobs 1 and 2 run, 3 and 4 wait, 5 and 6 are dead letters; odd ones in queue x, even ones in y.
ALL = "%(all)s::bigint[]"
CALLS = {
    "add_jobs": "add_jobs('a', array['1', '2']::json[], queue_name => 'x')",
    "add_jobs_by_key": """add_jobs((
        select json_agg(json_build_object('identifier', 'a', 'job_key', 'k' || n))
        from unnest(%(all)s::bigint[]) as n
        where n in (3, 4)
    ))""",
    "cancel_jobs": f"cancel_jobs({ALL})",
    "claim": "get_jobs('other', job_limit => 10)",
    "complete": f"complete_jobs('w', {ALL})",
    "complete_jobs": f"complete_jobs({ALL})",
    "fail": "fail_jobs('w', (select json_agg(json_build_object('job_id', n))"
    f" from unnest({ALL}) as n))",
    "fail_for_good": "fail_jobs('w', (select json_agg(json_build_object('job_id', n,"
    f" 'permanent', true)) from unnest({ALL}) as n))",
    "heartbeat": f"heartbeat('w', {ALL})",
    "permanently_fail_jobs": f"permanently_fail_jobs({ALL})",
    "prune": "prune('0')",
    "redrive_jobs": "redrive_jobs()",
    "release_jobs": "release_jobs('w')",
    "release_scheduled_jobs": "release_scheduled_jobs('s')",
    "reschedule_jobs": f"reschedule_jobs({ALL}, now() + interval '1 hour')",
    "retry_jobs": f"retry_jobs({ALL})",
    "run_due_schedules": "run_due_schedules()",
    "set_queue_limit": "set_queue_limit(%(queue)s, 3)",
    "tick": "tick()",
}
# What is locked in the middle, by two sessions.
JOBS = [
    "select from app_jobs.jobs where id in (1, 3) for update",
    "select from app_jobs.jobs where id in (2, 4) for update",
]
FINISHED = [
    "select from app_jobs.finished_jobs where id = 5 for update",
    "select from app_jobs.finished_jobs where id = 6 for update",
]
QUEUES = ["call spec.lock_queue('x')", "call spec.lock_queue('y')"]
MIDDLES = {
    "rows": [[JOBS[0], FINISHED[0]], [JOBS[1], FINISHED[1]]],
    "queues": [[QUEUES[0]], [QUEUES[1]]],
    "rows-and-queues": [[*JOBS, *FINISHED], QUEUES],
}
PREPARED = """
    select app_jobs.set_queue_limit('x', 2), app_jobs.set_queue_limit('y', 2);
    call spec.add(queue_name => 'x'); call spec.add(queue_name => 'y');
    select app_jobs.get_jobs('w', job_limit => 2);
    call spec.add(queue_name => 'x', key => 'k3'); call spec.add(queue_name => 'y', key => 'k4');
    call spec.add(queue_name => 'x'); call spec.add(queue_name => 'y');
    select app_jobs.permanently_fail_jobs(array[5, 6]);
    call spec.schedule('s'); call spec.schedule('s');
    update app_jobs.scheduled_jobs set locked_by = 's', locked_at = now() - interval '1 hour';
"""
WAITS = "select cardinality(pg_blocking_pids(%s)) > 0"


class Stage:
    """Six sessions: two that hold what is in the middle, two that call, one that watches."""

    def __init__(self, connections: list[Connection], pool: ThreadPoolExecutor) -> None:
        self.watcher, *self.holders = connections[:3]
        self.callers = connections[3:]
        self.pool = pool

    def settled(self, call: Future[None], caller: Connection) -> None:
        """Return once a call waits for a lock, or has ended."""
        deadline = time.monotonic() + 30
        while not call.done():
            row = self.watcher.execute(WAITS, [caller.info.backend_pid]).fetchone()
            if row == (True,):
                return
            assert time.monotonic() < deadline, "it neither waits nor ends"

    def play(self, calls: tuple[str, str], middle: list[list[str]]) -> None:
        """Both calls, the first one first; all is rolled back."""
        for holder, locks in zip(self.holders, middle, strict=True):
            for lock in locks:
                holder.execute(sql.SQL(lock))
        orders = [
            {"all": [1, 2, 3, 4, 5, 6], "queue": "x"},
            {"all": [6, 5, 4, 3, 2, 1], "queue": "y"},
        ]
        futures = []
        for name, caller, order in zip(calls, self.callers, orders, strict=True):
            futures.append(self.pool.submit(self.call, caller, CALLS[name], order))
            self.settled(futures[-1], caller)
        for holder in self.holders:
            holder.rollback()
            for future, caller in zip(futures, self.callers, strict=True):
                self.settled(future, caller)
        wait(futures)  # both, before the next two come
        for future in futures:
            future.result()

    @staticmethod
    def call(caller: Connection, function: str, order: dict[str, Any]) -> None:
        try:
            caller.execute(sql.SQL("select app_jobs." + function), order)
        finally:
            caller.rollback()


@contextmanager
def stage(database: str) -> Iterator[Stage]:
    connections: list[Connection] = []
    # Who waits for one who waits for him is told at once.
    options = "-c deadlock_timeout=10ms -c lock_timeout=20s"
    with ThreadPoolExecutor(2) as pool:
        try:
            for number in range(5):
                connections.append(psycopg.connect(database, options=options))
                connections[-1].autocommit = number == 0
            yield Stage(connections, pool)
        finally:
            for connection in connections:
                connection.close()


@pytest.mark.parametrize("middle", MIDDLES)
def test_no_two_wait_for_each_other(database: str, middle: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(races.HELPERS.read_bytes())
        connection.execute(PREPARED)
    deadlocks = []
    with stage(database) as scene:
        for calls in product(CALLS, repeat=2):
            try:
                scene.play(calls, MIDDLES[middle])
            except errors.DeadlockDetected:
                deadlocks.append(calls)
    # Keys are taken in the order of the specs, which is that of the ids: see key-opposite-orders.
    assert [calls for calls in deadlocks if "add_jobs_by_key" not in calls] == []
    assert bool(deadlocks) == (middle != "queues")
