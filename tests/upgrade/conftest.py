"""The releases between which the tests upgrade."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from releases import NEXT, Release, installed, next_checkout


@pytest.fixture(scope="session")
def next_files() -> Iterator[Path]:
    """The SQL files of the next release."""
    with tempfile.TemporaryDirectory(prefix="app-jobs-") as folder:
        yield next_checkout(Path(folder))


@pytest.fixture(scope="session")
def next_release(next_files: Path) -> Iterator[Release]:
    """The next release, installed."""
    with tempfile.TemporaryDirectory(prefix="app-jobs-") as folder:
        yield installed(NEXT, next_files, Path(folder))
