"""Every command and example of these pages is run, in order, in a clean virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from reader import FENCE, ROOT, Misprint, Reader

PAGES = [
    "README.md",
    "python-client/README.md",
    "docs/tutorial.md",
    "docs/schedules.md",
    "docs/tasks.md",
    "docs/errors.md",
    "docs/operations.md",
]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody with a new machine, to whom pip gives the package of today."""
    folder = tmp_path_factory.mktemp("machine")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    subprocess.run([*build, "-o", folder, ROOT / "python-client"], check=True)
    (folder / "constraints.txt").write_text(f"app-jobs=={(ROOT / 'VERSION').read_text()}")
    venv.create(folder / "venv", with_pip=True)
    programs = [str(folder / "venv/bin"), os.environ["APP_JOBS_TEST_BIN"], os.environ["PATH"]]
    ignored = {"DATABASE_URL", "PGDATABASE", "PYTHONPATH", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in ignored} | {
        "PATH": ":".join(programs),
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONSTRAINT": str(folder / "constraints.txt"),
        "PIP_QUIET": "2",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


@pytest.fixture
def checkout(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[[], Path]]:
    """A function: a copy of the repository, with the virtual environment that make has made."""
    copy = tmp_path / "checkout"

    def make() -> Path:
        if not copy.exists():
            ignored = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")
            shutil.copytree(ROOT, copy, ignore=ignored)
            (copy / ".venv").symlink_to(ROOT / ".venv")
            for name in ("VERSION", "python-client/pyproject.toml"):
                os.utime(copy / name, (0, 0))  # so that make takes .venv for up to date
        return copy

    yield make
    if copy.exists():
        subprocess.run(["make", "--silent", "clean"], cwd=copy, env=environment, check=True)


@pytest.fixture
def reader(
    server: str, tmp_path: Path, environment: dict[str, str], checkout: Callable[[], Path]
) -> Iterator[Reader]:
    """Somebody with an empty folder; the databases that he makes are dropped in the end."""
    names = "select datname from pg_database"
    folder, logs = tmp_path / "work", tmp_path / "logs"
    folder.mkdir()
    logs.mkdir()
    with psycopg.connect(server, autocommit=True) as connection:
        before = connection.execute(names).fetchall()
        yield Reader(folder, dict(environment), checkout, logs)
        for row in set(connection.execute(names).fetchall()) - set(before):
            connection.execute(f'drop database "{row[0]}" with (force)')


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_true(reader: Reader, page: str) -> None:
    reader.read(ROOT / page)


def block(language: str, code: str, mark: str = "") -> str:
    return f"{mark}\n{FENCE}{language}\n{code}\n{FENCE}\n"


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (block("sh", "echo good") + block("text", "bad"), "should have printed:\n\nbad"),
        (block("sh", "echo good; echo more") + block("text", "good"), "should have printed"),
        (block("python", "1 / 0"), "it failed"),
        (block("python", "print(1)") + block("text", "Traceback …"), "it did not fail"),
        (block("sh", "exit 3"), "it failed"),
        (block("text", "good"), "nothing before it prints it"),
        (block("toml", "a = 1"), "no way to run it"),
        (block("sh", "exit 3", "<!-- not run: -->"), "it failed"),
        (block("python", "x = 1", "<!-- from tests/docs/reader.py -->"), "has no such lines"),
        (block("sh", "true", "<!-- perhaps -->"), "nobody knows the mark"),
        (
            block("sh", "echo good", "<!-- terminal t -->")
            + block("text", "bad", "<!-- terminal t -->"),
            "does not show it",
        ),
    ],
)
def test_a_wrong_page_is_found_out(
    reader: Reader, tmp_path: Path, page: str, complaint: str
) -> None:
    path = tmp_path / "page.md"
    path.write_text(page)
    with pytest.raises(Misprint, match=complaint):
        reader.read(path)


def test_a_page_can_leave_open_what_differs(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        block("sh", "seq 5; date")
        + block("text", "1\n…\n5\n… …")
        + block("python", "import asyncio\nawait asyncio.sleep(0)\nx = 7")
        + block("python", "print(x)")
        + block("text", "7")
    )
    reader.read(path)
