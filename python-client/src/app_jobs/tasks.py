"""What an application writes: tasks, and what their handlers are given."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import inspect
import logging
import math
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from time import monotonic
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)

from app_jobs import _payloads, _sql
from app_jobs._sql import LOCKED_AT, RUN_AT, Job, Row
from app_jobs._tracing import trace_id_of
from app_jobs.errors import BadArgument

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from app_jobs._effects import Effects, Transaction
    from app_jobs._sql import BatchOptions, JobOptions

Payload = TypeVar("Payload")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Connection = TypeVar("Connection")
Connection_contra = TypeVar("Connection_contra", contravariant=True)
Added = TypeVar("Added")
Added_co = TypeVar("Added_co", covariant=True)
Ids = TypeVar("Ids")
Ids_co = TypeVar("Ids_co", covariant=True)
Around = TypeVar("Around", bound=Callable[[Any], Iterator[None] | AsyncIterator[None]])
Exceptions = type[Exception] | tuple[type[Exception], ...]


class Fail(Exception):
    """Raise in a handler to fail the job: for good if `permanent`, or to retry in `retry_in`."""

    def __init__(
        self, message: str = "", *, permanent: bool = False, retry_in: timedelta | None = None
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_in = retry_in
        self.detail: str | None = None
        """More than fits into a message, a traceback for example; kept with the failed attempt."""


class Snooze(Exception):
    """Raise in a handler to put the job back for `delay`; no attempt is counted."""

    def __init__(self, delay: timedelta) -> None:
        super().__init__(delay)
        self.delay = delay


_UNREAD = object()


class Runner(Protocol):
    """What runs a handler and can be told to stop: an asyncio task, or a process."""

    def cancel(self) -> object:
        """End the handler."""


class JobContext:
    """One run of one job, as its handler sees it."""

    # One is made for every job, so what costs anything is done when it is first asked for.
    __slots__ = (
        "_asked_at",
        "_claimed_at",
        "_completed",
        "_deadline",
        "_effects",
        "_ended_at",
        "_in_transaction",
        "_job",
        "_limit",
        "_line",
        "_lost",
        "_payload",
        "_renew",
        "_row",
        "_runner",
        "_started_at",
        "_term",
        "_tools",
        "id",
        "lease",
        "result",
        "task",
    )

    def __init__(
        self,
        row: Row,
        task: Task[Any],
        term: float,
        claimed_at: float,
        renew: Callable[[], None],
        tools: Effects,
    ) -> None:
        self.id: int = row[_sql.ID]
        self.lease: int = row[_sql.LEASE]
        """The number of the lease under which the job runs."""
        self.task = task
        self.result: Any = None
        """What a transaction() keeps as the job's result; set it within its block."""
        self._row = row
        self._payload: Any = _UNREAD
        self._job: Job | None = None
        self._renew = renew
        self._lost = False
        self._limit = math.inf  # the time.monotonic() at which the task's timeout is over
        # For the worker: how many seconds a renewal lasts, by time.monotonic() when the job was
        # claimed, when the lease is over at the earliest and when the handler has run, and what
        # runs it, if that can be cancelled.
        self._term = term
        self._claimed_at = claimed_at
        self._deadline = claimed_at + term
        self._started_at = self._ended_at = claimed_at
        self._runner: Runner | None = None
        # For run_once() and transaction(): the effects that this run has asked for, and whether
        # they are under way; how far the job's own transaction is, its connection's socket, and
        # since when the worker itself has been waiting for an answer on it.
        self._tools = tools
        self._effects: dict[str, bool] | None = None
        self._in_transaction = False
        self._completed = False
        self._line: socket.socket | None = None
        self._asked_at = math.inf

    @property
    def cancelled(self) -> bool:
        """Whether to stop: the job was cancelled or taken over, the worker ends, time is over.

        An async handler is cancelled as well; a sync one should look here now and then.
        """
        return self._lost or monotonic() >= self._limit

    @property
    def attempt(self) -> int:
        """Which run of the job this is, from 1."""
        return cast("int", self._row[_sql.ATTEMPTS])

    @property
    def max_attempts(self) -> int:
        """After how many failed runs the job is given up."""
        return cast("int", self._row[_sql.MAX_ATTEMPTS])

    @property
    def payload(self) -> Any:
        """The payload, decoded from JSON."""
        if self._payload is _UNREAD:
            try:
                self._payload = _sql.from_json(self._row[_sql.PAYLOAD])
            except (ValueError, RecursionError) as error:
                # what the error says has no part of the payload in it
                message = f"the payload cannot be decoded: {error}"
                raise Fail(message, permanent=True) from None
        return self._payload

    @property
    def job(self) -> Job:
        """The job as it was claimed."""
        if self._job is None:
            self._job = _sql.claimed_job(self._row, self._tools.worker_id)
        return self._job

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry job_id, attempt and task."""
        return logging.LoggerAdapter(logging.getLogger("app_jobs.worker"), self._fields)

    @property
    def _fields(self) -> dict[str, object]:
        """What every log record about this run carries."""
        fields = {"job_id": self.id, "attempt": self.attempt, "task": self.task.name}
        trace_id = trace_id_of(self._attributes)
        return fields if trace_id is None else {**fields, "trace_id": trace_id}

    @property
    def _attributes(self) -> str:
        """The attributes as they were at the claim, as JSON text."""
        return _sql.claimed_attributes(self._row)

    def heartbeat(self) -> bool:
        """Ask for a renewal of the lease now; return whether the job is ours, as far as known.

        The worker renews leases by itself. The call does not wait for the database.
        """
        self._renew()
        return not self.cancelled

    def run_once(
        self,
        key: str,
        function: Callable[..., Any],
        *arguments: Any,
        nothing_done: type[BaseException] | tuple[type[BaseException], ...] = (),
    ) -> Any:
        """Call `function` unless an earlier run has: then return what it returned, as JSON has it.

        In an async handler write `await ctx.run_once(…)`; the function may be async. `key` names
        the effect within the job, 1 to 512 characters.

        If the function raises, or the process dies in it, only a person can know whether the effect
        happened: the next run raises InDoubt (JQ003) and fails for good, with a message that says
        how to go on. Exceptions which prove that nothing happened are to be listed in
        `nothing_done`: then the next run calls the function again. Its result must be JSON.
        """
        self._check_no_transaction("run_once")
        if not isinstance(nothing_done, tuple):
            nothing_done = (nothing_done,)
        run_once = self._tools.run_once if self.task.is_async else self._tools.run_once_in_thread
        return run_once(self, key, function, arguments, nothing_done)

    def transaction(self) -> Transaction:
        """Open a transaction that completes the job: what it writes happens exactly once.

        `async with ctx.transaction() as connection:` in an async handler, `with` in others. What
        the block does on this connection of psycopg and the end of the job are committed together,
        or not at all: if the block raises, or the lease was lost before, nothing has happened.
        Nobody can take the job over meanwhile, unless no statement comes for as long as a lease
        lasts: then the server ends the transaction. `ctx.result`, if set within the block, is the
        job's result; what the handler does after the block cannot change how the job ended.

        The connection is used again later: its session is reset (DISCARD ALL), and its row_factory.
        """
        return self._tools.transaction(self)

    def progress(self, done: float, note: str = "") -> None:
        """Say how far the run is, 0 to 1, for operators to see: in `app-jobs show` and `top`.

        Sent within a second, in the background, and gone when the run ends. Anybody who may look at
        the queue sees the note, so keep what the payload says out of it.
        """
        if not 0 <= done <= 1:
            raise BadArgument(f"done is out of range: {done}", hint="Give 0 to 1.")
        self._tools.progress.note(self, done, note)

    def set_attributes(self, attributes: Mapping[str, Any]) -> Any:
        """Set attributes of the job; those not named stay. `await` it in an async handler."""
        self._check_no_transaction("set_attributes")
        call = self._tools.call(_sql.SET_ATTRIBUTES, job_id=self.id, attributes=attributes)
        return call if self.task.is_async else self._tools.wait_for(call)

    def _check_no_transaction(self, name: str) -> None:
        # The transaction has the job locked, and the call would go another way and wait for it.
        if self._in_transaction:
            raise RuntimeError(f"call {name}() before or after ctx.transaction(), not within it")

    def _may_start(self, now: float) -> bool:
        """Whether the handler may still be started at this time.monotonic()."""
        return not self._lost and now < self._deadline

    def _waited(self, started_at: float) -> float:
        """Seconds from due to started: up to the claim by the database's clock, then by ours."""
        row = self._row
        return float((row[LOCKED_AT] - row[RUN_AT]) / 1_000_000 + started_at - self._claimed_at)

    def _cancel(self) -> None:
        """Tell the handler to stop. On the event loop only, if the handler is async."""
        self._lost = True
        self._cut()
        if self._runner is not None:
            self._runner.cancel()

    def _cut(self) -> None:
        """Cut the connection of its transaction: who waits for an answer on it gets an error."""
        line = self._line
        if line is not None:
            with contextlib.suppress(OSError):  # it has just been closed
                line.shutdown(socket.SHUT_RDWR)


