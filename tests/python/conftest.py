"""What the tests of client, worker and console command share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest

from app_jobs import Client, Tasks, Worker

PATIENCE = 20  # seconds after which what was waited for is taken to never come


@pytest.fixture
def client(database: str) -> Iterator[Client]:
    with Client(database) as client:
        yield client


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def tasks() -> Tasks:
    return Tasks()


@pytest.fixture
def until(connection: psycopg.Connection[Any]) -> Callable[[str], None]:
    """A function (condition): return once this SQL expression is true."""

    def wait(condition: str) -> None:
        for _ in range(PATIENCE * 100):
            if connection.execute(f"select {condition} from pg_sleep(0.01)").fetchone() == (True,):
                return
        pytest.fail(f"never true: {condition}")

    return wait


@pytest.fixture
def running(database: str, tasks: Tasks) -> Callable[..., AbstractContextManager[Worker]]:
    """A function (options): a worker that runs `tasks` in a thread for the length of a block."""

    @contextmanager
    def run(**options: Any) -> Iterator[Worker]:
        worker = Worker(options.pop("dsn", database), options.pop("tasks", tasks), **options)
        ended: list[BaseException | None] = []

        def body() -> None:
            try:
                worker.run()
            except BaseException as error:
                ended.append(error)
            else:
                ended.append(None)

        thread = threading.Thread(target=body)
        thread.start()
        try:
            yield worker
            worker.stop()
        finally:
            worker.stop(now=True)
            thread.join(PATIENCE)
        assert ended == [None]

    return run


@pytest.fixture
def logged() -> Iterator[Callable[[str], None]]:
    """A function (text): return once a log message of the worker contains the text."""
    messages: list[str] = []
    changed = threading.Condition()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with changed:
                messages.append(record.getMessage())
                changed.notify_all()

    def wait(text: str) -> None:
        with changed:
            if not changed.wait_for(lambda: text in "\n".join(messages), PATIENCE):
                pytest.fail(f"never logged: {text}")

    logger, collector = logging.getLogger("app_jobs"), Collector()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(collector)
    yield wait
    logger.removeHandler(collector)
    logger.setLevel(level)
