"""What Prometheus scrapes: the queue, by `app-jobs exporter`, and a worker, by its --metrics-port.

Both serve from a thread of prometheus-client, over HTTP.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, cast

import psycopg

from app_jobs import _sql
from app_jobs._client import Client
from app_jobs._stats import BOUNDS, Counts
from app_jobs.errors import AppJobsError, BadArgument
from app_jobs.worker import Worker

try:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
except ModuleNotFoundError as missing:
    raise BadArgument(
        f"metrics need the extra metrics ({missing.name} is missing):"
        " pip install 'app-jobs[metrics]'"
    ) from None

log = logging.getLogger("app_jobs.exporter")

LATE = timedelta(minutes=2)  # after which the figures of a minute change no more
PATIENCE = 10  # seconds that a statement may take
STATES = ("ready", "scheduled", "running", "parked", "expired")


def serve(collector: Any, port: int, bind: str) -> int:
    """Serve what a collector collects, in a daemon thread; return the port."""
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, _ = start_http_server(port, bind, registry)
    except OSError as error:
        raise BadArgument(
            f"port {port} of {bind} cannot be used: {error.strerror}",
            hint="Give another port, or 0 for one that is free, or another address.",
        ) from None
    return server.server_port


class Runs:
    """Counters and histograms of runs by task, under names that begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def families(self, tasks: Mapping[str, Counts]) -> Iterator[Metric]:
        """Yield them."""
        runs = CounterMetricFamily(
            f"{self._prefix}_runs",
            "Runs that ended: completed, failed for good, or retried (failed, to be tried again).",
            labels=["task", "outcome"],
        )
        wait = HistogramMetricFamily(
            f"{self._prefix}_wait_seconds",
            "Time from a job's run_at to the start of a run.",
            labels=["task"],
        )
        run = HistogramMetricFamily(
            f"{self._prefix}_run_seconds", "Time that a run took.", labels=["task"]
        )
        for task, counts in list(tasks.items()):
            for outcome, number in counts.runs.items():
                runs.add_metric([task, outcome], number)
            for family, histogram in ((wait, counts.wait), (run, counts.run)):
                family.add_metric([task], _buckets(histogram.counts), histogram.seconds)
        yield from (runs, wait, run)


def _buckets(counts: Iterable[int]) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


