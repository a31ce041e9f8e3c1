"""The demo: the Python standard library, counted by two workers, one of which is killed.

``python -m app_jobs.demo [--documents N]`` runs on a PostgreSQL of its own, whose data are in the
folder ``.app_jobs`` and stay there, or on DATABASE_URL. It needs the extras ``cli`` and
``embedded``. Its tables are in the schema ``app_jobs_demo``, which every run makes anew.

The first half of this file is what an application would write: tables, a trigger, two tasks. The
second half runs it, kills a worker, and proves that nothing was lost and nothing counted twice.
Exit codes: 0 proved, 1 not proved (or there was nothing to recover), 2 wrong usage, 3 the database
is not reachable.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from app_jobs._client import Client
from app_jobs.tasks import Tasks

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
    from rich.table import Table
except ModuleNotFoundError as missing:
    sys.exit(
        f"the demo needs two extras ({missing.name} is missing):"
        " pip install 'app-jobs[cli,embedded]'"
    )

Connection = psycopg.Connection[Any]

# --- the application -----------------------------------------------------------------------------

# A document's id is a uuid: a job that an interrupted run left behind never meets another document.
SET_UP = """
drop schema if exists app_jobs_demo cascade;
create schema app_jobs_demo;

create table app_jobs_demo.documents (
    id uuid primary key default gen_random_uuid(),
    path text not null,
    package text not null,
    content text not null
);

create table app_jobs_demo.document_stats (
    document_id uuid primary key references app_jobs_demo.documents,
    words bigint not null,
    symbols bigint not null,
    lines bigint not null,
    added_up boolean not null default false
);

create table app_jobs_demo.package_stats (
    package text primary key,
    documents bigint not null,
    words bigint not null,
    symbols bigint not null,
    lines bigint not null
);

create trigger count_document after insert on app_jobs_demo.documents
for each row execute function app_jobs.tg_add_job_with_row_id('', 'demo_count_document');