class BatchContext:
    """One run of a batch handler: many jobs of a task at once."""

    def __init__(self, jobs: Sequence[JobContext]) -> None:
        self.task = jobs[0].task
        self.jobs = list(jobs)
        """The contexts of the jobs, in the order of the payloads that the handler gets.

        Set `result` of one to keep a result.
        """
        self._all = jobs
        self._payloads: list[Any] | None = None
        self._ended: dict[JobContext, BaseException | None] = {}
        self._started_at = self._ended_at = 0.0
        self._runner: Runner | None = None
        self._end = math.inf

    @property
    def cancelled(self) -> bool:
        """Whether to stop: all jobs were cancelled or taken over, the worker ends, time is over."""
        return all(job.cancelled for job in self.jobs)

    @property
    def payload(self) -> list[Any]:
        """The payloads, as the handler gets them. Jobs whose own does not fit are left out."""
        if self._payloads is None:
            self._payloads, fitting = [], []
            for job in self.jobs:
                try:
                    self._payloads.append(_decoded(self.task._codec, job.payload))
                    fitting.append(job)
                except Exception as misfit:  # its own alone
                    self._ended[job] = misfit
            self.jobs = fitting
            if not fitting:
                raise Fail("no payload fits", permanent=True)  # each job has its own message
        return self._payloads

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry the task and the number of jobs."""
        fields = {"task": self.task.name, "jobs": len(self.jobs)}
        return logging.LoggerAdapter(logging.getLogger("app_jobs.worker"), fields)

    def fail(self, index: int, error: BaseException) -> None:
        """Let the job of one payload end as if its own handler had raised the exception.

        If the handler itself raises, that is for all jobs of which nothing was said.
        """
        self._ended[self.jobs[index]] = error

    @property
    def _limit(self) -> float:
        return self._end

    @_limit.setter
    def _limit(self, limit: float) -> None:
        self._end = limit
        for job in self._all:
            job._limit = limit

    def _may_start(self, now: float) -> bool:
        self.jobs = [job for job in self._all if job._may_start(now)]
        return bool(self.jobs)

    def _cancel(self) -> None:
        for job in self._all:
            job._lost = True
        if self._runner is not None:
            self._runner.cancel()


class Producer(Protocol[Connection_contra, Added_co, Ids_co]):
    """What Client and AsyncClient have in common: one answers, the other is to be awaited."""

    def add_job(
        self,
        *,
        identifier: str,
        payload: Any,
        connection: Connection_contra | None,
        **options: Unpack[JobOptions],
    ) -> Added_co:
        """Add a job."""

    def add_jobs(
        self,
        *,
        identifier: str,
        payloads: Sequence[Any],
        connection: Connection_contra | None,
        **options: Unpack[BatchOptions],
    ) -> Ids_co:
        """Add many jobs of a task."""


class Task(Generic[Payload]):
    """A task by name: what adds its jobs, and the handler that runs them.

    Its payloads are of the type with which the handler annotates its payload: a dataclass, a
    TypedDict or a pydantic model, or anything that these may contain. Any, a plain dict or no
    annotation leave them as JSON has them.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        defaults: JobOptions | None = None,
        retry_on: Exceptions = Exception,
        discard_on: Exceptions = (),
        timeout: timedelta | None = None,
        process: bool = False,
        batch_size: int | None = None,
    ) -> None:
        self.name = name
        self.function = function
        self.timeout = timeout
        self.process = process
        self.batch_size = batch_size
        self._defaults: JobOptions = defaults or {}
        self._retry_on = retry_on
        self._discard_on = discard_on
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 (an object with an async __call__)
        )
        if process and self.is_async:
            raise TypeError(f"the handler of task {name!r} runs in a process: write it as def")
        roles, annotation = _roles(name, function)
        try:
            self._codec = _payloads.codec_for(annotation, function, in_list=batch_size is not None)
        except TypeError as error:
            raise TypeError(f"the handler of task {name!r}: {error}") from None
        self._call = _invoker(function, roles, None if batch_size else self._codec)
        self.invoke: Callable[[Any], Any]
        """Call the handler with the arguments that it wants; Fail if its payload does not fit.

        In it is what surrounds the handler: middleware, and its time limit around all.
        """
        self._surround([])

    def _surround(self, middleware: Sequence[Callable[..., Any]]) -> None:
        invoke = self._call
        for function in reversed(middleware):
            invoke = _within(function, invoke, self)
        if self.timeout is not None:
            limit = _limited if self.is_async else _limited_in_thread
            invoke = limit(invoke, self.timeout.total_seconds())
        self.invoke = invoke

    def retries(self, error: BaseException) -> bool:
        """Whether a run that ended with this exception is to be repeated."""
        if isinstance(error, self._discard_on):
            return False
        return isinstance(error, self._retry_on) or not isinstance(error, Exception)

    def configure(self, **options: Unpack[JobOptions]) -> Task[Payload]:
        """Return this task with other options for the jobs that it adds: those of add_job().

        `report.configure(priority=-1, run_at=tomorrow).enqueue(client, payload)`
        """
        task = copy.copy(self)
        task._defaults = {**self._defaults, **options}
        return task

    @overload
    def enqueue(
        self,
        client: Producer[Connection, Added, Any],
        payload: Payload,
        *,
        connection: Connection | None = None,
        **options: Unpack[JobOptions],
    ) -> Added: ...

    @overload
    def enqueue(
        self: Task[None],
        client: Producer[Connection, Added, Any],
        *,
        connection: Connection | None = None,
        **options: Unpack[JobOptions],
    ) -> Added: ...

    def enqueue(
        self,
        client: Producer[Connection, Added, Any],
        payload: Any = None,
        *,
        connection: Connection | None = None,
        **options: Unpack[JobOptions],
    ) -> Added:
        """Add a job by client.add_job() and return it; with an AsyncClient, await it.

        The options are those of add_job(), and go before those of the task. A payload that does not
        fit its type is refused: BadArgument, which names the field.
        """
        chosen: JobOptions = {**self._defaults, **options}
        return client.add_job(
            identifier=self.name,
            payload=self._to_json("payload", payload),
            connection=connection,
            **chosen,
        )

    def enqueue_many(
        self,
        client: Producer[Connection, Any, Ids],
        payloads: Sequence[Payload],
        *,
        connection: Connection | None = None,
        **options: Unpack[BatchOptions],
    ) -> Ids:
        """Add jobs in one statement and return their ids; with an AsyncClient, await them."""
        for name in ("job_key", "job_key_mode", "idempotency_key"):
            if name in self._defaults:
                raise BadArgument(
                    f"{name} is configured for task {self.name!r}, and a key is for one job",
                    hint="Call enqueue() for each, or add_jobs(specs) with a key in each.",
                )
        chosen = cast("BatchOptions", {**self._defaults, **options})
        return client.add_jobs(
            identifier=self.name,
            payloads=[
                self._to_json(f"payloads[{index}]", payload)
                for index, payload in enumerate(payloads)
            ],
            connection=connection,
            **chosen,
        )

    def to_payload(self, value: Payload) -> Any:
        """Return what JSON can express of a payload, for add_jobs(specs) or SQL of your own."""
        return self._encode("payload", value)

    def from_payload(self, payload: Any) -> Payload:
        """Return the payload that a job has, from what JSON has of it: `job.payload`."""
        if self._codec is None:
            return cast("Payload", payload)
        try:
            return cast("Payload", self._codec.decode(payload))
        except _payloads.Misfit as misfit:
            raise _does_not_fit("payload", self._codec, misfit) from None

    def _encode(self, argument: str, value: Any) -> Any:
        if self._codec is None:
            return value
        try:
            return self._codec.encode(value)
        except _payloads.Misfit as misfit:
            raise _does_not_fit(f"{argument} of task {self.name!r}", self._codec, misfit) from None

    def _to_json(self, argument: str, value: Any) -> Any:
        if self._codec is None:
            return value
        # As text, or None would be no payload at all.
        return _sql.RawJson(_sql.to_json(argument, self._encode(argument, value)))


