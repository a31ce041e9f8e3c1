"""What is measured, of whom, and the bar that it is held to.

A scenario is a list of runs, each a contender and a case, and a function that measures one of them
in a new database. Sizes are those of the full benchmark, times --scale.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from time import monotonic, sleep

from figures import Bar, at_least, at_most, fewest, throughout, times_best, times_own
from measure import (
    PROBES_FROM,
    START_SECONDS,
    Adapter,
    Failed,
    Result,
    Server,
    Workers,
    drain,
    latencies,
    old_snapshot,
    steady,
    wait_for,
)


@dataclass(frozen=True)
class Sizes:
    """Numbers of jobs and lengths of time, scaled down for a try."""

    scale: float

    def jobs(self, number: int) -> int:
        return max(200, round(number * self.scale))

    def seconds(self, number: float, least: float = 2) -> float:
        return max(least, number * self.scale)

    def workers(self, number: int) -> int:
        return max(2, round(number * min(1, 5 * self.scale))) if number > 1 else 1


@dataclass(frozen=True)
class Run:
    """Who is measured, and how."""

    contender: str
    case: str = ""


Measure = Callable[[Server, Run, Sizes], Result]


@dataclass(frozen=True)
class Scenario:
    """One row of the report, or some.

    runs     those of the first round; with `rival` only ours and the peers that come close go on
    rival    the figure by which peers come close; "-" before it: less is better
    rounds   so often, alternating; ratios are medians of pairs within a round
    seconds  that one run takes, roughly
    show     figures for the table
    plots    series of samples to draw, or figures as bars
    """

    title: str
    measure: Measure
    runs: Sequence[Run]
    bars: Sequence[Bar]
    show: Sequence[str] = ("rate",)
    rival: str | None = None
    rounds: int = 1
    seconds: float = 15
    plots: Sequence[str] = ()


def runs(*contenders: str, cases: Sequence[str] = ("",)) -> list[Run]:
    return [Run(contender, case) for case in cases for contender in contenders]


JOBS = 50_000
LIMIT = 10  # seconds after which a drain is cut
LOT = 0.005  # seconds between the lots in which a producer adds jobs
FAST = ("graphile-worker", "pg-boss", "pgqueuer", "awa", "procrastinate", "oban")
STOCK = (
    *("graphile-worker:24-at-once", "graphile-worker:stock", "pg-boss:stock", "pgqueuer:stock"),
    *("awa:stock", "procrastinate:stock", "oban:stock"),
)


def preloaded(server: Server, run: Run, jobs: int) -> Adapter:
    adapter = Adapter(server, run.contender)
    adapter.add(jobs)
    adapter.settle()
    return adapter


def drained(server: Server, run: Run, sizes: Sizes) -> Result:
    jobs = sizes.jobs(JOBS)
    return drain(preloaded(server, run, jobs), jobs, limit=sizes.seconds(LIMIT))


def drained_by_four(server: Server, run: Run, sizes: Sizes) -> Result:
    jobs = sizes.jobs(2 * JOBS)
    return drain(preloaded(server, run, jobs), jobs, workers=4, limit=sizes.seconds(LIMIT))


PLAIN_TABLE = """
    create table plain (
        like app_jobs.jobs including defaults including identity, primary key (id)
    )
"""
PLAIN_INSERT = """
    insert into plain (
        task_identifier, payload, attributes, priority, run_at, max_attempts, slot, line
    ) values ('noop', '{"n": 1}', '{}', 0, now(), 25, 1, '')
"""
ADD_JOB = """select app_jobs.add_job(identifier => 'noop', payload => '{"n": 1}')"""
IDLE = "select app_jobs.register_worker('w'), app_jobs.set_worker_idle('w', {})"


def pgbench(server: Server, statement: str, connections: int, seconds: float) -> float:
    """Statements a second, each a transaction of its own."""
    script = server.log.with_name("pgbench.sql")
    script.write_text(" ".join(statement.split()) + ";\n")
    done = subprocess.run(
        [
            *(server.bin_dir / "pgbench", "-n", "-M", "prepared", "-f", script, "-j", "2"),
            *("-c", str(connections), "-T", str(max(1, round(seconds)))),
            *("-h", server.socket_dir, "-U", "postgres", "bench"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if not found:
        raise Failed(f"pgbench: {done.stderr}")
    return float(found[1])


def added_singly(server: Server, run: Run, sizes: Sizes) -> Result:
    what, connections, *worker = run.case.split(", ")
    Adapter(server, run.contender).settle()
    server.execute(PLAIN_TABLE)
    if worker:
        server.execute(IDLE.format(worker == ["worker idle"]))
    statement = PLAIN_INSERT if what == "insert" else ADD_JOB
    rate = pgbench(server, statement, int(connections), sizes.seconds(10))
    return {"rate": rate}


def added_in_bulk(server: Server, run: Run, sizes: Sizes) -> Result:
    """Ours in one call; peers in calls of a thousand, which is no slower for them."""
    jobs = sizes.jobs(100_000)
    adapter = Adapter(server, run.contender)
    adapter.settle()
    seconds = adapter.add(jobs, batch=jobs if adapter.name == "ours" else 1000)
    if (pending := adapter.pending()) != jobs:
        raise Failed(f"{pending} of {jobs} jobs were added")
    return {"rate": jobs / seconds}


ROWS = "insert into users (email) select n || '@example.org' from generate_series(1, {}) as n"
JOBS_OF_ROWS = """
    insert into app_jobs.jobs (task_identifier, payload, slot, line)
    select 'noop', to_json(u), 0, '' from users as u
