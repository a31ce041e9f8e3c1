"""What scenarios are made of: the server, adapters' processes, a drain, a steady load, counters."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
from peers import PEERS, Installation

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60  # in which workers must start
CATCH_UP = 15  # seconds that a worker gets to finish what was offered
# PostgreSQL's defaults but for room; all that makes commits durable stays on.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "min_wal_size": "2GB",
    "max_wal_size": "4GB",
    "max_connections": "600",
}

OLD_SEGMENTS = 128  # of 16 MB, min_wal_size in all
FILL_A_SEGMENT = """
    select pg_logical_emit_message(false, '', repeat('x', 1000000)) from generate_series(1, 16)
"""

Result = dict[str, Any]


class Failed(Exception):
    """A measure that gave no figure; the message says why."""


@dataclass
class Server:
    """A server, and its database `bench`, which each measure gets anew."""

    url: str
    bin_dir: Path
    installation: Installation
    log: Path
    dsn: str = field(init=False)

    def __post_init__(self) -> None:
        host = parse_qs(urlsplit(self.url).query)["host"][0]
        self.socket_dir = Path(host)
        # a form that libpq, node-postgres, asyncpg and sqlx all understand
        self.dsn = f"postgresql:///bench?host={host.replace('/', '%2F')}&user=postgres"

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> Any:
        """Run statements; return the first column of the last one's first row."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), values)
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.dsn, autocommit=True, prepare_threshold=None)

    def version(self) -> str:
        with psycopg.connect(self.url) as connection:
            return str(connection.info.parameter_status("server_version"))

    def age(self) -> None:
        """Let it have old segments of its log to use again, as one that has run for a while.

        To make a new one takes some 40 ms, in which nobody can commit.
        """
        with psycopg.connect(self.url, autocommit=True) as connection:
            for _ in range(OLD_SEGMENTS):
                connection.execute(FILL_A_SEGMENT)
            connection.execute("checkpoint")

    def make_database(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("drop database if exists bench with (force)")
            connection.execute("create database bench")

    def cpu_seconds(self) -> float:
        """CPU time of the server's processes so far, ended ones included."""
        lock = self.socket_dir / ".s.PGSQL.5432.lock"
        postmaster = lock.read_text().split()[0]
        total = 0.0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                pid, parent, times = read_stat(stat)
                if pid == postmaster:
                    total += sum(times)
                elif parent == postmaster:
                    total += sum(times[:2])
        return total


def read_stat(stat: Path) -> tuple[str, str, list[float]]:
    """Process id, parent, and CPU seconds: user, system, and those of ended children."""
    parts = stat.read_text().rsplit(")", 1)[1].split()
    return stat.parent.name, parts[1], [int(part) / TICKS for part in parts[11:15]]


def machine_seconds() -> tuple[float, float]:
    """Busy and total CPU seconds of the machine."""
    line = Path("/proc/stat").read_text().splitlines()[0]
    parts = [int(part) / TICKS for part in line.split()[1:9]]
    return sum(parts) - parts[3] - parts[4], sum(parts)


class Adapter:
    """A contender in a new database: `peer:variant` (see peers.py)."""

    def __init__(self, server: Server, contender: str) -> None:
        name, _, variant = contender.partition(":")
        self.server = server
        self.name = name
        self.peer = PEERS[name]
        self.options = self.peer.variants[variant or next(iter(self.peer.variants))]
        self.command = server.installation.command(name)
        server.make_database()
        self.call("setup")

    def start(self, *words: float | str, **options: Any) -> Program:
        environment = {
            **os.environ,
            "BENCH_DSN": self.server.dsn,
            "BENCH_OPTIONS": json.dumps({**self.options, **options}),
            "NODE_PATH": str(self.server.installation.folder / "node_modules"),
        }
        return Program([*self.command, *map(str, words)], environment, self.server.log)

    def call(self, *words: float | str, seconds: float = 3600) -> Result:
        """Run a command of the adapter to its end, and return what it said last."""
        program = self.start(*words)
        try:
            return program.wait(seconds)
        finally:
            program.kill()

    def add(self, jobs: int, batch: int = 1000) -> float:
        """Add jobs in calls of `batch`; return the seconds that it took."""
        return float(self.call("bulk", jobs, batch)["seconds"])

    def settle(self) -> None:
        self.server.execute("vacuum analyze")
        self.server.execute("checkpoint")

    def pending(self) -> int:
        return int(self.server.execute(self.peer.pending))

    @contextmanager
    def workers(self, number: int, **options: Any) -> Iterator[Workers]:
        # Seconds between reports: those of very many would be a load of their own.
        report = 0.05 * max(1, number / 16)
        with ExitStack() as stack:
            programs = []
            for _ in range(number):
                program = self.start("worker", report=report, **options)
                stack.callback(program.kill)
                programs.append(program)
            for program in programs:
                program.wait_until_ready()
            for program in programs:
                program.tell("go")
            yield Workers(programs)


class Program:
    """An adapter's process; what it said last, and when it had run how many jobs."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
            )
        self._log = log
        self.said: Result = {}
        self.history: list[tuple[float, int]] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):
                said = json.loads(line)
                if not said.get("ready"):
                    self.said = said
                if said.get("last"):
                    self.history.append((said["last"], said["count"]))
                self._ready.set()
        self._ready.set()

    def wait_until_ready(self) -> None:
        self._ready.wait(START_SECONDS)
        if self._process.poll() is not None or not self._ready.is_set():
            raise Failed(f"a worker did not start: see {self._log}")

    def tell(self, word: str) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()

    def wait(self, seconds: float) -> Result:
        """What it said in the end; raises Failed if it failed."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self._process.args!r} took more than {seconds:.0f} s") from None
        self._reader.join()
        if status != 0:
            raise Failed(f"{self._process.args!r} failed: see {self._log}")
        return self.said

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def handled_until(self, at: float) -> int:
        return max((count for when, count in self.history if when <= at), default=0)


