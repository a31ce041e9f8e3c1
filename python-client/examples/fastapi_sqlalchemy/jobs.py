"""The jobs of the application."""

from dataclasses import dataclass

from app_jobs import Tasks

tasks = Tasks()


@dataclass
class Welcome:
    """Whom to welcome."""

    email: str


@tasks.task("send-welcome")
async def send_welcome(payload: Welcome) -> None:
    """Stand for a mail."""
    print(f"welcome, {payload.email}", flush=True)
