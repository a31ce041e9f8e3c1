"""Where handlers run: coroutines on the event loop, functions in threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import queue
import sys
import threading
import types
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from time import monotonic
from typing import Any, TypeVar, cast

from app_jobs._link import Alarm
from app_jobs._outbox import LOST_NOTICE, Outbox
from app_jobs._tracing import Trace
from app_jobs.tasks import Fail, JobContext, Task

T = TypeVar("T")

MOST_AT_ONCE = 10_000  # jobs in one claim at most, as get_jobs() has it
MOST_AHEAD = 1000  # jobs in one claim ahead of the handlers at most, unless told otherwise
AHEAD = 0.125  # seconds of work in it, at the rate at which handlers end while there are jobs
FARTHEST = 0.5  # seconds of work in it at most, where claims take long
SLICE = 0.005  # seconds that handlers which never wait may keep the loop from the database


class Lane(ABC):
    """Handlers of one kind, and the jobs that wait for them.

    It asks for one lot of jobs while another runs. `prefetch` is the size of a lot beyond what can
    run at once; None: it follows the rate at which handlers end, without the time in which there
    are no jobs: where the database is what is slow, small lots would make it slower. A lot also
    lasts twice as long as the last claim took. It is at most twice what that one brought, so that a
    burst after a calm is shared with other workers.
    """

    def __init__(
        self,
        tasks: Sequence[Task[Any]],
        outbox: Outbox,
        *,
        concurrency: int,
        prefetch: int | None,
        lease: float,
        trace: Trace | None = None,
    ) -> None:
        self.tasks = {task.name: task for task in tasks}
        self.wake = Alarm()  # set when there may be jobs
        self.claim_took = 0.0  # seconds, the last one that brought jobs
        self._outbox = outbox
        self._trace = trace
        self._concurrency = concurrency
        self._prefetch = prefetch
        self._farthest = min(FARTHEST, lease / 4)
        self._ahead = prefetch or 0
        self._most_ahead = 0  # twice what the last claim brought
        self._unfinished = 0  # taken in and not ended
        self._ended = 0  # since the rate was measured last
        self._busy = 0.0  # seconds with jobs since then, up to _busy_from
        self._busy_from = 0.0
        self._room = Alarm()
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()

    def put(self, contexts: list[JobContext]) -> None:
        """Take in jobs."""
        if self._unfinished == 0:
            self._busy_from = monotonic()
        self._unfinished += len(contexts)
        if self._prefetch is None:
            self._most_ahead = min(2 * len(contexts), MOST_AHEAD)
            self._ahead = min(self._ahead, self._most_ahead)

    @abstractmethod
    def _take_back(self) -> int:
        """Drop the jobs that have not been started, and end idle runners; return how many."""

    @abstractmethod
    def cancel(self) -> None:
        """Tell all running handlers to end."""

    async def appetite(self) -> int:
        """Wait until more jobs are wanted; return how many."""
        while True:
            self._measure()
            wanted = self._concurrency + 2 * self._ahead - self._unfinished
            if wanted >= max(1, self._ahead):
                return min(wanted, max(self._concurrency, self._ahead), MOST_AT_ONCE)
            await self._room.wait(AHEAD)

    def stop(self) -> int:
        """Start no more handlers; return how many are running."""
        self._stopping = True
        self._unfinished -= self._take_back()
        self._room.set()
        return self._unfinished

    async def ended(self) -> None:
        """Wait until no handler runs; call stop() first."""
        while self._unfinished > 0:
            await self._room.wait()

    def _end(self, count: int) -> None:
        self._unfinished -= count
        self._ended += count
        if self._unfinished == 0:
            self._busy += monotonic() - self._busy_from
        if self._unfinished <= self._concurrency + self._ahead:
            self._room.set()

    def _measure(self) -> None:
        if self._prefetch is None:
            now = monotonic()
            busy = self._busy + (now - self._busy_from if self._unfinished > 0 else 0)
            horizon = min(max(AHEAD, 2 * self.claim_took), self._farthest)
            # At least a tenth of a second, or the first few jobs would promise too much.
            ahead = min(int(self._ended / max(busy, 0.1) * horizon), self._most_ahead)
            if busy > 0.1:
                self._ahead = ahead
                self._ended, self._busy, self._busy_from = 0, 0.0, now
            else:
                self._ahead = max(self._ahead, ahead)


class LoopLane(Lane):
    """Runs coroutines on the event loop: `concurrency` runners take jobs from one line.

    A handler that never waits costs neither a task nor a turn of the loop. Each has a contextvars
    context of its own, and is in a task all the time, so asyncio.timeout() and its like work.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._buffer: deque[JobContext] = deque()
        self._sleepers: deque[asyncio.Future[None]] = deque()
        self._slice_end = 0.0
        self._new_slice_wanted = False
        self._runners = [self._loop.create_task(self._run()) for _ in range(self._concurrency)]

    def put(self, contexts: list[JobContext]) -> None:
        """Take in jobs."""
        if self._unfinished == 0:
            self._begin_slice()  # the loop has just turned: what was claimed came by it
        super().put(contexts)
        self._buffer.extend(contexts)
        self._wake_a_runner()

    def _take_back(self) -> int:
        count = len(self._buffer)
        self._buffer.clear()
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)
        return count

    def cancel(self) -> None:
        """Cancel the runners with what they run."""
        for runner in self._runners:
            runner.cancel()

    def _wake_a_runner(self) -> None:
        # One is enough until its handler waits: then it wakes the next.
        while self._buffer and self._sleepers:
            sleeper = self._sleepers.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
                return

    async def _run(self) -> None:
        runner = cast("asyncio.Task[Any]", asyncio.current_task())
        while not self._stopping:
            try:
                await self._run_jobs(runner)
            except asyncio.CancelledError:
                # Left behind by a handler that ended before its cancellation arrived.
                _uncancel(runner)

    async def _run_jobs(self, runner: asyncio.Task[Any]) -> None:
        buffer, outbox, new_context = self._buffer, self._outbox, self._context.copy
        trace = self._trace
        now = monotonic()
        while not self._stopping:
            if not buffer:
                sleeper = self._loop.create_future()
                self._sleepers.append(sleeper)
                await sleeper
                now = monotonic()
                continue
            if now >= self._slice_end:
                await self._let_the_loop_turn()
                now = monotonic()
                continue
            context = buffer.popleft()
            if context._may_start(now):
                context._runner = runner
                context._started_at = now
                try:
                    try:
                        # In the try, since a payload that does not fit is found out by invoke().
                        invoke = context.task.invoke
                        coroutine = invoke(context) if trace is None else trace(context, invoke)
                        result = await _isolated(coroutine, new_context(), self._wake_a_runner)
                    finally:
                        now = context._ended_at = monotonic()
                except asyncio.CancelledError as error:
                    outbox.failed(context, Fail(LOST_NOTICE) if context.cancelled else error)
                    _uncancel(runner)
                except (Exception, SystemExit) as error:
                    outbox.failed(context, error)
                else:
                    outbox.completed(context, result)
                context._runner = None
            else:
                outbox.not_started(context)
            self._end(1)

    async def _let_the_loop_turn(self) -> None:
        # The new slice of time begins with the loop's next turn, for all runners together.
        if not self._new_slice_wanted:
            self._new_slice_wanted = True
            self._loop.call_soon(self._begin_slice)
        await asyncio.sleep(0)

    def _begin_slice(self) -> None:
        self._new_slice_wanted = False
        self._slice_end = monotonic() + SLICE


