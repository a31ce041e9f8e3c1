"""Delayed tasks for asyncio. Those for threads, _delayed.py, are generated from this."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any

import psycopg
from psycopg import AsyncConnection

from app_jobs import _sql
from app_jobs._async_client import AsyncClient
from app_jobs._background import AsyncBackground, AsyncHandler, in_thread
from app_jobs._sql import Job, JobDetails
from app_jobs.errors import AppJobsError, BadArgument
from app_jobs.migrate import migrate as deploy

log = logging.getLogger("app_jobs.delayed")

RETRY_AFTER = 30  # seconds


class AsyncDelayedTasks:
    """Tasks that wait for their time in the database, and whose life the application drives.

    A job that was received is moved on by its id, from any process: to processing, done or failed.
    One that is not appears again `retry_after_seconds` after it was received; after 25 times it
    fails. In the terms of app_jobs a topic is a task, and data the payload.

    The database role needs app_jobs_producer and app_jobs_worker. Errors are those of AsyncClient.
    """

    def __init__(self, dsn: str = "", schema: str = "app_jobs") -> None:
        self._dsn = dsn
        self._schema = schema
        self._client = AsyncClient(dsn, schema=schema)
        self._worker_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._backgrounds: list[AsyncBackground] = []

    async def __aenter__(self) -> AsyncDelayedTasks:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shutdown()

    async def start(self, migrate: bool = True) -> None:
        """Bring the schema to this package's version (which takes the right to), and check it."""
        if migrate:
            await in_thread(partial(deploy, self._dsn, log=log.info, schema=self._schema))
        await self._client.version()

    async def shutdown(self) -> None:
        """Receive no more, wait for handlers that are running, and close the connection."""
        while self._backgrounds:
            await self._backgrounds.pop().stop()
        await self._client.close()

    # --- jobs come ---

    async def add_job(
        self,
        topic: str,
        data: Any = None,
        attributes: Mapping[str, Any] | None = None,
        run_after_seconds: float | None = None,
        run_after_date: datetime | None = None,
        retry_after_seconds: float = RETRY_AFTER,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> int:
        """Add a job and return its id. It runs at once, so many seconds from now, or at a date.

        Seconds are counted by the database's clock; a date has a time zone. With `connection` the
        call joins the transaction of that connection.
        """
        if run_after_seconds is not None and run_after_date is not None:
            raise BadArgument(
                f"run_after_seconds is {run_after_seconds}, and there is a run_after_date",
                hint="Give one of them, or none to run the job at once.",
            )
        job = await self._client._call(
            _sql.ADD_JOB if run_after_seconds is None else _sql.ADD_JOB_FROM_NOW,
            connection,
            identifier=topic,
            payload=data,
            attributes=attributes,
            run_at=run_after_date if run_after_seconds is None else _seconds(run_after_seconds),
            retry_after=_seconds(retry_after_seconds),
        )
        return job.id

    async def receive_jobs(self, topic: str, max_jobs: int = 10) -> list[Job]:
        """Take jobs of the topic whose time has come, the first ones by priority and time."""
        return await self._client.get_jobs(
            self._worker_id, [topic], _seconds(RETRY_AFTER), max_jobs
        )

    async def process_jobs(
        self, topic: str, handler: AsyncHandler, heart_beat: float = 5, max_jobs: int = 10
    ) -> None:
        """Receive jobs of the topic in the background, until shutdown().

        Looks for up to `max_jobs` every `heart_beat` seconds, and again at once while it finds as
        many. They are handed to `handler(job)` one after the other, so it should be quick: start
        the work elsewhere, and move the job on. If it raises, that is logged, and the job appears
        again like any that is not moved on.
        """

        async def run(background: AsyncBackground) -> None:
            pause = 0.0
            while await background.goes_on_after(pause):
                pause = heart_beat
                try:
                    if await self._process(topic, handler, max_jobs, background) == max_jobs:
                        pause = 0
                except (psycopg.Error, AppJobsError, OSError) as error:
                    log.warning("no jobs of %s are received: %s", topic, error)

        self._backgrounds.append(AsyncBackground(run))

    async def _process(
        self, topic: str, handler: AsyncHandler, max_jobs: int, background: AsyncBackground
    ) -> int:
        received_at = monotonic()
        jobs = await self.receive_jobs(topic, max_jobs)
        for job in jobs:
            lease = job.retry_after or _seconds(RETRY_AFTER)
            if monotonic() - received_at > lease.total_seconds():
                log.warning("job %d of %s had to wait too long: it appears again", job.id, topic)
                continue
            if not await background.goes_on_after(0):
                break
            try:
                await handler(job)
            except Exception:
                log.exception("the handler of job %d of %s raised", job.id, topic)
        return len(jobs)

    # --- and go ---
    # What returns a bool: False if there is no such job, or it is not in a state to do this.

    async def get_job(self, job_id: int) -> JobDetails | None:
        """Return a job with its state, or None: created, active, processing, completed or failed.

        Finished ones are kept for 30 days, unless the task's settings say otherwise.
        """
        return await self._client.job_details(job_id)

    async def set_attributes(self, job_id: int, attributes: Mapping[str, Any]) -> bool:
        """Set attributes; those not named stay."""
        return await self._client.set_attributes(job_id, attributes)

    async def set_retry_after_seconds(self, job_id: int, retry_after_seconds: float) -> bool:
        """Set how long after it is received the job appears again; if it was, from now."""
        return await self._client.set_retry_after(job_id, _seconds(retry_after_seconds))

    async def set_job_start_date(self, job_id: int, start_date: datetime) -> bool:
        """Set when the job is to run; the date has a time zone. One that runs goes on."""
        return await self._client.set_run_at(job_id, start_date)

    async def move_job_to_processing(self, job_id: int) -> bool:
        """Let a received job not appear again: it stays until it is moved to done or failed."""
        return await self._client.move_job_to_processing(job_id)

    async def move_job_to_done(self, job_id: int, delete_on_complete: bool = False) -> bool:
        """Complete a job, whatever its state."""
        return await self._client.move_job_to_done(job_id, delete_on_complete)

    async def move_job_to_failed(self, job_id: int, delete_on_fail: bool = False) -> bool:
        """Fail a job for good, whatever its state."""
        return await self._client.move_job_to_failed(job_id, delete_on_fail)

    async def delete_job(self, job_id: int) -> bool:
        """Delete a job, waiting, running or finished."""
        return await self._client.delete_job(job_id)


def _seconds(number: float) -> timedelta:
    return timedelta(seconds=number)
