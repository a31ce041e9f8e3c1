"""Random calls of the functions agree with the model, and rules hold after each of them.

Forty sequences of forty calls; a thousand of a hundred with APP_JOBS_FULL=1. Hypothesis prints a
sequence that fails, shrunk, as a program.
"""

from __future__ import annotations

import json
import operator
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from promises import LATE, Job, Model
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from rules import BROKEN

LATER = timedelta(days=20)
TENANT = "11111111-1111-1111-1111-111111111111"
LONG = os.environ.get("APP_JOBS_FULL") == "1"

workers = st.sampled_from(["w1", "w2"])
served = st.sampled_from([None, ["a"], ["b"], ["a", "b"]])
queues = st.sampled_from([(None, "q"), (TENANT, "q"), (None, "r")])
jobs = st.fixed_dictionaries(
    {
        "task": st.sampled_from(["a", "b"]),
        "tenant": st.sampled_from([None, TENANT]),
        "queue": st.sampled_from([None, None, "q", "r"]),
        "priority": st.integers(0, 2),
        "since": st.integers(0, 5),
        "due": st.sampled_from([True, True, True, False]),
        "max_attempts": st.sampled_from([1, 2, 25]),
    }
)
keys = st.sampled_from([None, "k", "l"])
modes = st.sampled_from(["replace", "preserve_run_at", "keep", "once"])
delays = st.booleans()

LIVE = """
    select
        j.id, j.task_identifier, j.database_id::text, j.queue_name, j.key, j.priority,
        j.run_at <= clock_timestamp(), j.max_attempts, j.attempts, j.lease, j.locked_by,
        j.superseded, j.cancel_reason is not null,
        j.locked_by is not null and j.lease_expires_at is null
    from app_jobs.jobs as j
    order by j.id
"""


# Functions that add or move no job, and those that do it through one that is called here.
ELSEWHERE = {
    "add_scheduled_job": "pgtap/scheduled_jobs.sql",
    "begin_once": "pgtap/effects.sql",
    "doctor": "pgtap/doctor.sql",
    "explain_job": "pgtap/explain_job.sql",
    "finish_once": "pgtap/effects.sql",
    "forget_once": "pgtap/effects.sql",
    "get_scheduled_job": "pgtap/run_schedules.sql",
    "idle_peers": "pgtap/workers.sql",
    "record_action": "pgtap/operator_actions.sql",
    "record_stats": "pgtap/task_stats.sql",
    "register_worker": "pgtap/workers.sql",
    "release_scheduled_jobs": "pgtap/run_schedules.sql",
    "set_attributes": "pgtap/one_job.sql",
    "set_progress": "pgtap/progress.sql",
    "set_worker_idle": "pgtap/workers.sql",
}


