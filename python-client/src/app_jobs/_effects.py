"""What handlers do through their contexts that must happen once, or together with their job's end.

The statements of run_once() and set_attributes() go over one connection, on the worker's event
loop, whatever kind of handler asks. A transaction() has a connection to itself, of the handler's
kind, which a later one uses again: to open one costs ten times what the rest does.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row

from app_jobs import _sql
from app_jobs._async_client import AsyncClient
from app_jobs._client import Client
from app_jobs._link import Link, connect, is_trouble, line_of, log_trouble
from app_jobs._progress import Reporter
from app_jobs._sql import Function, Once, RawJson
from app_jobs.errors import BadArgument, NotSupported, translate
from app_jobs.tasks import Fail, JobContext

T = TypeVar("T")
NothingDone = tuple[type[BaseException], ...]


class Effects:
    """Effects and transactions of the jobs that a worker holds, which are in `held` by id."""

    def __init__(
        self,
        conninfo: str,
        schema: str,
        patience: float,
        worker_id: str,
        held: dict[int, JobContext],
    ) -> None:
        self._conninfo = conninfo
        self.worker_id = worker_id
        self._held = held
        self._loop = asyncio.get_running_loop()
        self._link = Link(conninfo, schema, patience)
        self.progress = Reporter(self._link, worker_id, held)
        self._finishing: set[asyncio.Task[Any]] = set()
        # Of the clients only calls with connection=… are made.
        self._async_client = AsyncClient(conninfo, schema=schema)
        self._client = Client(conninfo, schema=schema)
        self._async_idle: list[AsyncConnection[Any]] = []
        self._idle: list[Connection[Any]] = []

    async def close(self) -> None:
        """Close the connections, once what has happened is noted or a moment has passed."""
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=5)
        await self.progress.close()
        await self._link.close()
        for connection in self._async_idle:
            await connection.close()
        for idle in self._idle:
            idle.close()

    async def call(self, function: Function[T], **arguments: Any) -> T:
        """Call a function of the schema until the database answers."""
        return await self._link.insist(function, **arguments)

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the worker's loop and wait for it, in another thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    # --- effects that happen once ---

    async def run_once(
        self,
        context: JobContext,
        key: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        nothing_done: NothingDone,
    ) -> Any:
        """JobContext.run_once() for async handlers."""
        with _asking(context, key) as for_the_first_time:
            once = await self._begin(context, key, for_the_first_time)
            if not once.run:
                return once.result
            try:
                result = function(*arguments)
                if inspect.isawaitable(result):
                    result = await result
            except nothing_done:
                await self._forget(context, key)
                raise
            # It has happened: that the handler is cancelled now must not keep us from saying so.
            finishing = self._loop.create_task(self._finish(context, key, result))
            self._finishing.add(finishing)
            finishing.add_done_callback(self._finishing.discard)
            return await asyncio.shield(finishing)

    def run_once_in_thread(
        self,
        context: JobContext,
        key: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        nothing_done: NothingDone,
    ) -> Any:
        """JobContext.run_once() for handlers in threads."""
        with _asking(context, key) as for_the_first_time:
            once = self.wait_for(self._begin(context, key, for_the_first_time))
            if not once.run:
                return once.result
            try:
                result = function(*arguments)
            except nothing_done:
                self.wait_for(self._forget(context, key))
                raise
            return self.wait_for(self._finish(context, key, result))

    async def _begin(self, context: JobContext, key: str, for_the_first_time: bool) -> Once:
        arguments: dict[str, Any] = {
            "worker_id": self.worker_id,
            "job_id": context.id,
            "effect_key": key,
            "lease": context.lease,
        }
        if not for_the_first_time:
            return await self.call(_sql.BEGIN_ONCE, **arguments)
        while True:
            try:
                return await self._link.call(_sql.BEGIN_ONCE, **arguments)
            except (psycopg.Error, OSError) as error:
                if isinstance(error, psycopg.Error) and not is_trouble(error):
                    raise translate(error) from error
                log_trouble("begin_once", error)
            # Perhaps it counts as begun now. In this run nothing has been done yet: so begin anew.
            await self._forget(context, key)

    async def _finish(self, context: JobContext, key: str, result: Any) -> Any:
        text = None
        lost: BadArgument | None = None
        if result is not None:
            try:
                text = RawJson(_sql.to_json("its result", result))
            except BadArgument as error:
                lost = error
        await self.call(
            _sql.FINISH_ONCE,
            worker_id=self.worker_id,
            job_id=context.id,
            effect_key=key,
            result=text,
            lease=context.lease,
        )
        if lost is not None:
            # To run the job again would not help: there is no result to go on with.
            raise Fail(f'effect "{key}" has happened, but {lost}', permanent=True)
        # as the next run would get it
        return None if text is None else _sql.from_json(text)

    async def _forget(self, context: JobContext, key: str) -> None:
        await self.call(_sql.FORGET_ONCE, job_id=context.id, effect_key=key, lease=context.lease)

    # --- transactions that complete the job ---

    def transaction(self, context: JobContext) -> Transaction:
        """JobContext.transaction()."""
        if context.task.is_async:
            return Transaction(for_async=self._transaction(context))
        return Transaction(for_threads=self._transaction_in_thread(context))

    @asynccontextmanager
    async def _transaction(self, context: JobContext) -> AsyncIterator[AsyncConnection[Any]]:
        connection = await self._take_async(context)
        try:
            with _waiting_for(context, connection), self._completing(context) as job:
                async with connection.transaction():
                    _check(context, await self._async_client.hold_job(**job, connection=connection))
                    context._asked_at = math.inf  # the handler may take its time
                    yield connection
                    context._asked_at = monotonic()
                    done = await self._async_client.complete_job(
                        **job, result=context.result, connection=connection
                    )
                    _check(context, done is not None)
        except BaseException:
            await connection.close()
            raise
        self._async_idle.append(connection)

    @contextmanager
    def _transaction_in_thread(self, context: JobContext) -> Iterator[Connection[Any]]:
        connection = self._take(context)
        try:
            with (
                _waiting_for(context, connection),
                self._completing(context) as job,
                connection.transaction(),
            ):
                _check(context, self._client.hold_job(**job, connection=connection))
                context._asked_at = math.inf
                yield connection
                context._asked_at = monotonic()
                done = self._client.complete_job(
                    **job, result=context.result, connection=connection
                )
                _check(context, done is not None)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    @contextmanager
    def _completing(self, context: JobContext) -> Iterator[dict[str, Any]]:
        """Let a context have one transaction; its job is completed if the block does not raise."""
        if context._completed or context._in_transaction:
            raise RuntimeError("a job is completed once: its transaction is under way, or over")
        context._in_transaction = True
        try:
            yield {"worker_id": self.worker_id, "job_id": context.id, "lease": context.lease}
            context._completed = True
            self._held.pop(context.id, None)
        finally:
            context._in_transaction = False

    async def _take_async(self, context: JobContext) -> AsyncConnection[Any]:
        while self._async_idle:
            connection = self._async_idle.pop()
            try:
                with _waiting_for(context, connection):
                    await connection.execute("discard all")
            except psycopg.Error:  # it was lost meanwhile
                await connection.close()
            else:
                connection.row_factory = tuple_row
                return connection
        return await connect(self._conninfo)

    def _take(self, context: JobContext) -> Connection[Any]:
        while self._idle:
            connection = self._idle.pop()
            try:
                with _waiting_for(context, connection):
                    connection.execute("discard all")
            except psycopg.Error:
                connection.close()
            else:
                connection.row_factory = tuple_row
                return connection
        return Connection.connect(self._conninfo, autocommit=True, prepare_threshold=None)


class Transaction:
    """A transaction that completes a job: `async with` in async handlers, `with` in others."""

    def __init__(
        self,
        for_async: AbstractAsyncContextManager[AsyncConnection[Any]] | None = None,
        for_threads: AbstractContextManager[Connection[Any]] | None = None,
    ) -> None:
        self._async = for_async
        self._sync = for_threads

    async def __aenter__(self) -> AsyncConnection[Any]:
        if self._async is None:
            raise TypeError("this handler runs in a thread: write with ctx.transaction()")
        return await self._async.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._async is not None
        return await self._async.__aexit__(kind, error, trace)

    def __enter__(self) -> Connection[Any]:
        if self._sync is None:
            raise TypeError("this handler is async: write async with ctx.transaction()")
        return self._sync.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._sync is not None
        return self._sync.__exit__(kind, error, trace)


@contextmanager
def _asking(context: JobContext, key: str) -> Iterator[bool]:
    """Say whether this run asks for this effect for the first time; refuse two at once."""
    effects = context._effects = context._effects or {}
    if effects.get(key):
        raise RuntimeError(f'effect "{key}" is under way in this very run')
    for_the_first_time = key not in effects
    effects[key] = True
    try:
        yield for_the_first_time
    finally:
        effects[key] = False


@contextmanager
def _waiting_for(
    context: JobContext, connection: AsyncConnection[Any] | Connection[Any]
) -> Iterator[None]:
    """Let the heartbeat cut the connection: when the job is lost, or our statement takes too long.

    `context._asked_at` is when that began, while it is under way. So none waits for ever for a
    server or a network that has gone silent; and a handler is not told that its job is lost when it
    is the job's end that the heartbeat has seen.
    """
    with line_of(connection) as line:
        context._line, context._asked_at = line, monotonic()
        try:
            yield
        finally:
            context._asked_at, context._line = math.inf, None


def _check(context: JobContext, held: bool) -> None:
    if not held:
        raise NotSupported(
            f"job {context.id} is not held any more",
            hint="Its lease is over or was taken over: stop working on it.",
        )
