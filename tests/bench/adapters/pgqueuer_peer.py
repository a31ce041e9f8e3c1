"""pgqueuer. Options: batch, uvloop."""

import json
import logging

import asyncpg
from common import DSN, OPTIONS, Adapter, Hit, main
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

logging.disable(logging.WARNING)


class Pgqueuer(Adapter):
    async def setup(self) -> None:
        await self.open()
        await self.queries.install()

    async def open(self) -> None:
        self.queries = Queries(AsyncpgDriver(await asyncpg.connect(DSN)))

    async def one(self, number: int) -> None:
        await self.queries.enqueue("noop", b'{"n": %d}' % number, 0)

    async def many(self, low: int, high: int) -> None:
        jobs = high - low
        payloads = [b'{"n": %d}' % n for n in range(low, high)]
        await self.queries.enqueue(["noop"] * jobs, payloads, [0] * jobs)

    async def work(self, hit: Hit) -> None:
        queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(DSN)))

        @queuer.entrypoint("noop")
        async def noop(job) -> None:
            hit(json.loads(job.payload)["n"])

        await queuer.run(batch_size=OPTIONS["batch"])


main(Pgqueuer())