-- Completed jobs would be deleted at once; the report at the end wants to look at them.
insert into app_jobs.tasks (task_identifier, keep_completed)
values ('demo_count_document', '1 day'), ('demo_add_up_package', '1 day')
on conflict (task_identifier) do update set keep_completed = excluded.keep_completed;
"""

tasks = Tasks()
client = Client()  # it is given a connection with each call and opens none of its own
thread = threading.local()


def connection() -> Connection:
    """This thread's connection to the application's database, in autocommit."""
    if not hasattr(thread, "connection") or thread.connection.closed:
        thread.connection = psycopg.connect(
            os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=None
        )
    opened: Connection = thread.connection
    return opened


@tasks.task("demo_count_document")
def count_document(payload: dict[str, str]) -> str:
    """Count one document, and add the job that puts it into its package's total.

    A job may run twice: its worker may die after the commit and before it could say "done". So the
    second run must find what the first one did, and leave it alone.
    """
    db = connection()
    row = db.execute(
        "select package, content from app_jobs_demo.documents where id = %(id)s", payload
    ).fetchone()
    if row is None:
        return "there is no such document any more"
    package, content = row
    counts = {
        "words": len(re.findall(r"\w+", content)),
        "symbols": len(re.findall(r"[^\w\s]", content)),
        "lines": content.count("\n"),
    }
    with db.transaction():
        stored = db.execute(
            "insert into app_jobs_demo.document_stats (document_id, words, symbols, lines)"
            " values (%(id)s, %(words)s, %(symbols)s, %(lines)s)"
            " on conflict (document_id) do nothing",
            {**payload, **counts},
        )
        if stored.rowcount == 0:
            return "already done"
        # In the same transaction: there is a next step if, and only if, there are counts.
        client.add_job(
            identifier="demo_add_up_package",
            payload=payload,
            queue_name=f"demo.{package}",
            connection=db,
        )
    return "done"


@tasks.task("demo_add_up_package")
def add_up_package(payload: dict[str, str]) -> str:
    """Add one document's counts to its package's total, once.

    The queue lets only one job of a package run at a time, so none waits for another's row lock.
    """
    added = connection().execute(
        """
        with news as (
            update app_jobs_demo.document_stats as s
            set added_up = true
            from app_jobs_demo.documents as d
            where d.id = s.document_id and s.document_id = %(id)s and not s.added_up
            returning d.package, s.words, s.symbols, s.lines
        )
        insert into app_jobs_demo.package_stats as p (package, documents, words, symbols, lines)
        select package, 1, words, symbols, lines from news
        on conflict (package) do update set
            documents = p.documents + 1,
            words = p.words + excluded.words,
            symbols = p.symbols + excluded.symbols,
            lines = p.lines + excluded.lines
        """,
        payload,
    )
    return "done" if added.rowcount == 1 else "already done"


# --- the run -------------------------------------------------------------------------------------

WORKERS = 2
LEASE_SECONDS = 3
STUCK_SECONDS = 30

COUNT = "select count(*), count(*) filter (where added_up) from app_jobs_demo.document_stats"

UNFINISHED = """
select count(*)
from app_jobs.jobs
where task_identifier = any(%(tasks)s) and created_at >= %(started_at)s
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
        select from app_jobs.job_errors as e where e.job_id = f.id and e.worker_id = %(killed)s
    )),
    count(*) filter (where f.result #>> '{}' = 'already done'),
    (count(*) / extract(epoch from max(f.finished_at) - min(f.created_at)))::float8,
    percentile_cont(0.5) within group (order by extract(epoch from f.started_at - f.run_at)),
    percentile_cont(0.95) within group (order by extract(epoch from f.started_at - f.run_at))
from app_jobs.finished_jobs as f
where
    f.state = 'completed'
    and f.task_identifier = any(%(tasks)s)
    and f.created_at >= %(started_at)s
group by rollup (f.task_identifier)
order by grouping(f.task_identifier), min(f.created_at)
"""

# What the totals must be, the lines taken from the documents themselves; a package whose total is
# missing, superfluous or another one is wrong. A document counted twice would be in its total twice.
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
    (select count(*) from app_jobs_demo.documents),
    (select count(*) from app_jobs_demo.document_stats),
    coalesce(sum(p.documents), 0),
    count(*),
    count(*) filter (where
        row(e.documents, e.words, e.symbols, e.lines)
        is distinct from row(p.documents, p.words, p.symbols, p.lines)
    )
from expected as e
full join app_jobs_demo.package_stats as p using (package)
"""

STATEMENTS = """\
-- The jobs that the killed worker held: when its lease was found expired, and who did them.
select f.id, f.task_identifier, e.worker_id, e.error_message, e.failed_at, f.finished_by
from app_jobs.finished_jobs as f join app_jobs.job_errors as e on e.job_id = f.id order by f.id;

-- What was counted.
select * from app_jobs_demo.package_stats order by lines desc limit 10;

-- A row becomes a job. It waits, since no worker runs now.
insert into app_jobs_demo.documents (path, package, content) values ('hi.py', 'mine', 'print(1)');
select id, task_identifier, payload, run_at, attempts from app_jobs.jobs;
"""


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Workers:
    """The worker processes. Those that live at the end of the block are asked to end, and do.

    They are what ``app-jobs worker app_jobs.demo:tasks`` starts.
    """

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
        if kind is not None and issubclass(kind, DemoError):
            self._log.seek(0)
            sys.stderr.writelines(self._log.read().decode(errors="replace").splitlines(True)[-20:])
        self._log.close()

    @property
    def ids(self) -> list[str]:
        """The ids of those that live."""
        return list(self._processes)

    def start(self) -> str:
        """Start one more and return its worker id."""
        self._started += 1
        worker_id = f"demo-{os.getpid()}-{self._started}"
        command = [sys.executable, "-m", "app_jobs", "worker", "app_jobs.demo:tasks"]
        command += ["--worker-id", worker_id, "--concurrency", "4", "--lease", str(LEASE_SECONDS)]
        self._processes[worker_id] = subprocess.Popen(
            command, env=self._environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        return worker_id

    def kill(self, worker_id: str) -> None:
        """Kill one: it cannot say goodbye."""
        process = self._processes.pop(worker_id)
        process.kill()
        process.wait()

    def check(self) -> None:
        """Raise DemoError if one has ended by itself."""
        for worker_id, process in self._processes.items():
            if process.poll() is not None:
                raise DemoError(f"worker {worker_id} ended with exit code {process.returncode}")


class Run:
    """One run: stores the documents, watches the workers, kills one, and reports."""

    def __init__(self, db: Connection, workers: Workers, total: int, console: Console) -> None:
        self._db = db
        self._workers = workers
        self._total = total
        self._console = console
        self._started_at: datetime = db.execute("select clock_timestamp()").fetchall()[0][0]
        self._killed: str | None = None
        self._shown = 0
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
            self._bars.add_task(name, total=total) for name in ("stored", "counted", "added up")
        )

    def work(self, documents: Iterator[tuple[str, list[Document]]], *, kill: bool) -> None:
        """Have every document counted and added up; if `kill`, one worker dies on the way."""
        for _ in range(WORKERS):
            self._workers.start()
        self._wait_for_workers()
        with self._bars:
            for package, files in documents:
                store(self._db, package, files)
                self._bars.advance(self._stored, len(files))
                self._look(kill=kill)
            while not self._look(kill=kill):
                time.sleep(0.05)

    def report(self) -> bool:
        """Print what happened; return whether it is proved that all went well."""
        heads = "task", "jobs", "attempts", "recovered", "repeated", "jobs/s", "wait p50", "p95"
        table = Table(*heads[:1], title="What the queue did")
        for head in heads[1:]:
            table.add_column(head, justify="right")
        for task, *counts, rate, median, p95 in self._db.execute(REPORT, self._parameters):
            recovered = counts[2]  # of both tasks, in the end
            waits = (f"{seconds * 1000:,.0f} ms" for seconds in (median, p95))
            table.add_row(task, *(f"{count:,}" for count in counts), f"{rate:,.0f}", *waits)
        self._console.print(table)
        self._console.print(
            "recovered: held by the killed worker, done by another one. repeated: done already when"
            " run again, so left alone.\nwait: from the producer's transaction to the claim.",
            style="dim",
        )

        stored, counted, added_up, packages, wrong = self._db.execute(PROOF).fetchall()[0]
        proved = stored == counted == added_up == self._total and wrong == 0
        self._say(
            f"{'Proved' if proved else 'NOT proved'} by SQL: {stored:,} documents stored,"
            f" {counted:,} counted, {added_up:,} in the totals of their packages;"
            f" {wrong} of {packages} totals differ from the sum of the documents."
        )
        if proved:
            self._say("Each document was counted exactly once.")
        if recovered == 0:
            self._say("Nothing had to be recovered: this run shows nothing.")
        return proved and recovered > 0

    @property
    def _parameters(self) -> dict[str, object]:
        names = [task.name for task in tasks]
        return {"tasks": names, "started_at": self._started_at, "killed": self._killed}

    def _wait_for_workers(self) -> None:
        registered = "select count(*) from app_jobs.workers where worker_id = any(%s)"
        while self._db.execute(registered, [self._workers.ids]).fetchone() != (WORKERS,):
            self._check()
            time.sleep(0.05)
        self._say(f"{WORKERS} workers started: {', '.join(self._workers.ids)}")

    def _look(self, *, kill: bool) -> bool:
        """See how far the work is; return whether all is done, acknowledgements included."""
        counted, added_up = self._db.execute(COUNT).fetchall()[0]
        self._bars.update(self._counted, completed=counted)
        self._bars.update(self._added_up, completed=added_up)
        done = counted + added_up
        if done > self._shown:
            self._moved_at = time.monotonic()
        if not self._console.is_terminal and done - self._shown >= self._total / 5:
            self._say(f"{counted:,} of {self._total:,} counted, {added_up:,} added up")
            self._shown = done
        self._check()
        if kill and self._killed is None and counted >= self._total / 3:
            self._kill_the_busiest()
        if added_up < self._total:
            return False
        return self._db.execute(UNFINISHED, self._parameters).fetchone() == (0,)

    def _kill_the_busiest(self) -> None:
        row = self._db.execute(BUSIEST, [self._workers.ids]).fetchone()
        if row is not None:
            self._killed, held = row
            self._workers.kill(row[0])
            self._say(f"killed {self._killed} with SIGKILL: it held the leases of {held} jobs")
            self._say(f"started {self._workers.start()} in its place")

    def _check(self) -> None:
        self._workers.check()
        if time.monotonic() - self._moved_at > STUCK_SECONDS:
            raise DemoError(f"nothing has moved for {STUCK_SECONDS} s: see app-jobs list")

    def _say(self, message: str) -> None:
        self._console.print(message, highlight=False, markup=False)


Document = tuple[str, str]


def standard_library(most: int | None) -> list[Path]:
    """The source files of the standard library, without packages installed on top."""
    root = Path(sysconfig.get_path("stdlib"))
    return []


def store(db: Connection, package: str, files: list[Document]) -> None:
    """Store the documents of a package in one transaction; the trigger adds a job for each."""
    with (
        db.cursor() as cursor,
        cursor.copy("copy app_jobs_demo.documents (path, package, content) from stdin") as copy,
    ):
        for path, content in files:
            copy.write_row((path, package, content))
