"""The tasks that run under faults: each fills an order, and leaves a line for what it does.

The lines go to a file, since a database that is cut, killed or replaced could not tell. By kind:

    run TIME ORDER LEASE        a handler has been started
    effect TIME ORDER           an effect outside the database
    present TIME WORKER LANE    in the roll call: all places of this lane are taken
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from app_jobs import JobContext, Tasks

LOG = os.open(os.environ["CHAOS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
CONCURRENCY = int(os.environ["CHAOS_CONCURRENCY"])
PAUSE = 0.03  # seconds
TRANSFER = "insert into transfers (order_no) values (%s)"

tasks = Tasks()


def note(kind: str, *words: object) -> None:
    """Append a line; one write, so that those of several processes do not mix."""
    os.write(LOG, f"{' '.join(map(str, [kind, time.time(), *words]))}\n".encode())


def rest(seconds: float) -> None:
    """Block the thread; time.sleep() cannot under libfaketime."""
    threading.Event().wait(seconds)


def note_run(payload: dict[str, int], ctx: JobContext) -> int:
    order = payload["order"]
    note("run", order, ctx.lease)
    return order


@tasks.task("plain")
async def plain(payload: dict[str, int], ctx: JobContext) -> None:
    note_run(payload, ctx)
    await asyncio.sleep(PAUSE)


@tasks.task("once")
async def once(payload: dict[str, int], ctx: JobContext) -> None:
    order = note_run(payload, ctx)

    async def pay() -> None:
        await asyncio.sleep(PAUSE / 2)
        note("effect", order)
        await asyncio.sleep(PAUSE / 2)

    await ctx.run_once("pay", pay)


@tasks.task("once_in_thread")
def once_in_thread(payload: dict[str, int], ctx: JobContext) -> None:
    order = note_run(payload, ctx)

    def pay() -> None:
        rest(PAUSE / 2)
        note("effect", order)
        rest(PAUSE / 2)

    ctx.run_once("pay", pay)


@tasks.task("transfer")
async def transfer(payload: dict[str, int], ctx: JobContext) -> None:
    order = note_run(payload, ctx)
    async with ctx.transaction() as connection:
        await connection.execute(TRANSFER, [order])
        await asyncio.sleep(PAUSE)


@tasks.task("transfer_in_thread")
def transfer_in_thread(payload: dict[str, int], ctx: JobContext) -> None:
    order = note_run(payload, ctx)
    with ctx.transaction() as connection:
        connection.execute(TRANSFER, [order])
        rest(PAUSE)


# The roll call: handlers wait until all places of their lane are taken. None could be, had an
# earlier handler never let go of its own.
standing: dict[str, list[Any]] = {"loop": [], "threads": []}


def stand(lane: str, ctx: JobContext) -> Iterator[None]:
    """Take a place, and go round until all are taken."""
    standing[lane].append(ctx)
    while len(standing[lane]) < CONCURRENCY:
        yield
    note("present", ctx.job.locked_by, lane)


@tasks.task("present")
async def present(ctx: JobContext) -> None:
    for _ in stand("loop", ctx):
        await asyncio.sleep(PAUSE)


@tasks.task("present_in_thread")
def present_in_thread(ctx: JobContext) -> None:
    for _ in stand("threads", ctx):
        rest(PAUSE)


@tasks.task("scheduled")
async def scheduled() -> None: ...
