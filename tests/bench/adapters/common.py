"""What the adapters in Python share; common.cjs is the same for Node.

An adapter is a program that subclasses Adapter and calls main(). The harness runs it as

    setup                        install the schema into an empty database
    bulk JOBS BATCH              add jobs through the batch call, and time it
    tick COUNT PAUSE FIRST       add one job at a time, FIRST and so on, and note the commits
    steady RATE SECONDS PAUSE    add RATE jobs a second, in lots
    worker                       run jobs, from "go" on standard input to "stop"

with BENCH_DSN and BENCH_OPTIONS (JSON) in the environment; the option `log` is the lowest number of
a job whose start is noted, `report` the seconds between a worker's reports. Each line that it
prints is a JSON object. Times are of the clock CLOCK_MONOTONIC, which all processes of a machine
share.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from time import monotonic, sleep
from typing import Any

DSN = os.environ.get("BENCH_DSN", "")
OPTIONS: dict[str, Any] = json.loads(os.environ.get("BENCH_OPTIONS", "{}"))
LOG_FROM = OPTIONS.get("log", float("inf"))

Hit = Callable[[int], None]


def say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Meter:
    """Counts the calls of handlers: hit() is all that a job does."""

    def __init__(self) -> None:
        self.count = 0
        self.first: float | None = None
        self.last: float | None = None
        self.log: list[tuple[int, float]] = []

    def hit(self, number: int) -> None:
        at = self.last = monotonic()
        if self.first is None:
            self.first = at
        self.count += 1
        if number >= LOG_FROM:
            self.log.append((number, at))


class Adapter(ABC):
    """One queue: jobs have the payload {"n": number}."""

    @abstractmethod
    async def setup(self) -> None:
        """Install the schema."""

    @abstractmethod
    async def open(self) -> None:
        """Connect as a producer."""

    @abstractmethod
    async def one(self, number: int) -> None:
        """Add a job, and commit."""

    @abstractmethod
    async def many(self, low: int, high: int) -> None:
        """Add the jobs low to high - 1 in one call, and commit."""

    @abstractmethod
    async def work(self, hit: Hit) -> None:
        """Run jobs for ever."""


async def bulk(adapter: Adapter, jobs: int, batch: int) -> None:
    await adapter.open()
    started = monotonic()
    for low in range(0, jobs, batch):
        await adapter.many(low, min(jobs, low + batch))
    say(seconds=monotonic() - started)


async def tick(adapter: Adapter, count: int, pause: float, first: int) -> None:
    await adapter.open()
    log, started = [], monotonic()
    for step in range(count):
        await asyncio.sleep(max(0, started + step * pause - monotonic()))
        await adapter.one(first + step)
        log.append((first + step, monotonic()))
    say(log=log)


async def steady(adapter: Adapter, rate: float, seconds: float, pause: float) -> None:
    await adapter.open()
    added, started = 0, monotonic()
    while (passed := monotonic() - started) < seconds:
        due = min(int(passed * rate) - added, max(1, int(rate)))
        if due > 0:
            await adapter.many(added, added + due)
            added += due
        await asyncio.sleep(max(0.001, pause - (monotonic() - started - passed)))
    say(added=added, seconds=monotonic() - started)


def worker(adapter: Adapter) -> None:
    meter, go = Meter(), threading.Event()
    say(ready=True)

    def obey() -> None:
        for line in sys.stdin:
            if line.strip() == "stop":
                break
            go.set()
        say(count=meter.count, first=meter.first, last=meter.last, log=meter.log)
        os._exit(0)

    def report() -> None:
        seen = 0
        while True:
            sleep(OPTIONS["report"])
            if meter.count != seen:
                seen = meter.count
                say(count=seen, first=meter.first, last=meter.last)

    threading.Thread(target=obey, daemon=True).start()
    threading.Thread(target=report, daemon=True).start()
    go.wait()
    run(adapter.work(meter.hit))


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    if OPTIONS.get("uvloop"):
        import uvloop

        uvloop.run(coroutine)
    else:
        asyncio.run(coroutine)


def main(adapter: Adapter) -> None:
    """Do what the command line says."""
    command, *words = sys.argv[1:]
    numbers = [float(word) for word in words]
    if command == "worker":
        worker(adapter)
    elif command == "setup":
        run(adapter.setup())
    elif command == "bulk":
        run(bulk(adapter, int(numbers[0]), int(numbers[1])))
    elif command == "tick":
        run(tick(adapter, int(numbers[0]), numbers[1], int(numbers[2])))
    elif command == "steady":
        run(steady(adapter, *numbers))
    else:
        sys.exit(f"no such command: {command}")
