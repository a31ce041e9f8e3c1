"""What a worker counts, and how the database hears of it: every few seconds, all tasks at once."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal

import psycopg

from app_jobs._link import Link, log_trouble
from app_jobs._sql import RECORD_STATS, TaskStats
from app_jobs.tasks import JobContext

REPORT_EVERY = 10.0  # seconds, about
REPORT_WITHIN = 5.0  # seconds that the statement may take

# As histogram_bounds() has them.
BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    *(2.5, 5.0, 10.0, 30.0, 60.0, 150.0, 300.0, 900.0, 3600.0, 14400.0),
)

Outcome = Literal["completed", "failed", "retried"]


class Histogram:
    """How many times fell into each bucket, and their sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def add(self, times: list[float]) -> None:
        """Take in times, which it sorts: then a bucket costs two searches, a time nothing."""
        times.sort()
        if times and times[0] < 0:  # by two clocks
            times[:] = (max(time, 0.0) for time in times)
        self.seconds += sum(times)
        start, end = 0, len(times)
        while start < end:
            bucket = bisect_left(BOUNDS, times[start])
            after = bisect_right(times, BOUNDS[bucket]) if bucket < len(BOUNDS) else end
            self.counts[bucket] += after - start
            start = after


class Counts:
    """What a worker counted of a task since it started."""

    def __init__(self) -> None:
        self.runs: dict[str, int] = {"completed": 0, "failed": 0, "retried": 0}
        self.wait = Histogram()
        self.run = Histogram()

    def add(self, figures: TaskStats) -> None:
        """Take in what another has counted."""
        for outcome in self.runs:
            self.runs[outcome] += getattr(figures, outcome)
        for histogram, counts, seconds in (
            (self.wait, figures.wait_histogram, figures.wait_seconds),
            (self.run, figures.run_histogram, figures.run_seconds),
        ):
            histogram.counts = [a + b for a, b in zip(histogram.counts, counts, strict=True)]
            histogram.seconds += seconds

    def figures(self) -> dict[str, Any]:
        """All of it, under the names that record_stats() takes."""
        return {
            **self.runs,
            "wait_histogram": self.wait.counts.copy(),
            "run_histogram": self.run.counts.copy(),
            "wait_seconds": self.wait.seconds,
            "run_seconds": self.run.seconds,
        }


class Stats:
    """Counts runs by task, and tells the database what has come since it was told last.

    A report that fails is trouble for no job: its figures go with the next one.
    """

    def __init__(self, link: Link, worker_id: str) -> None:
        self.tasks: defaultdict[str, Counts] = defaultdict(Counts)
        self._link = link
        self._worker_id = worker_id
        self._told: dict[str, dict[str, Any]] = {}
        self._reporting = asyncio.Lock()

    def note(self, outcome: Outcome, contexts: Iterable[JobContext]) -> None:
        """Count runs that have ended, and that the database knows to have ended so."""
        times: defaultdict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
        task = None
        for context in contexts:
            if context.task is not task:
                task = context.task
                waits, runs = times[task.name]
            started_at = context._started_at
            waits.append(context._waited(started_at))
            runs.append(context._ended_at - started_at)
        for name, (waits, runs) in times.items():
            counts = self.tasks[name]
            counts.runs[outcome] += len(runs)
            counts.wait.add(waits)
            counts.run.add(runs)

    async def report_for_ever(self) -> None:
        """Report every few seconds; a report under way outlives a cancellation."""
        while True:
            await asyncio.sleep(REPORT_EVERY * random.uniform(0.8, 1))
            report = asyncio.create_task(self.report())
            await asyncio.shield(report)

    async def report(self) -> None:
        """Tell the database what has come since the last report, which it lets end first."""
        async with self._reporting:
            await self._report()

    async def _report(self) -> None:
        figures = {task: counts.figures() for task, counts in self.tasks.items()}
        news = [
            {"task_identifier": task, **_difference(current, self._told.get(task))}
            for task, current in figures.items()
            if current != self._told.get(task)
        ]
        if not news:
            return
        try:
            await self._link.call(
                RECORD_STATS, within=REPORT_WITHIN, worker_id=self._worker_id, stats=news
            )
        except (psycopg.Error, OSError) as error:
            log_trouble("statistics, which go with the next report", error)
        else:
            self._told = figures


def _difference(now: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    if before is None:
        return now
    return {
        name: [a - b for a, b in zip(value, before[name], strict=True)]
        if isinstance(value, list)
        else value - before[name]
        for name, value in now.items()
    }