"""
TRIGGER = """
    create trigger noop after insert on users referencing new table as new_rows
    for each statement execute function app_jobs.tg_add_jobs_with_rows('', 'noop')
"""


def triggered(server: Server, run: Run, sizes: Sizes) -> Result:
    """Seconds for the rows alone, for jobs inserted plainly, and for the rows with a trigger."""
    rows = ROWS.format(sizes.jobs(100_000))
    Adapter(server, run.contender)
    server.execute("create table users (id bigint generated always as identity, email text)")

    def seconds(statement: str) -> float:
        server.execute("checkpoint")
        started = monotonic()
        server.execute(statement)
        return monotonic() - started

    alone = seconds(rows)
    plain = seconds(JOBS_OF_ROWS)
    server.execute("truncate users, app_jobs.jobs")
    server.execute(TRIGGER)
    both = seconds(rows)
    return {"rows": alone, "plain": plain, "with_trigger": both, "ratio": (both - alone) / plain}


def started_when_idle(server: Server, run: Run, sizes: Sizes) -> Result:
    adapter = Adapter(server, run.contender)
    with adapter.workers(1, log=PROBES_FROM) as running:
        sleep(4)  # until it listens, and is idle
        count = sizes.jobs(400)
        commits = adapter.call("tick", count, 0.05, PROBES_FROM)["log"]
        wait_for(lambda: running.count >= count, 20)
        return latencies(commits, running.stop())


def capacity(server: Server, run: Run, sizes: Sizes) -> float:
    """Jobs a second that a worker runs while a producer adds more, on the same machine."""
    more = drained(server, run, sizes)["rate"]
    adapter = Adapter(server, run.contender)
    rates = steady(adapter, rate=more, seconds=sizes.seconds(6), lot=LOT)["rates"]
    return median(rates[len(rates) // 2 :])


def at_half_load(server: Server, run: Run, sizes: Sizes) -> Result:
    """Half of what was found to be the capacity."""
    most = capacity(server, run, sizes)
    seconds = sizes.seconds(SECONDS[run.case], 4)
    result = steady(Adapter(server, run.contender), rate=most / 2, seconds=seconds, lot=LOT)
    for figure in ("table_mb", "index_mb"):
        result |= growth(result, figure)
    return {"capacity": most, **result}


def under_snapshot(server: Server, run: Run, sizes: Sizes) -> Result:
    """A load, then two drains, all in one database: with the snapshot held, or free of it."""
    length, snapshot = run.case.split(", ")
    adapter = Adapter(server, run.contender)
    with old_snapshot(server, held=snapshot == "snapshot held"):
        result = steady(
            adapter,
            rate=6000 * min(1, 10 * sizes.scale),
            seconds=sizes.seconds(SECONDS[length], 4),
            lot=0.05,
            claims=True,
        )
        for name, variants in PER_CLAIM.items():
            if variant := variants.get(adapter.name):
                adapter.options = adapter.peer.variants[variant]
                adapter.add(sizes.jobs(JOBS))
                waiting = adapter.pending()
                result[name] = drain(adapter, waiting, limit=sizes.seconds(3 * LIMIT))["rate"]
    return {**result, **growth(result, "claim_pages")}


def growth(result: Result, figure: str) -> Result:
    """The figure's median in the last fifth of the samples over that in the first."""
    series = [sample[figure] for sample in result["samples"] if figure in sample]
    fifth = len(series) // 5
    if not fifth:
        return {}
    early, late = median(series[:fifth]), median(series[-fifth:])
    return {f"{figure}_early": early, f"{figure}_late": late, f"{figure}_growth": late / early}


