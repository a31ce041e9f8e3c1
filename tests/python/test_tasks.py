"""Tasks: what handlers may look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import app_jobs
from app_jobs import JobContext, Tasks
from app_jobs.errors import BadArgument


@dataclass
class Range:
    days: int


class FakeContext:
    payload = "the payload"


def called(handler: Callable[..., Any]) -> Any:
    tasks = Tasks()
    tasks.task("t")(handler)
    return tasks["t"].invoke(FakeContext())  # type: ignore[arg-type]


def is_context(value: object) -> bool:
    return isinstance(value, FakeContext)


def test_what_a_handler_is_given_follows_its_signature() -> None:
    def annotated(first: JobContext, second: dict[str, Any]) -> tuple[Any, Any]:
        return first, second

    def qualified(first: dict[str, Any], second: app_jobs.JobContext) -> tuple[Any, Any]:
        return first, second

    assert called(lambda payload: payload) == "the payload"
    assert called(lambda anything: anything) == "the payload"
    assert is_context(called(lambda ctx: ctx))
    assert is_context(called(lambda context: context))
    assert called(lambda: "nothing") == "nothing"
    payload, context = called(lambda a, b: (a, b))
    assert payload == "the payload"
    assert is_context(context)
    context, payload = called(annotated)
    assert payload == "the payload"
    assert is_context(context)
    payload, context = called(qualified)
    assert payload == "the payload"
    assert is_context(context)
    assert called(lambda payload, retries=3: (payload, retries)) == ("the payload", 3)
    assert called(lambda payload, *rest, **options: (payload, rest)) == ("the payload", ())


def test_a_handler_that_could_not_be_called_is_refused_when_it_is_registered() -> None:
    def generator(payload: object) -> Iterator[int]:
        yield 1

    def keyword(payload: object, *, needed: int) -> None: ...

    def three(payload: object, ctx: JobContext, more: object) -> None: ...

    def hidden(payload: object, retries: int = 3, ctx: object = None) -> None: ...

    for handler in (generator, keyword, three, hidden):
        with pytest.raises(TypeError, match="'t'"):
            called(handler)


def test_coroutines_are_known_by_their_kind() -> None:
    tasks = Tasks()

    class Callee:
        async def __call__(self, payload: object) -> None: ...

    @tasks.task()
    async def coroutine() -> None: ...

    @tasks.task()
    def function() -> None: ...

    tasks.task("object")(Callee())
    assert [(task.name, task.is_async) for task in tasks] == [
        ("coroutine", True),
        ("function", False),
        ("object", True),
    ]


def test_names() -> None:
    tasks = Tasks()
    tasks.task("t")(lambda: None)
    with pytest.raises(ValueError, match="'t'"):
        tasks.task("t")(lambda: None)
    for name in ("", "x" * 127):
        with pytest.raises(BadArgument):
            tasks.task(name)(lambda: None)
    with pytest.raises(TypeError, match="write @tasks"):
        tasks.task(lambda: None)  # type: ignore[arg-type]


def test_schedules_are_declared_with_a_task_or_beside_it() -> None:
    tasks = Tasks("billing")

    @tasks.task("report", cron="0 2 * * *", tz="Europe/Berlin", payload=Range(1))
    def report(payload: Range) -> None: ...

    @tasks.task(every=timedelta(minutes=5), missed="all", overlap="skip")
    def poll() -> None: ...

    tasks.schedule(
        "report", key="weekly", schedule={"dayOfWeek": 1, "hour": 3, "minute": 0}, payload=Range(7)
    )
    assert {
        key: (s["identifier"], s["schedule_info"], s["payload"], s["time_zone"], s["job_key"])
        for key, s in tasks.schedules.items()
    } == {
        "billing:report": (
            "report",
            {"rule": "0 2 * * *"},
            '{"days":1}',
            "Europe/Berlin",
            "billing:report",
        ),
        "billing:poll": ("poll", {"every": timedelta(minutes=5)}, None, "UTC", "billing:poll"),
        "billing:weekly": (
            "report",
            {"dayOfWeek": 1, "hour": 3, "minute": 0},
            '{"days":7}',
            "UTC",
            "billing:weekly",
        ),
    }
    poll_options = tasks.schedules["billing:poll"]
    assert (poll_options["missed"], poll_options["overlap"]) == ("all", "skip")
    report(Range(1))

    with pytest.raises(ValueError, match="give this one a key"):
        tasks.schedule("poll", cron="0 2 * * *")
    with pytest.raises(ValueError, match="no handler"):
        tasks.schedule("unknown", cron="0 2 * * *")
    with pytest.raises(BadArgument, match="expected Range, got dict"):
        tasks.schedule("report", key="bad", cron="0 2 * * *", payload={"days": "x"})
    for rules in ({}, {"cron": "0 2 * * *", "every": "1 day"}):
        with pytest.raises(BadArgument, match=f"{len(rules)} rules"):
            tasks.schedule("poll", key="more", **rules)  # type: ignore[arg-type]
    assert len(tasks.schedules) == 3
