"""The tasks of the chaos run: each takes 20 ms and leaves a row for every run.

A connection for each row, since any of them may be cut.
"""

from __future__ import annotations

import asyncio
import os
import time

import psycopg

from app_jobs import JobContext, Tasks

DSN = os.environ["DATABASE_URL"]
INSERT = "insert into effects (job_id, lease) values (%s, %s)"

tasks = Tasks()


@tasks.task("in_loop")
async def in_loop(ctx: JobContext) -> None:
    await asyncio.sleep(0.02)
    async with await psycopg.AsyncConnection.connect(DSN) as connection:
        await connection.execute(INSERT, [ctx.id, ctx.lease])


@tasks.task("in_thread")
def in_thread(ctx: JobContext) -> None:
    time.sleep(0.02)
    with psycopg.connect(DSN) as connection:
        connection.execute(INSERT, [ctx.id, ctx.lease])


@tasks.task("scheduled")
async def scheduled() -> None: ...
