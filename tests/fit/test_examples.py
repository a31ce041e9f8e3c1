"""Small applications: what they commit runs, what they roll back never was."""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from applications import APP_JOBS, EXAMPLES, run, url_of, work
from fastapi.testclient import TestClient

USERS = "create table users (id int generated always as identity, email text unique not null)"


@pytest.mark.parametrize("driver", ["psycopg", "sqlalchemy", "asyncpg", "psql"])
def test_sign_up(driver: str, connection: psycopg.Connection[Any], url: str) -> None:
    connection.execute(USERS)
    psql = Path(os.environ["APP_JOBS_TEST_BIN"]) / "psql"
    for email, fails in (("ada@example.org", False), ("ada@example.org", True)):
        if driver == "psql":
            command = [psql, "-v", f"email={email}", "-f", "signup_psql.sql", url]
        else:
            command = [sys.executable, f"signup_{driver}.py", email]
        done = run(url, EXAMPLES, *command, fails=fails)
        assert ("duplicate key" in done.stderr) == fails, done.stderr
    assert work(url, EXAMPLES, APP_JOBS, "worker", "signup_jobs:tasks") == (
        "welcome, ada@example.org\n"
    )


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


def test_django(empty_database: str) -> None:
    url, folder = url_of(empty_database), EXAMPLES / "django_shop"
    manage = [sys.executable, "manage.py"]
    run(url, folder, *manage, "migrate")  # deploys app_jobs as well
    run(url, folder, *manage, "sign_up", "ada@example.org", "bob@example.org")
    done = run(url, folder, *manage, "sign_up", "eve@example.org", "ada@example.org", fails=True)
    assert "duplicate key" in done.stderr
    printed = work(url, folder, *manage, "app_jobs_worker")
    assert sorted(printed.split("\n")) == [
        "",
        "welcome, ada@example.org",
        "welcome, bob@example.org",
    ]
    with psycopg.connect(url) as connection:
        users = connection.execute("select email, welcomed from shop_user order by id").fetchall()
    assert users == [("ada@example.org", True), ("bob@example.org", True)]