class Queue(RuleBasedStateMachine):
    """Calls on several connections in turn, and what the model says to them."""

    dsn: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.connections = [
            psycopg.connect(self.dsn, autocommit=True, row_factory=tuple_row) for _ in range(3)
        ]
        self.turns = cycle(self.connections)
        self.connection = next(self.turns)
        self.start = datetime.now(timezone.utc) - timedelta(days=10)
        self.slow: tuple[psycopg.Connection[Any], Job] | None = None

    def teardown(self) -> None:
        self.end_slow_producer(commit=False)
        try:
            self.nothing_is_left_behind()
        finally:
            # Slots, streams and alarms stay: what earlier sequences left behind must not matter.
            for table in ("jobs", "finished_jobs", "job_errors", "tasks", "queue_settings"):
                self.connection.execute(f"delete from app_jobs.{table}")
            for connection in self.connections:
                connection.close()

    def nothing_is_left_behind(self) -> None:
        """Once all may run, the system does not rest before all has run."""
        for task in ("a", "b"):
            self.pause_task(task, paused=False)
        for queue in sorted(self.model.paused_queues, key=str):
            self.pause_queue(queue, paused=False)
        self.time_passes()
        self.leases_end()
        while taken := self.call("get_jobs", "w1", None, "1 hour", 10):
            assert taken == self.model.get_jobs("w1", None, 10)
            assert set(self.call("complete_jobs", "w1", taken)) == set(taken)
            for number in taken:
                self.model.complete(self.model.live[number])
        assert self.model.get_jobs("w1", None, 10) == []
        self.agrees_with_the_model()

    def call(self, function: str, *arguments: Any) -> list[Any]:
        if self.connection.info.transaction_status == TransactionStatus.IDLE:
            self.connection = next(self.turns)
        places = ", ".join(["%s"] * len(arguments))
        query = f"select * from app_jobs.{function}({places})"
        rows = self.connection.execute(query, arguments).fetchall()
        return [row[0] for row in rows if row[0] is not None]

    def answer(self, function: str, *arguments: Any) -> bool:
        """What a function of one job says."""
        (value,) = self.call(function, *arguments)
        return bool(value)

    @contextmanager
    def undone(self) -> Iterator[None]:
        with self.connection.transaction(force_rollback=True):
            yield

    # --- producers ---

    def add(self, connection: psycopg.Connection[Any], job: Job, mode: str) -> int:
        (row,) = connection.execute(
            "select id from app_jobs.add_job(%s, %s, '{}', %s, %s, %s, %s, %s, %s)",
            [
                job.tenant,
                job.task,
                job.key,
                job.queue,
                self.time_of(job),
                job.max_attempts,
                job.priority,
                mode,
            ],
        ).fetchall()
        return int(row[0])

    def new_job(self, options: dict[str, Any], key: str | None = None) -> Job:
        return Job(id=0, key=key, **options)

    @rule(options=jobs, key=keys, mode=modes)
    def add_job(self, options: dict[str, Any], key: str | None, mode: str) -> None:
        job = self.new_job(options, key)
        expected = self.model.add_job(job, mode)
        self.note(job, expected, self.add(self.connection, job, mode))

    def time_of(self, job: Job) -> datetime:
        return self.start + timedelta(milliseconds=job.since) + (0 if job.due else 1) * LATER

    @initialize(many=st.lists(st.tuples(jobs, keys, modes), min_size=4, max_size=8), worker=workers)
    def begin(self, many: list[tuple[dict[str, Any], str | None, str]], worker: str) -> None:
        self.add_jobs(many, True)
        self.get_jobs(worker, None, 3)

    @rule(many=st.lists(st.tuples(jobs, keys, modes), max_size=5), keyed=st.booleans())
    def add_jobs(self, many: list[tuple[dict[str, Any], str | None, str]], keyed: bool) -> None:
        added = [
            (self.new_job(options, key if keyed else None), mode) for options, key, mode in many
        ]
        specs = [
            {
                "identifier": job.task,
                "db_id": job.tenant,
                "queue_name": job.queue,
                "priority": job.priority,
                "max_attempts": job.max_attempts,
                "run_at": self.time_of(job).isoformat(),
                **({"job_key": job.key, "job_key_mode": mode} if keyed else {}),
            }
            for job, mode in added
        ]
        ids = self.call("add_jobs", json.dumps(specs))
        for (job, mode), number in zip(added, ids, strict=True):
            self.note(job, self.model.add_job(job, mode), number)

    def note(self, job: Job, expected: int | None, number: int) -> None:
        """Compare what add_job() has answered with what the model says; None: a new job."""
        job.id = number
        if expected is None:
            assert number not in self.model.live
            self.model.live[number] = job
        else:
            assert number == expected

    @rule(options=jobs, by_hand=st.booleans())
    def schedule_fires(self, options: dict[str, Any], by_hand: bool) -> None:
        job = self.new_job({**options, "due": True, "max_attempts": 25})
        job.since = LATE + next(self.model.clock)
        (schedule,) = self.connection.execute(
            "insert into app_jobs.scheduled_jobs (task_identifier, database_id, queue_name,"
            " priority, schedule_info, next_run_at)"
            """ values (%s, %s, %s, %s, '{"every": "1 year"}', clock_timestamp()) returning id""",
            [job.task, job.tenant, job.queue, job.priority],
        ).fetchall()[0]
        if by_hand:
            self.connection.execute(
                "update app_jobs.scheduled_jobs set next_run_at = now() + interval '1 year'"
            )
            (number,) = self.call("run_scheduled_job", schedule)
        else:
            (number,) = self.call("run_due_schedules")
        self.note(job, None, number)
        self.connection.execute("delete from app_jobs.scheduled_jobs")

    @rule(options=jobs, mode=modes, key=keys)
    def add_job_and_roll_back(self, options: dict[str, Any], mode: str, key: str | None) -> None:
        with self.undone():
            self.add(self.connection, self.new_job(options, key), mode)

    @precondition(lambda self: self.slow is None)
    @rule(options=jobs, isolation=st.sampled_from(["read committed", "repeatable read"]))
    def begin_slow_producer(self, options: dict[str, Any], isolation: str) -> None:
        connection = psycopg.connect(self.dsn)
        connection.execute(f"set transaction isolation level {isolation}")
        job = self.new_job(options)
        job.id = self.add(connection, job, "replace")
        self.slow = connection, job

    @precondition(lambda self: self.slow is not None)
    @rule(commit=st.booleans())
    def end_slow_producer(self, commit: bool) -> None:
        if self.slow is None:
            return
        connection, job = self.slow
        if commit:
            connection.commit()
            self.model.live[job.id] = job
        connection.close()
        self.slow = None

    @rule(key=st.sampled_from(["k", "l"]), tenant=st.sampled_from([None, TENANT]))
    def cancel_job(self, key: str, tenant: str | None) -> None:
        job = self.model.holder_of(key, tenant)
        assert self.call("find_job", key, tenant) == ([] if job is None else [job.id])
        assert self.call("cancel_job", key, tenant) == ([] if job is None else [job.id])
        if job is not None:
            self.model.cancel(job)

    # --- workers ---

    @rule(worker=workers, tasks=served, limit=st.integers(1, 4))
    def get_jobs(self, worker: str, tasks: list[str] | None, limit: int) -> None:
        self.call("tick")
        expected = self.model.get_jobs(worker, tasks, limit)
        assert self.call("get_jobs", worker, tasks, "1 hour", limit) == expected

    @rule(worker=workers, tasks=served)
    def get_job(self, worker: str, tasks: list[str] | None) -> None:
        # without a tick(): it sees to what is due by itself
        expected = self.model.get_jobs(worker, tasks, 1)
        assert self.call("get_job", worker, tasks, "1 hour") == expected

    @rule(worker=workers, tasks=served)
    def get_jobs_and_roll_back(self, worker: str, tasks: list[str] | None) -> None:
        with self.undone():
            self.call("get_jobs", worker, tasks, "1 hour", 3)

    @rule(worker=workers, data=st.data())
    def complete_jobs(self, worker: str, data: st.DataObject) -> None:
        ids, leases = self.some(data)
        held = self.held(worker, ids, leases)
        assert set(self.call("complete_jobs", worker, ids, leases)) == {job.id for job in held}
        for job in held:
            self.model.complete(job)

    @rule(worker=workers, data=st.data(), fails=st.booleans())
    def complete_or_fail_job(self, worker: str, data: st.DataObject, fails: bool) -> None:
        for number, lease in zip(*self.some(data), strict=True):
            job = self.model.held(worker, number, lease)
            assert self.answer("hold_job", worker, number, lease) == (job is not None)
            arguments = [None, lease, LATER] if fails else [lease]
            answer = self.call("fail_job" if fails else "complete_job", worker, number, *arguments)
            assert answer == ([] if job is None else [number])
            if job is not None and fails:
                self.model.let_go(job, delay=True, counted=True)
            elif job is not None:
                self.model.complete(job)

    @rule(worker=workers, data=st.data(), permanent=st.booleans(), delay=delays)
    def fail_jobs(self, worker: str, data: st.DataObject, permanent: bool, delay: bool) -> None:
        ids, leases = self.some(data)
        failures = [
            {
                "job_id": number,
                "lease": lease,
                "permanent": permanent,
                "retry_in": f"{LATER.days if delay else 0} days",
            }
            for number, lease in zip(ids, leases, strict=True)
        ]
        failed = self.call("fail_jobs", worker, json.dumps(failures))
        held = [
            j for n, le in zip(ids, leases, strict=True) if (j := self.model.held(worker, n, le))
        ]
        assert set(failed) == {job.id for job in held}
        for job in sorted(held, key=lambda job: failed.index(job.id)):
            self.model.let_go(job, delay=delay, counted=True, permanent=permanent)
        self.same_times([job.id for job in held])

    @rule(worker=workers, data=st.data(), delay=delays)
    def snooze_job(self, worker: str, data: st.DataObject, delay: bool) -> None:
        for number, lease in zip(*self.some(data), strict=True):
            job = self.model.held(worker, number, lease)
            answer = self.call("snooze_job", worker, number, LATER * delay, lease)
            assert answer == ([] if job is None else [number])
            if job is not None:
                self.model.let_go(job, delay=delay, counted=False)

    @rule(worker=workers, term=st.sampled_from([None, "30 minutes", "2 hours"]))
    def heartbeat(self, worker: str, term: str | None) -> None:
        kept = self.call("heartbeat", worker, None, term)
        assert sorted(kept) == sorted(self.model.heartbeat(worker))

    @rule(worker=workers)
    def release_jobs(self, worker: str) -> None:
        held = self.model.leased(worker)
        assert set(self.call("release_jobs", worker)) == {job.id for job in held}
        for job in held:
            self.model.let_go(job, delay=None, counted=False)

    # --- time and settings ---

    @rule()
    def leases_end(self) -> None:
        self.connection.execute(
            "update app_jobs.jobs set lease_expires_at = now() where lease_expires_at is not null"
        )
        self.connection.execute("update app_jobs.alarms set due_at = now() where kind = 'lease'")
        self.call("tick")
        for job in self.model.leased():
            self.model.let_go(job, delay=None, counted=True)

    @rule()
    def time_passes(self) -> None:
        for table, column in (("jobs", "run_at"), ("alarms", "due_at")):
            self.connection.execute(
                f"update app_jobs.{table} set {column} = {column} - %s where {column} > now()"
                + (" and line is null" if table == "jobs" else " and kind = 'run'"),
                [LATER],
            )
        for job in self.model.live.values():
            job.due = True

    @rule()
    def slots_turn(self) -> None:
        self.connection.execute("select setval('app_jobs.activity', 1000)")
        self.call("tick")
        self.call("tick")
        assert self.call("sweep") == [0], "nothing had to be repaired"

    @rule(task=st.sampled_from(["a", "b"]), kept=st.booleans())
    def set_task(self, task: str, kept: bool) -> None:
        (self.model.kept_tasks.add if kept else self.model.kept_tasks.discard)(task)
        self.call("set_task", task, json.dumps({"keep_completed": "1 day" if kept else None}))

    @rule(task=st.sampled_from(["a", "b"]), paused=st.booleans())
    def pause_task(self, task: str, paused: bool) -> None:
        (self.model.paused_tasks.add if paused else self.model.paused_tasks.discard)(task)
        self.call("pause_task" if paused else "resume_task", task)
        if not paused:  # its jobs that are parked follow with this
            self.call("tick")

    @rule(queue=queues, paused=st.booleans())
    def pause_queue(self, queue: tuple[str | None, str], paused: bool) -> None:
        (self.model.paused_queues.add if paused else self.model.paused_queues.discard)(queue)
        self.call("pause_queue" if paused else "resume_queue", queue[1], queue[0])

    @rule(queue=queues, limit=st.integers(1, 3))
    def set_queue_limit(self, queue: tuple[str | None, str], limit: int) -> None:
        self.model.limits[queue] = limit
        self.call("set_queue_limit", queue[1], limit, queue[0])

    # --- operators, and applications that move jobs by id ---

    @rule(data=st.data(), state=st.sampled_from(["completed", "failed"]))
    def finish_jobs(self, data: st.DataObject, state: str) -> None:
        ids = self.any_of(data)
        function = "complete_jobs" if state == "completed" else "permanently_fail_jobs"
        leased = [job.id for job in self.model.leased()]
        expected = [n for n in sorted(ids) if n in self.model.live and n not in leased]
        assert self.call(function, ids) == expected
        for number in expected:
            job = self.model.live[number]
            if state == "failed":
                self.model.finish(job, state)
            else:
                self.model.complete(job)

    @rule(data=st.data())
    def cancel_jobs(self, data: st.DataObject) -> None:
        ids = self.any_of(data)
        expected = [number for number in sorted(ids) if number in self.model.live]
        assert self.call("cancel_jobs", ids) == expected
        for number in expected:
            self.model.cancel(self.model.live[number])

    @rule(data=st.data(), priority=st.integers(0, 2))
    def reschedule_jobs(self, data: st.DataObject, priority: int) -> None:
        ids = self.any_of(data)
        waiting = [n for n in sorted(ids) if n in self.model.live and not self.model.live[n].holder]
        assert self.call("reschedule_jobs", ids, None, priority) == waiting
        for number in waiting:
            self.model.live[number].priority = priority

    @rule(data=st.data())
    def retry_jobs(self, data: st.DataObject) -> None:
        ids = self.any_of(data)
        expected = self.model.retry(ids)
        if expected is None:
            with pytest.raises(psycopg.Error, match="another live job has the same key"):
                self.call("retry_jobs", ids)
        else:
            assert self.call("retry_jobs", ids) == expected

    @rule()
    def redrive_jobs(self) -> None:
        expected = self.model.to_redrive()
        assert sorted(self.call("redrive_jobs")) == expected
        assert self.model.retry(expected) == expected

    @rule()
    def prune(self) -> None:
        assert self.call("prune", timedelta(0)) == [len(self.model.finished)]
        self.model.finished.clear()

    @rule(data=st.data(), since=st.integers(0, 5), due=st.booleans())
    def set_times(self, data: st.DataObject, since: int, due: bool) -> None:
        for number in self.any_of(data):
            job = self.model.live.get(number)
            assert self.answer("set_retry_after", number, "30 minutes") == (job is not None)
            run_at = self.time_of(Job(number, "", since=since, due=due))
            expected = job is not None and self.model.set_run_at(job, since, due)
            assert self.answer("set_run_at", number, run_at) == expected

    @rule(data=st.data())
    def move_job_to_processing(self, data: st.DataObject) -> None:
        for number in self.any_of(data):
            job = self.model.live.get(number)
            moves = job is not None and job.holder is not None and not job.cancelled
            assert self.answer("move_job_to_processing", number) == moves
            if job is not None and moves:
                job.processing = True

    @rule(data=st.data(), state=st.sampled_from(["completed", "failed", None]))
    def move_job_to_the_end(self, data: st.DataObject, state: str | None) -> None:
        functions = {"completed": "move_job_to_done", "failed": "move_job_to_failed"}
        for number in self.any_of(data):
            job = self.model.live.get(number)
            known = job is not None or (state is None and number in self.model.finished)
            assert self.answer(functions.get(state or "", "delete_job"), number) == known
            if job is not None:
                self.model.finish(job, state)
            elif known:
                del self.model.finished[number]

    # --- what always holds ---

    @invariant()
    def agrees_with_the_model(self) -> None:
        live = sorted(self.model.live.values(), key=lambda job: job.id)
        shown = operator.attrgetter(
            *("id", "task", "tenant", "queue", "key", "priority", "due", "max_attempts"),
            *("attempts", "lease", "holder", "superseded", "cancelled", "processing"),
        )
        assert self.connection.execute(LIVE).fetchall() == [shown(job) for job in live]
        finished = self.connection.execute("select id, state from app_jobs.finished_jobs")
        expected = {number: state for number, (state, _) in self.model.finished.items()}
        assert dict(finished.fetchall()) == expected

    @invariant()
    def nothing_is_broken(self) -> None:
        assert self.connection.execute(BROKEN).fetchall() == []

    # --- helpers ---

    def some(self, data: st.DataObject) -> tuple[list[int], list[int | None]]:
        """Some jobs, most of them held, with the lease that a worker may think it has."""
        known = sorted([*self.model.live, *self.model.finished]) or [0]
        held = [job.id for job in self.model.live.values() if job.holder] or known
        ids = data.draw(
            st.lists(st.sampled_from(held + known[:1]), min_size=1, max_size=4, unique=True),
            label="ids",
        )
        leases = []
        for number in ids:
            job = self.model.live.get(number)
            right = job.lease if job else 1
            leases.append(
                data.draw(st.sampled_from([right, right, None, right - 1]), label="lease")
            )
        return ids, leases

    def any_of(self, data: st.DataObject) -> list[int]:
        """Some jobs, live, finished or unknown."""
        known = [0, *self.model.live, *self.model.finished]
        ids = st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True)
        return data.draw(ids, label="ids")

    def held(self, worker: str, ids: list[int], leases: list[int | None]) -> list[Job]:
        """Those of the jobs that the worker holds under these leases."""
        pairs = zip(ids, leases, strict=True)
        return [job for number, lease in pairs if (job := self.model.held(worker, number, lease))]

    def same_times(self, ids: list[int]) -> None:
        """Jobs that went back in one call have one run_at, so their ids decide."""
        times = [self.model.live[number].since for number in ids if number in self.model.live]
        for number in ids:
            if number in self.model.live:
                self.model.live[number].since = min(times)


def test_no_function_is_missing(database: str) -> None:
    """Each function that may change something is called above, or named with its tests."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            """
            select distinct p.proname from pg_proc as p
            where
                p.pronamespace = 'app_jobs'::regnamespace
                and p.provolatile = 'v'
                and has_function_privilege('app_jobs_operator', p.oid, 'execute')
            """
        ).fetchall()
    called = set(re.findall(r'"(\w+)"|app_jobs\.(\w+)\(', Path(__file__).read_text()))
    names = {name for pair in called for name in pair} - set(ELSEWHERE)
    assert {name for (name,) in rows if not name.startswith("tg_")} - names == set(ELSEWHERE)


def test_random_calls_agree_with_the_model(database: str) -> None:
    Queue.dsn = database
    run_state_machine_as_test(
        Queue,
        settings=settings(
            max_examples=1000 if LONG else 40,
            stateful_step_count=100 if LONG else 40,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
