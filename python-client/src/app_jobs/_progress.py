"""What running jobs say of their progress, on the way to the database."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import psycopg

from app_jobs import _sql
from app_jobs._link import Link, cancel, log_trouble
from app_jobs._outbox import storable
from app_jobs.tasks import JobContext

PAUSE = 1.0  # seconds between two statements
MOST = 1000  # characters of a note


class Reporter:
    """Sends what has been said last, by all jobs in one statement, and the first word at once."""

    def __init__(self, link: Link, worker_id: str, held: dict[int, JobContext]) -> None:
        self._link = link
        self._worker_id = worker_id
        self._held = held
        self._loop = asyncio.get_running_loop()
        self._reports: dict[JobContext, _sql.Report] = {}
        self._is_new = False
        self._sender: asyncio.Task[None] | None = None

    def note(self, context: JobContext, done: float, note: str) -> None:
        """Take in what a job says. From any thread."""
        self._reports[context] = {
            "job_id": context.id,
            "lease": context.lease,
            "done": done,
            "note": storable(note)[:MOST],
        }
        if not self._is_new:
            self._is_new = True
            with contextlib.suppress(RuntimeError):  # the worker has ended
                self._loop.call_soon_threadsafe(self._start)

    async def close(self) -> None:
        """Send no more."""
        if self._sender is not None:
            await cancel(self._sender)

    def _start(self) -> None:
        if self._sender is None:
            self._sender = self._loop.create_task(self._send())

    async def _send(self) -> None:
        while self._is_new:
            self._is_new = False
            for context in list(self._reports):
                if self._held.get(context.id) is not context:
                    del self._reports[context]
            reports: list[Any] = list(self._reports.values())
            try:
                await self._link.call(_sql.SET_PROGRESS, worker_id=self._worker_id, reports=reports)
            except (psycopg.Error, OSError) as error:  # of little worth: the next one will do
                log_trouble("set_progress", error)
            await asyncio.sleep(PAUSE)
        self._sender = None
