"""Sequences of calls that once found something, as the state machine would make them.

What Hypothesis prints goes here, with Drawn() for what it has drawn on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from test_model import Queue

JOB: dict[str, Any] = {"task": "a", "since": 1}


class Drawn(st.DataObject):
    """Answers what was drawn, in turn."""

    def __init__(self, *values: Any) -> None:
        self.values = iter(values)

    def draw(self, strategy: Any, label: Any = None) -> Any:
        return next(self.values)


def close_slots(queue: Queue) -> None:
    """The slots so far are listed no more."""
    queue.slots_turn()
    queue.slots_turn()


def shorter_heartbeat(queue: Queue) -> None:
    """A lease ends earlier than the alarm of the slot in which it was taken."""
    queue.add_job(JOB, None, "replace")
    queue.get_jobs("w1", None, 1)
    close_slots(queue)
    queue.heartbeat("w1", "30 minutes")


def shorter_retry_after(queue: Queue) -> None:
    """The same by set_retry_after()."""
    queue.add_job(JOB, None, "replace")
    queue.get_jobs("w1", None, 1)
    close_slots(queue)
    queue.set_times(Drawn([*queue.model.live]), since=1, due=True)


def earlier_run_at(queue: Queue) -> None:
    """A job is made ready in a slot that was closed when it was scheduled."""
    queue.add_job({**JOB, "due": False}, None, "replace")
    close_slots(queue)
    queue.set_times(Drawn([*queue.model.live]), since=1, due=True)


def cancelled_and_given_back(queue: Queue) -> None:
    """A running job that is to be cancelled is released."""
    queue.add_job(JOB, "k", "replace")
    queue.get_jobs("w1", None, 1)
    queue.cancel_job("k", None)
    queue.release_jobs("w1")


def replaced_and_failed(queue: Queue) -> None:
    """A running job that has given its key up fails."""
    queue.add_job(JOB, "k", "replace")
    queue.get_jobs("w1", None, 1)
    queue.add_job(JOB, "k", "replace")
    queue.fail_jobs("w1", Drawn([min(queue.model.live)], 1), permanent=False, delay=False)


def seat_in_a_closed_slot(queue: Queue) -> None:
    """A job of a serial queue runs, and its slot is closed."""
    queue.add_jobs([({**JOB, "queue": "q"}, None, "replace")] * 2, keyed=False)
    queue.get_jobs("w1", None, 1)
    close_slots(queue)
    queue.get_jobs("w2", None, 1)


def parked_behind_a_task_nobody_serves(queue: Queue) -> None:
    """The best job of a queue is of another task than those behind it."""
    queue.add_job({**JOB, "queue": "q"}, None, "replace")
    queue.get_jobs("w1", ["a"], 1)
    queue.add_job({**JOB, "queue": "q", "task": "b"}, None, "replace")
    queue.add_job({**JOB, "queue": "q", "priority": 1}, None, "replace")
    queue.get_jobs("w2", None, 2)
    queue.complete_or_fail_job("w1", Drawn([min(queue.model.live)], 1), fails=False)
    queue.get_job("w2", ["a"])


def due_behind_a_full_queue(queue: Queue) -> None:
    """What is due first cannot run."""
    queue.add_job({**JOB, "queue": "q"}, None, "replace")
    queue.get_jobs("w1", None, 1)
    for options in ({"queue": "q"}, {"queue": "q"}, {"priority": 1}):
        queue.add_job({**JOB, **options, "due": False}, None, "replace")
    queue.add_job({**JOB, "priority": 2}, None, "replace")
    queue.time_passes()
    queue.get_job("w2", None)


def due_behind_a_paused_task(queue: Queue) -> None:
    """The same, since its task is paused."""
    queue.get_jobs("w1", None, 1)
    queue.pause_task("a", paused=True)
    queue.add_job({**JOB, "due": False}, None, "replace")
    queue.add_job({**JOB, "task": "b", "due": False, "priority": 1}, None, "replace")
    queue.add_job({**JOB, "task": "b", "priority": 2}, None, "replace")
    queue.time_passes()
    queue.get_job("w1", None)


PROGRAMS: list[Callable[[Queue], None]] = [
    shorter_heartbeat,
    shorter_retry_after,
    earlier_run_at,
    cancelled_and_given_back,
    replaced_and_failed,
    seat_in_a_closed_slot,
    parked_behind_a_task_nobody_serves,
    due_behind_a_full_queue,
    due_behind_a_paused_task,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.__name__.replace("_", "-"))
def test_recorded_program(database: str, program: Callable[[Queue], None]) -> None:
    Queue.dsn = database
    queue = Queue()
    try:
        program(queue)
        queue.agrees_with_the_model()
        queue.nothing_is_broken()
    finally:
        queue.teardown()
