"""For the tests of applications: what they have enqueued, and to run it, within one transaction.

`pip install app-jobs` brings fixtures to pytest (pytest_plugin.py has them all)::

    def test_sign_up(app_jobs_connection, app_jobs):
        sign_up(app_jobs_connection, "ada@example.org")
        app_jobs.assert_enqueued(send_welcome, Welcome("ada@example.org"))
        app_jobs.drain(tasks)
        assert mails == ["welcome, ada@example.org"]

The transaction must be at READ COMMITTED, which is PostgreSQL's default. Time does not pass in it:
make_due() and expire_leases() backdate instead. Use a database for tests: what others have
committed there is run as well.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Connection

from app_jobs import _sql
from app_jobs._async_client import AsyncClient
from app_jobs._client import Client
from app_jobs._effects import Effects, Transaction
from app_jobs._outbox import describe_failure
from app_jobs._sql import Function, Job
from app_jobs.errors import BadArgument, NotSupported
from app_jobs.tasks import BatchContext, Fail, JobContext, Snooze, Task, Tasks

T = TypeVar("T")
Payload = TypeVar("Payload")

WORKER_ID = "app_jobs.testing"
LEASE = timedelta(hours=1)
ANY = object()


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a job: how it ended, and with what."""

    job: Job
    state: Literal["completed", "failed", "snoozed"]
    result: Any = None
    error: Exception | None = None


class ConnectionClient(Client):
    """A Client all of whose calls join the transaction of a connection of psycopg."""

    def __init__(self, connection: Connection[Any], *, schema: str = "app_jobs") -> None:
        super().__init__(schema=schema)
        self.joined = connection

    def _call(self, function: Function[T], connection: Any, /, **arguments: Any) -> T:
        return super()._call(function, connection or self.joined, **arguments)


class AsyncConnectionClient(AsyncClient):
    """An AsyncClient all of whose calls join the transaction of a connection of psycopg."""

    def __init__(self, connection: AsyncConnection[Any], *, schema: str = "app_jobs") -> None:
        super().__init__(schema=schema)
        self.joined = connection

    async def _call(self, function: Function[T], connection: Any, /, **arguments: Any) -> T:
        return await super()._call(function, connection or self.joined, **arguments)