class Workers:
    """Worker processes of one contender."""

    def __init__(self, programs: list[Program]) -> None:
        self._programs = programs

    @property
    def count(self) -> int:
        """Handler calls so far, as they reported last: see Adapter.workers()."""
        return sum(program.said.get("count", 0) for program in self._programs)

    @property
    def first(self) -> float | None:
        """When the first handler was called."""
        return min((p.said["first"] for p in self._programs if p.said.get("first")), default=None)

    def handled_until(self, at: float) -> int:
        return sum(program.handled_until(at) for program in self._programs)

    def cpu_seconds(self) -> float:
        stats = [Path(f"/proc/{program.pid}/stat") for program in self._programs]
        return sum(sum(read_stat(stat)[2][:2]) for stat in stats)

    def stop(self) -> list[tuple[int, float]]:
        """End them; return the numbers of the jobs that they were to note, and their starts."""
        for program in self._programs:
            program.tell("stop")
        ends = [program.wait(START_SECONDS) for program in self._programs]
        return [(number, at) for end in ends for number, at in end["log"]]


def wait_for(condition: Callable[[], bool], seconds: float, pause: float = 0.01) -> bool:
    """Look until it holds; False if it does not in time."""
    deadline = monotonic() + seconds
    while not (holds := condition()) and monotonic() < deadline:
        sleep(pause)
    return holds


def first_call(running: Workers) -> tuple[float, int]:
    """When the first handler was called; no job was run before."""
    if not wait_for(lambda: running.first is not None, START_SECONDS):
        raise Failed("no job was run")
    return running.first or 0, 0


def drain(
    adapter: Adapter,
    jobs: int,
    *,
    limit: float,
    workers: int = 1,
    begin: Callable[[Workers], tuple[float, int]] = first_call,
) -> Result:
    """Run all `jobs` that wait: from the first handler call to the moment that SQL says so.

    After `limit` seconds of that it is cut, and what was handled by then counts. `begin` is called
    when the workers' processes have been started; it returns when they began, and how many jobs
    they had run before.
    """
    with adapter.workers(workers) as running:
        began, before = begin(running)
        end = began + limit
        wait_for(lambda: running.count >= before + jobs or monotonic() > end, limit + 1)
        if running.count < before + jobs:
            handled = running.handled_until(end) - before
            running.stop()
            return {"rate": handled / limit, "handled": handled, "cut": True}
        if not wait_for(lambda: adapter.pending() == 0, CATCH_UP, pause=0.02):
            raise Failed(f"{adapter.pending()} of {jobs} jobs are not acknowledged")
        ended = monotonic()
        sleep(0.1)  # for their last reports
        running.stop()
        handled = running.count - before
    if handled != jobs:
        raise Failed(f"{handled} handler calls for {jobs} jobs")
    if adapter.peer.done and (done := adapter.server.execute(adapter.peer.done)) < jobs:
        raise Failed(f"{done} of {jobs} jobs are recorded as done")
    return {"rate": jobs / (ended - began), "handled": handled}


