"""The console takes no SQL from what it is given: names, keys, schemas with quotes and the like."""

from __future__ import annotations

import json
import sys
from typing import Any

import psycopg
import pytest
from users import Login

from app_jobs import cli

EVIL = "x'; drop schema app_jobs cascade; -- \"%s {} \\"
COMMANDS = [
    ("add", EVIL, json.dumps(EVIL), "--key", EVIL, "--queue", EVIL),
    ("list", "--task", EVIL),
    ("list", "--queue", EVIL),
    ("queues",),
    ("limit", EVIL, "2"),
    ("task", EVIL, "max_attempts=3", "keep_failed=1 day"),
    ("pause", "--task", EVIL),
    ("resume", "--task", EVIL),
    ("pause", "--queue", EVIL),
    ("resume", "--queue", EVIL),
    ("show", "ID"),
    ("explain", "ID"),
    ("cancel", "--key", EVIL),
    ("retry", "--task", EVIL),
    ("schedules", "list"),
    ("doctor",),
]


def run(monkeypatch: pytest.MonkeyPatch, dsn: str, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["app-jobs", *arguments])
    monkeypatch.setenv("DATABASE_URL", dsn)
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def test_arguments_are_but_text(
    monkeypatch: pytest.MonkeyPatch,
    dsn_of: Any,
    admin: psycopg.Connection[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    number = ""
    for command in COMMANDS:
        arguments = [number if argument == "ID" else argument for argument in command]
        code = run(monkeypatch, dsn_of("operator"), *arguments)
        number = number or capsys.readouterr().out.strip()
        assert code == 0, command
    kept = admin.execute(
        "select task_identifier, key, queue_name, payload #>> '{}', state"
        " from app_jobs.finished_jobs"
    ).fetchall()
    left = admin.execute(
        "select task_identifier, key, queue_name, payload #>> '{}', 'back'  from app_jobs.jobs"
    ).fetchall()
    assert [row[:4] for row in kept + left] == [(EVIL, EVIL, EVIL, EVIL)]


def test_a_schema_is_a_name(
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    admin: psycopg.Connection[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the owner of the database: nothing else would keep it from what it was told."""
    others = [("migrate",), ("verify",), ("revert",), ("status",), ("top",), ("prune",)]
    for command in [*COMMANDS, *others]:
        for schema in ('app_jobs"; drop schema app_jobs cascade; --', "x' or 'a", "a.b", ""):
            code = run(monkeypatch, database, *command, "--schema", schema)
            assert code != 0, (command, schema)
            complaint = capsys.readouterr().err
            assert "syntax error" not in complaint, (command, schema, complaint)
            assert "Traceback" not in complaint, (command, schema, complaint)
    assert admin.execute("select app_jobs.version() <> ''").fetchone() == (True,)


def test_a_row_of_anybodys_is_but_text(
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    login: Login,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a producer has named is shown to an operator without effect on the terminal."""
    name = "\x1b[2J\x1b]0;owned\x07[red]x"
    login("producer").execute(
        "select app_jobs.add_job(identifier => %s, job_key => %s, queue_name => %s)", [name] * 3
    )
    for command in (("list",), ("queues",), ("doctor",)):
        run(monkeypatch, database, *command)
        shown = capsys.readouterr().out
        assert "\x1b[2J" not in shown, command
        assert "\x1b]0;" not in shown, command
