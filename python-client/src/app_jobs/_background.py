"""What asyncio and threads do differently: the twins of generated modules find it here."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from app_jobs._sql import Job

T = TypeVar("T")
AsyncHandler = Callable[[Job], Awaitable[Any]]
Handler = Callable[[Job], Any]


class AsyncBackground:
    """A coroutine that runs in a task of its own until it is told to stop."""

    def __init__(self, body: Callable[[AsyncBackground], Awaitable[None]]) -> None:
        self._stop = asyncio.Event()
        self._task = asyncio.ensure_future(body(self))

    async def goes_on_after(self, seconds: float) -> bool:
        """Wait so long, or until it is told to stop; return whether it goes on."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        return not self._stop.is_set()

    async def stop(self) -> None:
        """Tell it to stop, and wait until it has."""
        self._stop.set()
        await self._task


class Background:
    """A function that runs in a thread of its own until it is told to stop."""

    def __init__(self, body: Callable[[Background], None]) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=body, args=[self], name="app_jobs", daemon=True)
        self._thread.start()

    def goes_on_after(self, seconds: float) -> bool:
        """Wait so long, or until it is told to stop; return whether it goes on."""
        return not self._stop.wait(seconds)

    def stop(self) -> None:
        """Tell it to stop, and wait until it has."""
        self._stop.set()
        self._thread.join()


async def in_thread(function: Callable[[], T]) -> T:
    """Run a function that blocks, in a thread."""
    return await asyncio.to_thread(function)


def directly(function: Callable[[], T]) -> T:
    """Run a function that blocks."""
    return function()
