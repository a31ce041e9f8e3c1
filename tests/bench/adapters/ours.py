"""app_jobs. Options: threads (handlers without async), tasks (so many), worker, bare (a loop)."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from common import DSN, OPTIONS, Adapter, Hit, main
from psycopg import AsyncConnection

from app_jobs import AsyncClient, JobContext, Tasks, Worker, migrate

LOT = 250
BARE_CLAIM = """
    update app_jobs.jobs set
        attempts = attempts + 1, lease = lease + 1, locked_by = %(worker)s, locked_at = now(),
        lease_expires_at = now() + interval '1 min', lease_length = interval '1 min',
        updated_at = now(), line = null
    where id between %(low)s and %(high)s and locked_by is null
        and not exists (select from app_jobs.tasks where paused)
    returning id, payload
"""


async def bare_loop(hit: Hit) -> None:
    """Take rows by their numbers, in lots that nobody else looks at, and delete them.

    Without looking for jobs, and without a worker: what this machine makes of so many processes.
    """
    worker = str(os.getpid())
    async with await AsyncConnection.connect(DSN, autocommit=True, prepare_threshold=None) as c:
        await c.execute("select app_jobs.register_worker(%s)", [worker])
        while True:
            [lot] = await (await c.execute("select nextval('lots')::int")).fetchone() or [0]
            lacking = LOT
            while lacking:
                bounds = {"worker": worker, "low": lot * LOT - LOT + 1, "high": lot * LOT}
                rows = await (await c.execute(BARE_CLAIM, bounds)).fetchall()
                if not rows:
                    await asyncio.sleep(0.05)
                    continue
                for _, payload in rows:
                    hit(payload["n"])
                ids = [row[0] for row in rows]
                await c.execute("delete from app_jobs.jobs where id = any(%s)", [ids])
                lacking -= len(rows)


class Ours(Adapter):
    async def setup(self) -> None:
        migrate.migrate(DSN, log=lambda _: None)
        if OPTIONS.get("bare"):
            async with await AsyncConnection.connect(DSN, autocommit=True) as connection:
                await connection.execute("create sequence lots")
                await connection.execute("alter table app_jobs.jobs alter id restart")

    async def open(self) -> None:
        self.client = AsyncClient(DSN)

    async def one(self, number: int) -> None:
        await self.client.add_job(identifier="noop", payload={"n": number})

    async def many(self, low: int, high: int) -> None:
        payloads = [{"n": n} for n in range(low, high)]
        await self.client.add_jobs(identifier="noop", payloads=payloads)

    async def work(self, hit: Hit) -> None:
        if OPTIONS.get("bare"):
            await bare_loop(hit)
            return
        tasks = Tasks()

        async def noop(payload: dict[str, Any], ctx: JobContext) -> None:
            hit(payload["n"])

        def blocking_noop(payload: dict[str, Any], ctx: JobContext) -> None:
            hit(payload["n"])

        for number in range(OPTIONS.get("tasks", 1)):
            name = f"noop{number}" if number else "noop"
            tasks.task(name)(blocking_noop if OPTIONS.get("threads") else noop)
        await Worker(DSN, tasks, **OPTIONS.get("worker", {})).run_async()


main(Ours())