def _does_not_fit(what: str, codec: _payloads.Codec, misfit: _payloads.Misfit) -> BadArgument:
    return BadArgument(
        f"{what} does not fit {codec.name}: {misfit}",
        hint="See the annotation of the payload at the task's handler.",
    )


class TaskFunction(Task[Payload], Generic[Payload, Arguments, Result]):
    """What @tasks.task() makes of a function: it can be called as before."""

    def __init__(self, name: str, function: Callable[Arguments, Result], **settings: Any) -> None:
        super().__init__(name, function, **settings)
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        """Call the function."""
        return cast("Result", self.function(*arguments, **options))


class Register(Protocol):
    """What @tasks.task() returns, typed by what the handler takes."""

    @overload
    def __call__(  # type: ignore[overload-overlap] # (ctx, ctx) would be both
        self, function: Callable[[Payload, JobContext], Result], /
    ) -> TaskFunction[Payload, [Payload, JobContext], Result]: ...

    @overload
    def __call__(
        self, function: Callable[[JobContext, Payload], Result], /
    ) -> TaskFunction[Payload, [JobContext, Payload], Result]: ...

    @overload
    def __call__(self, function: Callable[[], Result], /) -> TaskFunction[None, [], Result]: ...

    @overload
    def __call__(
        self, function: Callable[[JobContext], Result], /
    ) -> TaskFunction[Any, [JobContext], Result]: ...

    @overload
    def __call__(
        self, function: Callable[[Payload], Result], /
    ) -> TaskFunction[Payload, [Payload], Result]: ...


