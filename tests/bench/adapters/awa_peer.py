"""awa. Options: workers (jobs at once), pool."""

import asyncio
from dataclasses import dataclass

from awa import AsyncClient
from common import DSN, OPTIONS, Adapter, Hit, main


@dataclass
class Noop:
    n: int


class Awa(Adapter):
    async def setup(self) -> None:
        client = AsyncClient(DSN)
        await client.migrate()
        await client.install_queue_storage()  # what fresh installations are meant to use

    async def open(self) -> None:
        self.client = AsyncClient(DSN, max_connections=1)

    async def one(self, number: int) -> None:
        await self.client.insert(Noop(number), queue="bench")

    async def many(self, low: int, high: int) -> None:
        await self.client.enqueue_many_copy([Noop(n) for n in range(low, high)], queue="bench")

    async def work(self, hit: Hit) -> None:
        client = AsyncClient(DSN, max_connections=OPTIONS.get("pool", 10))

        @client.task(Noop, queue="bench")
        async def noop(job) -> None:
            hit(job.args.n)

        await client.start([{"name": "bench", "max_workers": OPTIONS["workers"]}])
        await asyncio.Event().wait()


main(Awa())
