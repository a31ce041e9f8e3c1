"""A process with some workers, whose handler counts in the database who runs beside it.

limited.py PROCESS WORKERS LEASE        until SIGTERM, or until it is killed
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta

import psycopg

from app_jobs import JobContext, Tasks, Worker

DSN = os.environ["DATABASE_URL"]


async def main(process: int, workers: int, lease: float) -> None:
    """Run the workers on one event loop."""
    tasks = Tasks()
    connection = await psycopg.AsyncConnection.connect(
        DSN, autocommit=True, application_name=f"process {process}"
    )

    @tasks.task("limited")
    async def limited(ctx: JobContext) -> None:
        run = [ctx.id, ctx.lease]
        await connection.execute(
            "select begin_run(%s, %s, %s, %s)", [*run, ctx.job.queue_name, process]
        )
        await asyncio.sleep(0.02)
        await connection.execute("select end_run(%s, %s)", run)

    group = [
        Worker(
            DSN,
            tasks,
            concurrency=1,
            lease=timedelta(seconds=lease),
            worker_id=f"process {process}, worker {number}",
        )
        for number in range(workers)
    ]

    def stop() -> None:
        for worker in group:
            worker.stop()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    await asyncio.gather(*(worker.run_async() for worker in group))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
