"""The client for asyncio. The one for threads, _client.py, is generated from this file."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from importlib import metadata
from types import TracebackType
from typing import Any, TypeVar, cast, overload

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from app_jobs import _sql
from app_jobs._sql import (
    Depth,
    Finding,
    Function,
    Job,
    JobDetails,
    JobFailure,
    JobSpec,
    ListedJobs,
    ListedQueue,
    ListedTask,
    Metric,
    Once,
    Progress,
    QueueSettings,
    Report,
    RunningJobs,
    ScheduledJob,
    TaskSettings,
    TaskStats,
    Tick,
    VitalSigns,
)
from app_jobs.errors import BadArgument, SchemaMissing, translate

T = TypeVar("T")
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


class AsyncClient:
    """Calls the functions of the schema, under their names and with their argument names.

    The client opens one connection of its own when it first needs it, in autocommit: each call is
    a transaction. Calls from several asyncio tasks take turns on it. A lost connection makes the
    call that notices it raise psycopg.OperationalError; the next call connects again.

    Every method takes `connection=`: the call then joins the transaction of that connection. The
    client never commits, rolls back, closes or alters a connection that it was given.

    Errors are subclasses of AppJobsError, chosen by SQLSTATE; all others stay psycopg's.
    """

    def __init__(self, dsn: str = "", *, schema: str = "app_jobs") -> None:
        self._conninfo = _sql.conninfo(dsn)
        self._schema = schema
        self._queries: dict[Function[Any], str] = {}
        self._connection: AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()
        self._version_checked = False

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the client's own connection. A later call opens a new one."""
        async with self._lock:
            await self._disconnect()

    # --- producers ---

    async def add_job(
        self,
        db_id: uuid.UUID | str | None = None,
        identifier: str | None = None,
        payload: Any = None,
        job_key: str | None = None,
        queue_name: str | None = None,
        run_at: datetime | None = None,
        max_attempts: int | None = None,
        priority: int = 0,
        job_key_mode: str = "replace",
        attributes: Mapping[str, Any] | None = None,
        retry_after: timedelta | None = None,
        *,
        idempotency_key: str | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> Job:
        """Add a job and return it; with a `job_key`, replace or keep the one that has the key.

        `identifier` names the task, 1 to 126 characters; it is required. `payload` is anything
        that JSON can express, or RawJson; None means `{}`. `run_at` must have a time zone.
        `job_key_mode` is "replace", "preserve_run_at", "keep" or "once". `idempotency_key="k"` is
        short for `job_key="k", job_key_mode="once"`: the job that was added with this key before is
        returned, while it lives and as long as it is kept after that.
        """
        if idempotency_key is not None:
            if job_key is not None or job_key_mode != "replace":
                raise BadArgument(
                    f"idempotency_key is {idempotency_key!r}, and there is a job_key or its mode",
                    hint='Give one key: idempotency_key="k" is job_key="k", job_key_mode="once".',
                )
            job_key, job_key_mode = idempotency_key, "once"
        return await self._call(
            _sql.ADD_JOB,
            connection,
            db_id=db_id,
            identifier=identifier,
            payload=payload,
            job_key=job_key,
            queue_name=queue_name,
            run_at=run_at,
            max_attempts=max_attempts,
            priority=priority,
            job_key_mode=job_key_mode,
            attributes=attributes,
            retry_after=retry_after,
        )

    @overload
    async def add_jobs(
        self, specs: Iterable[JobSpec], *, connection: AsyncConnection[Any] | None = None
    ) -> list[int]: ...

    @overload
    async def add_jobs(
        self,
        *,
        identifier: str,
        payloads: Sequence[Any],
        db_id: uuid.UUID | str | None = None,
        queue_name: str | None = None,
        run_at: datetime | None = None,
        max_attempts: int | None = None,
        priority: int = 0,
        attributes: Mapping[str, Any] | None = None,
        retry_after: timedelta | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[int]: ...

    async def add_jobs(
        self,
        specs: Iterable[JobSpec] | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
        **options: Any,
    ) -> list[int]:
        """Add many jobs in one statement, all or nothing; return their ids in order of input.

        Either `specs`, dicts whose keys are add_job()'s argument names, or `identifier` and
        `payloads` with options that hold for all of them. 100,000 jobs in one call are normal.
        """
        if (specs is None) == ("identifier" not in options) or (specs is not None and options):
            raise BadArgument(
                "add_jobs takes either specs, or identifier and payloads",
                hint="add_jobs([{'identifier': 'task', 'payload': …}, …]) or "
                "add_jobs(identifier='task', payloads=[…]).",
            )
        if specs is not None:
            return await self._call(_sql.ADD_JOBS, connection, specs=specs)
        payloads = options.pop("payloads", None)
        if payloads is not None:
            payloads = list(payloads)  # an iterator would be used up by the first look
        function = _sql.adding(payloads)
        return await self._call(function, connection, payloads=payloads, **options)

    async def find_job(
        self,
        job_key: str,
        db_id: uuid.UUID | str | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> Job | None:
        """Return the live job that has the key, or None."""
        return await self._call(_sql.FIND_JOB, connection, job_key=job_key, db_id=db_id)

    async def cancel_job(
        self,
        job_key: str,
        db_id: uuid.UUID | str | None = None,
        reason: str | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> Job | None:
        """Cancel the job that has the key and return it as it was, or None.

        A running one is marked: its worker learns of it at its next heartbeat.
        """
        return await self._call(
            _sql.CANCEL_JOB, connection, job_key=job_key, db_id=db_id, reason=reason
        )

    async def next_run_at(
        self,
        schedule_info: Mapping[str, Any],
        after: datetime | None = None,
        time_zone: str = "UTC",
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> datetime | None:
        """Return when a schedule runs next after `after` (None: now), or None if never again.

        `schedule_info` is a dict like {"rule": "0 9 * * MON-FRI"}, {"hour": 9, "minute": 0},
        {"every": timedelta(minutes=15)} or {"at": datetime}; docs/schedules.md has all of it.
        """
        return await self._call(
            _sql.NEXT_RUN_AT,
            connection,
            schedule_info=schedule_info,
            after=after,
            time_zone=time_zone,
        )

    async def preview_schedule(
        self,
        schedule_info: Mapping[str, Any],
        count: int = 10,
        after: datetime | None = None,
        time_zone: str = "UTC",
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[datetime]:
        """Return the next `count` times (1 to 1,000) at which a schedule runs."""
        return await self._call(
            _sql.PREVIEW_SCHEDULE,
            connection,
            schedule_info=schedule_info,
            count=count,
            after=after,
            time_zone=time_zone,
        )

    # --- workers ---

    async def register_worker(
        self,
        worker_id: str,
        host: str | None = None,
        pid: int | None = None,
        task_identifiers: Sequence[str] | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> None:
        """Make a worker known, with what it can do (None: every task). heartbeat() does it too."""
        await self._call(
            _sql.REGISTER_WORKER,
            connection,
            worker_id=worker_id,
            host=host,
            pid=pid,
            task_identifiers=task_identifiers,
        )

    async def set_worker_idle(
        self, worker_id: str, idle: bool, *, connection: AsyncConnection[Any] | None = None
    ) -> None:
        """Ask to be woken by NOTIFY (True), or not. Look for jobs once more after True."""
        await self._call(_sql.SET_WORKER_IDLE, connection, worker_id=worker_id, idle=idle)

    async def idle_peers(
        self, worker_id: str, *, connection: AsyncConnection[Any] | None = None
    ) -> int:
        """Return how many workers wait to be woken for the same tasks, this one included."""
        return await self._call(_sql.IDLE_PEERS, connection, worker_id=worker_id)

    async def record_stats(
        self,
        worker_id: str,
        stats: Sequence[Mapping[str, Any]],
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> None:
        """Tell what a worker has counted since it told last; Worker does it by itself.

        A mapping per task: task_identifier, completed, failed, retried, wait_histogram,
        run_histogram, wait_seconds, run_seconds; what is left out is 0.
        """
        await self._call(_sql.RECORD_STATS, connection, worker_id=worker_id, stats=stats)

    async def get_job(
        self,
        worker_id: str,
        task_identifiers: Sequence[str] | None = None,
        job_expiry: timedelta = 4 * HOUR,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> Job | None:
        """Take the next job under a lease of `job_expiry`, or None if there is nothing to do."""
        return await self._call(
            _sql.GET_JOB,
            connection,
            worker_id=worker_id,
            task_identifiers=task_identifiers,
            job_expiry=job_expiry,
        )

    async def get_jobs(
        self,
        worker_id: str,
        task_identifiers: Sequence[str] | None = None,
        job_expiry: timedelta = 4 * HOUR,
        job_limit: int = 1,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[Job]:
        """Take up to `job_limit` jobs (1 to 10,000), in order of priority, run_at and id."""
        return await self._call(
            _sql.GET_JOBS,
            connection,
            worker_id=worker_id,
            task_identifiers=task_identifiers,
            job_expiry=job_expiry,
            job_limit=job_limit,
        )

    async def complete_job(
        self,
        worker_id: str,
        job_id: int,
        lease: int | None = None,
        result: Any = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> Job | None:
        """Finish a job; None if the worker does not hold it any more. Give its `lease`."""
        return await self._call(
            _sql.COMPLETE_JOB,
            connection,
            worker_id=worker_id,
            job_id=job_id,
            lease=lease,
            result=result,
        )

    @overload
    async def complete_jobs(
        self,
        worker_id: str,
        job_ids: Sequence[int],
        leases: Sequence[int] | None = None,
        results: Sequence[Any] | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[int]: ...

    @overload
    async def complete_jobs(
        self, *, job_ids: Sequence[int], connection: AsyncConnection[Any] | None = None
    ) -> list[Job]: ...

    async def complete_jobs(
        self,
        worker_id: str | None = None,
        job_ids: Sequence[int] | None = None,
        leases: Sequence[int] | None = None,
        results: Sequence[Any] | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[int] | list[Job]:
        """Finish jobs that a worker holds, or, without `worker_id`, jobs that no worker has leased.

        Of a worker: `leases` and `results` go with `job_ids`. Returns the ids really completed. One
        that is missing was taken over, or its row was locked by another transaction at that moment:
        heartbeat() tells which, and a job that is still held can be completed again.

        Of an operator, complete_jobs(job_ids=[…]): jobs that wait or are processing. Returns them
        as they were.
        """
        if worker_id is None:
            if leases is not None or results is not None:
                raise BadArgument(
                    "complete_jobs takes leases and results from a worker only",
                    hint="complete_jobs(worker_id, job_ids, leases, results) or "
                    "complete_jobs(job_ids=[…]).",
                )
            return await self._call(_sql.COMPLETE_JOBS_BY_ID, connection, job_ids=job_ids)
        return await self._call(
            _sql.COMPLETE_JOBS,
            connection,
            worker_id=worker_id,
            job_ids=job_ids,
            leases=leases,
            results=results,
        )

    async def fail_job(
        self,
        worker_id: str,
        job_id: int,
        error_message: str | None = None,
        lease: int | None = None,
        retry_in: timedelta | None = None,
        detail: str | None = None,
        permanent: bool = False,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> Job | None:
        """End a run as failed: retried after a back-off, or `retry_in`, or not if `permanent`."""
        return await self._call(
            _sql.FAIL_JOB,
            connection,
            worker_id=worker_id,
            job_id=job_id,
            error_message=error_message,
            lease=lease,
            retry_in=retry_in,
            detail=detail,
            permanent=permanent,
        )

    async def fail_jobs(
        self,
        worker_id: str,
        failures: Iterable[JobFailure],
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[int]:
        """End runs as failed; dicts of fail_job()'s arguments. Return the ids really failed."""
        return await self._call(_sql.FAIL_JOBS, connection, worker_id=worker_id, failures=failures)

    async def snooze_job(
        self,
        worker_id: str,
        job_id: int,
        delay: timedelta,
        lease: int | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> Job | None:
        """Put a job back for `delay`; no attempt is counted."""
        return await self._call(
            _sql.SNOOZE_JOB,
            connection,
            worker_id=worker_id,
            job_id=job_id,
            delay=delay,
            lease=lease,
        )

    async def heartbeat(
        self,
        worker_id: str,
        job_ids: Sequence[int] | None = None,
        job_expiry: timedelta | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[int]:
        """Renew the leases of `job_ids` (None: all of the worker's); return those still held.

        A missing id was taken over, or somebody wants it cancelled: stop working on it.
        """
        return await self._call(
            _sql.HEARTBEAT,
            connection,
            worker_id=worker_id,
            job_ids=job_ids,
            job_expiry=job_expiry,
        )

    async def release_jobs(
        self, worker_id: str, *, connection: AsyncConnection[Any] | None = None
    ) -> list[int]:
        """Give back all jobs that the worker holds; no attempt is counted. Return their ids."""
        return await self._call(_sql.RELEASE_JOBS, connection, worker_id=worker_id)

    # --- effects that must not be repeated ---

    async def begin_once(
        self,
        worker_id: str,
        job_id: int,
        effect_key: str,
        lease: int | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> Once:
        """Ask whether to perform an effect: (True, None), or (False, the result it had).

        Commit before performing it, and call finish_once() after it. Raises InDoubt (JQ003) if it
        was begun and never finished, UnknownJob (JQ001) or NotSupported (JQ002) if the worker
        does not hold the job any more.
        """
        return await self._call(
            _sql.BEGIN_ONCE,
            connection,
            worker_id=worker_id,
            job_id=job_id,
            effect_key=effect_key,
            lease=lease,
        )

    async def finish_once(
        self,
        worker_id: str,
        job_id: int,
        effect_key: str,
        result: Any = None,
        lease: int | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> None:
        """Note that an effect that this worker began has happened. Twice does no harm."""
        await self._call(
            _sql.FINISH_ONCE,
            connection,
            worker_id=worker_id,
            job_id=job_id,
            effect_key=effect_key,
            result=result,
            lease=lease,
        )

    async def forget_once(
        self,
        job_id: int,
        effect_key: str,
        lease: int | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> bool:
        """Let an effect be performed again (only if begun under `lease`); False if unknown."""
        return await self._call(
            _sql.FORGET_ONCE, connection, job_id=job_id, effect_key=effect_key, lease=lease
        )

    async def hold_job(
        self,
        worker_id: str,
        job_id: int,
        lease: int | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> bool:
        """Lock a job that the worker holds till the end of the transaction; False if it does not.

        Nobody can take it over meanwhile, and complete_job() in the same transaction is sure.
        """
        return await self._call(
            _sql.HOLD_JOB, connection, worker_id=worker_id, job_id=job_id, lease=lease
        )

    # --- one job at a time, by id ---
    # They wait for a job that another transaction has locked. False: not in this job's state.

    async def job_details(
        self, job_id: int, *, connection: AsyncConnection[Any] | None = None
    ) -> JobDetails | None:
        """Return a job, live or finished, or None."""
        return await self._call(_sql.JOB_DETAILS, connection, job_id=job_id)

    async def set_attributes(
        self,
        job_id: int,
        attributes: Mapping[str, Any],
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> bool:
        """Set attributes of a live job; those not named stay."""
        return await self._call(
            _sql.SET_ATTRIBUTES, connection, job_id=job_id, attributes=attributes
        )

    async def set_retry_after(
        self,
        job_id: int,
        retry_after: timedelta,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> bool:
        """Set the length of a live job's leases; an active one's lasts that long from now."""
        return await self._call(
            _sql.SET_RETRY_AFTER, connection, job_id=job_id, retry_after=retry_after
        )

    async def set_run_at(
        self, job_id: int, run_at: datetime, *, connection: AsyncConnection[Any] | None = None
    ) -> bool:
        """Set when a job that waits may run; of an active one, when it is to run again."""
        return await self._call(_sql.SET_RUN_AT, connection, job_id=job_id, run_at=run_at)

    async def move_job_to_processing(
        self, job_id: int, *, connection: AsyncConnection[Any] | None = None
    ) -> bool:
        """Let the lease of an active job never end. Call move_job_to_done() or …_failed() later."""
        return await self._call(_sql.MOVE_JOB_TO_PROCESSING, connection, job_id=job_id)

    async def move_job_to_done(
        self,
        job_id: int,
        delete_on_complete: bool = False,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> bool:
        """Complete a live job, whoever holds it; kept as long as a failed one, or not at all."""
        return await self._call(
            _sql.MOVE_JOB_TO_DONE,
            connection,
            job_id=job_id,
            delete_on_complete=delete_on_complete,
        )

    async def move_job_to_failed(
        self,
        job_id: int,
        delete_on_fail: bool = False,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> bool:
        """Fail a live job for good, whoever holds it."""
        return await self._call(
            _sql.MOVE_JOB_TO_FAILED, connection, job_id=job_id, delete_on_fail=delete_on_fail
        )

    async def delete_job(
        self, job_id: int, *, connection: AsyncConnection[Any] | None = None
    ) -> bool:
        """Delete a job, live or finished, with all that is known of it."""
        return await self._call(_sql.DELETE_JOB, connection, job_id=job_id)

    # --- schedules ---

    async def add_scheduled_job(
        self,
        db_id: uuid.UUID | str | None = None,
        identifier: str | None = None,
        payload: Any = None,
        schedule_info: Mapping[str, Any] | None = None,
        job_key: str | None = None,
        queue_name: str | None = None,
        max_attempts: int | None = None,
        priority: int = 0,
        time_zone: str = "UTC",
        missed: str = "once",
        attributes: Mapping[str, Any] | None = None,
        overlap: str = "allow",
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> ScheduledJob:
        """Add a schedule and return it; with a `job_key`, change the one that has the key.

        `schedule_info` says when: {"rule": "0 2 * * *"}, {"every": "15 minutes"}, {"hour": 2}, or
        {"at": "2030-01-01T00:00:00Z"}. `missed` is "skip", "once" or "all"; `overlap` is "allow" or
        "skip". Saying the same again changes nothing.
        """
        return await self._call(
            _sql.ADD_SCHEDULED_JOB,
            connection,
            db_id=db_id,
            identifier=identifier,
            payload=payload,
            schedule_info=schedule_info,
            job_key=job_key,
            queue_name=queue_name,
            max_attempts=max_attempts,
            priority=priority,
            time_zone=time_zone,
            missed=missed,
            attributes=attributes,
            overlap=overlap,
        )

    async def list_scheduled_jobs(
        self, key_prefix: str | None = None, *, connection: AsyncConnection[Any] | None = None
    ) -> list[ScheduledJob]:
        """Return the schedules whose key begins so (None: all), by id."""
        return await self._call(_sql.LIST_SCHEDULED_JOBS, connection, key_prefix=key_prefix)

    async def run_due_schedules(
        self, *, connection: AsyncConnection[Any] | None = None
    ) -> list[Job]:
        """Add the jobs of schedules that are due, and return them. Workers do it by themselves.

        A bounded number per call: call it again while it returns jobs. Needs READ COMMITTED.
        """
        return await self._call(_sql.RUN_DUE_SCHEDULES, connection)

    async def run_scheduled_job(
        self,
        scheduled_job_id: int,
        job_expiry: timedelta = HOUR,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> Job:
        """Add a job of a schedule now and return it.

        AlreadyScheduled (JQ004) if its last job still waits or runs; one that has been held for
        longer than `job_expiry` counts as dead.
        """
        return await self._call(
            _sql.RUN_SCHEDULED_JOB,
            connection,
            scheduled_job_id=scheduled_job_id,
            job_expiry=job_expiry,
        )

    async def get_scheduled_job(
        self,
        worker_id: str,
        task_identifiers: Sequence[str] | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> ScheduledJob | None:
        """Take a schedule for a minute, for a scheduler of your own; None if there is none to take.

        Call it every 20 seconds or so until it returns None: it also returns what you have held for
        half a minute, taken again. Run its jobs with run_scheduled_job().
        """
        return await self._call(
            _sql.GET_SCHEDULED_JOB,
            connection,
            worker_id=worker_id,
            task_identifiers=task_identifiers,
        )

    async def release_scheduled_jobs(
        self,
        worker_id: str,
        ids: Sequence[int] | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[int]:
        """Give back schedules (None: all that this scheduler holds); return their ids."""
        return await self._call(
            _sql.RELEASE_SCHEDULED_JOBS, connection, worker_id=worker_id, ids=ids
        )

    # --- housekeeping ---

    async def tick(
        self, every: timedelta | None = None, *, connection: AsyncConnection[Any] | None = None
    ) -> Tick:
        """Do a bounded piece of housekeeping: due jobs, ended leases, waiting queues, pruning.

        With `every`, only if nobody has for so long. Needs the isolation level READ COMMITTED.
        """
        return await self._call(_sql.TICK, connection, every=every)

    # --- operators ---

    async def permanently_fail_jobs(
        self,
        job_ids: Sequence[int],
        error_message: str | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[Job]:
        """Fail jobs for good that wait or are processing; return them as they were.

        A job that is leased, finished or unknown is left out.
        """
        return await self._call(
            _sql.PERMANENTLY_FAIL_JOBS, connection, job_ids=job_ids, error_message=error_message
        )

    async def cancel_jobs(
        self,
        job_ids: Sequence[int],
        reason: str | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[Job]:
        """Cancel jobs; return them as they were.

        The handler of one that runs is cancelled at its worker's next heartbeat.
        """
        return await self._call(_sql.CANCEL_JOBS, connection, job_ids=job_ids, reason=reason)

    async def reschedule_jobs(
        self,
        job_ids: Sequence[int],
        run_at: datetime | None = None,
        priority: int | None = None,
        attempts: int | None = None,
        max_attempts: int | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[Job]:
        """Change when and how jobs that wait will run; None: as it is. Return those changed."""
        return await self._call(
            _sql.RESCHEDULE_JOBS,
            connection,
            job_ids=job_ids,
            run_at=run_at,
            priority=priority,
            attempts=attempts,
            max_attempts=max_attempts,
        )

    async def retry_jobs(
        self, finished_job_ids: Sequence[int], *, connection: AsyncConnection[Any] | None = None
    ) -> list[Job]:
        """Put finished jobs, dead letters above all, back to work; return them as they are now.

        KeyInUse if a live job has the key of one of them; then none is retried.
        """
        return await self._call(_sql.RETRY_JOBS, connection, finished_job_ids=finished_job_ids)

    async def pause_queue(
        self,
        queue_name: str,
        db_id: uuid.UUID | str | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> QueueSettings:
        """Let no further job of a queue start; those that run go on."""
        return await self._call(_sql.PAUSE_QUEUE, connection, queue_name=queue_name, db_id=db_id)

    async def resume_queue(
        self,
        queue_name: str,
        db_id: uuid.UUID | str | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> QueueSettings:
        """Let a paused queue go on."""
        return await self._call(_sql.RESUME_QUEUE, connection, queue_name=queue_name, db_id=db_id)

    async def set_queue_limit(
        self,
        queue_name: str,
        max_running: int,
        db_id: uuid.UUID | str | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> QueueSettings:
        """Set how many jobs of a queue may run at once, 1 to 10,000."""
        return await self._call(
            _sql.SET_QUEUE_LIMIT,
            connection,
            queue_name=queue_name,
            max_running=max_running,
            db_id=db_id,
        )

    async def set_task(
        self,
        task: str,
        settings: Mapping[str, Any],
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> TaskSettings:
        """Set what `settings` has of a task's settings; None means the default. At once.

        Its keys are the fields of TaskSettings; durations are timedelta, or text.
        """
        return await self._call(_sql.SET_TASK, connection, task=task, settings=settings)

    async def pause_task(
        self, task: str, *, connection: AsyncConnection[Any] | None = None
    ) -> TaskSettings:
        """Let no further job of a task start; those that run go on."""
        return await self._call(_sql.PAUSE_TASK, connection, task=task)

    async def resume_task(
        self, task: str, *, connection: AsyncConnection[Any] | None = None
    ) -> TaskSettings:
        """Let a paused task go on."""
        return await self._call(_sql.RESUME_TASK, connection, task=task)

    async def prune(
        self,
        older_than: timedelta | None = None,
        batch: int = 10_000,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> int:
        """Delete up to `batch` finished jobs, the oldest first; return how many.

        Those that finished longer ago than `older_than`; None: those that are over the time for
        which their tasks keep them. Call it until it returns less than `batch`.
        """
        return await self._call(_sql.PRUNE, connection, older_than=older_than, batch=batch)

    async def sweep(self, *, connection: AsyncConnection[Any] | None = None) -> int:
        """Repair the queue after a restore or failover; return what was out of place: 0 if well."""
        return await self._call(_sql.SWEEP, connection)

    # --- monitors ---

    async def metrics(self, *, connection: AsyncConnection[Any] | None = None) -> list[Metric]:
        """Count jobs by tenant, task and queue; cheap, however many jobs wait.

        Exact for what runs and for the last thousand or so to arrive, for others that wait as of
        tick()'s last look.
        """
        return await self._call(_sql.METRICS, connection)

    async def running_jobs(
        self, *, connection: AsyncConnection[Any] | None = None
    ) -> list[RunningJobs]:
        """Tell what each worker holds, by task."""
        return await self._call(_sql.RUNNING_JOBS, connection)

    async def task_stats(
        self,
        from_: datetime,
        to: datetime,
        step: timedelta = MINUTE,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[TaskStats]:
        """Tell what workers have counted, per task and step of time; the last 7 days are kept.

        Of minutes that begin at `from_` or later and before `to`. A step is whole minutes.
        """
        arguments = {"from": from_, "to": to, "step": step}
        return await self._call(_sql.TASK_STATS, connection, **arguments)

    async def depths(
        self,
        from_: datetime,
        to: datetime,
        step: timedelta = MINUTE,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[Depth]:
        """Tell how many jobs there were, per task, queue and step of time; 7 days are kept.

        Of minutes that begin at `from_` or later and before `to`. A step is whole minutes.
        """
        arguments = {"from": from_, "to": to, "step": step}
        return await self._call(_sql.DEPTHS, connection, **arguments)

    async def histogram_bounds(
        self, *, connection: AsyncConnection[Any] | None = None
    ) -> list[float]:
        """Return the upper bounds of the buckets of histograms, in seconds; one more is beyond."""
        return await self._call(_sql.HISTOGRAM_BOUNDS, connection)

    async def histogram_quantile(
        self,
        histogram: Sequence[int],
        quantile: float,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> float | None:
        """Estimate a quantile (0.5: the median), in seconds; None if nothing was counted."""
        return await self._call(
            _sql.HISTOGRAM_QUANTILE, connection, histogram=histogram, quantile=quantile
        )

    async def set_progress(
        self,
        worker_id: str,
        reports: Sequence[Report],
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> None:
        """Say how far a worker's jobs are; it replaces what was said before."""
        await self._call(_sql.SET_PROGRESS, connection, worker_id=worker_id, reports=reports)

    async def progress(self, *, connection: AsyncConnection[Any] | None = None) -> list[Progress]:
        """Tell how far running jobs are, as far as their handlers say."""
        return await self._call(_sql.PROGRESS, connection)

    async def explain_job(
        self, job_id: int, *, connection: AsyncConnection[Any] | None = None
    ) -> str:
        """Say in one sentence why a job is not running, or that it is, and the next step."""
        return await self._call(_sql.EXPLAIN_JOB, connection, job_id=job_id)

    async def doctor(self, *, connection: AsyncConnection[Any] | None = None) -> list[Finding]:
        """Look for trouble; the worst first, or one finding of severity "ok"."""
        return await self._call(_sql.DOCTOR, connection)

    async def vital_signs(self, *, connection: AsyncConnection[Any] | None = None) -> VitalSigns:
        """Tell in figures what doctor() looks at and metrics() does not show: for alarms."""
        return await self._call(_sql.VITAL_SIGNS, connection)

    async def list_jobs(
        self,
        task: str | None = None,
        queue: str | None = None,
        db_id: uuid.UUID | str | None = None,
        state: str | None = None,
        search: str | None = None,
        before: int | None = None,
        most: int = 50,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> ListedJobs:
        """List live jobs, those added last first.

        `state` is one of ListedJob's; `search` is a part of task, queue, key, worker or error. To
        go on, give the list's `before`.
        """
        return await self._call(
            _sql.LIST_JOBS,
            connection,
            task=task,
            queue=queue,
            db_id=db_id,
            state=state,
            search=search,
            before=before,
            most=most,
        )

    async def list_finished(
        self,
        task: str | None = None,
        queue: str | None = None,
        db_id: uuid.UUID | str | None = None,
        state: str | None = None,
        search: str | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        before_id: int | None = None,
        most: int = 50,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> ListedJobs:
        """List finished jobs that are kept, those that ended last first; see list_jobs().

        `since` and `before` limit the time at which they ended. To go on, give the list's
        `before_time` and `before` as `before` and `before_id`.
        """
        return await self._call(
            _sql.LIST_FINISHED,
            connection,
            task=task,
            queue=queue,
            db_id=db_id,
            state=state,
            search=search,
            since=since,
            before=before,
            before_id=before_id,
            most=most,
        )

    async def list_queues(
        self,
        search: str | None = None,
        most: int = 100,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> list[ListedQueue]:
        """List named queues that have jobs or settings, those with most jobs first."""
        return await self._call(_sql.LIST_QUEUES, connection, search=search, most=most)

    async def list_tasks(
        self, *, connection: AsyncConnection[Any] | None = None
    ) -> list[ListedTask]:
        """List tasks that have jobs, settings or a worker."""
        return await self._call(_sql.LIST_TASKS, connection)

    async def redrive_jobs(
        self,
        task: str | None = None,
        queue: str | None = None,
        db_id: uuid.UUID | str | None = None,
        search: str | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        before_id: int | None = None,
        most: int = 1000,
        per_second: float | None = None,
        dry_run: bool = False,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> ListedJobs:
        """Put dead letters back to work that list_finished() lists for the same arguments.

        Left out are those whose key a live job has. `per_second` spreads them; `dry_run` only
        lists them.
        """
        return await self._call(
            _sql.REDRIVE_JOBS,
            connection,
            task=task,
            queue=queue,
            db_id=db_id,
            search=search,
            since=since,
            before=before,
            before_id=before_id,
            most=most,
            per_second=per_second,
            dry_run=dry_run,
        )

    async def record_action(
        self,
        actor: str,
        action: str,
        details: Mapping[str, Any] | None = None,
        *,
        connection: AsyncConnection[Any] | None = None,
    ) -> int:
        """Record who does what: give the connection of the transaction that does it."""
        return await self._call(
            _sql.RECORD_ACTION, connection, actor=actor, action=action, details=details
        )

    async def version(self, *, connection: AsyncConnection[Any] | None = None) -> str:
        """Return the version of the schema, such as "0.1.0"."""
        return await self._call(_sql.VERSION, connection)

    # --- how a call is made ---

    async def _call(
        self, function: Function[T], connection: AsyncConnection[Any] | None, /, **arguments: Any
    ) -> T:
        query = self._queries.get(function)
        if query is None:
            query = self._queries[function] = function.query(self._schema)
        parameters = function.parameters(arguments)
        try:
            if connection is not None:
                await self._check_version(connection)
                return function.decode(await _fetch(connection, query, parameters))
            async with self._lock:
                own = await self._connect()
                await self._check_version(own)
                return function.decode(await _fetch(own, query, parameters))
        except psycopg.Error as error:
            raise translate(error) from error

    async def _connect(self) -> AsyncConnection[Any]:
        if self._connection is not None:
            try:
                # Notices without a round trip that the server closed the connection meanwhile:
                # the first look reads its farewell, the second the end.
                self._connection.pgconn.consume_input()
                self._connection.pgconn.consume_input()
            except psycopg.OperationalError:
                await self._disconnect()
        if self._connection is None:
            self._connection = await AsyncConnection.connect(
                self._conninfo, autocommit=True, prepare_threshold=None
            )
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _check_version(self, connection: AsyncConnection[Any]) -> None:
        if self._version_checked:
            return
        try:
            rows = await _fetch(connection, _sql.VERSION.query(self._schema), {})
        except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction) as error:
            raise SchemaMissing(
                f'there is no app_jobs schema "{self._schema}" in database '
                f'"{connection.info.dbname}"',
                sqlstate=error.sqlstate,
                hint="Create it: app-jobs migrate.",
            ) from error
        _sql.check_version(_sql.VERSION.decode(rows), metadata.version("app-jobs"))
        self._version_checked = True


async def _fetch(
    connection: AsyncConnection[Any], query: str, parameters: Mapping[str, Any]
) -> list[_sql.Row]:
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(cast(Any, query), parameters)
        return await cursor.fetchall()
