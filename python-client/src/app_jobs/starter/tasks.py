"""What the application does in the background. To run it: app-jobs worker tasks:tasks."""

from __future__ import annotations

from dataclasses import dataclass

from app_jobs import JobContext, Tasks

tasks = Tasks()


@dataclass
class NewUser:
    """What migrations/001_welcome.sql sends."""

    id: int


@tasks.task("welcome")
async def welcome(payload: NewUser, ctx: JobContext) -> None:
    """Greet a user, once the transaction that added the row is committed."""
    ctx.log.info("welcome, user %d", payload.id)
