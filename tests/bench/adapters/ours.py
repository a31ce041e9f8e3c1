"""app_jobs. Options: threads (handlers without async), tasks (so many), worker (of Worker)."""

from __future__ import annotations

from typing import Any

from common import DSN, OPTIONS, Adapter, Hit, main

from app_jobs import AsyncClient, JobContext, Tasks, Worker, migrate


class Ours(Adapter):
    async def setup(self) -> None:
        migrate.migrate(DSN, log=lambda _: None)

    async def open(self) -> None:
        self.client = AsyncClient(DSN)

    async def one(self, number: int) -> None:
        await self.client.add_job(identifier="noop", payload={"n": number})

    async def many(self, low: int, high: int) -> None:
        payloads = [{"n": n} for n in range(low, high)]
        await self.client.add_jobs(identifier="noop", payloads=payloads)

    async def work(self, hit: Hit) -> None:
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
