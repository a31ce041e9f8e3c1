"""Measure app_jobs and its peers side by side: see docs/performance.md.

Each measure gets a new database on one throw-away server. What was measured is kept, line by line,
in build/bench/results.jsonl; a run that was broken off goes on where it stopped, and the report is
written anew after each scenario.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any

import psycopg
import report
from figures import OURS, Figures
from measure import SETTINGS, Failed, Result, Server, machine_seconds
from peers import PEERS, Installation
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text
from scenarios import SCENARIOS, Run, Scenario, Sizes

from app_jobs.embedded import find_binaries, throw_away

ROOT = Path(__file__).resolve().parent.parent.parent
DEBIAN = Path("/usr/lib/postgresql/15/bin")
NOISY = 15  # per cent of the machine's CPU time that others may use
CLOSE = 0.7  # of the fastest peer's figure: who has less is measured once


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench",
        description=(__doc__ or "").partition("\n")[0],
        epilog="Scenarios: " + ", ".join(f"{n} ({s.title})" for n, s in SCENARIOS.items()),
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="these alone")
    parser.add_argument("--peer", action="append", choices=PEERS, help="ours and these alone")
    parser.add_argument("--scale", type=float, default=1, help="of all sizes, 0.01 for a try")
    parser.add_argument("--rounds", type=int, help="at most so many")
    parser.add_argument("--on", choices=["15", "18"], default="15", help="version of PostgreSQL")
    parser.add_argument("--again", action="store_true", help="what has been measured, too")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder")
    chosen = parser.parse_args()
    for name in chosen.scenarios:
        if name not in SCENARIOS:
            parser.error(f"no scenario is called {name}: there are {', '.join(SCENARIOS)}")
    return chosen


def commit() -> str:
    """The last one that touched what is measured; "+" if there are changes since."""

    def git(*words: str) -> str:
        command = ["git", *words, "--", "deploy", "python-client/src", "tests/bench"]
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    return git("log", "-1", "--format=%h") + "+" * bool(git("status", "--porcelain"))


class Results:
    """What has been measured at this commit and scale, on this version; kept in a file."""

    def __init__(self, file: Path, head: Result, *, forget: bool) -> None:
        self._file = file
        self._head = head
        self._lines: dict[tuple[Any, ...], Result] = {}
        if file.exists() and not forget:
            for line in map(json.loads, file.read_text().splitlines()):
                if head.items() <= line.items() and "error" not in line:  # those are tried again
                    self._lines[key_of(line)] = line

    def add(self, line: Result) -> None:
        line = {**self._head, **line}
        self._lines[key_of(line)] = line
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def all(self) -> list[Result]:
        return list(self._lines.values())

    def of(self, scenario: str) -> list[Result]:
        return [line for line in self.all() if line["scenario"] == scenario]

    def has(self, scenario: str, run: Run, number: int) -> bool:
        return (scenario, run.contender, run.case, number) in self._lines

    def seconds(self, scenario: str, run: Run) -> float | None:
        """How long it took so far."""
        known = [r["took"] for r in self.of(scenario) if r["contender"] == run.contender]
        return median(known) if known else None


def key_of(line: Result) -> tuple[Any, ...]:
    return tuple(line[name] for name in ("scenario", "contender", "case", "round"))


class Bench:
    """The measures that were asked for, those that are left, and how they are made."""

    def __init__(self, chosen: argparse.Namespace, server: Server, results: Results) -> None:
        self._server = server
        self._results = results
        self._sizes = Sizes(chosen.scale)
        self._rounds = chosen.rounds or 99
        self._names = chosen.scenarios or list(SCENARIOS)
        wanted = {OURS, *(chosen.peer or PEERS)}
        self._peers = {peer for peer in wanted if server.installation.has(peer)}
        if absent := sorted(wanted - self._peers):
            print(f"Left out, for they are not installed: {', '.join(absent)}")

    def runs(self, name: str, number: int) -> list[Run]:
        """Of one round; every other one is in the opposite order."""
        scenario = SCENARIOS[name]
        runs = [r for r in scenario.runs if r.contender.partition(":")[0] in self._peers]
        if number and scenario.rival:
            figures = Figures(self._results.of(name)).peers(scenario.rival)
            best = next(iter(figures.values()), 0)
            close = {
                peer
                for peer, figure in figures.items()
                if min(figure, best) / max(figure, best) >= CLOSE
            }
            runs = [r for r in runs if r.contender.startswith(OURS) or r.contender in close]
        return runs[:: -1 if number % 2 else 1]

    def left(self) -> Iterator[tuple[str, int, Run]]:
        """What is to be measured; who are rivals is found out on the way."""
        for name in self._names:
            for number in range(min(self._rounds, SCENARIOS[name].rounds)):
                for run in self.runs(name, number):
                    if not self._results.has(name, run, number):
                        yield name, number, run

    def estimate(self) -> float:
        return sum(self.seconds(name, run) for name, _, run in self.left())

    def seconds(self, name: str, run: Run) -> float:
        scenario = SCENARIOS[name]
        known = self._results.seconds(name, run)
        return known or 5 + scenario.seconds * min(1, self._sizes.scale * 2)

    def measure(self, name: str, number: int, run: Run) -> Result:
        """Measure once. `foreign` is the share of the machine's CPU that others used meanwhile."""
        busy = wait_until_quiet(self._sizes.seconds(30, 0))
        before, own, started = machine_seconds(), self.own_seconds(), monotonic()
        head = {"scenario": name, "contender": run.contender, "case": run.case, "round": number}
        try:
            figures = SCENARIOS[name].measure(self._server, run, self._sizes)
        except (Failed, psycopg.Error) as error:
            figures = {"error": f"{type(error).__name__}: {error}"}
        after = machine_seconds()
        foreign = after[0] - before[0] - (self.own_seconds() - own)
        percent = round(100 * max(0, foreign) / max(0.01, after[1] - before[1]))
        return {
            **head,
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "took": round(monotonic() - started, 1),
            "busy_before": busy,
            "foreign": percent,
            "noisy": percent > NOISY or busy > 50,
            **figures,
        }

    def own_seconds(self) -> float:
        """CPU seconds of this process, its ended children and the server."""
        times = os.times()
        return sum(times[:4]) + self._server.cpu_seconds()


