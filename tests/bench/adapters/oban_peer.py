"""oban for Python. Options: limit (jobs at once), pool."""

import asyncio
import logging
from collections.abc import Callable

from common import DSN, OPTIONS, Adapter, Hit, main
from oban import Oban, worker
from oban.schema import install
from psycopg_pool import AsyncConnectionPool

logging.disable(logging.WARNING)
hits: list[Callable[[int], None]] = []


@worker(queue="bench")
class Noop:
    async def process(self, job) -> None:
        hits[0](job.args["n"])


async def pool(size: int = 1) -> AsyncConnectionPool:
    connections = AsyncConnectionPool(DSN, min_size=1, max_size=size, open=False)
    await connections.open()
    return connections


class ObanPeer(Adapter):
    async def setup(self) -> None:
        await install(await pool())

    async def open(self) -> None:
        self.oban = Oban(pool=await pool())

    async def one(self, number: int) -> None:
        await self.oban.enqueue(Noop.new({"n": number}))

    async def many(self, low: int, high: int) -> None:
        await self.oban.enqueue_many(*[Noop.new({"n": n}) for n in range(low, high)])

    async def work(self, hit: Hit) -> None:
        hits.append(hit)
        connections = await pool(OPTIONS.get("pool", 10))
        await Oban(pool=connections, queues={"bench": OPTIONS["limit"]}).start()
        await asyncio.Event().wait()


main(ObanPeer())
