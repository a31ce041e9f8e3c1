"""What pages show, read from the database: one look that all viewers share, and lists on demand."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from app_jobs import _sql
from app_jobs._async_client import AsyncClient
from app_jobs._sql import Depth, ListedQueue, ListedTask

log = logging.getLogger("app_jobs.web")

CHARTED = 10  # seconds between two looks at what charts show
LINES = 6  # in a chart: the busiest; the others are left out
TIMEOUT = "10s"  # of any statement of a page
CUT = 20_000  # characters of a payload, a result or a trace

Points = list[float | None]


@dataclass
class Chart:
    """Lines over time: `times` in seconds since 1970, and as many values for each name."""

    title: str
    unit: str
    times: list[float] = field(default_factory=list)
    lines: dict[str, Points] = field(default_factory=dict)

    @property
    def last(self) -> dict[str, float]:
        """The last value of each line."""
        return {name: points[-1] for name, points in self.lines.items() if points[-1] is not None}


Stats = list[dict[str, Any]]  # what task_stats() says, a row per minute and task


@dataclass(frozen=True)
class Look:
    """What there is now, as one poll has seen it."""

    at: datetime
    tasks: list[ListedTask]
    queues: list[ListedQueue]
    workers: list[dict[str, Any]]
    charts: list[Chart]
    queue_charts: list[Chart]
    stats: Stats
    rendered: dict[str, str] = field(default_factory=dict)
    """Parts of pages that have been made of it, by name: each once, however many viewers."""

    def total(self, name: str) -> int:
        """A count of jobs, over all tasks."""
        return sum(getattr(task, name) for task in self.tasks)

    @property
    def oldest(self) -> timedelta | None:
        """How long the ready job has waited that waits longest."""
        return max(
            (task.oldest_ready_age for task in self.tasks if task.oldest_ready_age), default=None
        )


class Board:
    """Reads the database. Nothing here writes: each look is a transaction that is read only."""

    def __init__(self, dsn: str, schema: str, every: float) -> None:
        self.client = AsyncClient(dsn, schema=schema)
        self.schema = schema
        self.every = every
        self.viewers = 0
        self.trouble = ""
        """Why there is no new look: the database is not reachable, say."""
        self._dsn = _sql.conninfo(dsn)
        self._connection: AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()
        self._look: Look | None = None
        self._taken = self._changed = -math.inf
        self._news = asyncio.Condition()
        self._came = asyncio.Event()  # a viewer, to whom a look of some seconds ago is old
        self._charted = -math.inf
        self._depths: list[Depth] = []
        self._stats: Stats = []

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A transaction that cannot write, nor take long. Pages take turns."""
        async with self._turn:
            if self._connection is None or self._connection.closed:
                self._connection = await AsyncConnection.connect(
                    self._dsn, autocommit=True, prepare_threshold=None
                )
            connection = self._connection
            async with connection.transaction():
                await connection.execute(
                    f"set transaction read only; set local statement_timeout = '{TIMEOUT}'"
                )
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A transaction of its own on a connection of its own."""
        async with await AsyncConnection.connect(self._dsn, prepare_threshold=None) as connection:
            yield connection

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    async def watch(self) -> None:
        """Look again and again: often while somebody views, else often enough to be found fresh."""
        while True:
            try:
                await self.look()
            except Exception as error:
                log.warning("cannot look: %s", error)
                async with self._news:
                    self.trouble = f"No news from the database: {str(error).strip()}"
                    self._news.notify_all()
            if self.viewers:
                await asyncio.sleep(self.every)
            else:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._came.wait(), max(self.every, CHARTED))
            self._came.clear()

    async def look(self) -> Look:
        """Return the last look, or a new one if that is too old."""
        if (look := self._recent()) is not None:
            return look
        async with self.reading() as connection:
            if (look := self._recent()) is not None:
                return look  # somebody else was faster
            taken = time.monotonic()
            look = await self._read(connection)
        async with self._news:
            self._look, self._taken, self.trouble = look, taken, ""
            self._news.notify_all()
        return look

    def _recent(self) -> Look | None:
        """The last look, unless it is old or something has changed since it began."""
        is_new = time.monotonic() - self._taken < self.every * 0.9
        return self._look if is_new and self._taken > self._changed else None

    def outdate(self) -> None:
        """Say that something has changed: the next page wants a new look."""
        self._changed = time.monotonic()

    async def looks(self) -> AsyncGenerator[Look | None, None]:
        """Yield each look; None if there is trouble. Who is slow misses some."""
        self.viewers += 1
        self._came.set()
        seen: Look | None = None
        try:
            while True:
                async with self._news:
                    while not self.trouble and self._look is seen:
                        await self._news.wait()
                    trouble, seen = self.trouble, self._look
                yield None if trouble else seen
                if trouble:
                    await asyncio.sleep(self.every)
        finally:
            self.viewers -= 1

    async def _read(self, connection: AsyncConnection[Any]) -> Look:
        at = datetime.now(timezone.utc)
        tasks = await self.client.list_tasks(connection=connection)
        queues = await self.client.list_queues(most=200, connection=connection)
        workers = await self._workers(connection)
        if time.monotonic() - self._charted >= CHARTED:
            since = at - timedelta(minutes=61)
            self._stats = await self._read_stats(connection, since, at)
            self._depths = await self.client.depths(since, at, connection=connection)
            self._charted = time.monotonic()
        charts = [*stats_charts(self._stats, at), *depth_charts(self._depths, at, "task")]
        queue_charts = depth_charts(self._depths, at, "queue")
        return Look(at, tasks, queues, workers, charts, queue_charts, self._stats)

    async def _workers(self, connection: AsyncConnection[Any]) -> list[dict[str, Any]]:
        runs: dict[str, list[Any]] = defaultdict(list)
        for run in await self.client.running_jobs(connection=connection):
            runs[run.worker_id].append(run)
        workers = await self.rows(
            connection,
            "select worker_id, host, pid, started_at, last_seen_at, task_identifiers, idle, running"
            " from {schema}.workers order by running desc, worker_id limit 200",
        )
        return [{**worker, "runs": runs[worker["worker_id"]]} for worker in workers]

    async def _read_stats(
        self, connection: AsyncConnection[Any], since: datetime, to: datetime
    ) -> Stats:
        return await self.rows(
            connection,
            """
            select
                s.at, s.task_identifier, s.completed, s.failed + s.retried as failed,
                {schema}.histogram_quantile(s.wait_histogram, 0.95) as wait,
                {schema}.histogram_quantile(s.run_histogram, 0.95) as run
            from {schema}.task_stats("from" => %(from)s, "to" => %(to)s) as s""",
            **{"from": since, "to": to},
        )

    async def rows(
        self, connection: AsyncConnection[Any], query: str, **parameters: Any
    ) -> list[dict[str, Any]]:
        """The rows of a query in which {schema} stands for the schema's name."""
        text: Any = query.replace("{schema}", _sql.quoted(self.schema))
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(text, parameters)
            return await cursor.fetchall()

    # --- what is read for one page -------------------------------------------------------------

    async def job(self, job_id: int, payloads: bool) -> dict[str, Any]:
        """A job with its errors and explain_job's sentence; as much as our role may see."""
        async with self.reading() as connection:
            page: dict[str, Any] = {
                "id": job_id,
                "explained": await self.client.explain_job(job_id, connection=connection),
                "job": None,
                "errors": [],
                "hidden": "",
            }
            try:
                async with connection.transaction():
                    (page["job"],) = await self.rows(
                        connection,
                        """
                        select
                            d.id, d.state, d.task_identifier, d.queue_name, d.database_id, d.key,
                            d.priority, d.run_at, d.attempts, d.max_attempts, d.lease, d.created_at,
                            d.started_at, d.locked_by, d.lease_expires_at, d.finished_at,
                            d.finished_by, d.retry_after,
                            left(d.attributes::text, %(cut)s) as attributes,
                            left(case when %(payloads)s then d.payload::text end, %(cut)s)
                                as payload,
                            left(case when %(payloads)s then d.result::text end, %(cut)s) as result
                        from {schema}.job_details(%(id)s) as d""",
                        id=job_id,
                        payloads=payloads,
                        cut=CUT,
                    )
                    page["errors"] = await self.rows(
                        connection,
                        """
                        select
                            e.attempt, e.lease, e.worker_id, e.failed_at,
                            left(e.error_message, %(cut)s) as error_message,
                            left(e.detail, %(cut)s) as detail
                        from {schema}.job_errors as e
                        where e.job_id = %(id)s
                        order by e.lease desc
                        limit 50""",
                        id=job_id,
                        cut=CUT,
                    )
            except psycopg.errors.InsufficientPrivilege as error:
                page["hidden"] = str(error).strip()
        if page["job"] is not None and page["job"]["id"] is None:
            page["job"] = None
        return page

    async def schedules(self, after: int, most: int = 20) -> list[dict[str, Any]]:
        """Some schedules, each with its next ten times."""
        async with self.reading() as connection:
            return await self.rows(
                connection,
                """
                select
                    s.id, s.task_identifier, s.key, s.queue_name, s.database_id,
                    s.schedule_info::text as schedule_info, s.time_zone, s.missed, s.overlap,
                    s.paused, s.last_scheduled, s.last_scheduled_id, s.next_run_at,
                    array(
                        select {schema}.preview_schedule(
                            s.schedule_info, 10, time_zone => s.time_zone
                        )
                    ) as times
                from {schema}.scheduled_jobs as s
                where s.id > %(after)s
                order by s.id
                limit %(most)s""",
                after=after,
                most=most,
            )

    async def actions(self, before: int | None, most: int = 50) -> list[dict[str, Any]]:
        """What has been done through the dashboard, the latest first."""
        async with self.reading() as connection:
            return await self.rows(
                connection,
                """
                select id, at, actor, role, action, details::text as details
                from {schema}.operator_actions
                where id < coalesce(%(before)s, 9223372036854775807)
                order by id desc
                limit %(most)s""",
                before=before,
                most=most,
            )


