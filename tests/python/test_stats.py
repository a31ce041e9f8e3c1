"""What workers count: by outcome, wait and run time; and that it is never a job's trouble."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import psycopg
import pytest

from app_jobs import Client, Fail, JobContext, Snooze, Tasks, Worker, _stats
from app_jobs._link import Link, cancel
from app_jobs._sql import TaskStats
from app_jobs._stats import BOUNDS, Counts, Histogram, Stats

Connection = psycopg.Connection[Any]
Running = Callable[..., AbstractContextManager[Worker]]
Until = Callable[[str], None]

HOUR = timedelta(hours=1)


def stats_of(client: Client) -> dict[str, TaskStats]:
    now = datetime.now(timezone.utc)
    return {s.task_identifier: s for s in client.task_stats(now - HOUR, now + HOUR, 24 * HOUR)}


def test_bounds_are_those_of_the_database(client: Client) -> None:
    assert list(BOUNDS) == client.histogram_bounds()


def test_a_histogram_counts_each_time_in_its_bucket() -> None:
    chance = random.Random(1)
    times = [10 ** chance.uniform(-4, 5) for _ in range(1000)]
    times += [-0.1, 0.0, *BOUNDS, *(b + 1e-9 for b in BOUNDS)]
    expected = [0] * (len(BOUNDS) + 1)
    for time in times:
        expected[sum(time > bound for bound in BOUNDS)] += 1
    histogram = Histogram()
    histogram.add(times[:10])
    histogram.add(times[10:])
    histogram.add([])
    assert histogram.counts == expected
    assert histogram.seconds == pytest.approx(sum(times) + 0.1)


def test_runs_are_counted_by_outcome(
    client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    @tasks.task("async")
    async def coroutine(payload: str) -> None:
        run(payload)

    @tasks.task("sync")
    def run(payload: str) -> None:
        if payload == "snooze":
            raise Snooze(HOUR)
        if payload != "complete":
            raise Fail(permanent=payload == "fail", retry_in=HOUR)

    @tasks.task("in a transaction")
    async def in_a_transaction(ctx: JobContext) -> None:
        async with ctx.transaction():
            pass

    waited = datetime.now(timezone.utc) - timedelta(seconds=100)
    for kind in ("async", "sync"):
        payloads = ["complete"] * 4 + ["fail"] * 3 + ["retry"] * 2 + ["snooze"]
        client.add_jobs(identifier=kind, payloads=payloads, run_at=waited)
        client.add_job(identifier=kind, payload="last", max_attempts=1, run_at=waited)
    client.add_job(identifier="in a transaction", run_at=waited)
    with running():
        until(
            "not exists (select from app_jobs.jobs where run_at < now() or locked_by is not null)"
        )
    found = stats_of(client)
    for kind in ("async", "sync"):
        stats = found[kind]
        assert (stats.completed, stats.failed, stats.retried) == (4, 4, 2), kind
        bucket = BOUNDS.index(150)
        assert stats.wait_histogram[bucket] == sum(stats.wait_histogram) == 10
        assert 1000 <= stats.wait_seconds < 1500
        assert sum(stats.run_histogram) == 10
        assert 0 < stats.run_seconds < 100
    assert found["in a transaction"].completed == 1


def test_a_report_that_fails_stops_nothing(
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks.task("task")(lambda: None)
    monkeypatch.setattr(_stats, "REPORT_EVERY", 0.01)
    connection.execute("alter function app_jobs.record_stats(text, json) rename to gone")
    with running():
        client.add_job(identifier="task")
        until("not exists (select from app_jobs.jobs)")
        while "trouble (statistics" not in caplog.text:
            pass
        client.add_job(identifier="task")
        until("not exists (select from app_jobs.jobs)")
        connection.execute("alter function app_jobs.gone(text, json) rename to record_stats")
    assert stats_of(client)["task"].completed == 2


def test_reports_tell_differences() -> None:
    sent: list[Any] = []
    answers = [None, psycopg.OperationalError("gone"), None]

    class FakeLink:
        async def call(self, _function: object, **arguments: Any) -> None:
            sent.append({row.pop("task_identifier"): row for row in arguments["stats"]})
            answer = answers.pop(0)
            if answer is not None:
                raise answer

    async def report() -> None:
        stats = Stats(cast("Link", FakeLink()), "worker")
        for task, time in (("a", 0.0005), ("b", 4.0), ("b", 8.0)):
            counts = stats.tasks[task]
            counts.runs["completed"] += 1
            counts.wait.add([time])
            await stats.report()
        await stats.report()  # there is nothing new

    asyncio.run(report())
    first, second, third = sent
    assert first == {"a": counted([0.0005])}
    assert second == {"b": counted([4.0])}, "a was told before"
    assert third == {"b": counted([4.0, 8.0])}, "what had failed goes with the next one"


def test_a_worker_that_stops_while_it_reports_tells_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_stats, "REPORT_EVERY", 0.01)
    told: list[int] = []

    class SlowLink:
        async def call(self, _function: object, **arguments: Any) -> None:
            told.extend(row["completed"] for row in arguments["stats"])
            asked.set()
            await answer.wait()

    async def stop() -> None:
        stats = Stats(cast("Link", SlowLink()), "worker")
        stats.tasks["task"].runs["completed"] = 1
        reports = asyncio.create_task(stats.report_for_ever())
        await asked.wait()
        stats.tasks["task"].runs["completed"] = 3
        await cancel(reports)
        asyncio.get_running_loop().call_later(0.1, answer.set)
        await stats.report()

    asked, answer = asyncio.Event(), asyncio.Event()
    asyncio.run(stop())
    assert told == [1, 2]


def counted(waits: list[float]) -> dict[str, Any]:
    counts = Counts()
    counts.runs["completed"] = len(waits)
    counts.wait.add(waits)
    return counts.figures()
