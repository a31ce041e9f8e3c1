"""Jobs in the transactions of SQLAlchemy 2, with any of its drivers for PostgreSQL.

::

    send_email.enqueue(SessionClient(session), Email(to=user.email))
    await send_email.enqueue(AsyncSessionClient(async_session), Email(to=user.email))
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy
from sqlalchemy.exc import DBAPIError

from app_jobs._async_client import AsyncClient
from app_jobs._client import Client
from app_jobs._sql import Function
from app_jobs.errors import translate

if TYPE_CHECKING:  # its asyncio is an extra of SQLAlchemy's
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

T = TypeVar("T")


class SessionClient(Client):
    """A Client all of whose calls join the transaction of a Session or Connection.

    It never commits or rolls back. To make one costs next to nothing.
    """

    def __init__(
        self, session: Session | sqlalchemy.Connection, *, schema: str = "app_jobs"
    ) -> None:
        super().__init__(schema=schema)
        self._session = session

    def _call(self, function: Function[T], connection: Any, /, **arguments: Any) -> T:
        if connection is not None:
            return super()._call(function, connection, **arguments)
        statement = _statement(function, self._schema)
        try:
            rows = self._session.execute(statement, function.text_parameters(arguments)).all()
        except DBAPIError as error:
            raise translate(error) from error
        return function.decode([tuple(row) for row in rows])


class AsyncSessionClient(AsyncClient):
    """An AsyncClient all of whose calls join the transaction of an AsyncSession or AsyncConnection.

    It never commits or rolls back. To make one costs next to nothing.
    """

    def __init__(
        self, session: AsyncSession | AsyncConnection, *, schema: str = "app_jobs"
    ) -> None:
        super().__init__(schema=schema)
        self._session = session

    async def _call(self, function: Function[T], connection: Any, /, **arguments: Any) -> T:
        if connection is not None:
            return await super()._call(function, connection, **arguments)
        statement = _statement(function, self._schema)
        try:
            result = await self._session.execute(statement, function.text_parameters(arguments))
        except DBAPIError as error:
            raise translate(error) from error
        return function.decode([tuple(row) for row in result.all()])


@lru_cache
def _statement(function: Function[Any], schema: str) -> sqlalchemy.TextClause:
    # A colon in text() begins a parameter, unless there is a backslash before it.
    return sqlalchemy.text(
        function.text_query(schema.replace(":", r"\:"), lambda name, number: f":{name}")
    )
