"""app_jobs: a job queue in PostgreSQL. Producers use Client or AsyncClient, workers Worker."""

from app_jobs._async_client import AsyncClient
from app_jobs._async_delayed import AsyncDelayedTasks
from app_jobs._client import Client
from app_jobs._delayed import DelayedTasks
from app_jobs._sql import (
    BatchOptions,
    Finding,
    Job,
    JobDetails,
    JobFailure,
    JobOptions,
    JobSpec,
    Metric,
    Once,
    QueueSettings,
    RawJson,
    ScheduledJob,
    TaskSettings,
    Tick,
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
from app_jobs.tasks import Fail, JobContext, Snooze, Task, Tasks
from app_jobs.worker import Worker

__all__ = [
    "AlreadyScheduled",
    "AppJobsError",
    "AsyncClient",
    "AsyncDelayedTasks",
    "BadArgument",
    "BatchOptions",
    "Client",
    "DelayedTasks",
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
    "Metric",
    "NotPermitted",
    "NotSupported",
    "Once",
    "QueueSettings",
    "RawJson",
    "ScheduledJob",
    "SchemaMissing",
    "SchemaTooNew",
    "SchemaTooOld",
    "Snooze",
    "Task",
    "TaskSettings",
    "Tasks",
    "Tick",
    "UnknownJob",
    "VersionMismatch",
    "Worker",
]
