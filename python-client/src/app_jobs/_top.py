"""The live view of `app-jobs top`."""

from __future__ import annotations

import os
import select
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app_jobs._plain import escape

Look = dict[str, Any]  # what _sql.top() answers

TREND = 12  # looks in a sparkline
LEVELS = "▁▂▃▄▅▆▇█"
SILENT = 60  # seconds after which a worker is taken to be in trouble
WIDE = 120  # columns from which what tasks did of late is shown, too
FRAME = 9  # lines that are no task and no worker


class View:
    """Remembers some looks at the database, and draws the last one."""

    def __init__(self) -> None:
        self.look: Look = {}
        """The last one."""
        self._rates: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=TREND))
        self._waiting: dict[str, deque[float]] = {}

    def add(self, look: Look) -> None:
        """Take in one more look."""
        if self.look:
            seconds = max(look["at"] - self.look["at"], 0.001)
            for name in ("added", "ended"):
                # Less than before: the server's statistics were reset.
                done = max(look[name] - self.look[name], 0)
                self._rates[name].append(done / seconds)
        before, self._waiting = self._waiting, {}
        for task in look["tasks"]:
            trend = self._waiting[task["task"]] = before.get(task["task"], deque(maxlen=TREND))
            trend.append(task["ready"] + task["parked"])
        self.look = look

    def frame(
        self, height: int | None = None, note: str = "", width: int | None = None
    ) -> RenderableType:
        """Draw the last look in so many lines and columns; None: as many as it takes."""
        look = self.look
        tasks, workers = look["tasks"], look["workers"]
        if height is not None:
            room = max(height - FRAME, 2)
            # Each gets half of it, or what the other leaves.
            share = max(room - len(workers), room // 2)
            tasks = tasks[:share]
            workers = workers[: max(room - len(tasks), 1)]
        return Group(
            self._headline(),
            self._rates_line(),
            self._totals(),
            "",
            self._task_table(tasks, width is None or width >= WIDE),
            _more(len(look["tasks"]) - len(tasks)),
            _worker_table(workers),
            _more(len(look["workers"]) - len(workers)),
            _line(note, style="reverse" if note else ""),
        )

    def _headline(self) -> RenderableType:
        look = self.look
        idle = sum(worker["idle"] for worker in look["workers"])
        workers = f"workers {len(look['workers'])}, idle {idle}"
        return _line(
            f"app_jobs {look['version']}   {look['clock']}   {workers}   {look['database']}"
        )

    def _rates_line(self) -> RenderableType:
        line = _line("")
        for name in ("added", "ended"):
            rates = self._rates[name]
            line.append(f"{name} ").append(f"{count(rates[-1])}/s" if rates else "-", "bold")
            line.append(f" {sparkline(rates)}   ")
        return line

    def _totals(self) -> RenderableType:
        line = _line("")
        for name in ("ready", "scheduled", "parked", "running", "expired"):
            total = sum(task[name] for task in self.look["tasks"])
            line.append(f"{name} ").append(count(total), "bold").append("   ")
        return line

    def _task_table(self, tasks: Sequence[dict[str, Any]], wide: bool) -> RenderableType:
        table = _table(
            "task", "ready", "sched.", "parked", "running", "oldest", "failed/h", "ready+parked"
        )
        if wide:
            for heading in ("runs/s", "failing", "wait p50", "p95", "run p50", "p95"):
                table.add_column(heading, justify="right", no_wrap=True)
        for task in tasks:
            table.add_row(
                escape(task["task"]),
                *(count(task[name]) for name in ("ready", "scheduled", "parked", "running")),
                age(task["oldest"]),
                f"[red]{count(task['failed_1h'])}[/]" if task["failed_1h"] else "0",
                sparkline(self._waiting[task["task"]]),
                *(_lately(task) if wide else ()),
            )
        return table


def _lately(task: dict[str, Any]) -> Iterator[str]:
    yield count(task["rate"])
    yield "" if task["failing"] is None else f"{task['failing']:.0%}"
    for name in ("wait_p50", "wait_p95", "run_p50", "run_p95"):
        seconds = task[name]
        yield f"{1000 * seconds:.3g} ms" if seconds is not None and seconds < 1 else age(seconds)


def _worker_table(workers: Sequence[dict[str, Any]]) -> RenderableType:
    table = _table("worker", "seen", "jobs", "runs")
    table.columns[-1].justify = "left"
    table.columns[-1].ratio = 1
    for worker in workers:
        runs = (
            f"{run['task']} {run['jobs']} ({age(run['longest'])}"
            + (")" if run["done"] is None else f", {run['done']:.0%} done)")
            for run in worker["runs"]
        )
        seen = age(worker["seen"])
        table.add_row(
            escape(worker["worker"]),
            f"[red]{seen}[/]" if worker["seen"] > SILENT else seen,
            count(worker["running"]),
            escape(", ".join(runs)) or ("idle" if worker["idle"] else ""),
        )
    return table


def _table(*headings: str) -> Table:
    """A table whose first column takes the room that is left, with figures in the others."""
    table = Table(box=None, expand=True, pad_edge=False, header_style="bold")
    for heading in headings:
        is_first = heading == headings[0]
        table.add_column(
            heading,
            justify="left" if is_first else "right",
            ratio=1 if is_first else None,
            no_wrap=True,
            overflow="ellipsis",
        )
    return table


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _more(number: int) -> Text:
    return _line(f"… {number} more" if number else "", style="dim")


def sparkline(values: Iterable[float]) -> str:
    """Draw values as bars, the highest of them in full height."""
    bars = list(values)
    top = max(bars, default=0) or 1
    return "".join(LEVELS[round(value / top * (len(LEVELS) - 1))] for value in bars).rjust(TREND)


def count(number: float) -> str:
    """Write a number in few characters."""
    for limit, unit in ((10_000_000, "M"), (10_000, "k")):
        if number >= limit:
            return f"{number / limit * 10:.0f}{unit}"
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0")


def age(seconds: float | None) -> str:
    """Write a time span in its largest unit."""
    if seconds is None:
        return ""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


@contextmanager
def keyboard() -> Iterator[Callable[[float], bool]]:
    """A function (seconds): wait so long, or for a key; return whether to go on (q: no)."""
    import termios  # here, since only Unix has it
    import tty

    if not sys.stdin.isatty():
        yield lambda seconds: not select.select([], [], [], seconds)[0]
        return

    def wait(seconds: float) -> bool:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return not ready or os.read(descriptor, 1) not in (b"q", b"Q", b"")

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield wait
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
