"""Handlers that run in processes: a child per thread of their lane, which sends it job after job.

A child that dies takes its own job with it and no other; the next job gets a new one. It is not
forked but started anew, and imports the handler's module. Child and worker talk over a socket, in
pickles: when it closes, the child ends, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any, cast

from app_jobs import _sql
from app_jobs._lanes import ThreadLane
from app_jobs._outbox import LOST_NOTICE, storable
from app_jobs._sql import Row
from app_jobs.errors import BadArgument
from app_jobs.tasks import Fail, JobContext, Snooze, Task

# Signals of a terminal or of systemd go to the worker's children, too: it decides when they end.
_START = (
    "import signal; [signal.signal(number, signal.SIG_IGN) for number in (2, 15)];"
    " from app_jobs._processes import serve; serve()"
)


class ProcessLane(ThreadLane):
    """Runs functions in `concurrency` processes, each with a thread here that waits for it."""

    def __init__(self, tasks: Sequence[Task[Any]], *arguments: Any, **options: Any) -> None:
        for task in tasks:
            _check(task)
        self._own = threading.local()
        super().__init__(tasks, *arguments, **options)

    def _run(self) -> None:
        self._own.child = child = Child()
        super()._run()
        child.kill()

    def _invoke(self, context: JobContext) -> Any:
        child: Child = self._own.child
        context._runner = child
        if context.cancelled:  # before there was a runner to cancel
            raise Fail(LOST_NOTICE)
        try:
            return child.run(context)
        except (EOFError, ConnectionError):
            ending = f"the process that ran it {child.how_it_ended()}"
            raise Fail(LOST_NOTICE if context.cancelled else ending) from None
        finally:
            context._runner = None


class Child:
    """A process that runs one job at a time, started when it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection

    def run(self, context: JobContext) -> Any:
        """Run a job's handler; EOFError or ConnectionError if the process dies."""
        if self._process is None or self._process.poll() is not None:
            self._start(context._tools.worker_id)
        task = context.task
        limit = None if task.timeout is None else task.timeout.total_seconds()
        self._connection.send((task.function.__module__, task.function.__qualname__, context._row))
        end = None
        while self._connection.poll(None if end is None else max(end - monotonic(), 0)):
            kind, *values = self._connection.recv()
            if kind == "started":
                end = None if limit is None else monotonic() + limit
            elif kind == "progress":
                context.progress(*values)
            elif kind == "log":
                (record,) = values
                logging.getLogger(record.name).handle(record)
            elif kind == "result":
                return None if values[0] is None else _sql.RawJson(values[0])
            elif kind == "snooze":
                raise Snooze(*values)
            else:
                message, permanent, retry_in, detail = values
                error = Fail(message, permanent=permanent, retry_in=retry_in)
                error.detail = detail
                raise error
        self.kill()
        raise TimeoutError(f"the run took longer than its task's timeout of {limit:g} s")

    def cancel(self) -> None:
        """Kill the process: what it computes is not wanted any more. From any thread."""
        if self._process is not None:
            self._process.kill()

    def kill(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._connection.close()

    def how_it_ended(self) -> str:
        """Say how a process ended that has died."""
        assert self._process is not None
        self._process.kill()  # should it only have closed the connection
        code = self._process.wait()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"exited with {code}"

    def _start(self, worker_id: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._connection = Connection(ours.detach())
        level = logging.getLogger().getEffectiveLevel()
        self._connection.send((sys.path, level, worker_id))


def _check(task: Task[Any]) -> None:
    """Refuse a task that a child would not find by the name of its function."""
    name = f"{task.function.__module__}.{task.function.__qualname__}"
    try:
        found = _find(task.function.__module__, task.function.__qualname__)
    except (ImportError, AttributeError):
        found = None
    if found is not task or task.function.__module__ == "__main__":
        raise BadArgument(
            f"a process would not find the handler of task {task.name!r} as {name}",
            hint="Write it at the top of a module that can be imported, with @tasks.task().",
        )


def _find(module: str, name: str) -> Task[Any]:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return cast("Task[Any]", found)


# --- in the child --------------------------------------------------------------------------------


def serve() -> None:
    """Run the jobs that come over the socket whose number is the argument, until it closes."""
    connection = Connection(int(sys.argv[1]))
    sys.path[:], level, worker_id = connection.recv()
    wire = _Wire(connection, worker_id)
    logging.getLogger().addHandler(wire)
    logging.getLogger().setLevel(level)
    jobs: queue.SimpleQueue[tuple[str, str, Row]] = queue.SimpleQueue()

    def receive() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                jobs.put(connection.recv())
        os._exit(0)  # in the midst of a job: nobody waits for it

    threading.Thread(target=receive, daemon=True).start()
    while True:
        wire.send(*_run(wire, *jobs.get()))


def _run(wire: _Wire, module: str, name: str, row: Row) -> tuple[Any, ...]:
    """Run a job, and return the message that says how it ended."""
    task = _find(module, name)
    wire.send("started")
    try:
        result = task.invoke(JobContext(row, task, 0, 0, lambda: None, cast("Any", wire)))
    except Snooze as snooze:
        return "snooze", snooze.delay
    except Fail as error:
        return "fail", str(error), error.permanent, error.retry_in, error.detail
    except BaseException as error:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        message = f"{type(error).__name__}: {error}"
        return "fail", message, not task.retries(error), None, storable(trace)[-20_000:]
    try:
        return "result", None if result is None else _sql.to_json("the handler's result", result)
    except BadArgument as error:
        return "fail", str(error), True, None, None


class _Wire(QueueHandler):
    """What a job says goes to the worker over this: its log, its progress, how it ended."""

    def __init__(self, connection: Connection, worker_id: str) -> None:
        super().__init__(queue.SimpleQueue())  # which is not used
        self.worker_id = worker_id
        self._connection = connection
        self._turn = threading.Lock()
        self.progress = self

    def send(self, *message: Any) -> None:
        """Send a message, from any thread."""
        with self._turn:
            self._connection.send(message)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a log record."""
        self.send("log", record)

    def note(self, _context: JobContext, done: float, note: str) -> None:
        """Send what ctx.progress() says."""
        self.send("progress", done, note)

    def __getattr__(self, name: str) -> Any:
        # What else a context would ask of the worker's Effects.
        refused = {
            "run_once_in_thread": "run_once",
            "transaction": "transaction",
            "call": "set_attributes",
        }
        if name not in refused:
            raise AttributeError(name)
        raise RuntimeError(
            f"ctx.{refused[name]}() is not there in a process: do it in a task of its own that runs"
            " in a thread, or leave out process=True"
        )
