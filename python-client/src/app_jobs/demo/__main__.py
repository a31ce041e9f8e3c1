"""Run the demo: the Python standard library, counted by two workers, one of which is killed.

It stores the source files of the standard library as documents, watches the jobs of app_jobs.demo
go through two worker processes, kills one of them with SIGKILL while it holds jobs, and proves by
SQL that each document was counted exactly once. It runs on a PostgreSQL server of its own, which
keeps its data in the folder .app_jobs, or on DATABASE_URL. There it deploys the schema app_jobs if
it is missing, and makes the schema app_jobs_demo anew each time.

Exit codes: 0 proved, 1 not, or nothing had to be recovered, 2 wrong usage, 3 the database is not
reachable.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import psycopg

from app_jobs import migrate
from app_jobs.demo import TABLES, Connection, tasks
from app_jobs.embedded import EmbeddedError, EmbeddedServer, find_binaries
from app_jobs.errors import AppJobsError

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
    from rich.table import Table
except ModuleNotFoundError as missing:
    sys.exit(
        f"the demo needs two extras ({missing.name} is missing):"
        " pip install 'app-jobs[cli,embedded]'"
    )

HOME = Path(".app_jobs")
WORKERS = 2
BATCH = 100  # documents stored in one transaction
LEASE_SECONDS = 3
STUCK_SECONDS = 30

COUNTED = "select count(*), count(*) filter (where added_up) from app_jobs_demo.document_stats"

REGISTERED = "select count(*) from app_jobs.workers where worker_id = any(%s)"

UNFINISHED = """
select count(*)
from app_jobs.jobs
where task_identifier = any(%(tasks)s) and created_at >= %(since)s
"""

BUSIEST = """
select locked_by, count(*)
from app_jobs.jobs
where locked_by = any(%s)
group by locked_by
order by count(*) desc
limit 1
"""

REPORT = """
select
    coalesce(f.task_identifier, 'both'),
    count(*),
    sum(f.attempts),
    count(*) filter (where exists (
        select from app_jobs.job_errors as e where e.job_id = f.id and e.worker_id = any(%(killed)s)
    )),
    count(*) filter (where f.result #>> '{}' = 'already done'),
    (count(*) / extract(epoch from max(f.finished_at) - min(f.created_at)))::bigint,
    percentile_cont(0.5) within group (order by extract(epoch from f.started_at - f.run_at)),
    percentile_cont(0.95) within group (order by extract(epoch from f.started_at - f.run_at))
from app_jobs.finished_jobs as f
where
    f.state = 'completed'
    and f.task_identifier = any(%(tasks)s)
    and f.created_at >= %(since)s
group by rollup (f.task_identifier)
order by grouping(f.task_identifier), min(f.created_at)
"""

# Each package's total against the sum of its documents, whose lines are counted here once more. A
# document that was counted twice would be twice in its package's total.
PROOF = """
with expected as (
    select
        d.package,
        count(*) as documents,
        sum(s.words) as words,
        sum(s.symbols) as symbols,
        sum(length(d.content) - length(replace(d.content, chr(10), ''))) as lines
    from app_jobs_demo.documents as d
    left join app_jobs_demo.document_stats as s on s.document_id = d.id
    group by d.package
)

select
    sum(e.documents),
    (select count(*) from app_jobs_demo.document_stats),
    coalesce(sum(p.documents), 0),
    count(*),
    count(*) filter (where
        (e.documents, e.words, e.symbols, e.lines)
        is distinct from (p.documents, p.words, p.symbols, p.lines)
    )
from expected as e
full join app_jobs_demo.package_stats as p on p.package = e.package
"""

TRY_NEXT = """\
-- The jobs that the killed worker held, and who did them.
select f.id, f.task_identifier, e.worker_id, e.error_message, e.failed_at, f.finished_by
from app_jobs.finished_jobs as f join app_jobs.job_errors as e on e.job_id = f.id order by f.id;

-- What was counted.
select * from app_jobs_demo.package_stats order by lines desc limit 10;

-- A row becomes a job. It waits, since no worker runs now; look at app_jobs.jobs.
insert into app_jobs_demo.documents (path, package, content) values ('hi.py', 'mine', 'print(1)');
"""


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Workers:
    """Worker processes, as `app-jobs worker` starts them. At the end of the block they end, too."""

    def __init__(self, dsn: str) -> None:
        self._environment = {**os.environ, "DATABASE_URL": dsn}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait()
        if isinstance(error, DemoError):
            self._log.seek(0)
            sys.stderr.write(self._log.read().decode(errors="replace")[-4000:])
        self._log.close()

    @property
    def ids(self) -> list[str]:
        """The worker ids of those that should be alive."""
        return list(self._processes)

    def start(self) -> str:
        """Start one more, and return its worker id."""
        self._started += 1
        worker_id = f"demo-{os.getpid()}-{self._started}"
        command = [sys.executable, "-m", "app_jobs", "worker", "app_jobs.demo:tasks"]
        command += ["--worker-id", worker_id, "--lease", str(LEASE_SECONDS)]
        # Jobs claimed ahead would stand in front of more urgent ones that come meanwhile.
        command += ["--concurrency", "8", "--prefetch", "0"]
        self._processes[worker_id] = subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        return worker_id

    def kill(self, worker_id: str) -> None:
        """Kill one without letting it say goodbye."""
        process = self._processes.pop(worker_id)
        process.kill()
        process.wait()

    def check(self) -> None:
        """Raise DemoError if one has ended by itself."""
        for worker_id, process in self._processes.items():
            if process.poll() is not None:
                raise DemoError(f"worker {worker_id} ended with exit code {process.returncode}")


class Document(NamedTuple):
    """A row for the table of documents."""

    path: str
    package: str
    content: str


def standard_library(most: int | None) -> list[Document]:
    """Read source files of the standard library, at most so many, in an order that mixes packages.

    The order is the same each time.
    """
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(root.rglob("*.py"))
    random.Random(1).shuffle(paths)
    documents = []
    for path in paths:
        name = path.relative_to(root)
        if {"site-packages", "dist-packages"} & set(name.parts):
            continue
        try:
            content = path.read_text("utf-8")
        except UnicodeDecodeError:  # some are there to test just that
            continue
        if "\0" not in content:  # which PostgreSQL's text cannot hold
            package = ".".join(name.parts[:-1]) or "top level"
            documents.append(Document(name.as_posix(), package, content))
        if len(documents) == most:
            break
    return documents


class Run:
    """One run: stores the documents, watches the workers, kills one of them, and reports."""

    def __init__(
        self, db: Connection, workers: Workers, documents: list[Document], console: Console
    ) -> None:
        self._db = db
        self._workers = workers
        self._documents = documents
        self._console = console
        self._killed: list[str] = []
        self._left_behind = 0  # jobs that a killed worker held
        self._since = db.execute("select clock_timestamp()").fetchall()[0][0]
        self._seen = self._said = 0  # counted plus added up: when it moved last, and was said last
        self._moved_at = time.monotonic()
        self._bars = Progress(
            "{task.description:9}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._stored, self._counted, self._added_up = (
            self._bars.add_task(name, total=len(documents))
            for name in ("stored", "counted", "added up")
        )

    def work(self, *, kill: bool) -> None:
        """Have all documents stored, counted and added up; if `kill`, a worker dies meanwhile."""
        for _ in range(WORKERS):
            self._workers.start()
        while self._db.execute(REGISTERED, [self._workers.ids]).fetchone() != (WORKERS,):
            self._check_life()
            time.sleep(0.05)
        self._say(f"Two workers run: {' and '.join(self._workers.ids)}")
        with self._bars:
            for first in range(0, len(self._documents), BATCH):
                self._store(self._documents[first : first + BATCH])
                self._look(kill=kill)
            while not self._look(kill=kill):
                time.sleep(0.05)

    def report(self) -> bool:
        """Print what happened; return whether it is proved that nothing was lost or doubled."""
        table = Table("task", box=None, padding=(0, 1, 0, 0))
        for heading in ("jobs", "attempts", "recovered", "repeated", "jobs/s", "wait p50", "p95"):
            table.add_column(heading, justify="right")
        recovered = 0
        for task, *counts, median, p95 in self._db.execute(REPORT, self._parameters):
            waits = (f"{seconds * 1000:,.0f}" for seconds in (median, p95))
            table.add_row(task, *(f"{count:,}" for count in counts), *waits)
            recovered = counts[2]  # the last row has those of both tasks
        self._console.print("", table, "")
        self._say("recovered: held by the killed worker, done by another one")
        self._say("repeated: run again although its effect was there already, which was left alone")
        self._say("wait: milliseconds from the transaction that added the job to its claim")

        stored, counted, added_up, packages, wrong = self._db.execute(PROOF).fetchall()[0]
        self._say(
            f"\nBy SQL: {stored:,} documents, {counted:,} of them counted, {added_up:,} added up;"
            f" {packages} package totals, {wrong} of which differ from the sum of the documents."
        )
        if not stored == counted == added_up == len(self._documents) or wrong > 0:
            self._say("Something was lost or counted twice: please report this.")
            return False
        self._say("Proved: each document was counted exactly once.")
        if recovered == 0:
            self._say("But nothing had to be recovered, so this shows little.")
            return False
        return True

    @property
    def _parameters(self) -> dict[str, object]:
        names = [task.name for task in tasks]
        return {"tasks": names, "since": self._since, "killed": self._killed}

    def _store(self, documents: list[Document]) -> None:
        """Store documents in one transaction, in which the trigger adds a job for each."""
        statement = "copy app_jobs_demo.documents (path, package, content) from stdin"
        with self._db.cursor() as cursor, cursor.copy(statement) as copy:
            for document in documents:
                copy.write_row(document)
        self._bars.advance(self._stored, len(documents))

    def _look(self, *, kill: bool) -> bool:
        """Show how far the work is; return whether it is done, and every job acknowledged."""
        total = len(self._documents)
        counted, added_up = self._db.execute(COUNTED).fetchall()[0]
        self._bars.update(self._counted, completed=counted)
        self._bars.update(self._added_up, completed=added_up)
        if counted + added_up > self._seen:
            self._seen, self._moved_at = counted + added_up, time.monotonic()
        if not self._console.is_terminal and self._seen - self._said >= total / 4:
            self._said = self._seen
            self._say(f"{counted:,} of {total:,} documents counted, {added_up:,} added up")
        self._check_life()
        if kill and self._left_behind == 0 and counted > total / 3:
            self._kill_the_busiest()
        if added_up < total:
            return False
        return self._db.execute(UNFINISHED, self._parameters).fetchone() == (0,)

    def _kill_the_busiest(self) -> None:
        for worker_id, _ in self._db.execute(BUSIEST, [self._workers.ids]):
            self._workers.kill(worker_id)
            self._killed.append(worker_id)
            # What it had sent before it died counts. If that was all it held, another one follows.
            for _, jobs in self._db.execute(BUSIEST, [[worker_id]]):
                self._left_behind = jobs
            self._say(f"Killed {worker_id} with SIGKILL: it leaves {self._left_behind} jobs behind")
            self._say(f"Started {self._workers.start()} in its place")

    def _check_life(self) -> None:
        self._workers.check()
        if time.monotonic() - self._moved_at > STUCK_SECONDS:
            raise DemoError(f"nothing has moved for {STUCK_SECONDS} s")

    def _say(self, message: str) -> None:
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)


def run(documents: int | None = None, *, kill: bool = True) -> bool:
    """Run the demo on that many documents (None: all); return whether it has proved its point."""
    console = Console()
    url = os.environ.get("DATABASE_URL")
    if url:
        dsn, psql = url, 'psql "$DATABASE_URL"'
    else:
        print(f"Starting PostgreSQL, with its data in {HOME}/")
        dsn = EmbeddedServer(HOME).start()
        psql = shlex.join([os.path.relpath(find_binaries() / "psql"), dsn])
    try:
        changes = migrate.migrate(dsn, log=lambda _: None)
    except migrate.MigrationError as error:
        if url:
            raise
        raise DemoError(f"{error.message}\nHINT: `make clean` deletes the demo's server") from None
    print(f"Deployed app_jobs: {len(changes)} changes" if changes else "app_jobs is deployed")
    library = standard_library(documents)
    print(f"Read {len(library):,} files of Python's standard library")
    db = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
    with db, Workers(dsn) as workers:
        db.execute(TABLES)
        this = Run(db, workers, library, console)
        this.work(kill=kill)
        proved = this.report()
    if proved:
        print(f"\nLook around with\n\n    {psql}\n\nand try\n\n{TRY_NEXT}")
        if not url:
            print("The server runs on; `make clean` stops it and deletes its data.")
    return proved


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m app_jobs.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--documents", type=int, metavar="N", help="how many at most; default: all")
    parser.add_argument("--no-kill", action="store_true", help="kill nobody, and so prove nothing")
    arguments = parser.parse_args()
    if arguments.documents is not None and arguments.documents < 1:
        parser.error(f"--documents is {arguments.documents}: give 1 or more")
    # As Ctrl-C does, so that no worker stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(0 if run(arguments.documents, kill=not arguments.no_kill) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except psycopg.OperationalError as error:
        print(f"error: the database is not reachable: {error}", file=sys.stderr)
        sys.exit(3)
    except (DemoError, EmbeddedError, AppJobsError, psycopg.Error, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