class ThreadLane(Lane):
    """Runs functions in `concurrency` daemon threads, which take jobs from one queue by themselves.

    The loop hears of what has ended in lots: to wake it costs more than a short job.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._queue: queue.SimpleQueue[JobContext | None] = queue.SimpleQueue()
        self._running: set[JobContext] = set()
        self._reports: deque[tuple[JobContext, Any, BaseException | None]] = deque()
        self._collecting = False
        for number in range(self._concurrency):
            threading.Thread(
                target=self._run, name=f"app_jobs-handler-{number}", daemon=True
            ).start()

    def put(self, contexts: list[JobContext]) -> None:
        """Take in jobs."""
        super().put(contexts)
        for context in contexts:
            self._queue.put(context)

    def _take_back(self) -> int:
        count = 0
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
                count += 1
        for _ in range(self._concurrency):
            self._queue.put(None)
        return count

    def cancel(self) -> None:
        """Tell the running handlers by `ctx.cancelled`; a thread cannot be made to end."""
        for context in list(self._running):
            context._cancel()

    def _run(self) -> None:
        while (context := self._queue.get()) is not None:
            self._report(context, *self._run_job(context))
            del context  # or it would live until the next job comes

    def _run_job(self, context: JobContext) -> tuple[Any, BaseException | None]:
        context._started_at = monotonic()
        if not context._may_start(context._started_at):
            return None, _NotStartedError()
        self._running.add(context)
        try:
            if self._trace is None:
                result = self._context.copy().run(self._invoke, context)
            else:
                result = self._context.copy().run(self._trace, context, self._invoke)
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError("the handler returned a coroutine: write it as async def")
        except BaseException as error:
            return None, error
        else:
            return result, None
        finally:
            context._ended_at = monotonic()
            self._running.discard(context)

    def _invoke(self, context: JobContext) -> Any:
        return context.task.invoke(context)

    def _report(self, context: JobContext, result: Any, error: BaseException | None) -> None:
        self._reports.append((context, result, error))
        # Looked at after the report is there, and cleared before reports are read: none is missed.
        if not self._collecting:
            self._collecting = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._collecting = False
        count = len(self._reports)
        for _ in range(count):
            context, result, error = self._reports.popleft()
            if error is None:
                self._outbox.completed(context, result)
            elif isinstance(error, _NotStartedError):
                self._outbox.not_started(context)
            else:
                self._outbox.failed(context, error)
        self._end(count)


class _NotStartedError(Exception):
    """The lease was over before the handler could start."""


@types.coroutine
def _isolated(
    coroutine: Coroutine[Any, Any, T],
    context: contextvars.Context,
    on_suspend: Callable[[], None],
) -> Generator[Any, Any, T]:
    """Run a coroutine in the task that awaits this, but in a contextvars context of its own.

    Calls `on_suspend` when it waits for the first time.
    """
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    suspended = False
    while True:
        try:
            waits_for = context.run(step, value)
        except StopIteration as stop:
            return cast("T", stop.value)
        if not suspended:
            suspended = True
            on_suspend()
        try:
            value = yield waits_for
            step = coroutine.send
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:
            step, value = coroutine.throw, error


def _uncancel(task: asyncio.Task[Any]) -> None:
    """Take back requests to cancel the task: they were meant for the handler that it ran."""
    if sys.version_info >= (3, 11):
        while task.cancelling():
            task.uncancel()
