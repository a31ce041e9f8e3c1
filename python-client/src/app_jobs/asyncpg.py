"""Jobs in the transactions of asyncpg.

::

    async with pool.acquire() as connection, connection.transaction():
        await send_email.enqueue(AsyncpgClient(connection), Email(to=address))
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol, TypeVar

from app_jobs._async_client import AsyncClient
from app_jobs._sql import Function
from app_jobs.errors import translate

T = TypeVar("T")


class Connection(Protocol):
    """A connection of asyncpg, its own or one that its pool has lent."""

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        """Run a query and return its rows."""


class AsyncpgClient(AsyncClient):
    """An AsyncClient all of whose calls join the transaction of a connection of asyncpg."""

    def __init__(self, connection: Connection, *, schema: str = "app_jobs") -> None:
        super().__init__(schema=schema)
        self._asyncpg = connection

    async def _call(self, function: Function[T], connection: Any, /, **arguments: Any) -> T:
        if connection is not None:
            return await super()._call(function, connection, **arguments)
        values = function.text_parameters(arguments).values()
        try:
            rows = await self._asyncpg.fetch(_query(function, self._schema), *values)
        except Exception as error:
            raise translate(error) from error
        return function.decode([tuple(row) for row in rows])


@lru_cache
def _query(function: Function[Any], schema: str) -> str:
    return function.text_query(schema, lambda name, number: f"${number}")
