"""Small applications: what they commit runs, what they roll back never was."""

from __future__ import annotations

import difflib
import os
import re
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from applications import APP_JOBS, EXAMPLES, run, url_of, work
from fastapi.testclient import TestClient

from app_jobs import Client

USERS = "create table users (id int generated always as identity, email text unique not null)"


def test_sign_up(connection: psycopg.Connection[Any], url: str) -> None:
    connection.execute(USERS)
    psql = Path(os.environ["APP_JOBS_TEST_BIN"]) / "psql"
    drivers = ["asyncpg", "psql", "psycopg", "sqlalchemy"]
    for driver in drivers:
        email = f"{driver}@example.org"
        command: list[str | Path] = [sys.executable, f"signup_{driver}.py", email]
        if driver == "psql":
            command = [psql, "-v", f"email={email}", "-f", "signup_psql.sql", url]
        run(url, EXAMPLES, *command)
        again = run(url, EXAMPLES, *command, fails=True)
        assert "duplicate key" in again.stderr, again.stderr
    printed = work(url, EXAMPLES, APP_JOBS, "worker", "signup_jobs:tasks")
    # handlers in threads print at the same time: the ends of their lines may come later
    greeted = re.findall(r"welcome, (\w+)@example\.org", printed)
    assert sorted(greeted) == drivers


def test_fastapi(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = EXAMPLES / "fastapi_sqlalchemy"
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.syspath_prepend(folder)
    import app

    with TestClient(app.app) as http:
        answers = [http.post("/users", json={"email": "ada@example.org"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 409]
    assert work(url, folder, APP_JOBS, "worker", "jobs:tasks") == "welcome, ada@example.org\n"


def test_a_first_task_adds_at_most_fifteen_lines_to_an_application() -> None:
    folder = EXAMPLES / "fastapi_sqlalchemy"
    before = _code(folder / "before.py")
    lines = difflib.ndiff(before, _code(folder / "app.py"))
    added = [line[2:] for line in lines if line.startswith("+ ")] + _code(folder / "jobs.py")
    assert 0 < len(added) <= 15, "\n".join(added)


def _code(path: Path) -> list[str]:
    """Lines without the module's docstring, one-line docstrings and blank lines."""
    text = path.read_text().split('"""', 2)[2]
    return [line for line in text.splitlines() if line.strip() and '"""' not in line]


JOBS = """
from app_jobs import Tasks
from shop.models import User

tasks = Tasks()


@tasks.task("add")
def add(payload):
    User.objects.create(email=payload)


@tasks.task("add, too")
async def add_too(payload):
    await User.objects.acreate(email=payload)
"""


def test_django(empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = url_of(empty_database), EXAMPLES / "django_shop"
    manage = [sys.executable, "manage.py"]
    run(url, folder, *manage, "migrate")  # deploys app_jobs as well
    run(url, folder, *manage, "sign_up", "ada@example.org", "bob@example.org")
    done = run(url, folder, *manage, "sign_up", "eve@example.org", "ada@example.org", fails=True)
    assert "duplicate key" in done.stderr
    printed = work(url, folder, *manage, "app_jobs_worker")
    assert sorted(printed.splitlines()) == ["welcome, ada@example.org", "welcome, bob@example.org"]

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "jobs.py").write_text(JOBS)
    with Client(url) as client:
        client.add_job(identifier="add", payload="in a thread")
        client.add_job(identifier="add, too", payload="on the loop")
    work(url, folder, *manage, "app_jobs_worker", "jobs:tasks")
    refused = run(url, folder, *manage, "app_jobs_worker", "jobs:add", fails=True)
    assert "jobs:add is no app_jobs.Tasks" in refused.stderr
    with psycopg.connect(url) as connection:
        users = connection.execute("select email, welcomed from shop_user order by 1").fetchall()
    assert users == [
        ("ada@example.org", True),
        ("bob@example.org", True),
        ("in a thread", False),
        ("on the loop", False),
    ]
