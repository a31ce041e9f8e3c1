"""app_jobs: a job queue in PostgreSQL. Producers use Client or AsyncClient, workers Worker.

Names are imported when they are first asked for: who needs one of them waits for no other.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app_jobs._async_client import AsyncClient
    from app_jobs._async_delayed import AsyncDelayedTasks
    from app_jobs._client import Client
    from app_jobs._delayed import DelayedTasks
    from app_jobs._sql import (
        BatchOptions,
        Depth,
        Finding,
        Job,
        JobDetails,
        JobFailure,
        JobOptions,
        JobSpec,
        ListedJob,
        ListedJobs,
        ListedQueue,
        ListedTask,
        Metric,
        Once,
        Progress,
        QueueSettings,
        RawJson,
        Report,
        RunningJobs,
        ScheduledJob,
        TaskSettings,
        TaskStats,
        Tick,
        VitalSigns,
    )
    from app_jobs.errors import (
        AlreadyScheduled,
        AppJobsError,
        BadArgument,
        ForeignSchema,
        InDoubt,
        KeyInUse,
        NotPermitted,
        NotSupported,
        SchemaMissing,
        SchemaTooNew,
        SchemaTooOld,
        UnknownJob,
        VersionMismatch,
    )
    from app_jobs.tasks import BatchContext, Fail, JobContext, Snooze, Task, Tasks
    from app_jobs.worker import Worker

__all__ = [
    "AlreadyScheduled",
    "AppJobsError",
    "AsyncClient",
    "AsyncDelayedTasks",
    "BadArgument",
    "BatchContext",
    "BatchOptions",
    "Client",
    "DelayedTasks",
    "Depth",
    "Fail",
    "Finding",
    "ForeignSchema",
    "InDoubt",
    "Job",
    "JobContext",
    "JobDetails",
    "JobFailure",
    "JobOptions",
    "JobSpec",
    "KeyInUse",
    "ListedJob",
    "ListedJobs",
    "ListedQueue",
    "ListedTask",
    "Metric",
    "NotPermitted",
    "NotSupported",
    "Once",
    "Progress",
    "QueueSettings",
    "RawJson",
    "Report",
    "RunningJobs",
    "ScheduledJob",
    "SchemaMissing",
    "SchemaTooNew",
    "SchemaTooOld",
    "Snooze",
    "Task",
    "TaskSettings",
    "TaskStats",
    "Tasks",
    "Tick",
    "UnknownJob",
    "VersionMismatch",
    "VitalSigns",
    "Worker",
]

_NAMES_IN = {
    "_async_client": "AsyncClient",
    "_async_delayed": "AsyncDelayedTasks",
    "_client": "Client",
    "_delayed": "DelayedTasks",
    "_sql": """
        BatchOptions Depth Finding Job JobDetails JobFailure JobOptions JobSpec
        ListedJob ListedJobs ListedQueue ListedTask Metric Once Progress
        QueueSettings RawJson Report RunningJobs ScheduledJob TaskSettings TaskStats
        Tick VitalSigns
    """,
    "errors": """
        AlreadyScheduled AppJobsError BadArgument ForeignSchema InDoubt KeyInUse
        NotPermitted NotSupported SchemaMissing SchemaTooNew SchemaTooOld UnknownJob
        VersionMismatch
    """,
    "tasks": "BatchContext Fail JobContext Snooze Task Tasks",
    "worker": "Worker",
}

if not TYPE_CHECKING:  # type checkers know the names, and tell of others

    def __getattr__(name: str) -> Any:
        if name in _NAMES_IN:
            return importlib.import_module(f"app_jobs.{name}")
        for module, names in _NAMES_IN.items():
            if name in names.split():
                found = getattr(importlib.import_module(f"app_jobs.{module}"), name)
                return globals().setdefault(name, found)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
