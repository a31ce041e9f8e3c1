"""An application of some release: it adds jobs and runs them until its standard input closes.

life.py DSN NAME            adds jobs, but never runs far ahead of those who do them
life.py DSN NAME finish     adds none, and goes on until all are done

What it has added and what it has done stand in tables, written in the same transactions.
"""

from __future__ import annotations

import sys
import threading
from itertools import count
from typing import Any

import psycopg

from app_jobs import Client, JobContext, Tasks, Worker

DSN, NAME, *FINISH = sys.argv[1:]
AHEAD = "select (select count(*) from public.added) - (select count(*) from public.done)"
# What a call that is under way meets when the schema changes beneath it: run the transaction again.
PASSING = {"42804", "XX000", "40P01", "55P03"}

tasks = Tasks()
stopped = threading.Event()


@tasks.task("work")
async def work(payload: dict[str, Any], ctx: JobContext) -> None:
    """Note that it is done, and by whom; twice would be refused."""
    async with ctx.transaction() as connection:
        await connection.execute("insert into public.done values (%s, %s)", [ctx.id, NAME])


def add() -> None:
    """Add jobs, alone and in queues."""
    with Client(DSN) as client, psycopg.connect(DSN, autocommit=True) as connection:
        for number in count():
            while not stopped.is_set() and ahead(connection) >= 50:
                stopped.wait(0.01)
            if stopped.is_set():
                return
            queue = f"queue {number % 3}" if number % 2 else None
            try:
                with connection.transaction():
                    job = client.add_job(identifier="work", queue_name=queue, connection=connection)
                    connection.execute("insert into public.added values (%s)", [job.id])
            except psycopg.Error as error:
                if error.sqlstate not in PASSING:
                    raise
                print(f"again after {error.sqlstate}", flush=True)


def ahead(connection: psycopg.Connection[Any]) -> int:
    """Count the jobs that are added and not done."""
    (jobs,) = connection.execute(AHEAD).fetchone() or (0,)
    return int(jobs)


def end() -> None:
    """Stop once there is nothing more to read, or to do."""
    sys.stdin.read()
    stopped.set()
    adding.join()
    with psycopg.connect(DSN, autocommit=True) as connection:
        while FINISH and ahead(connection):
            connection.execute("select pg_sleep(0.01)")
    worker.stop()


worker = Worker(DSN, tasks, worker_id=NAME, concurrency=5)
adding = threading.Thread(target=(lambda: None) if FINISH else add)
adding.start()
threading.Thread(target=end, daemon=True).start()
try:
    worker.run()
finally:
    stopped.set()
