"""Fixtures for the tests of applications. pytest finds them once app-jobs is installed.

Override `app_jobs_dsn`, `app_jobs_connection` or `app_jobs_client` in your conftest.py to use a
database, a connection of psycopg or a session of yours::

    @pytest.fixture
    def app_jobs_client(session):
        return SessionClient(session)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from psycopg import Connection

    from app_jobs import Client
    from app_jobs.testing import Jobs

# pytest loads this module in every project that has app-jobs: what is seldom needed comes later.


@pytest.fixture(scope="session")
def app_jobs_dsn() -> str:
    """Connection string of a database for tests in which app_jobs is deployed: DATABASE_URL."""
    return os.environ.get("DATABASE_URL", "")


@pytest.fixture
def app_jobs_connection(app_jobs_dsn: str) -> Iterator[Connection[Any]]:
    """A connection of psycopg in a transaction that is rolled back."""
    import psycopg

    with psycopg.connect(app_jobs_dsn) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def app_jobs_client(app_jobs_connection: Connection[Any]) -> Client:
    """A Client in that transaction."""
    from app_jobs.testing import ConnectionClient

    return ConnectionClient(app_jobs_connection)


@pytest.fixture
def app_jobs(app_jobs_client: Client) -> Jobs:
    """The jobs that the client sees: app_jobs.testing.Jobs."""
    from app_jobs.testing import Jobs

    return Jobs(app_jobs_client)