MIXED = """
    select count(*) from app_jobs.add_jobs((
        select json_agg(json_build_object(
            'identifier', 'noop' || coalesce(nullif(n % 50, 0)::text, ''),
            'payload', json_build_object('n', n), 'priority', n % 5,
            'db_id', uuid_in(md5((n % 3)::text)::cstring)
        )) from generate_series(1, {}) as n
    ))
"""


def in_backlog(server: Server, run: Run, sizes: Sizes) -> Result:
    """How fast jobs go and come with many of their own kind in the table."""
    count, tasks = run.case.split(" of ")
    jobs = sizes.jobs(BACKLOG[count])
    adapter = Adapter(server, run.contender)
    if tasks == "one task":
        adapter.add(jobs, batch=100_000)
    else:
        adapter.options = adapter.peer.variants["fifty-tasks"]
        for low in range(0, jobs, 100_000):
            server.execute(MIXED.format(min(100_000, jobs - low)))
    adapter.settle()
    added = pgbench(server, ADD_JOB, 1, sizes.seconds(5))
    waiting = adapter.pending()
    return {**drain(adapter, waiting, limit=sizes.seconds(LIMIT)), "add_rate": added}


def behind_others(server: Server, run: Run, sizes: Sizes) -> Result:
    jobs = sizes.jobs(JOBS)
    adapter = Adapter(server, run.contender)
    if run.case == "behind others":
        assert adapter.peer.others
        server.execute(adapter.peer.others % {"n": sizes.jobs(1_000_000)})
    adapter.add(jobs)
    adapter.settle()
    return drain(adapter, jobs, limit=sizes.seconds(LIMIT))


WAITS = """
    select count(*), count(*) filter (where wait_event_type = 'Lock'),
        count(*) filter (where wait_event_type = 'LWLock')
    from pg_stat_activity
    where datname = 'bench' and state = 'active' and pid <> pg_backend_pid()
"""


@contextmanager
def sampled_waits(server: Server) -> Iterator[list[int]]:
    """Samples of active sessions, those that wait for a lock, and for a light-weight one."""
    sums, stop = [0, 0, 0], threading.Event()

    def look() -> None:
        with server.connect() as connection:
            while not stop.wait(0.1):
                row = connection.execute(WAITS.encode()).fetchone()
                assert row
                sums[:] = [total + part for total, part in zip(sums, row, strict=True)]

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sums
    finally:
        stop.set()
        thread.join()


def drained_by_many(server: Server, run: Run, sizes: Sizes) -> Result:
    """By workers that are warm: each has run some jobs, and all wait for a task that is paused."""
    jobs, workers = sizes.jobs(8 * JOBS), sizes.workers(int(run.case))
    adapter = Adapter(server, run.contender)

    def begin(running: Workers) -> tuple[float, int]:
        await_workers(server, workers)
        adapter.add(500 * workers)
        if not wait_for(lambda: adapter.pending() == 0, START_SECONDS, pause=0.1):
            raise Failed("the first jobs have not been run")
        server.execute("select app_jobs.pause_task('noop')")
        adapter.add(jobs, batch=100_000)
        adapter.settle()
        before = running.count
        samples.append(stack.enter_context(sampled_waits(server)))
        server.execute("select app_jobs.resume_task('noop')")
        return monotonic(), before

    samples: list[list[int]] = []
    with ExitStack() as stack:
        result = drain(adapter, jobs, workers=workers, limit=sizes.seconds(3 * LIMIT), begin=begin)
    active, locks, light = samples[0]
    active = max(1, active)
    return {**result, "lock_waits": locks / active, "lwlock_waits": light / active}


def await_workers(server: Server, number: int) -> None:
    statement = "select count(*) from app_jobs.workers"
    if not wait_for(lambda: server.execute(statement) == number, START_SECONDS, pause=0.1):
        raise Failed(f"not all of {number} workers have started")


WAL = """
    select sum(record_size), sum(fpi_size),
        sum(count) filter (where "resource_manager/record_type" = 'Transaction/COMMIT'),
        sum(count) filter (where "resource_manager/record_type" ~ '^(Btree|Gin|Hash)/(INSERT|SPL)')
    from pg_get_wal_stats('{}', pg_current_wal_flush_lsn(), true)
"""


