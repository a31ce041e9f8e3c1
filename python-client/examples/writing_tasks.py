"""Tasks of a small gallery, as docs/tasks.md explains them. Run: app-jobs worker writing_tasks."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from app_jobs import BatchContext, Client, Fail, JobContext, Snooze, Tasks

tasks = Tasks()


class PictureGone(Exception):
    """Somebody has deleted it."""


pictures = {1: "sunset", 2: "cat"}
tags: dict[int, str] = {}


# --- what is around all handlers


request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")


@tasks.middleware
def traced(ctx: JobContext | BatchContext) -> Iterator[None]:
    """Log how long each run took."""
    started = time.monotonic()
    request_id.set(f"{ctx.task.name}/{started}")
    yield  # the handler runs here, and what it raises comes up here
    ctx.log.info("%s took %.3f s", request_id.get(), time.monotonic() - started)


# --- a task


@dataclass
class Picture:
    """The payload."""

    id: int


@tasks.task(
    queue_name="mail",
    max_attempts=5,
    retry_on=(ConnectionError, TimeoutError),
    discard_on=PictureGone,
    timeout=timedelta(seconds=30),
)
async def announce(payload: Picture, ctx: JobContext) -> None:
    """Tell the world of a picture."""
    if payload.id not in pictures:
        raise PictureGone(payload.id)
    ctx.log.info("look at this %s", pictures[payload.id])


def add_some(client: Client) -> None:
    """Add jobs in all ways."""
    announce.enqueue(client, Picture(1))
    announce.enqueue_many(client, [Picture(1), Picture(2)])

    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    later = announce.configure(run_at=tomorrow, priority=10)
    later.enqueue(client, Picture(2))


# --- one that computes for long


@tasks.task(process=True, timeout=timedelta(minutes=5))
def develop(payload: Picture, ctx: JobContext) -> int:
    """Compute something of a picture."""
    total = 0
    for row in range(1000):
        total += sum(value * value for value in range(row))
        ctx.progress(row / 1000, f"row {row}")
    return total


# --- one that is told to stop


@tasks.task(timeout=timedelta(minutes=10))
def export(ctx: JobContext) -> None:
    """Go through all pictures, with a break of a minute if that takes too long."""
    for number, name in enumerate(pictures.values()):
        if ctx.cancelled:
            raise Snooze(timedelta(minutes=1))
        ctx.progress(number / len(pictures), name)


# --- many at once


@tasks.batch_task(size=500)
async def tag(payloads: list[Picture], batch: BatchContext) -> None:
    """Tag many pictures in one go."""
    for index, picture in enumerate(payloads):
        if picture.id in pictures:
            tags[picture.id] = pictures[picture.id]
        else:
            batch.fail(index, Fail("no such picture", permanent=True))