class AsyncJobs:
    """The jobs that a client sees, in tests that are coroutines; Jobs is for all others.

    `client` joins the transaction of the test: ConnectionClient, SessionClient, AsyncpgClient … .
    """

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    async def enqueued(self, task: Task[Any] | str | None = None) -> list[Job]:
        """Return the jobs of a task (None: all) that wait, in order of service."""
        return await self._call(_sql.WAITING, task=_name(task))

    async def assert_enqueued(
        self, task: Task[Payload] | str, payload: Payload | Any = ANY, **fields: Any
    ) -> Job:
        """Fail unless a job of the task waits with this payload and these fields of Job.

        Returns the first that does. ::

            await app_jobs.assert_enqueued(send_email, Email("you@example.org"), priority=-1)
        """
        wanted = dict(fields)
        if payload is not ANY:
            wanted["payload"] = _json_of(task, payload)
        jobs = await self.enqueued(task)
        for job in jobs:
            if all(getattr(job, name) == value for name, value in wanted.items()):
                return job
        raise AssertionError(
            f"no job of task {_name(task)} waits with {wanted}; there are:"
            + ("".join(f"\n  {job}" for job in jobs) or " none")
        )

    async def assert_not_enqueued(
        self, task: Task[Payload] | str, payload: Payload | Any = ANY, **fields: Any
    ) -> None:
        """Fail if a job of the task waits with this payload and these fields of Job."""
        try:
            job = await self.assert_enqueued(task, payload, **fields)
        except AssertionError:
            return
        raise AssertionError(f"a job waits: {job}")

    async def make_due(self, task: Task[Any] | str | None = None) -> int:
        """Let the time come for scheduled jobs, retries, and schedules; return how many.

        Of a task; None: of all. A schedule adds one job.
        """
        jobs = await self._call(_sql.MAKE_DUE, task=_name(task))
        schedules = await self._call(_sql.MAKE_SCHEDULES_DUE, task=_name(task))
        await self._call(_sql.RUN_DUE_SCHEDULES)
        return jobs + schedules

    async def expire_leases(self, task: Task[Any] | str | None = None) -> int:
        """End the leases of jobs that are claimed, as if their workers had died; return how many.

        Of a task; None: of all. It needs the rights of the owner of the tables.
        """
        expired = await self._call(_sql.EXPIRE_LEASES, task=_name(task))
        await self._call(_sql.TICK)
        return expired

    async def drain(self, tasks: Tasks, *, failing: bool = False, at_most: int = 1000) -> list[Run]:
        """Run what is ready, and what that adds, in order; return what was run.

        What a handler raises is raised here, and its job stays claimed; with `failing` it fails
        the job, as in a worker (but an error of the database's ends the transaction: it is raised).
        Functions run in a thread, coroutines in this one.
        A batch has one job, and what has process=True runs in this process.
        ctx.transaction() is a savepoint of the test's transaction, on a connection of psycopg.
        """
        return await self._drain(tasks, failing, at_most, asyncio.get_running_loop())

    async def _call(self, function: Function[T], **arguments: Any) -> T:
        answer: Any = self.client._call(function, None, **arguments)
        return cast("T", await answer if inspect.isawaitable(answer) else answer)

    async def _drain(
        self, tasks: Tasks, failing: bool, at_most: int, loop: asyncio.AbstractEventLoop
    ) -> list[Run]:
        tools = _Tools(self, loop)
        runs: list[Run] = []
        while jobs := await self._call(
            _sql.GET_JOBS,
            worker_id=WORKER_ID,
            task_identifiers=[task.name for task in tasks],
            job_expiry=LEASE,
            job_limit=1,
        ):
            if len(runs) == at_most:
                raise RuntimeError(f"{at_most} jobs were run and there are more: at_most is less")
            (job,) = jobs
            context = _context(job, tasks[job.task_identifier], tools)
            try:
                result = await self._run(context, loop)
                run = await self._completed(context, result)
            except Snooze as snooze:
                await self._end(_sql.SNOOZE_JOB, context, delay=snooze.delay)
                run = Run(context.job, "snoozed")
            except Exception as error:
                if not failing:
                    raise
                failure = describe_failure(context, error)
                try:
                    await self._call(_sql.FAIL_JOBS, worker_id=WORKER_ID, failures=[failure])
                except Exception:  # an error of the database's has ended the transaction
                    raise error from None
                run = Run(context.job, "failed", error=error)
            runs.append(run)
        return runs

    async def _run(self, context: JobContext, loop: asyncio.AbstractEventLoop) -> Any:
        if not context.task.batch_size:
            return await self._invoke(context, loop)
        batch = BatchContext([context])
        try:
            await self._invoke(cast("JobContext", batch), loop)
        except Exception as error:
            raise batch._ended.get(context) or error from None
        if (failure := batch._ended.get(context)) is not None:
            raise failure
        return context.result

    async def _invoke(self, context: JobContext, loop: asyncio.AbstractEventLoop) -> Any:
        if context.task.is_async:
            return await context.task.invoke(context)
        return await asyncio.to_thread(context.task.invoke, context)

    async def _completed(self, context: JobContext, result: Any) -> Run:
        if context._completed:
            return Run(context.job, "completed", context.result)
        try:
            text = None if result is None else _sql.to_json("the handler's result", result)
        except BadArgument as error:
            raise Fail(str(error), permanent=True) from None
        await self._end(_sql.COMPLETE_JOB, context, result=text and _sql.RawJson(text))
        return Run(context.job, "completed", result)

    async def _end(self, function: Function[Any], context: JobContext, **how: Any) -> None:
        held = await self._call(
            function, worker_id=WORKER_ID, job_id=context.id, lease=context.lease, **how
        )
        if not held:
            raise AssertionError(f"job {context.id} was taken away while its handler ran")


