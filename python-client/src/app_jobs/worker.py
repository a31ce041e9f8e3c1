"""The worker: claims jobs in batches and runs their handlers.

One event loop claims, runs `async def` handlers and acknowledges; threads run `def` handlers; one
more thread, with an event loop and a connection of its own, renews the leases, so that no handler
can cost a lease by blocking. No transaction is open while a handler runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import math
import os
import random
import signal
import socket
import sys
import threading
import types
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any

import psycopg

from app_jobs import _sql, _tracing
from app_jobs._async_client import AsyncClient
from app_jobs._effects import Effects
from app_jobs._lanes import Lane, LoopLane, ThreadLane
from app_jobs._link import (
    STATEMENT_TIMEOUT,
    Alarm,
    Link,
    cancel,
    connect,
    growing_pauses,
    hang_up_after,
    is_trouble,
    log_trouble,
)
from app_jobs._outbox import Outbox
from app_jobs._sql import Row
from app_jobs._stats import Counts, Stats
from app_jobs._wire import Wire
from app_jobs.errors import BadArgument
from app_jobs.tasks import JobContext, Task, Tasks

log = logging.getLogger("app_jobs.worker")

UNANSWERED = 3  # tries at the start before a server that does not answer is taken to be absent
BUSY_PAUSE = 0.005  # seconds at most between looks for jobs while there were some a moment ago
WORTH_A_LOOK = 8  # jobs; if so many come in a shorter time, that is the pause
BUSY_WITHIN = 0.02  # seconds between two finds that make a worker busy
FIRST_LOOK = 0.01  # seconds after which an idle worker looks again, doubled up to poll_interval
TICK_EVERY = timedelta(seconds=0.9)  # somewhat less than the second after which we ask
ASK_AFTER = 2.0  # seconds after the end of a lease: by then somebody has ticked
TOGETHER = 4  # looks per poll interval that idle workers of the same tasks share, if there are more
MOST_APART = 30  # poll intervals between two looks of one of them at most
BUSY_FOR = 0.05  # seconds without a find that make it idle again


class Worker:
    """Runs the jobs of `tasks` until it is told to stop.

    concurrency       how many handlers run at once: so many coroutines, and so many threads
    prefetch          how many jobs to claim in one lot beyond those that can run at once; None: as
                      many as end in an eighth of a second, or in twice the time (half a second at
                      most) that a claim takes, at most 1000, and twice the last lot
    processes         how many handlers with process=True run at once; None: as many as processors
    lease             how long a job stays ours after a heartbeat, which comes three times as often;
                      when a worker dies, its jobs go to others after at most this long
    poll_interval     how long to wait for a notification before looking for jobs without one; more
                      than 4 idle workers of the same tasks look 4 times in this time together
    listen_dsn        a direct connection for LISTEN where `dsn` leads to a pooler
    shutdown_timeout  how long to wait for running handlers at the end; those that take longer are
                      cancelled, and their jobs given back
    worker_id         1 to 200 characters that name this process alone; None: made up

    Errors at the start are raised: psycopg.OperationalError if the database is not reachable,
    VersionMismatch, NotPermitted, BadArgument. Later the worker waits for the database, however
    long it is away.
    """

    def __init__(
        self,
        dsn: str,
        tasks: Tasks,
        *,
        concurrency: int = 20,
        prefetch: int | None = None,
        lease: timedelta = timedelta(seconds=60),
        poll_interval: timedelta = timedelta(seconds=2),
        listen_dsn: str | None = None,
        shutdown_timeout: timedelta = timedelta(seconds=30),
        schema: str = "app_jobs",
        worker_id: str | None = None,
        processes: int | None = None,
    ) -> None:
        second = timedelta(seconds=1)
        _check("tasks", len(tasks), len(tasks) > 0, "Register a handler: @tasks.task('name').")
        _check("concurrency", concurrency, concurrency >= 1, "Give 1 or more.")
        _check("processes", processes, processes is None or processes >= 1, "Give 1 or more.")
        _check("prefetch", prefetch, prefetch is None or 0 <= prefetch <= 5000, "Give 0 to 5000.")
        _check("lease", lease, lease >= second, "Give a second or more.")
        _check("poll_interval", poll_interval, poll_interval > 0 * second, "Give more than 0.")
        _check(
            "shutdown_timeout", shutdown_timeout, shutdown_timeout >= 0 * second, "Give 0 or more."
        )
        self.worker_id = worker_id or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._dsn = dsn
        self._conninfo = _sql.conninfo(dsn)
        self._listen_conninfo = self._conninfo if listen_dsn is None else _sql.conninfo(listen_dsn)
        self._schema = schema
        self._tasks = tasks
        self._concurrency = concurrency
        self._prefetch = prefetch
        self._processes = processes or os.cpu_count() or 1
        self._lease = lease
        # Who waits for longer than a lease has lost his jobs to others anyway.
        self._patience = min(max(lease.total_seconds(), 5), STATEMENT_TIMEOUT)
        self._poll = poll_interval.total_seconds()
        self._shutdown_timeout = shutdown_timeout.total_seconds()

        self._stops = 0  # how often it was told to stop
        self._stats: Stats | None = None
        self._listening = False
        self._idle_lanes: set[Lane] = set()
        self._ticked_at = 0.0
        self._due_at = math.inf
        self._peers = 1  # idle workers of the same tasks

    @property
    def counts(self) -> Mapping[str, Counts]:
        """What it has counted of each task since it started."""
        return {} if self._stats is None else self._stats.tasks

    # --- life ---

    def run(self) -> None:
        """Run until SIGTERM, SIGINT or stop(). Called in the main thread, it handles both signals.

        The first signal lets running handlers end within shutdown_timeout; a second one cancels
        them at once. Should the process hang all the same, it prints all stacks and exits with 1.
        """
        if threading.current_thread() is not threading.main_thread():
            asyncio.run(self.run_async())
            return
        signals = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, self._on_signal) for number in signals]
        try:
            asyncio.run(self.run_async())
        finally:
            faulthandler.cancel_dump_traceback_later()
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)

    def stop(self, *, now: bool = False) -> None:
        """Stop, from any thread: wait for running handlers, or cancel them if `now`."""
        self._stops = max(self._stops, 2 if now else 1)
        with contextlib.suppress(AttributeError, RuntimeError):  # not started yet, or ended
            self._loop.call_soon_threadsafe(self._hear_stop)

    async def run_async(self) -> None:
        """Run on the current event loop until stop(). To cancel it stops at once, and cleanly."""
        await self._register()
        self._loop = asyncio.get_running_loop()
        self._stop_wanted = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._noticed = Alarm()
        self._hear_stop()
        self._claims = Link(self._conninfo, self._schema, self._patience, _sql.read_raw)
        self._acks = Link(self._conninfo, self._schema, self._patience)
        stats = self._stats = Stats(self._acks, self.worker_id)
        self._outbox = Outbox(self._acks, self.worker_id, self._lease, stats)
        self._heart = Heart(
            Link(self._conninfo, self._schema, self._patience),
            self.worker_id,
            self._lease,
            self._outbox.held,
        )
        self._effects = Effects(
            self._conninfo, self._schema, self._patience, self.worker_id, self._outbox.held
        )
        self._lanes = self._make_lanes()
        self._heart.start()
        jobs = [
            self._outbox.send_all(),
            self._listen(),
            stats.report_for_ever(),
            *map(self._claim, self._lanes),
        ]
        background = [self._loop.create_task(job) for job in jobs]
        stop = self._loop.create_task(self._stop_wanted.wait())
        log.info("worker %s started with %d tasks", self.worker_id, len(self._tasks))
        try:
            await asyncio.wait([stop, *background], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._stop_now.set()
            raise
        finally:
            await asyncio.shield(self._end(stop, background))

    async def _register(self) -> None:
        """Check the schema's version and say that this worker starts.

        A server that cannot be reached is a mistake to tell; one that cuts us off is trouble that
        passes. The third time that no server answers, it is not there.
        """
        names = [task.name for task in self._tasks]
        unanswered = 0
        for pause in growing_pauses():
            try:
                async with AsyncClient(self._dsn, schema=self._schema) as client:
                    await client.register_worker(
                        self.worker_id, socket.gethostname(), os.getpid(), names
                    )
                    await self._register_schedules(client)
                    return
            except psycopg.Error as error:
                unanswered += error.sqlstate is None
                if unanswered == UNANSWERED or not is_trouble(error):
                    raise
                log_trouble("start", error)
            await asyncio.sleep(pause)

    async def _register_schedules(self, client: AsyncClient) -> None:
        """Bring the database up to what the application declares; report what it does not."""
        declared = self._tasks.schedules
        for schedule in declared.values():
            await client.add_scheduled_job(**schedule)
        for found in await client.list_scheduled_jobs(f"{self._tasks.name}:"):
            if found.key not in declared:
                log.warning(
                    "schedule %s (task %s) goes on, but is declared no more: app-jobs schedules"
                    " remove %d ends it",
                    found.key,
                    found.task_identifier,
                    found.id,
                )

    def _make_lanes(self) -> list[Lane]:
        kinds: dict[tuple[type[Lane], str | None], list[Task[Any]]] = {}
        for task in self._tasks:
            kinds.setdefault((_lane_of(task), task.name if task.batch_size else None), []).append(
                task
            )
        return [
            kind(
                tasks,
                self._outbox,
                concurrency=self._processes if tasks[0].process else self._concurrency,
                prefetch=self._prefetch,
                lease=self._lease.total_seconds(),
                trace=_tracing.tracer(),
            )
            for (kind, _), tasks in kinds.items()
        ]

    def _on_signal(self, _number: int, _frame: types.FrameType | None) -> None:
        self.stop(now=self._stops > 0)
        patience = 5 if self._stops > 1 else self._shutdown_timeout + 30
        if sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(patience, exit=True, file=sys.__stderr__)

    def _hear_stop(self) -> None:
        if self._stops > 0:
            self._stop_wanted.set()
        if self._stops > 1:
            self._stop_now.set()

    async def _end(self, stop: asyncio.Task[Any], background: list[asyncio.Task[None]]) -> None:
        """Stop claiming, wait for handlers, acknowledge, give back what is left."""
        crashed = [task for task in background if task.done()]
        sender, *others = background
        await cancel(stop, *others)
        running = sum(lane.stop() for lane in self._lanes)
        log.info("worker %s stops, %d handlers are running", self.worker_id, running)
        now = self._loop.create_task(self._stop_now.wait())
        ended = self._loop.create_task(self._handlers_ended())
        await asyncio.wait(
            {now, ended}, timeout=self._shutdown_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        self._outbox.give_back()
        for lane in self._lanes:
            lane.cancel()
        # What was cancelled gets a moment to clean up. What goes on all the same loses its job.
        await asyncio.wait({ended}, timeout=1)
        if not sender.done() and not await self._outbox.empty(10):
            log.warning("some jobs' ends could not be told to the database: they will run again")
        await cancel(now, ended, sender)
        if self._stats is not None:
            await self._stats.report()
        self._heart.stop()
        await self._effects.close()
        try:
            if self._idle_lanes:
                await self._acks.call(_sql.SET_WORKER_IDLE, worker_id=self.worker_id, idle=False)
            given_back = await self._acks.call(_sql.RELEASE_JOBS, worker_id=self.worker_id)
            log.info("worker %s stopped, %d jobs given back", self.worker_id, len(given_back))
        except (psycopg.Error, OSError) as error:
            log_trouble("giving jobs back, which leaves them to their leases", error)
        await self._acks.close()
        await self._claims.close()
        for task in crashed:
            task.result()  # raises what ended it

    async def _handlers_ended(self) -> None:
        for lane in self._lanes:
            await lane.ended()

    # --- claiming ---

    async def _claim(self, lane: Lane) -> None:
        """Take jobs for a lane for ever.

        Idle, the worker is woken by NOTIFY, by the time at which the next scheduled job is due, or
        by its poll interval. Busy, it looks every few milliseconds, and no producer has to notify.
        """
        found_at = -BUSY_FOR
        pause = BUSY_PAUSE
        looks = 0  # in a row that found nothing since the lane became idle
        woken = False
        while True:
            limit = await lane.appetite()
            lane.wake.clear()
            sent_at = monotonic()
            rows = await self._claims.insist(
                _sql.CLAIM,
                worker_id=self.worker_id,
                task_identifiers=lane.tasks,
                job_expiry=self._lease,
                job_limit=limit,
            )
            now = monotonic()
            if rows:
                lane.claim_took = now - sent_at
                self._accept(lane, rows, sent_at)
                if len(rows) <= self._concurrency:
                    await asyncio.sleep(0)  # to ask for more costs longer than to start these
                if now - found_at < BUSY_WITHIN:
                    await self._set_idle(lane, False)
                if now - self._ticked_at > 1:
                    await self._tick()
                pause = _busy_pause(len(rows), now - found_at)
                found_at = now
            elif now - found_at < BUSY_FOR and lane not in self._idle_lanes:
                await lane.wake.wait(pause)
            elif lane not in self._idle_lanes:
                # A transaction that asked before this and commits after it wakes nobody. So this
                # looks again at once, and the next looks follow soon.
                await self._set_idle(lane, True)
                looks = 0
            else:
                if woken or looks == 0 or now >= min(self._due_at, self._ticked_at + 1):
                    await self._tick()
                patience = min(FIRST_LOOK * 2**looks, self._longest_pause())
                looks = min(looks + 1, 30)
                woken = await lane.wake.wait(
                    min(patience * random.uniform(0.8, 1), self._due_at - monotonic())
                )

    async def _tick(self) -> None:
        """Do some housekeeping, and note when the next scheduled job is due."""
        # Once a second is enough, whichever worker does it; what is due cannot wait for that.
        every = None if monotonic() >= self._due_at else TICK_EVERY
        seconds, self._peers = await self._claims.insist(
            _sql.TICK_AND_PEERS, every=every, worker_id=self.worker_id
        )
        self._ticked_at = monotonic()
        if seconds is None:
            self._due_at = math.inf
        else:
            # One that is due and still there is locked by somebody: no reason to hurry.
            self._due_at = self._ticked_at + (seconds + 0.001 if seconds > 0 else BUSY_FOR)

    def _longest_pause(self) -> float:
        """Seconds between looks. One look finds what nobody was notified of, for all peers."""
        share = self._peers / TOGETHER if self._listening else 1
        return self._poll * min(max(1, share), MOST_APART)

    async def _set_idle(self, lane: Lane, idle: bool) -> None:
        was_idle = bool(self._idle_lanes)
        if idle:
            self._idle_lanes.add(lane)
        else:
            self._idle_lanes.discard(lane)
        if bool(self._idle_lanes) != was_idle and self._listening:
            await self._claims.insist(_sql.SET_WORKER_IDLE, worker_id=self.worker_id, idle=idle)

    def _accept(self, lane: Lane, rows: list[Row], sent_at: float) -> None:
        held, tasks, heart = self._outbox.held, lane.tasks, self._heart
        renew = heart.renew
        lease = self._lease.total_seconds() - 0.001  # the times are floats
        contexts, shortest = [], lease
        for row in rows:
            # The job, its task or the task's timeout may say otherwise than we did.
            term = (row[_sql.LEASE_EXPIRES_AT] - row[_sql.LOCKED_AT]) / 1_000_000
            if term < shortest:
                shortest = term
            context = JobContext(row, tasks[row[_sql.TASK]], term, sent_at, renew, self._effects)
            if context.id in held:
                held[context.id]._cancel()  # its lease ended unnoticed; now it is ours anew
            held[context.id] = context
            contexts.append(context)
        if shortest < lease:  # once the heart can see them
            heart.beat_within(shortest / 3)
        lane.put(contexts)

    # --- wake-ups ---

    async def _listen(self) -> None:
        """Wake the lanes at each notification. They are hints: a lost one costs a poll."""
        checked = False
        pauses = growing_pauses()
        while True:
            try:
                async with await connect(self._listen_conninfo) as connection:
                    with contextlib.closing(Wire(connection, on_notice=self._on_notice)) as wire:
                        with hang_up_after(self._patience, connection):
                            await wire.run(_sql.listen(self._schema))
                        if not checked:
                            # Send one to ourselves, on the way that a producer's takes.
                            await self._claims.call(_sql.NOTIFY, channel=self._schema)
                            await self._wait_for_first(wire)
                            checked = True
                        pauses = growing_pauses()
                        self._listening = True
                        self._idle_lanes.clear()  # each lane is to say anew that it is idle
                        self._wake()
                        while True:
                            await asyncio.wait([wire.lost], timeout=STATEMENT_TIMEOUT)
                            with hang_up_after(self._patience, connection):
                                await wire.run("select")  # or silence might be a dead line
            except (psycopg.Error, OSError) as error:
                if not is_trouble(error):
                    raise
                log_trouble("listening for notifications", error)
            self._listening = False
            await asyncio.sleep(next(pauses))

    async def _wait_for_first(self, wire: Wire) -> None:
        if await self._noticed.wait(1):
            return
        log.warning(
            "LISTEN does not work here (a pooler in transaction mode?): polling every %g s;"
            " give a direct connection as listen_dsn",
            self._poll,
        )
        while not wire.lost.done() and not await self._noticed.wait(STATEMENT_TIMEOUT):
            pass

    def _on_notice(self, payload: bytes) -> None:
        self._noticed.set()
        if not payload:  # others' tests of the line have one
            self._wake()

    def _wake(self) -> None:
        for lane in self._lanes:
            lane.wake.set()


class Heart:
    """Renews the leases of all held jobs, in a thread with its own event loop and connection."""

    def __init__(
        self, link: Link, worker_id: str, lease: timedelta, held: dict[int, JobContext]
    ) -> None:
        self._link = link
        self._worker_id = worker_id
        self._lease = lease
        self._held = held
        self._jobs_loop = asyncio.get_running_loop()
        self._sent_at = 0.0  # when the last renewal was sent
        self._next_at = math.inf  # when the next one will be, if it is known
        self._stopping = False
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._beat()), name="app_jobs-heartbeat", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Let the thread end."""
        self._stopping = True
        self._wake()

    def renew(self) -> None:
        """Renew all leases now, unless that was done within the last second. From any thread."""
        if monotonic() > self._sent_at + 1:
            self._wake()

    def beat_within(self, seconds: float) -> None:
        """Renew the leases within so many seconds: a job with a short one has come."""
        if monotonic() + seconds < self._next_at:
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._alarm.set)

    async def _beat(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm()
        self._ready.set()
        pauses = growing_pauses()
        while not self._stopping:
            # Jobs that come from here on are not in this renewal: a short lease calls for another.
            self._next_at = math.inf
            # Its transaction keeps a job, not its lease: were that renewed, nobody would ever find
            # out that the transaction has ended and its handler waits on a dead line. Once the
            # lease is over we ask.
            now = monotonic()
            held = [
                context
                for context in list(self._held.values())
                if not context._in_transaction or now > context._deadline + ASK_AFTER
            ]
            for context in list(self._held.values()):
                if context._asked_at < now - self._link.patience:
                    context._cut()
            terms = [self._lease.total_seconds(), *(context._term for context in held)]
            interval = min(terms) / 3
            self._sent_at = monotonic()
            try:
                kept = await self._link.call(
                    _sql.HEARTBEAT,
                    within=max(interval, 1),
                    worker_id=self._worker_id,
                    job_ids=[context.id for context in held],
                    job_expiry=self._lease,
                )
            except (psycopg.Error, OSError) as error:
                log_trouble("heartbeat", error)
                interval = min(interval, next(pauses))
            else:
                pauses = growing_pauses()
                self._note(held, kept)
            self._next_at = monotonic() + interval
            await self._alarm.wait(interval)
        await self._link.close()

    def _note(self, held: Sequence[JobContext], kept: Sequence[int]) -> None:
        ids = set(kept)
        for context in held:
            if context.id in ids:
                context._deadline = self._sent_at + context._term
            else:
                with contextlib.suppress(RuntimeError):  # the worker has ended
                    self._jobs_loop.call_soon_threadsafe(self._lose, context)

    def _lose(self, context: JobContext) -> None:
        # It may have been acknowledged, or be about to, while the heartbeat was on its way.
        if self._held.get(context.id) is context and context._asked_at == math.inf:
            context._cancel()


def _lane_of(task: Task[Any]) -> type[Lane]:
    if task.process:
        from app_jobs._processes import ProcessLane

        return ProcessLane
    if task.batch_size:
        from app_jobs._batches import LoopBatchLane, ThreadBatchLane

        return LoopBatchLane if task.is_async else ThreadBatchLane
    return LoopLane if task.is_async else ThreadLane


def _busy_pause(found: int, seconds: float) -> float:
    """Return how long to wait for more jobs where so many have come in so many seconds."""
    return min(BUSY_PAUSE, WORTH_A_LOOK * seconds / found)


def _check(argument: str, value: object, is_good: bool, hint: str) -> None:
    if not is_good:
        raise BadArgument(f"{argument} is out of range: {value}", hint=hint)
