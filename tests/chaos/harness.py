"""One run under a fault: producers, workers, and what became of every job.

A producer commits orders together with their jobs, and notes which commits have succeeded. When the
fault is over, the orders that were committed are compared with the jobs that have finished and with
what their handlers have left behind.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from processes import processes
from psycopg.conninfo import make_conninfo

WORKERS = 3
CONCURRENCY = 4  # in each of a worker's two lanes
LEASE = 3  # seconds
SLACK = 10  # seconds beyond a lease until what was held at the end of a fault is done
PATIENCE = 60  # seconds until something that must happen is taken to never happen
TASKS = ("plain", "once", "transfer", "once_in_thread", "transfer_in_thread")

SETUP = """
    create table orders (order_no bigint primary key);
    create table transfers (order_no bigint);
    insert into app_jobs.tasks (task_identifier, keep_completed, backoff)
    select t.name, '1 day', '{"type": "constant", "base": "100ms"}'
    from unnest(%s::text[]) as t(name)
"""
# One order of each task; every sixth lot goes through a serial queue.
ORDER = """
    with added as (
        select app_jobs.add_jobs(json_agg(json_build_object(
            'identifier', t.name,
            'payload', json_build_object('order', %(first)s + t.number - 1),
            'queue_name', case when %(first)s %% 6 = 0 then 'queue ' || %(first)s %% 7 end
        )))
        from unnest(%(tasks)s::text[]) with ordinality as t(name, number)
    ),
    ordered as (
        insert into orders select %(first)s + t.number - 1
        from generate_series(1, %(count)s) as t(number)
    )
    select count(*) from added
"""
ROLL_CALL = """
    select count(app_jobs.add_job(identifier => t.name))
    from unnest(array['present', 'present_in_thread']) as t(name), generate_series(1, %s)
"""
UNFINISHED = """
    select count(*) from app_jobs.jobs as j where (j.payload ->> 'order')::bigint < %s
"""
FINISHED = """
    select (f.payload ->> 'order')::bigint, f.task_identifier, f.state, f.lease, f.last_error
    from app_jobs.finished_jobs as f where f.payload ->> 'order' is not null