def last_minutes(at: datetime) -> list[float]:
    """When the last 60 whole minutes began."""
    minute = at.replace(second=0, microsecond=0)
    return [(minute - timedelta(minutes=n)).timestamp() for n in range(60, 0, -1)]


def depth_charts(depths: list[Depth], at: datetime, kind: str) -> list[Chart]:
    """Jobs that waited and the oldest ready one, in the last 60 minutes: of the deepest."""
    times = last_minutes(at)
    by_name: dict[str, dict[float, Depth]] = defaultdict(dict)
    for row in depths:
        if row.kind == kind:
            by_name[row.name][row.at.timestamp()] = row
    peaks = {
        name: max(row.ready + row.parked for row in by_name[name].values()) for name in by_name
    }
    waiting, oldest = Chart("Waiting", "jobs", times), Chart("Oldest ready", "s", times)
    for name in sorted(peaks, key=lambda name: -peaks[name])[:LINES]:
        rows = [by_name[name].get(minute) for minute in times]
        waiting.lines[name] = [float(row.ready + row.parked) if row else 0.0 for row in rows]
        ages = [row.oldest_ready_age if row else None for row in rows]
        oldest.lines[name] = [max(age.total_seconds(), 0.0) if age else 0.0 for age in ages]
    return [waiting, oldest]


def stats_charts(stats: Stats, at: datetime, task: str | None = None) -> list[Chart]:
    """Charts of the last 60 whole minutes: of the busiest tasks, or of one."""
    times = last_minutes(at)
    by_task: dict[str, dict[float, dict[str, Any]]] = defaultdict(dict)
    for row in stats:
        if task in (None, row["task_identifier"]):
            by_task[row["task_identifier"]][row["at"].timestamp()] = row
    ended = {name: sum(row["completed"] for row in by_task[name].values()) for name in by_task}
    names = sorted(by_task, key=lambda name: -ended[name])[:LINES]
    charts = []
    for title, unit, column, missing in (
        ("Completed", "per minute", "completed", 0),
        ("Failed attempts", "per minute", "failed", 0),
        ("Wait, 95 % within", "s", "wait", None),
        ("Run, 95 % within", "s", "run", None),
    ):
        nothing = {column: missing}
        lines = {name: [by_task[name].get(t, nothing)[column] for t in times] for name in names}
        charts.append(Chart(title, unit, times, lines))
    return charts