class RegisterBatch(Protocol):
    """What @tasks.batch_task() returns, typed by what the handler takes."""

    @overload
    def __call__(
        self, function: Callable[[list[Payload], BatchContext], Result], /
    ) -> TaskFunction[Payload, [list[Payload], BatchContext], Result]: ...

    @overload
    def __call__(
        self, function: Callable[[list[Payload]], Result], /
    ) -> TaskFunction[Payload, [list[Payload]], Result]: ...


class TaskOptions(_sql.ScheduleOptions, total=False):
    """What can be said about a task: see Tasks.task()."""

    queue_name: str | None
    max_attempts: int | None
    priority: int
    retry_on: Exceptions
    discard_on: Exceptions
    timeout: timedelta | None
    process: bool


class Tasks:
    """The tasks that an application knows: a registry for Worker.

    ::

        tasks = Tasks()

        @dataclass
        class Email:
            to: str

        @tasks.task("send_email")
        async def send_email(payload: Email, ctx: JobContext) -> None: ...

        send_email.enqueue(client, Email(to="you@example.org"))

    A handler is `async def` (run on the event loop) or `def` (run in a thread), and takes the
    payload, the context, both or neither. What it returns is the job's result, as JSON. A payload
    that does not fit its annotation fails the job for good, before the handler is called.

    `name` is that of the application, where several declare schedules in one database.
    """

    def __init__(self, name: str = "tasks") -> None:
        self.name = name
        self.schedules: dict[str, dict[str, Any]] = {}
        """What Worker registers at its start: add_scheduled_job()'s arguments, by key."""
        self._tasks: dict[str, Task[Any]] = {}
        self._middleware: list[Callable[..., Any]] = []

    def task(self, name: str | None = None, **options: Unpack[TaskOptions]) -> Register:
        """Register the decorated function as the handler of task `name` (its own name if None).

        queue_name, max_attempts, priority
                    what jobs get that are added by enqueue() or a schedule, unless it says
                    otherwise; those that SQL adds do not know of it
        retry_on    exceptions after which a run is repeated; others fail the job for good
        discard_on  exceptions that fail it for good all the same
        timeout     how long one run may take, counted by the worker from the start of the handler:
                    then it is cancelled (a sync one is told by ctx.cancelled), and the run fails
                    with a TimeoutError, unless the handler raises Fail or Snooze
        process     run the handler, a `def` that takes long to compute, in a process of its own; of
                    its context it has all but run_once(), transaction() and set_attributes(), and
                    when it is cancelled or its time is over, the process is killed

        With `cron`, `every` or `schedule` it is run by itself, too: those, and key, tz, payload,
        missed, overlap and attributes are schedule()'s.
        """
        if callable(name):
            raise TypeError("write @tasks.task() or @tasks.task('name')")
        return cast("Register", self._register(name, None, options))

    def batch_task(
        self, name: str | None = None, *, size: int = 100, **options: Unpack[TaskOptions]
    ) -> RegisterBatch:
        """Register a handler of a list of payloads: of up to `size` jobs that are ready, 1 to 5000.

        ::

            @tasks.batch_task("index", size=500)
            async def index(pages: list[Page], batch: BatchContext) -> None:
                for number, error in await search.add(pages):
                    batch.fail(number, error)

        A worker runs one batch of a task at a time, and does not wait for more jobs to come. If the
        handler raises, that is for all jobs of which nothing was said by fail().
        """
        if not 1 <= size <= 5000:
            raise BadArgument(f"size is out of range: {size}", hint="Give 1 to 5000.")
        if options.get("process"):
            raise TypeError("a batch handler runs on the event loop or in a thread, in no process")
        return cast("RegisterBatch", self._register(name, size, options))

    def _register(
        self, name: str | None, batch_size: int | None, options: TaskOptions
    ) -> Callable[[Callable[..., Any]], TaskFunction[Any, ..., Any]]:
        given: dict[str, Any] = {**options}
        defaults = {
            option: given.pop(option)
            for option in ("queue_name", "max_attempts", "priority")
            if option in given
        }
        settings = {
            option: given.pop(option)
            for option in ("retry_on", "discard_on", "timeout", "process")
            if option in given
        }
        timeout = settings.get("timeout")
        if timeout is not None and timeout <= timedelta(0):
            raise BadArgument(f"timeout is not positive: {timeout}", hint="Give None for no limit.")

        def register(function: Callable[..., Any]) -> TaskFunction[Any, ..., Any]:
            if isinstance(function, Task):  # it is in another registry, or has another name, too
                function = function.function
            identifier = name if name is not None else function.__name__
            if not 1 <= len(identifier) <= 126:
                raise BadArgument(
                    f"the name of a task has 1 to 126 characters: {identifier!r:.150}"
                )
            if identifier in self._tasks:
                raise ValueError(f"task {identifier!r} has a handler already")
            task: TaskFunction[Any, ..., Any] = TaskFunction(
                identifier, function, defaults=defaults, batch_size=batch_size, **settings
            )
            task._surround(self._middleware)
            self._tasks[identifier] = task
            if given:
                self.schedule(identifier, **given)
            return task

        return register

    def middleware(self, function: Around) -> Around:
        """Run the decorated generator around the handlers of all tasks, the first one outermost.

        ::

            @tasks.middleware
            def timed(ctx: JobContext) -> Iterator[None]:
                started = monotonic()
                yield  # the handler runs; what it raises is raised here
                ctx.log.info("took %.3f s", monotonic() - started)

        It runs where the handler does, and contextvars that it sets are seen there. An exception
        before the yield, Snooze for example, keeps the handler from running. One that is written
        `async def` can only be around async handlers.
        """
        if not inspect.isgeneratorfunction(function) and not inspect.isasyncgenfunction(function):
            raise TypeError(
                f"middleware {function.__name__!r} is no generator: write a function of the context"
                " with one yield, where the handler runs"
            )
        middleware: list[Callable[..., Any]] = [*self._middleware, function]
        for task in self._tasks.values():
            task._surround(middleware)
        self._middleware = middleware
        return function

    def schedule(
        self,
        task: str,
        *,
        key: str | None = None,
        cron: str | None = None,
        every: timedelta | str | None = None,
        schedule: Mapping[str, Any] | None = None,
        tz: str = "UTC",
        payload: Any = None,
        missed: Literal["skip", "once", "all"] = "once",
        overlap: Literal["allow", "skip"] = "allow",
        queue_name: str | None = None,
        max_attempts: int | None = None,
        priority: int | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Declare a schedule of a task that has a handler here. Workers register it as they start.

        One of `cron` ("0 2 * * *"), `every` (a timedelta, or text such as "1 day", which follows
        the calendar of `tz`) and `schedule` (any schedule_info) says when. `key` tells apart
        several schedules of a task: None is the task's name. In the database the registry's name
        goes before it. The rest is as in Client.add_scheduled_job(), with the task's own defaults.

        To say something else later changes the schedule, with the next worker that starts. One
        that is not declared any more is reported in the log, and goes on until it is removed.
        """
        rules = [
            rule
            for rule in (
                cron if cron is None else {"rule": cron},
                every if every is None else {"every": every},
                schedule,
            )
            if rule is not None
        ]
        if len(rules) != 1:
            raise BadArgument(
                f"a schedule of task {task!r} has {len(rules)} rules",
                hint="Give one of cron, every and schedule.",
            )
        if task not in self._tasks:
            raise ValueError(f"task {task!r} has no handler: register it first")
        full_key = f"{self.name}:{key or task}"
        if full_key in self.schedules:
            raise ValueError(f"schedule {full_key!r} is declared already: give this one a key")
        defaults = self._tasks[task]._defaults
        self.schedules[full_key] = {
            "identifier": task,
            "payload": self._tasks[task]._to_json("payload", payload),
            "schedule_info": rules[0],
            "job_key": full_key,
            "queue_name": queue_name or defaults.get("queue_name"),
            "max_attempts": max_attempts or defaults.get("max_attempts"),
            "priority": defaults.get("priority", 0) if priority is None else priority,
            "time_zone": tz,
            "missed": missed,
            "attributes": attributes,
            "overlap": overlap,
        }

    def __getitem__(self, name: str) -> Task[Any]:
        return self._tasks[name]

    def __iter__(self) -> Iterator[Task[Any]]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)


def _roles(name: str, function: Callable[..., Any]) -> tuple[list[str], Any]:
    """Return what a handler wants, "payload" and "context", and the payload's annotation."""
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"the handler of task {name!r} is a generator: it would never run")
    wanted: list[str] = []
    annotation: Any = inspect.Parameter.empty
    skipped = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if _is_context(parameter):
            role = "context"
        elif parameter.default is not parameter.empty:
            skipped = True
            continue
        else:
            role = "payload" if "payload" not in wanted else "context"
        if parameter.kind is parameter.KEYWORD_ONLY or role in wanted or skipped:
            raise TypeError(
                f"the handler of task {name!r} wants an argument that it is not given:"
                f" {parameter.name}; it may take (payload, ctx), (payload), (ctx) or nothing"
            )
        if role == "payload":
            annotation = parameter.annotation
        wanted.append(role)
    return wanted, annotation


