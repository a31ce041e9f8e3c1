"""Tasks: what handlers may look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import app_jobs
from app_jobs import JobContext, Tasks
from app_jobs.errors import BadArgument


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
