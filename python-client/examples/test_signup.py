"""Tests of an application with the fixtures of app_jobs: each in a transaction, rolled back.

DATABASE_URL=postgresql://localhost/for_tests pytest test_signup.py
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from signup_jobs import Welcome, send_welcome, tasks

from app_jobs import Client
from app_jobs.testing import Jobs


def sign_up(connection: psycopg.Connection[Any], email: str) -> None:
    """Stand for the application."""
    send_welcome.enqueue(Client(), Welcome(email), connection=connection)


def test_a_welcome_is_sent(
    app_jobs_connection: psycopg.Connection[Any],
    app_jobs: Jobs,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the application has enqueued can be looked at, and run."""
    sign_up(app_jobs_connection, "ada@example.org")
    app_jobs.assert_enqueued(send_welcome, Welcome("ada@example.org"))
    app_jobs.drain(tasks)
    assert capsys.readouterr().out == "welcome, ada@example.org\n"
    app_jobs.assert_not_enqueued(send_welcome)


def test_nothing_is_left_of_another_test(app_jobs: Jobs) -> None:
    """It was rolled back."""
    assert app_jobs.enqueued() == []
