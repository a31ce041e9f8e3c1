"""The tasks of the latency run: each notes when it was started."""

from __future__ import annotations

import os
import time

import psycopg

from app_jobs import JobContext, Tasks

tasks = Tasks()
notes = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)


@tasks.task("note")
async def note(ctx: JobContext) -> None:
    started_at = time.time()
    notes.execute("insert into starts values (%s, to_timestamp(%s))", [ctx.id, started_at])
