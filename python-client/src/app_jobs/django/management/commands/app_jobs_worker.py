"""manage.py app_jobs_worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import close_old_connections
from django.utils.module_loading import autodiscover_modules, import_string

from app_jobs import Tasks, Worker
from app_jobs.django import conninfo, schema


class Command(BaseCommand):
    """A worker in which Django is set up."""

    help = (
        "Run jobs until SIGTERM or SIGINT: of Django's tasks in each application's module `tasks`,"
        " or of a registry of app_jobs.Tasks."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Say what can be given."""
        parser.add_argument("tasks", nargs="?", metavar="MODULE:TASKS", help="a registry")
        parser.add_argument("--concurrency", type=int, default=20, help="handlers at once")

    def handle(self, **options: Any) -> None:
        """Run."""
        registry = self._tasks(options["tasks"])
        for task in registry:
            task.invoke = _with_fresh_connections(task.invoke, task.is_async)
        Worker(conninfo(), registry, concurrency=options["concurrency"], schema=schema()).run()

    def _tasks(self, reference: str | None) -> Tasks:
        if reference is not None:
            found = import_string(reference.replace(":", "."))
            if not isinstance(found, Tasks):
                raise CommandError(f"{reference} is no app_jobs.Tasks: give module:name")
            return found
        from app_jobs.django import backend

        autodiscover_modules("tasks")
        if not backend.declared:
            raise CommandError(
                "no application's module `tasks` declares a task for AppJobsBackend: see the"
                " setting TASKS, or name a registry: app_jobs_worker module:tasks"
            )
        return backend.tasks()


def _with_fresh_connections(invoke: Callable[[Any], Any], is_async: bool) -> Callable[[Any], Any]:
    """Close connections that are broken or too old around a handler, as around a request."""
    if is_async:

        async def run_async(context: Any) -> Any:
            await sync_to_async(close_old_connections)()
            try:
                return await invoke(context)
            finally:
                await sync_to_async(close_old_connections)()

        return run_async

    def run(context: Any) -> Any:
        close_old_connections()
        try:
            return invoke(context)
        finally:
            close_old_connections()

    return run
