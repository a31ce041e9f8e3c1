"""What the worker of signup_*.py runs: app-jobs worker signup_jobs:tasks."""

from __future__ import annotations

from dataclasses import dataclass

from app_jobs import Tasks

tasks = Tasks()


@dataclass
class Welcome:
    """Whom to welcome."""

    email: str


@tasks.task("send-welcome")
def send_welcome(payload: Welcome) -> None:
    """Stand for a mail."""
    print(f"welcome, {payload.email}", flush=True)
