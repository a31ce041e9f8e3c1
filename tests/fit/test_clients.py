"""Clients on other drivers' connections answer and refuse as Client does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from applications import url_of
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from app_jobs import AsyncClient, BadArgument, Client, RawJson
from app_jobs.asyncpg import AsyncpgClient
from app_jobs.sqlalchemy import AsyncSessionClient, SessionClient

TENANT = uuid4()
OPTIONS: dict[str, Any] = {
    "db_id": TENANT,
    "identifier": "wash",
    "payload": RawJson('{"Quotes": "\\"\'\\\\ {}, :x %s €"}'),
    "job_key": "a:key % of 'mine'",
    "queue_name": "sink",
    "run_at": datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=-3))),
    "max_attempts": 3,
    "priority": -4,
    "attributes": {"colour": "blue"},
    "retry_after": timedelta(minutes=1, microseconds=1),
}


@asynccontextmanager
async def on_asyncpg(database: str) -> AsyncIterator[AsyncClient]:
    connection = await asyncpg.connect(url_of(database))
    transaction = connection.transaction()
    await transaction.start()
    yield AsyncpgClient(connection)
    await transaction.commit()
    await connection.close()


def on_async_sqlalchemy(driver: str) -> Callable[[str], Any]:
    @asynccontextmanager
    async def on(database: str) -> AsyncIterator[AsyncClient]:
        engine = create_async_engine(url_of(database, f"postgresql+{driver}"))
        async with engine.connect() as connection, connection.begin():
            yield AsyncSessionClient(connection)
        await engine.dispose()

    return on


class Awaited:
    """A Client whose answers can be awaited."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **options: Any) -> Any:
            return getattr(self._client, name)(*arguments, **options)

        return call


@asynccontextmanager
async def on_sqlalchemy(database: str) -> AsyncIterator[Any]:
    engine = create_engine(url_of(database, "postgresql+psycopg"))
    with Session(engine) as session, session.begin():
        yield Awaited(SessionClient(session))
    engine.dispose()


drivers = pytest.mark.parametrize(
    "opened",
    [on_asyncpg, on_async_sqlalchemy("psycopg"), on_async_sqlalchemy("asyncpg"), on_sqlalchemy],
    ids=["asyncpg", "async SQLAlchemy, psycopg", "async SQLAlchemy, asyncpg", "SQLAlchemy"],
)


@drivers
def test_jobs_are_the_same_by_all_roads(database: str, opened: Callable[[str], Any]) -> None:
    async def add() -> Any:
        async with opened(database) as client:
            job = await client.add_job(**OPTIONS)
            assert await client.find_job(OPTIONS["job_key"], TENANT) == job
            specs = [{"identifier": "dry", "payload": [1, None], "run_at": OPTIONS["run_at"]}]
            ids = await client.add_jobs(specs)
            more = await client.add_jobs(identifier="fold", payloads=[{"n": 'a"b\\c'}, None, 3])
            assert [metric.task_identifier for metric in await client.metrics()]
            assert await client.complete_jobs(job_ids=[more[1]])
        return job, [*ids, *more]

    job, ids = asyncio.run(add())
    with Client(database) as client:
        assert client.find_job(OPTIONS["job_key"], TENANT) == job
        found = [client.job_details(id) for id in ids]
    assert [job and job.payload for job in found] == [[1, None], {"n": 'a"b\\c'}, None, 3]
    assert job.payload == {"Quotes": "\"'\\ {}, :x %s €"}
    assert {name: getattr(job, name) for name in ("queue_name", "max_attempts", "priority")} == {
        "queue_name": "sink",
        "max_attempts": 3,
        "priority": -4,
    }
    assert (job.run_at, job.retry_after) == (OPTIONS["run_at"], OPTIONS["retry_after"])
    assert (job.database_id, job.attributes) == (TENANT, OPTIONS["attributes"])


@drivers
def test_refusals_have_code_and_hint(database: str, opened: Callable[[str], Any]) -> None:
    async def add() -> None:
        async with opened(database) as client:
            await client.add_job(identifier="wash", max_attempts=0)

    with pytest.raises(BadArgument, match="max_attempts is 0") as caught:
        asyncio.run(add())
    assert caught.value.sqlstate == "22023"
    assert caught.value.hint


def test_sqlalchemy_needs_no_extra_for_threads() -> None:
    code = "import sys; sys.modules['greenlet'] = None; import app_jobs.sqlalchemy"
    subprocess.run([sys.executable, "-c", code], check=True)
