"""What the tests of app_jobs in other people's applications share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from applications import url_of


@pytest.fixture
def url(database: str) -> str:
    """The test's database as a URL."""
    return url_of(database)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection
