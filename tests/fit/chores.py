"""Tasks of Django, for test_django.py; importing them needs its settings."""

from __future__ import annotations

from typing import Any

from django_tasks import TaskContext, task
from django_tasks.base import DEFAULT_TASK_PRIORITY

done: list[Any] = []


@task(priority=DEFAULT_TASK_PRIORITY + 5)
def wash(what: str, *, hot: bool = False) -> dict[str, Any]:
    done.append(what)
    return {"washed": what, "hot": hot}


@task(takes_context=True, queue_name="line")
async def iron(context: TaskContext, what: str) -> int:
    done.append(f"{what} {context.attempt}")
    if context.attempt == 1:
        raise ConnectionResetError("no steam")
    return context.attempt


@task
def burn() -> None:
    raise ValueError("too hot")
