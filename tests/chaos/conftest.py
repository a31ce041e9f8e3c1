"""Worker processes that can be killed, and connections that can be cut."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest


class Fleet:
    """Worker processes, in places that are taken again after a kill."""

    def __init__(self, database: str, log: Path, workers: int, lease: int) -> None:
        self._env = {**os.environ, "DATABASE_URL": database}
        self._log = log
        self._lease = lease
        self._started = 0
        self.workers = [self._start() for _ in range(workers)]

    def _start(self) -> tuple[str, subprocess.Popen[bytes]]:
        self._started += 1
        name = f"worker-{self._started}"
        options = ["--worker-id", name, "--lease", str(self._lease), "--concurrency", "1"]
        command = [sys.executable, "-m", "app_jobs", "worker", "effects:tasks", *options]
        with self._log.open("ab") as log:
            folder = Path(__file__).parent
            return name, subprocess.Popen(command, cwd=folder, env=self._env, stderr=log)

    def kill_one(self) -> str:
        """Kill a worker and start another one in its place; return the dead one's name."""
        place = random.randrange(len(self.workers))
        name, process = self.workers[place]
        assert process.poll() is None, f"{name} has ended by itself: {self.log()}"
        process.kill()
        process.wait()
        self.workers[place] = self._start()
        return name

    def stop(self) -> list[int]:
        """Tell all workers to end; return their exit codes."""
        for _, process in self.workers:
            process.send_signal(signal.SIGTERM)
        return [process.wait() for _, process in self.workers]

    def log(self) -> str:
        """Return the end of what the workers have said."""
        return self._log.read_text()[-5000:]


@pytest.fixture
def fleet_of(database: str, tmp_path: Path) -> Callable[[int, int], AbstractContextManager[Fleet]]:
    """A function (workers, lease): a fleet for the length of a block."""

    @contextmanager
    def start(workers: int, lease: int) -> Iterator[Fleet]:
        fleet = Fleet(database, tmp_path / "workers.log", workers, lease)
        try:
            yield fleet
        finally:
            for _, process in fleet.workers:
                process.kill()
                process.wait()

    return start
