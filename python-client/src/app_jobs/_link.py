"""A database that may be away: connections that come back, and waiting for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection

from app_jobs._sql import Function
from app_jobs._wire import Wire
from app_jobs.errors import translate

T = TypeVar("T")

log = logging.getLogger("app_jobs.worker")

STATEMENT_TIMEOUT = 30.0  # seconds until a statement is given up at the latest


class Link:
    """A connection that is made when it is needed, and again when it was lost.

    A call may take `patience` seconds; `prepare` is called with each new connection.
    """

    def __init__(
        self,
        conninfo: str,
        schema: str,
        patience: float = STATEMENT_TIMEOUT,
        prepare: Callable[[AsyncConnection[Any]], None] = lambda connection: None,
    ) -> None:
        self._conninfo = conninfo
        self._schema = schema
        self.patience = patience
        self._prepare = prepare
        self._connection: AsyncConnection[Any] | None = None
        self._wire: Wire | None = None
        self._lock = asyncio.Lock()
        self._statements: dict[Function[Any], str] = {}

    async def call(
        self, function: Function[T], /, *, within: float | None = None, **arguments: Any
    ) -> T:
        """Call a function of the schema, once; it may take `within` seconds, if less is wanted."""
        statement = self._statements.get(function)
        if statement is None:
            numbers = {name: f"${number}" for number, name in enumerate(function.arguments, 1)}
            statement = self._statements[function] = function.query(self._schema) % numbers
        values = list(function.parameters(arguments).values())
        async with self._lock:
            try:
                if self._wire is not None and self._wire.lost.done():
                    await self._drop()
                if self._connection is None:
                    self._connection = await connect(self._conninfo)
                    self._prepare(self._connection)
                with hang_up_after(within or self.patience, self._connection):
                    if self._wire is None:
                        is_direct = await _is_direct(self._connection)
                        self._wire = Wire(self._connection, prepares=is_direct)
                    rows = await self._wire.run(statement, values)
            except BaseException as error:
                if not isinstance(error, psycopg.Error) or is_trouble(error):
                    await self._drop()
                raise
        return function.decode(rows)

    async def insist(self, function: Function[T], /, **arguments: Any) -> T:
        """Call a function of the schema until the database answers, however long that takes."""
        pauses = growing_pauses()
        while True:
            try:
                return await self.call(function, **arguments)
            except psycopg.Error as error:
                if not is_trouble(error):
                    raise translate(error) from error
                log_trouble(function.name, error)
            except OSError as error:
                log_trouble(function.name, error)
            await asyncio.sleep(next(pauses))

    async def close(self) -> None:
        """Close the connection."""
        async with self._lock:
            await self._drop()

    async def _drop(self) -> None:
        connection, wire = self._connection, self._wire
        self._connection = self._wire = None
        if wire is not None:
            wire.close()
        if connection is not None:
            await connection.close()


async def connect(conninfo: str) -> AsyncConnection[Any]:
    """Connect, with nothing that breaks behind a pooler in transaction mode."""
    return await AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=None)


async def _is_direct(connection: AsyncConnection[Any]) -> bool:
    """Whether no pooler stands between: it would tell us a process id of its own making."""
    cursor = await connection.execute("select pg_backend_pid()")
    return await cursor.fetchone() == (connection.info.backend_pid,)


@contextlib.contextmanager
def hang_up_after(seconds: float, connection: AsyncConnection[Any]) -> Iterator[None]:
    """Cut the connection if the block takes too long: what waits for an answer then fails at once.

    To cancel the waiting task would not do: it asks the server to cancel, which may be hung, too.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _hang_up, connection)
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(connection: AsyncConnection[Any]) -> None:
    with contextlib.suppress(OSError, psycopg.Error), line_of(connection) as line:
        line.shutdown(socket.SHUT_RDWR)


def line_of(connection: AsyncConnection[Any] | Connection[Any]) -> socket.socket:
    """Return the socket of a connection, to be closed apart from it."""
    return socket.socket(fileno=os.dup(connection.fileno()))


def is_trouble(error: Exception) -> bool:
    """Whether an error is the state of the database or the network, which passes; no mistake."""
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        # transaction (a standby), rollback, resources, intervention, system, internal; and an
        # upgrade: jobs got a column while the call, which returns its rows, was under way (42804),
        # or a prepared statement would return other columns now (0A000), as no new one would
        kinds = ("08", "25", "40", "53", "57", "58", "XX", "42804", "0A000")
        return error.sqlstate.startswith(kinds) or isinstance(error, psycopg.OperationalError)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError)


def log_trouble(what: str, error: Exception) -> None:
    """Log that something has to wait for the database."""
    log.warning("database trouble (%s): %s", what, str(error).strip() or type(error).__name__)


def growing_pauses() -> Iterator[float]:
    """Yield seconds between attempts for ever: 0.1 doubled up to 5, with jitter."""
    pause = 0.1
    while True:
        yield pause * random.uniform(0.5, 1)
        pause = min(pause * 2, 5.0)


class Alarm:
    """An event for one waiter, which takes it back by waiting for it; waiting costs no task."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the waiter, or the next one at once."""
        self._is_set = True
        if self._waiter is not None:
            _resolve(self._waiter)

    def clear(self) -> None:
        """Take it back."""
        self._is_set = False

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is set or the time is over; return whether it was set."""
        if not self._is_set and (seconds is None or seconds > 0):
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = None if seconds is None else loop.call_later(seconds, _resolve, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        was_set, self._is_set = self._is_set, False
        return was_set


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended; how they end is not looked at."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        # Again if need be: before Python 3.12 asyncio.wait_for() may swallow a cancellation.
        _, pending = await asyncio.wait(pending, timeout=1)
