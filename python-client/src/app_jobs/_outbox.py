"""How jobs ended, on the way to the database."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

import psycopg

from app_jobs import _sql
from app_jobs._link import Alarm, Link
from app_jobs._stats import Stats
from app_jobs.errors import AppJobsError, BadArgument, InDoubt
from app_jobs.tasks import Fail, JobContext, Snooze

log = logging.getLogger("app_jobs.worker")

BATCH = 1000  # outcomes in one statement at most
LINGER = 0.02  # seconds between two statements at least, unless somebody waits: commits are dear
LOST_NOTICE = "the job was cancelled, timed out or taken over"


@dataclass(slots=True)
class Completion:
    """A job whose handler returned; the result as JSON text."""

    context: JobContext
    result: _sql.RawJson | None


@dataclass(slots=True)
class Failure:
    """A job whose handler raised."""

    context: JobContext
    failure: _sql.JobFailure

    @property
    def is_last(self) -> bool:
        """Whether no attempt follows."""
        permanent = self.failure.get("permanent", False)
        return permanent or self.context.attempt >= self.context.max_attempts


@dataclass(slots=True)
class Delay:
    """A job that its handler put back."""

    context: JobContext
    delay: timedelta


Outcome = Completion | Failure | Delay


class Outbox:
    """Sends outcomes in batches: what comes up while one batch is on its way is the next.

    When a job has ended a moment after the last batch, more will soon; only failures, and jobs of a
    queue, where the next one has to wait for it, are sent at once.

    The fence (worker and lease) decides in the database whether an outcome counts. So to send one
    twice is harmless, and one whose fate is unknown is sent again. `held` are the jobs that were
    claimed and are not acknowledged yet, by id.
    """

    def __init__(self, link: Link, worker_id: str, lease: timedelta, stats: Stats) -> None:
        self.held: dict[int, JobContext] = {}
        self._link = link
        self._worker_id = worker_id
        self._lease = lease
        self._stats = stats
        self._completions: list[Completion] = []
        self._others: list[Failure | Delay] = []
        self._delays: dict[JobContext, float] = {}  # seconds until an outcome is sent again
        self._filled = Alarm()
        self._urgent = Alarm()
        self._sent_at = -LINGER
        self._emptied = Alarm()
        self._sending = False
        self._giving_back = False

    # What lanes report; always on the event loop.

    def completed(self, context: JobContext, result: Any) -> None:
        """Note that a handler returned."""
        if context._completed:
            self._stats.note("completed", [context])
            if result is not None:
                log.warning(
                    "job %d was completed by its transaction: set ctx.result there, what its"
                    " handler returned is lost",
                    context.id,
                    extra=context._fields,
                )
            return
        text = None
        if result is not None:
            try:
                text = _sql.RawJson(_sql.to_json("the handler's result", result))
            except BadArgument as error:
                # The work is done: to repeat it would not help.
                self.failed(context, Fail(str(error), permanent=True))
                return
        self._completions.append(Completion(context, text))
        self._filled.set()
        if context._row[_sql.QUEUE] is not None or len(self._completions) >= BATCH:
            self._urgent.set()

    def failed(self, context: JobContext, error: BaseException) -> None:
        """Note that a handler raised."""
        if context._completed:
            self._stats.note("completed", [context])
            log.error(
                "the handler of job %d raised after its transaction had completed it",
                context.id,
                exc_info=error,
                extra=context._fields,
            )
            return
        if self._giving_back:
            return
        if isinstance(error, Snooze):
            self._others.append(Delay(context, error.delay))
        else:
            self._others.append(Failure(context, describe_failure(context, error)))
        self._filled.set()
        self._urgent.set()

    def not_started(self, context: JobContext) -> None:
        """Note that a job's lease was gone before its handler could start."""
        if context.cancelled:
            # Counts only if somebody wants it cancelled.
            self.failed(context, Fail(LOST_NOTICE))
        else:
            log.warning("the lease of a claimed job ended too early", extra=context._fields)
            self._forget(context)

    def give_back(self) -> None:
        """From now on take no failures: they are our own doing, and count no attempt."""
        self._giving_back = True

    # Where they go.

    async def send_all(self) -> None:
        """Send outcomes for ever."""
        while True:
            await self._filled.wait()
            self._sending = True
            while self._completions or self._others:
                await self._urgent.wait(self._sent_at + LINGER - monotonic())
                self._sent_at = monotonic()
                completions = self._completions[:BATCH]
                del self._completions[:BATCH]
                others, self._others = self._others, []
                if completions:
                    await self._send(self._complete, completions)
                failures = [outcome for outcome in others if isinstance(outcome, Failure)]
                if failures:
                    await self._send(self._fail, failures)
                for outcome in others:
                    if isinstance(outcome, Delay):
                        await self._send(self._snooze, [outcome])
            self._sending = False
            self._emptied.set()

    async def empty(self, seconds: float) -> bool:
        """Wait until all outcomes are acknowledged; return False if that takes longer."""
        end = monotonic() + seconds
        self._urgent.set()
        while self._sending or self._completions or self._others or self._delays:
            if monotonic() >= end:
                return False
            await self._emptied.wait(end - monotonic())
        return True

    async def _complete(self, outcomes: Sequence[Completion]) -> list[int]:
        results = [outcome.result for outcome in outcomes]
        return await self._link.insist(
            _sql.COMPLETE_JOBS,
            worker_id=self._worker_id,
            job_ids=[outcome.context.id for outcome in outcomes],
            leases=[outcome.context.lease for outcome in outcomes],
            results=results if any(results) else None,
        )

    async def _fail(self, outcomes: Sequence[Failure]) -> list[int]:
        return await self._link.insist(
            _sql.FAIL_JOBS,
            worker_id=self._worker_id,
            failures=[outcome.failure for outcome in outcomes],
        )

    async def _snooze(self, outcomes: Sequence[Delay]) -> list[int]:
        (outcome,) = outcomes
        job = await self._link.insist(
            _sql.SNOOZE_JOB,
            worker_id=self._worker_id,
            job_id=outcome.context.id,
            delay=outcome.delay,
            lease=outcome.context.lease,
        )
        return [] if job is None else [job.id]

    async def _send(
        self, send: Callable[[Any], Awaitable[list[int]]], outcomes: Sequence[Outcome]
    ) -> None:
        try:
            accepted = set(await send(outcomes))
        except (psycopg.Error, AppJobsError) as error:
            if len(outcomes) > 1:  # one by one, to find the one that is refused
                for outcome in outcomes:
                    await self._send(send, [outcome])
                return
            context = outcomes[0].context
            log.error(
                "the database refuses how job %d ended, so its lease will end: %s",
                context.id,
                error,
                extra=context._fields,
            )
            self._forget(context)
            return
        missing = [outcome for outcome in outcomes if outcome.context.id not in accepted]
        if missing:
            outcomes = [outcome for outcome in outcomes if outcome.context.id in accepted]
        for outcome in outcomes:
            self._forget(outcome.context)
        self._count(outcomes)
        if missing:
            await self._reconsider(missing)

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        # All are of one kind.
        if outcomes and isinstance(outcomes[0], Completion):
            self._stats.note("completed", [outcome.context for outcome in outcomes])
            return
        for outcome in outcomes:
            # One that was cancelled has neither failed nor will it be retried.
            if isinstance(outcome, Failure) and not outcome.context.cancelled:
                self._stats.note("failed" if outcome.is_last else "retried", [outcome.context])

    async def _reconsider(self, outcomes: Sequence[Outcome]) -> None:
        """Send again what was not accepted, if the job is still held.

        Either it is not, or another transaction had its row locked for a moment.
        """
        undecided = []
        for outcome in outcomes:
            context = outcome.context
            if context.cancelled:
                log.warning(
                    "job %d is not held any more (cancelled, taken over, or ended before a lost"
                    " connection): how it ended does not count",
                    context.id,
                    extra=context._fields,
                )
                self._forget(context)
            else:
                undecided.append(outcome)
        if not undecided:
            return
        held = await self._link.insist(
            _sql.HEARTBEAT,
            worker_id=self._worker_id,
            job_ids=[outcome.context.id for outcome in undecided],
            job_expiry=self._lease,
        )
        loop = asyncio.get_running_loop()
        for outcome in undecided:
            context = outcome.context
            delay = self._delays[context] = min(self._delays.get(context, 0.025) * 2, 5.0)
            if context.id not in held:
                # Once more all the same: a job that is to be cancelled can still be completed.
                context._cancel()
                delay = 0
            loop.call_later(delay, self._resubmit, outcome)

    def _resubmit(self, outcome: Outcome) -> None:
        if isinstance(outcome, Completion):
            self._completions.append(outcome)
        else:
            self._others.append(outcome)
        self._filled.set()

    def _forget(self, context: JobContext) -> None:
        if self._delays:
            self._delays.pop(context, None)
        if self.held.get(context.id) is context:
            del self.held[context.id]


def describe_failure(context: JobContext, error: BaseException) -> _sql.JobFailure:
    """Describe a failed run for fail_jobs(), and log it."""
    failure: _sql.JobFailure = {"job_id": context.id, "lease": context.lease}
    if isinstance(error, Fail):
        message = str(error)
        failure["permanent"] = error.permanent
        failure["retry_in"] = error.retry_in
        failure["detail"] = error.detail
    elif isinstance(error, InDoubt):
        message = str(error)
        failure["permanent"] = True
    else:
        message = f"{type(error).__name__}: {error}"
        failure["permanent"] = not context.task.retries(error)
        trace = traceback.format_exception(type(error), error, error.__traceback__)
        failure["detail"] = storable("".join(trace))[-20_000:]
    failure["error_message"] = storable(message)[:10_000]
    log.warning(
        "job %d (%s) failed in attempt %d of %d: %.200s",
        context.id,
        context.task.name,
        context.attempt,
        context.max_attempts,
        message,
        extra=context._fields,
    )
    return failure


def storable(text: str) -> str:
    """Return text that PostgreSQL can store."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")
