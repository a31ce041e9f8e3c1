"""Statements over libpq itself: a third of a cursor's CPU time, and half of its latency."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

PREPARE_AFTER = 2  # runs of a statement after which it is prepared
CANCEL_WITHIN = 5.0  # seconds that the server gets to hear that a statement is to be cancelled


class Wire:
    """A connection that belongs to it alone, and runs statements one after the other.

    Placeholders are $1, $2 and so on; answers come in binary. With `prepares`, statements that come
    again are prepared: to analyze and plan a claim takes as long as most of its run. `on_notice` is
    called with the payload of each notification, as it came: anybody may have sent it, in any
    encoding. `lost` is done once the connection is lost.
    """

    def __init__(
        self,
        connection: AsyncConnection[Any],
        *,
        prepares: bool = False,
        on_notice: Callable[[bytes], None] = lambda payload: None,
    ) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._encoding = connection.info.encoding
        self._transformer = Transformer(connection)
        self._prepares = prepares
        self._on_notice = on_notice
        self._runs: Counter[tuple[bytes, Sequence[int]]] = Counter()
        self._prepared: dict[tuple[bytes, Sequence[int]], bytes] = {}
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[psycopg.Error] = self._loop.create_future()
        self._heard: asyncio.Future[None] | None = None
        self._socket = connection.fileno()
        self._loop.add_reader(self._socket, self._on_event)

    async def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows. If this is cancelled, so is the statement."""
        transformer, libpq = self._transformer, self._libpq
        parameters = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        types, formats = transformer.types or (), transformer.formats
        text = statement.encode(self._encoding)
        name = await self._prepare(text, types) if self._prepares else None
        if name is None:
            libpq.send_query_params(text, parameters, types, formats, Format.BINARY)
        else:
            libpq.send_query_prepared(name, parameters, formats, Format.BINARY)
        result = await self._answer()
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    async def _prepare(self, statement: bytes, types: Sequence[int]) -> bytes | None:
        """Return the name of a statement that has come often enough."""
        kind = statement, types
        name = self._prepared.get(kind)
        if name is None:
            self._runs[kind] += 1
            if self._runs[kind] > PREPARE_AFTER:
                name = b"app_jobs_%d" % len(self._prepared)
                self._libpq.send_prepare(name, statement, types)
                await self._answer()
                self._prepared[kind] = name
        return name

    async def _answer(self) -> PGresult:
        """Wait for what the server says to what was sent."""
        if self._libpq.flush():
            self._loop.add_writer(self._socket, self._on_event)
        try:
            results = await self._results()
        except asyncio.CancelledError:
            # Whoever goes on may rely on it: what the statement does is done or undone.
            with contextlib.suppress(psycopg.Error):
                await self._connection.cancel_safe(timeout=CANCEL_WITHIN)
                await self._results()
            raise
        for result in results:  # two if the commit failed
            if result.status == ExecStatus.FATAL_ERROR:
                error = error_from_result(result, self._encoding)
                # libpq's own have no SQLSTATE: it says so that the connection is lost
                raise error if error.sqlstate else psycopg.OperationalError(str(error))
        return results[0]

    async def _results(self) -> list[PGresult]:
        """Read until the server is ready for the next statement."""
        results: list[PGresult] = []
        while True:
            if not self._libpq.is_busy():
                result = self._libpq.get_result()
                if result is None:
                    return results
                results.append(result)
            elif self.lost.done():
                raise self.lost.result()
            else:
                self._heard = self._loop.create_future()
                await self._heard

    def _on_event(self) -> None:
        """Read and write as far as that goes without waiting."""
        try:
            self._libpq.consume_input()
            if not self._libpq.flush():
                self._loop.remove_writer(self._socket)
            while notice := self._libpq.notifies():
                self._on_notice(notice.extra)
        except psycopg.Error as error:
            self.close(error)
        heard = self._heard
        is_over = self.lost.done() or not self._libpq.is_busy()
        if is_over and heard is not None and not heard.done():
            heard.set_result(None)

    def close(self, error: psycopg.Error | None = None) -> None:
        """Hear no more, before the connection is closed and its socket's number comes again."""
        if not self.lost.done():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self.lost.set_result(error or psycopg.OperationalError("the connection is closed"))