def wait_until_quiet(seconds: float) -> int:
    """Wait until the cores are nearly idle for half a second; return how busy they are in %."""
    deadline = monotonic() + seconds
    while True:
        before = machine_seconds()
        sleep(0.5)
        after = machine_seconds()
        busy = round(100 * (after[0] - before[0]) / max(0.01, after[1] - before[1]))
        if busy < 8 or monotonic() > deadline:
            return busy


def told(scenario: Scenario, result: Result) -> str:
    """A line about a measure."""
    if "error" in result:
        return f"[red]{result['error']}[/red]"
    figures = [f"{key} {report.text(result[key])}" for key in scenario.show if key in result]
    noise = f", [yellow]{result['foreign']} % of the machine used by others[/yellow]"
    return ", ".join(figures) + (noise if result["noisy"] else "")


class Remaining(ProgressColumn):
    """What is left, by what such measures have taken."""

    def render(self, task: Task) -> Text:
        return Text(f"about {duration(task.fields['until'] - monotonic())} left")


def duration(seconds: float) -> str:
    """In the unit that fits."""
    if seconds < 120:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def measure_all(bench: Bench, results: Results, out: Path) -> bool:
    """Measure what is left and tell how far it is; return whether each measure gave figures."""
    console = Console(highlight=False, soft_wrap=True)
    good = True
    columns = (TextColumn("{task.description}"), TimeElapsedColumn(), Remaining())
    with Progress(*columns, console=console, transient=True) as progress:
        line = progress.add_task("", until=monotonic())
        while (step := next(bench.left(), None)) is not None:
            name, number, run = step
            label = f"{name}: {run.contender}{run.case and f' ({run.case})'}, round {number + 1}"
            progress.reset(line, description=label, until=monotonic() + bench.estimate())
            result = bench.measure(name, number, run)
            results.add(result)
            good &= "error" not in result
            console.print(f"{label}: {told(SCENARIOS[name], result)}")
            if name != next(bench.left(), (None,))[0]:
                report.write(out, results.all())
    return good


def main() -> None:
    """Install the peers, start the server, measure, and say where the report is."""
    chosen = arguments()
    out = chosen.out.resolve()
    installation = Installation(out)
    if chosen.peer != [OURS]:
        installation.install()
    out.mkdir(parents=True, exist_ok=True)
    bin_dir = DEBIAN if chosen.on == "15" else find_binaries()
    head = {"commit": commit(), "scale": chosen.scale, "postgresql": chosen.on}
    results = Results(out / "results.jsonl", head, forget=chosen.again)
    with throw_away(bin_dir=bin_dir, settings=SETTINGS) as url:
        server = Server(url, bin_dir, installation, out / "stderr.log")
        if chosen.scale >= 0.1:
            server.age()
        print(f"PostgreSQL {server.version()}, commit {head['commit']}, scale {chosen.scale:g}")
        good = measure_all(Bench(chosen, server, results), results, out)
    print(f"The report: {report.write(out, results.all())}")
    sys.exit(not good)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Broken off. The same command goes on from here.")