class WorkerCollector:
    """What one worker process has counted since it started."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._runs = Runs("app_jobs_worker")

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from self._runs.families(self._worker.counts)


class Exporter:
    """What the database knows of the queue. A scrape costs the same however many jobs wait.

    Counters and histograms of runs begin with the exporter; a minute's come two minutes later.
    """

    def __init__(self, dsn: str, schema: str) -> None:
        self._conninfo = _sql.conninfo(dsn)
        self._workers = _sql.live_workers(schema)
        self._client = Client(dsn, schema=schema)
        self._connection: psycopg.Connection[Any] | None = None
        self._runs = Runs("app_jobs")
        self._tasks: defaultdict[str, Counts] = defaultdict(Counts)
        self._counted_to: datetime | None = None
        self._lock = threading.Lock()

    def describe(self) -> list[Metric]:
        """Nothing, which spares a scrape at the start."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; only app_jobs_up, which is 0, if the database does not answer."""
        families: list[Metric] = []
        with self._lock:
            try:
                with self._connect() as connection, connection.transaction():
                    connection.execute(f"set local statement_timeout = {PATIENCE * 1000:.0f}")
                    families = [*self._gauges(connection), *self._counters(connection)]
            except (psycopg.Error, AppJobsError) as error:
                log.warning("cannot read the metrics: %s", error)
        yield GaugeMetricFamily(
            "app_jobs_up", "Whether the database answered.", value=bool(families)
        )
        yield from families

    @contextmanager
    def _connect(self) -> Iterator[psycopg.Connection[Any]]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._conninfo, autocommit=True, prepare_threshold=None
            )
        try:
            yield self._connection
        except BaseException:
            self._connection.close()
            self._connection = None
            raise

    def _gauges(self, connection: psycopg.Connection[Any]) -> Iterator[Metric]:
        metrics = self._client.metrics(connection=connection)
        signs = self._client.vital_signs(connection=connection)
        workers = connection.execute(cast("Any", self._workers)).fetchall()
        findings = Counter(f.severity for f in self._client.doctor(connection=connection))
        names = {metric.task_identifier for metric in metrics}

        jobs = GaugeMetricFamily(
            "app_jobs_jobs",
            "Jobs by state; those whose lease is over (expired) are running, too.",
            labels=["task", "state"],
        )
        oldest = GaugeMetricFamily(
            "app_jobs_oldest_ready_age_seconds",
            "Time since the lowest run_at among ready jobs.",
            labels=["task"],
        )
        dead = GaugeMetricFamily(
            "app_jobs_recent_dead_letters",
            "Jobs that failed for good within the last hour and are kept.",
            labels=["task"],
        )
        serving = GaugeMetricFamily(
            "app_jobs_task_workers", "Live workers that serve a task.", labels=["task"]
        )
        for name in sorted(names):
            mine = [metric for metric in metrics if metric.task_identifier == name]
            for state in STATES:
                jobs.add_metric([name, state], sum(getattr(metric, state) for metric in mine))
            ages = [metric.oldest_ready_age for metric in mine if metric.oldest_ready_age]
            oldest.add_metric([name], _seconds(max(ages, default=timedelta())))
            dead.add_metric([name], sum(metric.failed_1h for metric in mine))
            serving.add_metric([name], sum(tasks is None or name in tasks for tasks, _ in workers))
        yield from (jobs, oldest, dead, serving)

        live = GaugeMetricFamily("app_jobs_workers", "Live workers.", labels=["state"])
        idle = sum(is_idle for _, is_idle in workers)
        live.add_metric(["idle"], idle)
        live.add_metric(["busy"], len(workers) - idle)
        yield live

        found = GaugeMetricFamily(
            "app_jobs_doctor_findings", "What app-jobs doctor finds.", labels=["severity"]
        )
        for severity in ("critical", "warning", "info"):
            found.add_metric([severity], findings[severity])
        yield found

        for name, description, value in (
            (
                "tick_age_seconds",
                "Time since tick() ran; NaN if it never has.",
                math.nan if signs.ticked_ago is None else _seconds(signs.ticked_ago),
            ),
            (
                "schedules_behind",
                "Schedules that are more than a minute late.",
                signs.schedules_behind,
            ),
            (
                "schedule_delay_seconds",
                "Time that the first of them is late.",
                _seconds(signs.schedule_delay),
            ),
            (
                "oldest_transaction_age_seconds",
                "Age of the oldest transaction that keeps dead rows.",
                _seconds(signs.oldest_transaction),
            ),
            (
                "snapshot_age_transactions",
                "Transactions since the oldest snapshot, those of replication slots included.",
                signs.transactions_behind,
            ),
            (
                "sees_sessions",
                "Whether the schema's owner has pg_read_all_stats, without which he sees only"
                " his own sessions.",
                signs.sees_sessions,
            ),
        ):
            yield GaugeMetricFamily(f"app_jobs_{name}", description, value=value)

    def _counters(self, connection: psycopg.Connection[Any]) -> Iterator[Metric]:
        now = connection.execute("select pg_catalog.clock_timestamp()").fetchall()[0][0]
        final = now.replace(second=0, microsecond=0) - LATE
        if self._counted_to is not None and self._counted_to < final:
            for stats in self._client.task_stats(self._counted_to, final, connection=connection):
                self._tasks[stats.task_identifier].add(stats)
        self._counted_to = final
        yield from self._runs.families(self._tasks)


def _seconds(time: timedelta) -> float:
    return time.total_seconds()
