"""procrastinate. Options: concurrency, pool."""

import logging

import procrastinate
from common import DSN, OPTIONS, Adapter, Hit, main

logging.disable(logging.WARNING)


def make_app(pool: int = 1) -> procrastinate.App:
    connector = procrastinate.PsycopgConnector(conninfo=DSN, min_size=1, max_size=pool)
    return procrastinate.App(connector=connector)


class Procrastinate(Adapter):
    async def setup(self) -> None:
        app = make_app()
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    async def open(self) -> None:
        app = make_app()

        @app.task(name="noop", queue="bench")
        async def noop(n: int) -> None:
            pass

        self.task = noop
        await app.open_async()

    async def one(self, number: int) -> None:
        await self.task.defer_async(n=number)

    async def many(self, low: int, high: int) -> None:
        await self.task.batch_defer_async(*({"n": n} for n in range(low, high)))

    async def work(self, hit: Hit) -> None:
        app = make_app(OPTIONS.get("pool", 4))

        @app.task(name="noop", queue="bench")
        async def noop(n: int) -> None:
            hit(n)

        async with app.open_async():
            await app.run_worker_async(
                queues=["bench"],
                concurrency=OPTIONS.get("concurrency", 1),
                install_signal_handlers=False,
            )


main(Procrastinate())
