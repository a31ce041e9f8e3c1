"""Fixtures for every layer that is written in Python; see README.md."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

WaitUntilBlocked = Callable[[str, int], None]
CopyOf = Callable[[str], AbstractContextManager[str]]
# What each test gets a copy of; tests/mutants puts a broken one in its place.
TEMPLATE = os.environ.get("APP_JOBS_TEST_TEMPLATE", "app_jobs_template")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that run beside, on another server."""
    if os.environ.get("APP_JOBS_TEST_ONCE") == "elsewhere":
        left_out = [item for item in items if item.get_closest_marker("once")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def server() -> str:
    """Connection string of a superuser on the server that tools/test_servers.py has prepared."""
    dsn = os.environ.get("APP_JOBS_TEST_DSN")
    if not dsn:
        pytest.exit("no server: run tools/test_servers.py -- pytest …, or make test-python", 2)
    return dsn


@contextmanager
def new_database(server: str, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
        try:
            yield make_conninfo(server, dbname=name)
        finally:
            connection.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def copy_of(server: str) -> CopyOf:
    """A function (template): a context, the connection string of a copy of that database."""
    return partial(new_database, server)


@pytest.fixture
def database(copy_of: CopyOf) -> Iterator[str]:
    """Connection string of a deployed database that this test has for itself."""
    with copy_of(TEMPLATE) as dsn:
        yield dsn


@pytest.fixture
def empty_database(copy_of: CopyOf) -> Iterator[str]:
    """Connection string of a database in which nothing is deployed."""
    with copy_of("template0") as dsn:
        yield dsn


@pytest.fixture(scope="session")
def wait_until_blocked() -> WaitUntilBlocked:
    """A function (dsn, pid): return once that backend waits for another one's lock."""

    def wait(dsn: str, pid: int) -> None:
        deadline = time.monotonic() + 10
        with psycopg.connect(dsn, autocommit=True) as connection:
            while time.monotonic() < deadline:
                blocked = connection.execute(
                    "select cardinality(pg_blocking_pids(%s)) > 0 from pg_sleep(0.01)", [pid]
                ).fetchone()
                if blocked == (True,):
                    return
        pytest.fail(f"backend {pid} was not blocked within 10 s")

    return wait