def cost_of_a_job(server: Server, run: Run, sizes: Sizes) -> Result:
    """What the write-ahead log says of adding and running jobs."""
    jobs = sizes.jobs(JOBS // 2)
    adapter = Adapter(server, run.contender)
    server.execute("create extension pg_walinspect")
    server.execute("checkpoint")
    position = server.execute("select pg_current_wal_flush_lsn()")
    adapter.add(jobs)
    result = drain(adapter, jobs, limit=600)
    if "cut" in result:
        raise Failed("too slow to be measured")
    with server.connect() as connection:
        row = connection.execute(WAL.format(position).encode()).fetchone()
    assert row
    names = ("wal_bytes", "page_images", "commits", "index_writes")
    return {**result, **{name: float(n) / jobs for name, n in zip(names, row, strict=True)}}


def idle_workers(server: Server, run: Run, sizes: Sizes) -> Result:
    """Transactions a second and shares of a core while a hundred workers have nothing to do."""
    adapter = Adapter(server, run.contender)
    workers, seconds = sizes.workers(100), sizes.seconds(60, 5)
    transactions = (
        "select xact_commit + xact_rollback from pg_stat_database where datname = 'bench'"
    )
    with adapter.workers(workers) as running:
        await_workers(server, workers)
        sleep(sizes.seconds(90))  # until all have backed off
        before = server.execute(transactions), server.cpu_seconds(), running.cpu_seconds()
        sleep(seconds)
        cpu = server.cpu_seconds(), running.cpu_seconds()
        after = server.execute(transactions)
    return {
        "queries": (after - before[0]) / seconds,
        "server_core": (cpu[0] - before[1]) / seconds,
        "workers_core": (cpu[1] - before[2]) / seconds,
    }


BACKLOG = {"50,000": JOBS, "10,000,000": 10_000_000}
SECONDS = {"30 s": 30, "60 s": 60, "10 min": 600, "20 min": 1200, "60 min": 3600}
# Variants that claim 500 jobs at a time, and one.
PER_CLAIM = {
    "drain_500": {
        "ours": "500-per-claim",
        "graphile-worker": "fast",
        "pg-boss": "fast",
        "pgqueuer": "fast",
        "awa": "fast",
    },
    "drain_1": {
        "ours": "one-per-claim",
        "graphile-worker": "24-at-once",
        "pgqueuer": "one-per-claim",
    },
}
ADDERS = ["insert, 1", "add_job, 1", "insert, 16", "add_job, 16"]
NOTIFYING = ["add_job, 16, worker busy", "add_job, 16, worker idle"]
MANY = ["1", "4", "16", "64"]
BACKLOGS = ["50,000 of one task", "10,000,000 of one task", "10,000,000 of fifty tasks"]


def snapshot(length: str, peers: Sequence[str]) -> Scenario:
    held, free = f"{length}, snapshot held", f"{length}, none"
    return Scenario(
        f"{length} of 6,000 jobs/s under an old snapshot, then 50,000 at full speed",
        under_snapshot,
        [Run("ours", held), Run("ours", free), *runs(*peers, cases=[held])],
        [
            at_least(0.98, "last_tenth", "last tenth ≥ 0.98 times offered", case=held),
            at_most(1.2, "claim_pages_growth", "pages per claim: end ≤ 1.2 times start", case=held),
            times_own(0.9, held, free, "drain_500", text="then, 500 a claim: ≥ 0.9 times without"),
            times_own(0.9, held, free, "drain_1", text="then, one a claim: ≥ 0.9 times without"),
        ],
        show=(
            *("rates", "backlog", "claim_pages_early", "claim_pages_late"),
            *("drain_500", "drain_1"),
        ),
        seconds=SECONDS[length] + 60,
        plots=("rate", "dead", "claim_pages", "pages_per_job"),
    )


SCENARIOS = {
    "drain": Scenario(
        "50,000 jobs, one worker process",
        drained,
        runs("ours", *FAST),
        [times_best(1.5, aim=" (aim: 2)")],
        rival="rate",
        rounds=5,
        plots=("rate",),
    ),
    "drain-4": Scenario(
        "100,000 jobs, four worker processes",
        drained_by_four,
        runs("ours", *FAST),
        [times_best(1.5, aim=" (aim: 2)")],
        rival="rate",
        rounds=5,
        plots=("rate",),
    ),
    "threads": Scenario(
        "50,000 jobs, our handlers in threads, the peers' async",
        drained,
        runs("ours:threads", "graphile-worker", "pg-boss"),
        [times_best(0.7, ours="ours:threads")],
        rival="rate",
        rounds=5,
        plots=("rate",),
    ),
    "defaults": Scenario(
        "50,000 jobs, one worker process as it comes",
        drained,
        runs("ours", *STOCK),
        [times_best(5)],
        rival="rate",
        rounds=3,
        plots=("rate",),
    ),
    "add-one": Scenario(
        "adding one job per transaction",
        added_singly,
        runs("ours", cases=[*ADDERS, *NOTIFYING]),
        [
            times_own(0.9, "add_job, 1", "insert, 1"),
            times_own(0.7, "add_job, 16", "insert, 16"),
            times_own(0.9, "add_job, 16, worker busy", "add_job, 16"),
        ],
        rounds=5,
    ),
    "add-many": Scenario(
        "adding 100,000 jobs by the batch call",
        added_in_bulk,
        runs("ours", *FAST),
        [times_best(2.5)],
        rival="rate",
        rounds=5,
        plots=("rate",),
    ),
    "trigger": Scenario(
        "100,000 rows in one INSERT, with a statement-level trigger",
        triggered,
        runs("ours"),
        [at_most(1.5, "ratio", "the trigger adds ≤ 1.5 times a plain insert … select into jobs")],
        show=("rows", "plain", "with_trigger", "ratio"),
        rounds=5,
    ),
    "latency": Scenario(
        "from the commit to the start of the handler, idle worker, ms",
        started_when_idle,
        runs("ours", *FAST),
        [times_best(1.25, "-p50"), times_best(1.25, "-p99")],
        show=("p50", "p95", "p99"),
        rival="-p50",
        rounds=5,
        seconds=30,
        plots=("p50", "p99"),
    ),
    "latency-load": Scenario(
        "the same at half of what a worker keeps up with, ms",
        at_half_load,
        runs("ours", "graphile-worker", "pg-boss", cases=["30 s"]),
        [at_most(10, "p99", "p99 ≤ 10 ms", case="30 s", unit=" ms")],
        show=("p50", "p95", "p99", "offered", "capacity"),
        rounds=3,
        seconds=60,
    ),
    "snapshot": snapshot("60 s", ["graphile-worker", "pg-boss", "pgqueuer", "awa"]),
    "snapshot-long": snapshot("10 min", ["graphile-worker", "pg-boss", "pgqueuer"]),
    "backlog": Scenario(
        "a backlog of 10,000,000 jobs",
        in_backlog,
        runs("ours", cases=BACKLOGS),
        [
            *(times_own(0.8, case, BACKLOGS[0]) for case in BACKLOGS[1:]),
            *(times_own(0.9, case, BACKLOGS[0], "add_rate") for case in BACKLOGS[1:]),
        ],
        show=("rate", "add_rate"),
        seconds=300,
    ),
    "others": Scenario(
        "50,000 jobs behind 1,000,000 of another task",
        behind_others,
        runs(
            *("ours", "graphile-worker", "pgqueuer", "procrastinate"),
            cases=["alone", "behind others"],
        ),
        [times_own(0.9, "behind others", "alone")],
        rounds=3,
        seconds=30,
    ),
    "workers": Scenario(
        "400,000 jobs, 1 to 64 worker processes",
        drained_by_many,
        runs("ours", "ours:bare-loop", cases=MANY),
        [
            throughout(0.85, MANY),
            *(
                at_most(0.05, "lock_waits", f"lock waits < 5 % with {case}", case=case, below=True)
                for case in MANY
            ),
        ],
        show=("rate", "lock_waits", "lwlock_waits"),
        rounds=3,
        seconds=60,
        plots=("rate",),
    ),
    "cost": Scenario(
        "writes of a job's life, from the write-ahead log; page images apart",
        cost_of_a_job,
        runs("ours", *FAST),
        [fewest("wal_bytes"), fewest("commits"), fewest("index_writes")],
        show=("wal_bytes", "page_images", "commits", "index_writes"),
        seconds=30,
        plots=("wal_bytes",),
    ),
    "idle": Scenario(
        "a hundred idle workers",
        idle_workers,
        runs("ours"),
        [
            at_most(20, "queries", "all: < 20 queries/s", below=True),
            at_most(0.01, "server_core", "the server: < 1 % of a core", below=True),
        ],
        show=("queries", "server_core", "workers_core"),
        seconds=210,
    ),
    "long": Scenario(
        "20 min at half load, autovacuum at its defaults",
        at_half_load,
        runs("ours", cases=["20 min"]),
        [
            at_least(0.98, "last_tenth", "last tenth ≥ 0.98 times offered", case="20 min"),
            at_most(1.2, "table_mb_growth", "table: end ≤ 1.2 times start", case="20 min"),
            at_most(1.2, "index_mb_growth", "indexes: end ≤ 1.2 times start", case="20 min"),
            at_most(10, "p99", "p99 ≤ 10 ms", case="20 min", unit=" ms"),
        ],
        show=("p50", "p99", "p99s", "rates"),
        seconds=1260,
        plots=("rate", "dead", "table_mb", "index_mb"),
    ),
}