def _invoker(
    function: Callable[..., Any], roles: list[str], codec: _payloads.Codec | None
) -> Callable[[JobContext], Any]:
    """Decide once how a handler is called."""
    if codec is not None:
        function = _receiving(function, roles.index("payload"), codec)
    if roles == ["payload", "context"]:
        return lambda context: function(context.payload, context)
    if roles == ["context", "payload"]:
        return lambda context: function(context, context.payload)
    if roles == ["payload"]:
        return lambda context: function(context.payload)
    if roles == ["context"]:
        return function
    return lambda context: function()


def _receiving(
    function: Callable[..., Any], position: int, codec: _payloads.Codec
) -> Callable[..., Any]:
    """Put a payload's type in front of a handler."""

    def receive(*arguments: Any) -> Any:
        given = list(arguments)
        given[position] = _decoded(codec, given[position])
        return function(*given)

    return receive


def _decoded(codec: _payloads.Codec | None, payload: Any) -> Any:
    if codec is None:
        return payload
    try:
        return codec.decode(payload)
    except _payloads.Misfit as misfit:
        message = f"the payload does not fit {codec.name}: {misfit}"
        raise Fail(message, permanent=True) from None


def _within(
    middleware: Callable[..., Any], invoke: Callable[[JobContext], Any], task: Task[Any]
) -> Callable[[JobContext], Any]:
    """Put middleware around what calls a handler."""
    if inspect.isasyncgenfunction(middleware):
        if not task.is_async:
            raise TypeError(
                f"middleware {middleware.__name__!r} is async, and cannot be around the handler of"
                f" task {task.name!r}, which runs in a thread: write it as def"
            )
        async_manager = asynccontextmanager(middleware)

        async def run_in_async(context: JobContext) -> Any:
            async with async_manager(context):
                return await invoke(context)

        return run_in_async
    manager = contextmanager(middleware)

    async def run_async(context: JobContext) -> Any:
        with manager(context):
            return await invoke(context)

    def run(context: JobContext) -> Any:
        with manager(context):
            return invoke(context)

    return run_async if task.is_async else run


