"""The backend for Django's tasks; django-tasks stands for Django 6."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

from app_jobs import Worker


@pytest.fixture
def chores(database: str) -> Any:
    parts = conninfo_to_dict(database)
    backend = "app_jobs.django.backend.AppJobsBackend"
    settings.configure(
        USE_TZ=True,
        INSTALLED_APPS=["app_jobs.django"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts["dbname"],
                "USER": parts["user"],
                "HOST": parts["host"],
                "PORT": parts.get("port", 5432),
            }
        },
        TASKS={
            "default": {
                "BACKEND": backend,
                "QUEUES": ["default", "line"],
                "OPTIONS": {"serial_queues": ["line"], "max_attempts": 2},
            }
        },
    )
    import django

    django.setup()
    import chores

    yield chores
    from django.db import connections

    connections.close_all()


def test_tasks_of_django(chores: Any, database: str, connection: psycopg.Connection[Any]) -> None:
    from django.db import transaction
    from django_tasks import TaskResultStatus
    from django_tasks.exceptions import TaskResultDoesNotExist

    from app_jobs.django import backend, conninfo

    connection.execute(
        """
        insert into app_jobs.tasks (task_identifier, keep_completed, backoff)
        select t, '1 day', '{"type": "constant", "base": "1 ms"}'
        from unnest(array['chores.wash', 'chores.iron', 'chores.burn']) as t
        """
    )
    with transaction.atomic():
        forgotten = chores.wash.enqueue("nothing")
        transaction.set_rollback(True)
    with pytest.raises(TaskResultDoesNotExist):
        chores.wash.get_result(forgotten.id)

    later = datetime.now(timezone.utc) + timedelta(days=1)
    waiting = chores.wash.using(run_after=later).enqueue("later")
    with transaction.atomic():
        results = [
            chores.burn.enqueue(),
            chores.iron.enqueue("shirt"),
            chores.wash.enqueue("shirt", hot=True),
        ]
    assert {result.status for result in results} == {TaskResultStatus.READY}
    rows = connection.execute(
        """
        select task_identifier, queue_name, priority, run_at > now() from app_jobs.jobs order by id
        """
    ).fetchall()
    assert rows == [
        ("chores.wash", None, -5, True),
        ("chores.burn", None, 0, False),
        ("chores.iron", "line", 0, False),
        ("chores.wash", None, -5, False),
    ]

    worker = Worker(conninfo(), backend.tasks())
    count = 0

    def ended(**_: Any) -> None:
        nonlocal count
        count += 1
        if count == len(results):
            worker.stop()

    backend.task_finished.connect(ended)
    worker.run()
    burnt, ironed, washed = [result.task.get_result(result.id) for result in results]
    assert (washed.status, washed.return_value) == (
        TaskResultStatus.SUCCESSFUL,
        {"washed": "shirt", "hot": True},
    )
    assert (ironed.return_value, ironed.attempts) == (2, 2)
    assert [error.exception_class for error in ironed.errors] == [ConnectionResetError]
    assert (burnt.status, burnt.attempts) == (TaskResultStatus.FAILED, 2)
    assert "too hot" in burnt.errors[1].traceback
    assert sorted(chores.done) == ["shirt", "shirt 1", "shirt 2"]
    waiting.refresh()
    assert waiting.status == TaskResultStatus.READY