DEAD_AND_SIZE = """
    select coalesce(sum(n_dead_tup), 0)::bigint, sum(pg_table_size(relid))::bigint,
        sum(pg_indexes_size(relid))::bigint
    from pg_stat_user_tables
"""
PAGES = """
    select sum(coalesce(heap_blks_read, 0) + coalesce(heap_blks_hit, 0)
        + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0))::bigint
    from pg_statio_user_tables
"""
CLAIM = "explain (analyze, buffers, format json) " + (
    "select app_jobs.get_jobs('probe', array['noop'], '1 hour', 100)"
)
PROBES_FROM = 1_000_000_000  # numbers of the jobs whose latency is taken


class Sampler:
    """Looks at tables now and then, from a thread of its own; with `claims`, at a claim of ours."""

    def __init__(self, adapter: Adapter, running: Workers, every: float, *, claims: bool) -> None:
        self.samples: list[Result] = []
        self._adapter = adapter
        self._running = running
        self._every = every
        self._claims = claims and adapter.name == "ours"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_often)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look_often(self) -> None:
        started = monotonic()
        with self._adapter.server.connect() as connection:
            while not self._stop.wait(self._every):
                self.samples.append(self._look(connection, monotonic() - started))

    def _look(self, connection: psycopg.Connection[tuple[Any, ...]], at: float) -> Result:
        (dead, table, index), (pages,) = (
            connection.execute(statement.encode()).fetchone() or ()
            for statement in (DEAD_AND_SIZE, PAGES)
        )
        sample = {
            "at": round(at, 2),
            "handled": self._running.count,
            "dead": dead,
            "table_mb": round(table / 1e6, 2),
            "index_mb": round(index / 1e6, 2),
            "pages": pages,
        }
        if self._claims:
            sample["claim_pages"] = claim_pages(connection)
        return sample


def claim_pages(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    """Pages that a claim of a hundred jobs touches; it is rolled back."""
    with connection.transaction(force_rollback=True):
        row = connection.execute(CLAIM.encode()).fetchone()
    assert row
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


@contextmanager
def old_snapshot(server: Server, *, held: bool) -> Iterator[None]:
    """Another session with a REPEATABLE READ snapshot, forgotten since noon."""
    with psycopg.connect(server.dsn) as connection:
        if held:
            connection.execute("set transaction isolation level repeatable read")
            connection.execute("select count(*) from pg_class")
        yield
        connection.rollback()


def steady(
    adapter: Adapter, *, rate: float, seconds: float, lot: float, claims: bool = False
) -> Result:
    """Offer `rate` jobs a second, a lot each `lot` seconds, to one worker.

    Twenty jobs a second are added one by one besides; their latency is from the commit to the start
    of the handler. With `claims`, the pages of a claim are sampled; it keeps a hundred jobs from
    the worker for a moment.
    """
    with ExitStack() as stack:
        running = stack.enter_context(adapter.workers(1, log=PROBES_FROM))
        sleep(2)  # until it listens
        started = monotonic()
        with Sampler(adapter, running, max(0.5, seconds / 60), claims=claims) as sampler:
            load = adapter.start("steady", rate, seconds, lot)
            stack.callback(load.kill)
            probes = adapter.start("tick", int(seconds * 20), 0.05, PROBES_FROM)
            stack.callback(probes.kill)
            added = load.wait(seconds + 60)["added"]
            commits = probes.wait(seconds + 60)["log"]
        tenths = [running.handled_until(started + seconds * n / 10) for n in range(11)]
        total = added + len(commits)
        wait_for(lambda: running.count >= total, CATCH_UP)
        starts = running.stop()
        backlog = adapter.pending()
        handled = running.count
    offered = rate + 20
    rates = [round((after - before) / (seconds / 10)) for before, after in pairwise(tenths)]
    return {
        "rates": rates,
        "offered": round(offered),
        "added": total,
        "last_tenth": rates[-1] / offered,
        "backlog": backlog,
        "handled": handled,
        "samples": sampler.samples,
        **latencies(commits, starts),
    }


def latencies(commits: list[tuple[int, float]], starts: list[tuple[int, float]]) -> Result:
    """Percentiles in ms from the commit to the start; those never started count as infinite."""
    started = dict(reversed(starts))
    waits = [(started.get(number, float("inf")) - at) * 1000 for number, at in commits]
    tenth = max(1, len(waits) // 10)
    return {
        "samples_of_latency": len(waits),
        **{f"p{part}": percentile(waits, part) for part in (50, 95, 99)},
        "p99s": [
            percentile(waits[low : low + tenth], 99)
            for low in range(0, tenth * 10, tenth)
            if waits[low : low + tenth]
        ],
    }


def percentile(values: list[float], part: float) -> float:
    """Of milliseconds; 1e9 stands for never, since JSON has no infinity."""
    ordered = sorted(values)
    return round(min(1e9, ordered[min(len(ordered) - 1, int(len(ordered) * part / 100))]), 2)
