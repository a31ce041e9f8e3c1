"""app_jobs: a job queue in PostgreSQL. Producers use Client or AsyncClient, workers Worker."""

import importlib
from typing import TYPE_CHECKING, Any

from app_jobs._async_client import AsyncClient
from app_jobs._client import Client
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

if TYPE_CHECKING:
    from app_jobs._async_delayed import AsyncDelayedTasks
    from app_jobs._delayed import DelayedTasks
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

# Imported when they are asked for: a producer needs none of them.
_LATER = {
    "AsyncDelayedTasks": "app_jobs._async_delayed",
    "DelayedTasks": "app_jobs._delayed",
    "Worker": "app_jobs.worker",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