class Jobs:
    """The jobs that a client sees, in tests; the client joins the transaction of the test.

    ConnectionClient, SessionClient and DjangoClient do.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._jobs = _JobsInThread(client)

    def enqueued(self, task: Task[Any] | str | None = None) -> list[Job]:
        """Return the jobs of a task (None: all) that wait, in order of service."""
        return _now(self._jobs.enqueued(task))

    def assert_enqueued(
        self, task: Task[Payload] | str, payload: Payload | Any = ANY, **fields: Any
    ) -> Job:
        """Fail unless a job of the task waits with this payload and these fields of Job.

        Returns the first that does. ::

            app_jobs.assert_enqueued(send_email, Email("you@example.org"), priority=-1)
        """
        return _now(self._jobs.assert_enqueued(task, payload, **fields))

    def assert_not_enqueued(
        self, task: Task[Payload] | str, payload: Payload | Any = ANY, **fields: Any
    ) -> None:
        """Fail if a job of the task waits with this payload and these fields of Job."""
        _now(self._jobs.assert_not_enqueued(task, payload, **fields))

    def make_due(self, task: Task[Any] | str | None = None) -> int:
        """Let the time come for scheduled jobs, retries, and schedules; return how many.

        Of a task; None: of all. A schedule adds one job.
        """
        return _now(self._jobs.make_due(task))

    def expire_leases(self, task: Task[Any] | str | None = None) -> int:
        """End the leases of jobs that are claimed, as if their workers had died; return how many.

        Of a task; None: of all. It needs the rights of the owner of the tables.
        """
        return _now(self._jobs.expire_leases(task))

    def drain(self, tasks: Tasks, *, failing: bool = False, at_most: int = 1000) -> list[Run]:
        """Run what is ready, and what that adds, in order, in this thread; return what was run.

        What a handler raises is raised here, and its job stays claimed; with `failing` it fails
        the job, as in a worker (but an error of the database's ends the transaction: it is raised).
        A batch has one job, and what has process=True runs in this process.
        ctx.transaction() is a savepoint of the test's transaction, on a connection of psycopg.
        In a coroutine use AsyncJobs.
        """
        loop = asyncio.new_event_loop()
        try:
            return _now(self._jobs._drain(tasks, failing, at_most, loop))
        finally:
            loop.close()


class _JobsInThread(AsyncJobs):
    """Jobs of a client that is not async: none of it ever waits."""

    async def _invoke(self, context: JobContext, loop: asyncio.AbstractEventLoop) -> Any:
        invoked = context.task.invoke(context)
        # No loop is running here, so a function may start one of its own.
        return loop.run_until_complete(invoked) if context.task.is_async else invoked


def _context(job: Job, task: Task[Any], tools: Effects) -> JobContext:
    """A context whose lease never ends."""
    row = list(job)
    row[_sql.ATTRIBUTES] = "\1" + _sql.to_json("attributes", job.attributes)  # as a claim has them
    context = JobContext(tuple(row), task, math.inf, 0, lambda: None, tools)
    context._job, context._payload = job, job.payload
    return context


class _Tools(Effects):
    """What handlers do through their contexts, by the test's client."""

    def __init__(self, jobs: AsyncJobs, loop: asyncio.AbstractEventLoop) -> None:
        # Not the worker's connections: `_link` asks the client.
        self.worker_id = WORKER_ID
        self._held = {}
        self._loop = loop
        self._finishing = set()
        self._jobs = jobs
        self._link = cast("Any", self)
        self.progress = cast("Any", self)

    async def call(self, function: Function[T], **arguments: Any) -> T:
        return await self._jobs._call(function, **arguments)

    insist = call

    def note(self, _context: JobContext, _done: float, _note: str) -> None:
        """Nobody looks at the progress of a job in a test."""

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if isinstance(self._jobs.client, Client):
            return _now(coroutine)
        return super().wait_for(coroutine)

    def transaction(self, context: JobContext) -> Transaction:
        joined: Any = getattr(self._jobs.client, "joined", None)
        if joined is None or (isinstance(joined, AsyncConnection) and not context.task.is_async):
            raise NotSupported(
                "ctx.transaction() has no connection in this test",
                hint="Use ConnectionClient, or AsyncConnectionClient with async handlers.",
            )
        if not context.task.is_async:
            return Transaction(for_threads=self._savepoint(context, joined))
        if isinstance(joined, Connection):
            joined = _Awaited(joined, AsyncConnection)
        return Transaction(for_async=self._async_savepoint(context, joined))

    @contextmanager
    def _savepoint(
        self, context: JobContext, connection: Connection[Any]
    ) -> Iterator[Connection[Any]]:
        with self._completing(context), connection.transaction():
            yield connection
            _now(self._complete(context))

    @asynccontextmanager
    async def _async_savepoint(
        self, context: JobContext, connection: AsyncConnection[Any]
    ) -> AsyncIterator[AsyncConnection[Any]]:
        with self._completing(context):
            async with connection.transaction():
                yield connection
                await self._complete(context)

    async def _complete(self, context: JobContext) -> None:
        await self._jobs._end(_sql.COMPLETE_JOB, context, result=context.result)


class _Awaited:
    """A connection or cursor of psycopg that is not async, for handlers that are."""

    def __init__(self, thing: Any, twin: type[Any]) -> None:
        self._thing = thing
        self._twin = twin

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._thing, name)
        if not callable(value):
            return value
        if inspect.iscoroutinefunction(getattr(self._twin, name, None)):

            async def call(*arguments: Any, **options: Any) -> Any:
                return _awaited(value(*arguments, **options))

            return call
        return lambda *arguments, **options: _awaited(value(*arguments, **options))

    async def __aenter__(self) -> Any:
        return _awaited(self._thing.__enter__())

    async def __aexit__(self, *error: Any) -> Any:
        return self._thing.__exit__(*error)

    async def __aiter__(self) -> AsyncIterator[Any]:
        for row in self._thing:
            yield row


def _awaited(value: Any) -> Any:
    if isinstance(value, psycopg.Cursor):
        return _Awaited(value, AsyncCursor)
    return _Awaited(value, object) if hasattr(value, "__enter__") else value


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    coroutine.close()
    raise RuntimeError("Jobs wants a client that is not async: use AsyncJobs")


def _name(task: Task[Any] | str | None) -> str | None:
    return task.name if isinstance(task, Task) else task


def _json_of(task: Task[Any] | str, payload: Any) -> Any:
    """What a job with this payload has."""
    value = task.to_payload(payload) if isinstance(task, Task) else payload
    return _sql.from_json(_sql.to_json("payload", value))
