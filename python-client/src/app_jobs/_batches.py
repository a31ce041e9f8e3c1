"""Handlers of many jobs at once: a batch runs in a lane as one job does, one batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from app_jobs._lanes import Lane, LoopLane, ThreadLane
from app_jobs._outbox import Outbox
from app_jobs._tracing import Trace
from app_jobs.tasks import BatchContext, JobContext, Task


class _BatchLane(Lane):
    """Makes a batch of each claim."""

    def __init__(
        self,
        tasks: Sequence[Task[Any]],
        outbox: Outbox,
        *,
        lease: float,
        trace: Trace | None = None,
        **_: Any,
    ) -> None:
        (task,) = tasks
        self._size = task.batch_size or 1
        jobs_outbox = cast("Outbox", _BatchOutbox(outbox))
        super().__init__(tasks, jobs_outbox, concurrency=1, prefetch=0, lease=lease, trace=trace)

    async def appetite(self) -> int:
        """Wait until no batch runs; return how many jobs the next one may have."""
        await super().appetite()
        return self._size

    def put(self, contexts: list[JobContext]) -> None:
        """Take in jobs."""
        batch = cast("JobContext", BatchContext(contexts))
        super().put([batch])


class LoopBatchLane(_BatchLane, LoopLane):
    """Runs coroutines."""


class ThreadBatchLane(_BatchLane, ThreadLane):
    """Runs functions."""


class _BatchOutbox:
    """Tells the outbox of each job of a batch how it ended."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def completed(self, batch: BatchContext, _result: Any) -> None:
        """Note that the handler returned."""
        self._end(batch, None)

    def failed(self, batch: BatchContext, error: BaseException) -> None:
        """Note that the handler raised."""
        self._end(batch, error)

    def not_started(self, batch: BatchContext) -> None:
        """Note that all leases were gone before the handler could start."""
        self._end(batch, None)

    def _end(self, batch: BatchContext, error: BaseException | None) -> None:
        started = set(batch.jobs)
        for job in batch._all:
            job._started_at, job._ended_at = batch._started_at, batch._ended_at
            its_error = batch._ended.get(job, error)
            if job not in started and job not in batch._ended:
                self._outbox.not_started(job)
            elif its_error is None:
                # one that its own transaction has completed has its result
                self._outbox.completed(job, None if job._completed else job.result)
            else:
                self._outbox.failed(job, its_error)