def _limited(invoke: Callable[[JobContext], Any], seconds: float) -> Callable[[JobContext], Any]:
    """Cancel a handler on the event loop when its time is over."""

    async def run(context: JobContext) -> Any:
        runner = cast("asyncio.Task[Any]", context._runner)
        with _time_limit(context, seconds):
            timer = asyncio.get_running_loop().call_at(context._limit, runner.cancel)
            try:
                return await invoke(context)
            finally:
                timer.cancel()
                if sys.version_info >= (3, 11) and monotonic() >= context._limit:
                    runner.uncancel()

    return run


def _limited_in_thread(
    invoke: Callable[[JobContext], Any], seconds: float
) -> Callable[[JobContext], Any]:
    """Let a handler know by ctx.cancelled when its time is over."""

    def run(context: JobContext) -> Any:
        with _time_limit(context, seconds):
            return invoke(context)

    return run


@contextmanager
def _time_limit(context: JobContext, seconds: float) -> Iterator[None]:
    """Let a run that takes longer fail, unless it says itself how it ends: Fail or Snooze."""
    context._limit = limit = monotonic() + seconds
    message = f"the run took longer than its task's timeout of {seconds:g} s"
    try:
        yield
    except (Fail, Snooze):
        raise
    except BaseException as error:
        if monotonic() >= limit:
            raise TimeoutError(message) from error
        raise
    else:
        if monotonic() >= limit:
            raise TimeoutError(message)
    finally:
        context._limit = math.inf


def _is_context(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        annotation = annotation.rpartition(".")[2]
    contexts = (JobContext, BatchContext, "JobContext", "BatchContext")
    return annotation in contexts or parameter.name in ("ctx", "context")
