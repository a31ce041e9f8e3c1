"""Processes that can be killed, in places that are taken again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).parent


class Processes:
    """`count` processes, numbered as they start; `command` says what number n runs."""

    def __init__(
        self,
        count: int,
        command: Callable[[int], Sequence[str | Path]],
        env: Mapping[str, str],
        log: Path,
    ) -> None:
        self._command = command
        self._env = {**os.environ, **env}
        self._log = log
        self._started = 0
        self.running = [self._start() for _ in range(count)]

    def _start(self) -> tuple[int, subprocess.Popen[bytes]]:
        self._started += 1
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._command(self._started), cwd=FOLDER, env=self._env, stderr=log
            )
        return self._started, process

    def kill(self, place: int | None = None) -> int:
        """Kill one and start another one in its place; return the dead one's number."""
        if place is None:
            place = random.randrange(len(self.running))
        self.check()
        number, process = self.running[place]
        process.kill()
        process.wait()
        self.running[place] = self._start()
        return number

    def check(self) -> None:
        """Fail if one has ended by itself."""
        for number, process in self.running:
            assert process.poll() is None, f"process {number} has ended: {self.log()}"

    def stop(self) -> list[int]:
        """Tell all to end; return their exit codes."""
        for _, process in self.running:
            process.send_signal(signal.SIGTERM)
        return [process.wait() for _, process in self.running]

    def log(self) -> str:
        """Return the end of what they have said."""
        return self._log.read_text()[-5000:]


@contextmanager
def processes(
    count: int,
    command: Callable[[int], Sequence[str | Path]],
    env: Mapping[str, str],
    log: Path,
) -> Iterator[Processes]:
    """Run processes for the length of a block."""
    running = Processes(count, command, env, log)
    try:
        yield running
    finally:
        for _, process in running.running:
            process.kill()
            process.wait()