"""
IN_DOUBT = "was begun and never finished"


@dataclass
class Row:
    """What a run has shown."""

    offered: int = 0  # orders that were committed
    completed: int = 0
    in_doubt: int = 0  # dead letters: an effect was begun, and nobody can know how it ended
    gone: int = 0  # committed on a primary that died before it told its standby
    lost: int = 0
    doubled: int = 0
    ran_again: int = 0  # runs beyond the first, as at-least-once allows
    recovery: float = 0.0  # seconds

    def __str__(self) -> str:
        numbers = [self.offered, self.completed, self.in_doubt, self.gone, self.lost, self.doubled]
        return " | ".join(map(str, [*numbers, self.ran_again, f"{self.recovery:.1f} s"]))


@dataclass
class Run:
    """Producers and workers at work."""

    dsn: str
    log: Path
    workers: Any = None
    row: Row = field(default_factory=Row)
    noted: dict[int, float] = field(default_factory=dict)  # first order of a lot: when committed
    mistakes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1, len(TASKS))
        self._ended = threading.Event()
        self._over: tuple[float, int] | None = None  # when the fault ended, the next order then
        self._producers = [threading.Thread(target=self._produce) for _ in range(2)]

    # --- what faults use ---

    def get(self, query: str, *values: object) -> Any:
        """Ask the database, as soon as it answers; return the first row, or its only column."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self._connect() as connection:
                    row = connection.execute(query.encode(), values or None).fetchone()
                    return row[0] if row and len(row) == 1 else row
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def wait_until(self, query: str, *values: object) -> None:
        """Wait until a query answers with true."""
        self.wait_for(lambda: bool(self.get(query, *values)), query)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds, while no worker may end."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.workers.check()
            assert time.monotonic() < deadline, f"never: {what}; {self.workers.log()}"
            time.sleep(0.05)

    def go_on(self, lots: int = 20) -> None:
        """Wait until producers have committed so many more lots."""
        enough = len(self.noted) + lots
        self.wait_for(lambda: len(self.noted) >= enough, "commits")

    def a_busy_worker(self) -> tuple[int, Any]:
        """Wait for a worker that holds jobs of three tasks; return its place and process."""
        query = """
            select j.locked_by from app_jobs.jobs as j where j.locked_by = any(%s)
            group by 1 having count(distinct j.task_identifier) > 2 order by random() limit 1
        """
        names = [f"worker-{number}" for number, _ in self.workers.running]
        found = ""

        def find() -> bool:
            nonlocal found
            found = self.get(query, names)
            return found is not None

        self.wait_for(find, "a busy worker")
        place = names.index(found)
        return place, self.workers.running[place][1]

    def next_order(self) -> int:
        """Return a number that divides what was ordered before from what will be."""
        return next(self._numbers)

    def is_over(self, order: int | None = None) -> None:
        """Say that the fault has ended: from now on the recovery counts, of orders before `order`.

        None: of all until now.
        """
        self._over = time.monotonic(), order or self.next_order()

    def wait_for_recovery(self) -> None:
        """Wait until what counts for the recovery is done."""
        if self._over is None:
            self.is_over()
        if not self.row.recovery and self._over is not None:
            moment, order = self._over
            self.wait_for(lambda: self.get(UNFINISHED, order) == 0, "recovery")
            self.row.recovery = time.monotonic() - moment

    # --- life ---

    def _connect(self) -> psycopg.Connection[Any]:
        dsn = make_conninfo(self.dsn, connect_timeout=5)
        return psycopg.connect(dsn, autocommit=True, prepare_threshold=None)

    def _produce(self) -> None:
        """Order for ever, at a pace that leaves the workers idle now and then; trouble passes."""
        for lot in itertools.count():
            first = next(self._numbers)
            order = {"first": first, "count": len(TASKS), "tasks": list(TASKS)}
            try:
                with self._connect() as connection, connection.transaction() as transaction:
                    connection.execute(ORDER, order)
                    if lot % 10 == 5:
                        raise psycopg.Rollback(transaction)
            except psycopg.Error:
                pass
            else:
                if lot % 10 != 5:
                    self.noted[first] = time.time()
            if self._ended.wait(0.25):
                return

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Wait until all workers work; after the block, until all that was ordered is done."""
        for producer in self._producers:
            producer.start()
        try:
            self.wait_until("select count(*) >= %s from app_jobs.workers", WORKERS)
            self.go_on()
            yield
            self.wait_for_recovery()
        finally:
            self._ended.set()
            for producer in self._producers:
                producer.join()
        self.wait_until("select count(*) = 0 from app_jobs.jobs")
        self._call_the_roll()

    def _call_the_roll(self) -> None:
        """Prove that each worker can still run as many handlers as ever."""
        everybody = {
            (f"worker-{number}", lane)
            for number, _ in self.workers.running
            for lane in ("loop", "threads")
        }

        def all_are_present() -> bool:
            # Some for whoever has a place, however many wait on the others' places.
            if self.get("select count(*) = 0 from app_jobs.jobs where locked_by is null"):
                self.get(ROLL_CALL, CONCURRENCY)
            return everybody <= {(worker, lane) for _, worker, lane in self.lines("present")}

        self.wait_for(all_are_present, "all workers at the roll call")
        self.wait_until("select count(*) = 0 from app_jobs.jobs")

    def lines(self, kind: str) -> list[list[str]]:
        """Return the words of the lines of a kind: the time and what follows."""
        lines = map(str.split, self.log.read_text().splitlines())
        return [words for kind_of_line, *words in lines if kind_of_line == kind]

    # --- the checker ---

    def check(self, may_be_gone: Callable[[float], bool]) -> None:
        """Compare what was ordered with what has happened.

        `may_be_gone` says of which moments a server that took over need not know the commits.
        """
        with self._connect() as connection:
            orders = {order for (order,) in connection.execute("select order_no from orders")}
            finished = connection.execute(FINISHED).fetchall()
            done = Counter(
                order for (order,) in connection.execute("select order_no from transfers")
            )
        gone = set()
        for first, moment in self.noted.items():
            lot = set(range(first, first + len(TASKS)))
            if not lot <= orders and may_be_gone(moment):
                gone |= lot
            orders |= lot
        forgotten = set()
        for moment, number in self.lines("effect"):
            if may_be_gone(float(moment)):
                forgotten.add(int(number))
            else:
                done[int(number)] += 1
        # What happened again, since nobody knew of the first time any more, is gone as well.
        gone |= {order for order in forgotten if done[order]}
        done.update(forgotten - gone)
        runs = set()
        for moment, number, lease in self.lines("run"):
            runs.add((int(number), int(lease)))
            if int(number) not in orders and not may_be_gone(float(moment)):
                self.mistakes.append(f"order {number} was never committed, and has run")

        row, ends = self.row, Counter(order for order, *_ in finished)
        row.offered, row.gone = len(orders), len(gone)
        row.lost = len(orders - set(ends) - gone)
        row.ran_again = len(self.lines("run")) - len({order for order, _ in runs})
        row.doubled = sum(ends[order] > 1 or done[order] > 1 for order in orders)
        for order, task, state, lease, error in finished:
            expected = {task != "plain"}
            if state == "completed":
                row.completed += 1
                if (order, lease) not in runs:
                    self.mistakes.append(f"order {order} was completed by no run")
            elif IN_DOUBT in error:
                row.in_doubt += 1
                expected = {0, 1}
            else:
                self.mistakes.append(f"order {order} has failed: {error}")
            if done[order] not in expected:
                self.mistakes.append(f"order {order} ({task}) has happened {done[order]} times")
        unlisted = self.get("select app_jobs.sweep()")
        if unlisted:
            self.mistakes.append(f"{unlisted} slots with jobs were not listed")


@contextmanager
def run_under_load(
    dsn: str,
    folder: Path,
    *,
    workers_dsn: str | None = None,
    listen_dsn: str | None = None,
    env: Mapping[str, str] | None = None,
    may_be_gone: Callable[[float], bool] = lambda _: False,
) -> Iterator[Run]:
    """Let the block hurt something under load; then wait for the recovery, and check.

    dsn          for producers, and for workers if `workers_dsn` does not say otherwise
    listen_dsn   for the workers' LISTEN
    env          for the workers
    """
    run = Run(dsn, folder / "lines")
    run.log.touch()
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        for statement in SETUP.split(";"):
            values = [list(TASKS)] if "%s" in statement else None
            connection.execute(statement.encode(), values)

    def command(number: int) -> list[str]:
        options = {
            "--worker-id": f"worker-{number}",
            "--concurrency": str(CONCURRENCY),
            "--lease": str(LEASE),
        }
        if listen_dsn is not None:
            options["--listen-dsn"] = listen_dsn
        worker = [sys.executable, "-m", "app_jobs", "worker", "orders:tasks"]
        return [*worker, *itertools.chain(*options.items())]

    environment = {
        "DATABASE_URL": workers_dsn or dsn,
        "CHAOS_LOG": str(run.log),
        "CHAOS_CONCURRENCY": str(CONCURRENCY),
        **(env or {}),
    }
    with processes(WORKERS, command, environment, folder / "workers.log") as run.workers:
        with run.under_load():
            yield run
        exit_codes = run.workers.stop()
    run.check(may_be_gone)
    assert run.mistakes == [], run.workers.log()
    assert (run.row.lost, run.row.doubled) == (0, 0), run.row
    assert exit_codes == [0] * WORKERS, run.workers.log()
    assert run.row.recovery < LEASE + SLACK, f"{run.row}: {run.workers.log()}"
