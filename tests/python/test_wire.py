"""Statements over libpq itself: what a cursor does for others is done here by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from app_jobs._link import connect, line_of
from app_jobs._wire import Wire

Connection = psycopg.Connection[Any]
PATIENCE = 20  # seconds after which what was waited for is taken to never come


def on_wire(
    dsn: str, body: Callable[[Wire, AsyncConnection[Any]], Awaitable[Any]], **options: Any
) -> Any:
    """Run a coroutine with a wire of its own."""

    async def run() -> Any:
        async with await connect(dsn) as connection:
            wire = Wire(connection, **options)
            try:
                return await asyncio.wait_for(body(wire, connection), PATIENCE)
            finally:
                wire.close()

    return asyncio.run(run())


@pytest.mark.parametrize("prepares", [False, True])
def test_values_of_every_length_go_and_come(database: str, prepares: bool) -> None:
    values = ["", "ä", "x" * 30_000_000, None, "last"]

    async def echo(wire: Wire, _: AsyncConnection[Any]) -> list[Any]:
        return [(await wire.run("select $1::text, $2::int", [v, 7]))[0] for v in values]

    assert on_wire(database, echo, prepares=prepares) == [(v, 7) for v in values]


def test_statements_are_prepared_by_the_types_of_their_values(database: str) -> None:
    async def body(wire: Wire, _: AsyncConnection[Any]) -> Any:
        for value in [1, 2, 3, 4, "5", 100_000, None]:
            assert (await wire.run("select $1", [value]))[0][0] == value
        return await wire.run("select count(*) from pg_prepared_statements")

    assert on_wire(database, body, prepares=True) == [(1,)]


def test_an_error_leaves_the_wire_usable(database: str) -> None:
    async def body(wire: Wire, _: AsyncConnection[Any]) -> Any:
        with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero") as caught:
            await wire.run("select 1 / $1::int", [0])
        assert caught.value.diag.sqlstate == "22012"
        with pytest.raises(psycopg.errors.SyntaxError):
            await wire.run("selec")
        return await wire.run("select 1")

    assert on_wire(database, body) == [(1,)]


def test_a_commit_that_fails_after_the_rows_is_an_error(
    database: str, connection: Connection
) -> None:
    connection.execute("create table a (id int primary key)")
    connection.execute("create table b (a int references a deferrable initially deferred)")

    async def body(wire: Wire, _: AsyncConnection[Any]) -> None:
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            await wire.run("insert into b values ($1) returning a", [1])

    on_wire(database, body)
    assert connection.execute("select count(*) from b").fetchone() == (0,)


def test_to_cancel_a_call_cancels_its_statement(
    database: str, connection: Connection, until: Callable[[str], None]
) -> None:
    connection.execute("create table marks (id int)")
    sleeping = "exists (select from pg_stat_activity where query ~ '^with m' and state = 'active')"

    async def body(wire: Wire, own: AsyncConnection[Any]) -> Any:
        call = asyncio.create_task(
            wire.run("with m as (insert into marks values (1)) select pg_sleep(100)")
        )
        await asyncio.to_thread(until, sleeping)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        # at once, with no patience: whoever goes on may rely on it
        assert connection.execute(f"select {sleeping}").fetchone() == (False,)
        assert own.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        return await wire.run("select count(*) from marks")

    assert on_wire(database, body) == [(0,)]


@pytest.mark.parametrize("how", ["by the server", "on the way"])
@pytest.mark.parametrize("when", ["while it waits", "before it asks"])
def test_a_lost_connection_is_told(
    database: str, connection: Connection, how: str, when: str
) -> None:
    async def body(wire: Wire, own: AsyncConnection[Any]) -> None:
        call = None
        if when == "while it waits":
            call = asyncio.create_task(wire.run("select pg_sleep(100)"))
            await asyncio.sleep(0.1)
        if how == "by the server":
            connection.execute("select pg_terminate_backend(%s)", [own.info.backend_pid])
        else:
            with line_of(own) as line:
                line.shutdown(socket.SHUT_RDWR)
        assert isinstance(await wire.lost, psycopg.OperationalError)
        with pytest.raises(psycopg.OperationalError):
            await (call or wire.run("select 1"))

    on_wire(database, body)


def test_notices_are_heard_in_statements_and_between_them(
    database: str, connection: Connection
) -> None:
    heard: list[bytes] = []
    has_heard = asyncio.Event()

    def on_notice(payload: bytes) -> None:
        heard.append(payload)
        has_heard.set()

    async def body(wire: Wire, _: AsyncConnection[Any]) -> None:
        await wire.run("listen c")
        await wire.run("select pg_notify('c', 'own')")
        await has_heard.wait()
        has_heard.clear()
        connection.execute("notify c, 'between'")
        await has_heard.wait()

    on_wire(database, body, on_notice=on_notice)
    assert heard == [b"own", b"between"]


def test_a_database_that_knows_no_unicode(database: str, connection: Connection) -> None:
    connection.execute("create database latin encoding 'LATIN1' locale 'C' template template0")
    heard = asyncio.Event()
    payloads: list[bytes] = []

    def on_notice(payload: bytes) -> None:
        payloads.append(payload)
        heard.set()

    async def body(wire: Wire, _: AsyncConnection[Any]) -> Any:
        await wire.run("listen c")
        await wire.run("notify c, 'é'")
        await heard.wait()
        await wire.run('create schema "é"')
        return await wire.run(
            "select $1::text, count(*) from pg_namespace where nspname = 'é'", ["é"]
        )

    try:
        dsn = make_conninfo(database, dbname="latin")
        assert on_wire(dsn, body, on_notice=on_notice) == [("é", 1)]
    finally:
        connection.execute("drop database latin with (force)")
    assert payloads == ["é".encode("latin-1")]


def test_a_closed_wire_hears_no_more(database: str) -> None:
    async def body(wire: Wire, own: AsyncConnection[Any]) -> bool:
        wire.close()
        return asyncio.get_running_loop().remove_reader(own.fileno())

    assert on_wire(database, body) is False
