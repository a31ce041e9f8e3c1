"""A backend for Django's tasks: django.tasks of Django 6, or else its backport django-tasks.

::

    TASKS = {"default": {"BACKEND": "app_jobs.django.backend.AppJobsBackend"}}

OPTIONS may have "max_attempts", and "serial_queues": names of queues whose tasks run one at a time.
The other queues are only checked: who runs what is decided by task, not by queue.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import iscoroutinefunction
from typing import Any

try:
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
except ModuleNotFoundError:
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django_tasks.exceptions import TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued, task_finished, task_started

from app_jobs import Fail, JobContext, JobDetails, Tasks
from app_jobs.django import DjangoClient

STATUS = {
    "created": TaskResultStatus.READY,
    "active": TaskResultStatus.RUNNING,
    "processing": TaskResultStatus.RUNNING,
    "completed": TaskResultStatus.SUCCESSFUL,
    "failed": TaskResultStatus.FAILED,
    "cancelled": TaskResultStatus.FAILED,
}

declared: dict[str, Task] = {}
"""Tasks that have been declared for a backend of ours, by module path: what a worker can run."""


class AppJobsBackend(BaseTaskBackend):
    """Adds jobs in Django's transaction.

    A job's task is the module path of Django's task. get_result() knows jobs that live, and
    finished ones as long as they are kept: see tasks.keep_completed, keep_failed.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def validate_task(self, task: Task) -> None:
        """Refuse what cannot be run; remember what a worker is to run."""
        super().validate_task(task)
        declared.setdefault(task.module_path, task)

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """Add a job."""
        self.validate_task(task)
        result = _result(task, list(args), dict(kwargs))  # refuses what is not JSON
        serial = task.queue_name in self.options.get("serial_queues", ())
        job = DjangoClient().add_job(
            identifier=task.module_path,
            payload={"args": result.args, "kwargs": result.kwargs},
            queue_name=task.queue_name if serial else None,
            run_at=task.run_after and task.run_after.astimezone(),
            max_attempts=self.options.get("max_attempts"),
            priority=-task.priority,  # Django's highest is our lowest
        )
        result = replace(result, id=str(job.id), enqueued_at=job.created_at)
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """Look a job up."""
        job = DjangoClient().job_details(int(result_id)) if result_id.isdecimal() else None
        if job is None or job.task_identifier not in declared:
            raise TaskResultDoesNotExist(result_id)
        return _result_of(job)


def tasks() -> Tasks:
    """Return what a worker needs to run the tasks that have been declared."""
    registry = Tasks()
    for name, task in declared.items():
        registry.task(name)(_handler(task))
    return registry


def _handler(task: Task) -> Any:
    if iscoroutinefunction(task.func):

        async def run_async(ctx: JobContext) -> Any:
            result, args, kwargs = _begin(task, ctx)
            try:
                value = await task.acall(*args, **kwargs)
            except Exception as error:
                await ctx.set_attributes(_failed(ctx, result, error))
                raise
            return _succeeded(result, value)

        return run_async

    def run(ctx: JobContext) -> Any:
        result, args, kwargs = _begin(task, ctx)
        try:
            value = task.call(*args, **kwargs)
        except Exception as error:
            ctx.set_attributes(_failed(ctx, result, error))
            raise
        return _succeeded(result, value)

    return run


def _begin(task: Task, ctx: JobContext) -> tuple[TaskResult, list[Any], dict[str, Any]]:
    try:
        args, kwargs = list(ctx.payload["args"]), dict(ctx.payload["kwargs"])
    except (KeyError, TypeError):
        message = 'the payload is not {"args": [...], "kwargs": {...}}'
        raise Fail(message, permanent=True) from None
    job = ctx.job
    result = replace(
        _result(task, args, kwargs),
        id=str(job.id),
        status=TaskResultStatus.RUNNING,
        enqueued_at=job.created_at,
        started_at=job.locked_at,
        last_attempted_at=job.locked_at,
        worker_ids=[job.locked_by] * job.attempts,
    )
    task_started.send(AppJobsBackend, task_result=result)
    if task.takes_context:
        args = [TaskContext(task_result=result), *args]
    return result, args, kwargs


def _succeeded(result: TaskResult, value: Any) -> Any:
    result = replace(result, status=TaskResultStatus.SUCCESSFUL)
    object.__setattr__(result, "_return_value", value)
    task_finished.send(AppJobsBackend, task_result=result)
    return value


def _failed(ctx: JobContext, result: TaskResult, error: Exception) -> dict[str, Any]:
    """Tell that a run failed; return attributes of the job in which get_result() finds why."""
    kind = type(error)
    failure = {
        "exception_class_path": f"{kind.__module__}.{kind.__qualname__}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    failures = [*ctx.job.attributes.get("errors", []), failure]
    if ctx.attempt >= ctx.max_attempts:
        errors = [TaskError(**each) for each in failures]
        result = replace(result, status=TaskResultStatus.FAILED, errors=errors)
        task_finished.send(AppJobsBackend, task_result=result)
    return {"errors": failures}


def _result(task: Task, args: list[Any], kwargs: dict[str, Any]) -> TaskResult:
    return TaskResult(
        task=task,
        id="",
        status=TaskResultStatus.READY,
        enqueued_at=None,
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=args,
        kwargs=kwargs,
        backend=task.backend,
        errors=[],
        worker_ids=[],
    )


def _result_of(job: JobDetails) -> TaskResult:
    result = replace(
        _result(declared[job.task_identifier], job.payload["args"], job.payload["kwargs"]),
        id=str(job.id),
        status=STATUS[job.state],
        enqueued_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        last_attempted_at=job.started_at,
        errors=[TaskError(**each) for each in job.attributes.get("errors", [])],
        worker_ids=[job.finished_by or job.locked_by or ""] * job.attempts,
    )
    object.__setattr__(result, "_return_value", job.result)
    return result
