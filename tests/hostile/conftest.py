"""A server of our own, a database that a plain role has deployed, and a user for each role.

The owner of all functions may do nothing else, and no user is a superuser: what a function lacks,
or gives away, shows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from users import PATIENCE, ROLES, USERS, Login

from app_jobs import Tasks, Worker, migrate
from app_jobs.embedded import throw_away


@pytest.fixture(scope="session")
def own_server() -> Iterator[str]:
    """Connection string of a superuser on a server with PostgreSQL's default settings."""
    with throw_away(bin_dir=Path(os.environ["APP_JOBS_TEST_BIN"])) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create role hostile_owner login createrole")
            connection.execute("create database template owner hostile_owner")
            owner = make_conninfo(dsn, user="hostile_owner", dbname="template")
            migrate.migrate(owner, log=lambda _: None)
            connection.execute("alter role hostile_owner nocreaterole nologin")
            for user in USERS:
                group = f"in role app_jobs_{user}" if user in ROLES else ""
                connection.execute(f"create role hostile_{user} login {group}")
        yield dsn


@pytest.fixture(scope="session")
def server_log(own_server: str) -> Path:
    """The file that the server logs into."""
    with psycopg.connect(own_server) as connection:
        ((folder,),) = connection.execute("show data_directory").fetchall()
    return Path(folder).parent / "log"


@pytest.fixture
def database(own_server: str) -> Iterator[str]:
    """Connection string of a superuser for a deployed database that this test has for itself."""
    name = f"hostile_{uuid4().hex}"
    with psycopg.connect(own_server, autocommit=True) as connection:
        connection.execute(f"create database {name} template template")
        try:
            yield make_conninfo(own_server, dbname=name)
        finally:
            connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def dsn_of(database: str) -> Callable[[str], str]:
    """A function (user): connection string of a user who has one role; "nobody" has none."""

    def dsn(user: str) -> str:
        return make_conninfo(database, user=f"hostile_{user}")

    return dsn


@pytest.fixture
def login(dsn_of: Callable[[str], str]) -> Iterator[Login]:
    """A function (user): a connection of that user, with autocommit."""
    with ExitStack() as stack:

        def connect(user: str) -> psycopg.Connection[Any]:
            return stack.enter_context(psycopg.connect(dsn_of(user), autocommit=True))

        yield connect


@pytest.fixture
def admin(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def until(admin: psycopg.Connection[Any]) -> Callable[[str], None]:
    """A function (condition): return once this SQL expression is true."""

    def wait(condition: str) -> None:
        for _ in range(PATIENCE * 100):
            query = f"select {condition} from pg_sleep(0.01)"
            if admin.execute(query.encode()).fetchone() == (True,):
                return
        pytest.fail(f"never true: {condition}")

    return wait


@pytest.fixture
def running(dsn_of: Callable[[str], str]) -> Callable[..., AbstractContextManager[Worker]]:
    """A function (tasks, options): a worker, who has its role alone, for the length of a block."""

    @contextmanager
    def run(tasks: Tasks, **options: Any) -> Iterator[Worker]:
        worker = Worker(dsn_of("worker"), tasks, **options)
        with ThreadPoolExecutor() as pool:
            ended = pool.submit(worker.run)
            try:
                yield worker
            finally:
                worker.stop()
                ended.result(PATIENCE)

    return run
