"""What requests ask for: filters, forms, and the actions behind the buttons."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qs

from psycopg import AsyncConnection
from starlette.requests import Request

from app_jobs import _sql
from app_jobs._async_client import AsyncClient
from app_jobs.errors import BadArgument

BODY = 64 * 1024  # bytes of a form at most


class Refused(Exception):
    """What was asked for is not allowed; the text says what to do."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.hint = status, message, hint


class Filter:
    """Which jobs are asked for: the arguments of list_jobs(), list_finished(), redrive_jobs()."""

    def __init__(self, given: Mapping[str, str], state: str | None = None) -> None:
        self.task = given.get("task") or None
        self.queue = given.get("queue") or None
        self.tenant = given.get("tenant") or None
        self.search = given.get("search") or None
        self.state = state or given.get("state") or None
        self.since = time_of(given, "since")
        self.before = time_of(given, "before")
        self.before_id = whole(given, "before_id")
        most = whole(given, "most")
        self.most = 1000 if most is None else most
        self.per_second = decimal(given, "per_second")

    def _shared(self) -> dict[str, Any]:
        return {"task": self.task, "queue": self.queue, "db_id": self.tenant, "search": self.search}

    async def live(self, client: AsyncClient, connection: AsyncConnection[Any]) -> _sql.ListedJobs:
        """Live jobs."""
        return await client.list_jobs(
            **self._shared(), state=self.state, before=self.before_id, connection=connection
        )

    async def finished(
        self, client: AsyncClient, connection: AsyncConnection[Any]
    ) -> _sql.ListedJobs:
        """Finished jobs."""
        return await client.list_finished(
            **self._shared(),
            state=self.state,
            since=self.since,
            before=self.before,
            before_id=self.before_id,
            connection=connection,
        )

    def redrive(self) -> dict[str, Any]:
        """The arguments of redrive_jobs()."""
        return {
            **self._shared(),
            "since": self.since,
            "before": self.before,
            "before_id": self.before_id,
            "most": self.most,
            "per_second": self.per_second,
        }

    def more(self, found: _sql.ListedJobs) -> dict[str, Any] | None:
        """What to ask for to go on; None if the list has come to its end."""
        if found.before is None:
            return None
        asked = {**self.asked(), "before_id": found.before}
        return asked | ({"before": found.before_time.isoformat()} if found.before_time else {})

    def asked(self) -> dict[str, Any]:
        """What has been asked for, without the place to begin at."""
        names = ("task", "queue", "tenant", "search", "state")
        asked = {name: getattr(self, name) for name in names if getattr(self, name)}
        for name in ("since", "before"):
            if getattr(self, name) is not None:
                asked[name] = getattr(self, name).isoformat()
        return asked


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, the first of each name."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY:
            raise Refused(413, "The form is too large.")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise Refused(400, "The form cannot be read.") from None
    return {name: values[0] for name, values in fields.items()}


def whole(given: Mapping[str, str], name: str) -> int | None:
    """A whole number; None if it was left empty."""
    text = given.get(name, "").strip()
    try:
        value = int(text) if text else None
    except ValueError:
        value = 1 << 64
    if value is not None and abs(value) >= 1 << 63:
        raise BadArgument(f"{name} is {text[:60]!r}", hint="Give a whole number.")
    return value


def decimal(given: Mapping[str, str], name: str) -> float | None:
    """A number; None if it was left empty."""
    text = given.get(name, "").strip()
    try:
        return float(text) if text else None
    except ValueError:
        raise BadArgument(f"{name} is {text[:60]!r}", hint="Give a number, like 2.5.") from None


def time_of(given: Mapping[str, str], name: str) -> datetime | None:
    """A time in UTC, as a browser's field gives it; None if it was left empty."""
    text = given.get(name, "").strip()
    try:
        value = datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
    except ValueError:
        raise BadArgument(
            f"{name} is {text[:60]!r}", hint="Give a time in UTC, like 2031-02-03T04:05."
        ) from None
    return value if value is None or value.tzinfo else value.replace(tzinfo=timezone.utc)


# --- actions -------------------------------------------------------------------------------------


class Form(dict[str, str]):
    """What a form has sent, read as numbers and times."""

    @property
    def ids(self) -> list[int]:
        """The job, or the schedule."""
        return [self.need("id")]

    @property
    def tenant(self) -> str | None:
        """Whose queue it is."""
        return self.get("tenant") or None

    def need(self, name: str) -> int:
        """A number that has to be there."""
        value = whole(self, name)
        if value is None:
            raise BadArgument(f"{name} is missing", hint="Give a whole number.")
        return value


Action = Callable[[AsyncClient, AsyncConnection[Any], Form], Awaitable[str]]


async def _retry(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
    return changed(await client.retry_jobs(form.ids, connection=connection), "back to work")


async def _cancel(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
    jobs = await client.cancel_jobs(form.ids, form.get("reason") or None, connection=connection)
    if any(job.lease_expires_at is not None for job in jobs):
        return "Marked: its worker learns of it at its next heartbeat."
    return changed(jobs, "cancelled")


async def _reschedule(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
    jobs = await client.reschedule_jobs(
        form.ids, time_of(form, "run_at"), whole(form, "priority"), connection=connection
    )
    return changed(jobs, "rescheduled")


async def _run_now(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
    row = await (await connection.execute("select now()")).fetchone()  # by the queue's own clock
    jobs = await client.reschedule_jobs(form.ids, row and row[0], connection=connection)
    return changed(jobs, "due now")


async def _redrive(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
    found = await client.redrive_jobs(
        **Filter(form, state="failed").redrive(), connection=connection
    )
    rest = "" if found.before is None else " There may be more."
    return f"{len(found)} jobs are back to work.{rest}"


async def _pause_task(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
    await client.pause_task(form["name"], connection=connection)
    return "The task is paused."


async def _resume_task(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
    await client.resume_task(form["name"], connection=connection)
    return "The task goes on."


async def _pause_queue(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
    await client.pause_queue(form["name"], form.tenant, connection=connection)
    return "The queue is paused."


async def _resume_queue(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
    await client.resume_queue(form["name"], form.tenant, connection=connection)
    return "The queue goes on."


async def _limit_queue(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
    most = form.need("max_running")
    await client.set_queue_limit(form["name"], most, form.tenant, connection=connection)
    return f"The queue runs {most} at a time."


def _pause_schedule(paused: bool) -> Action:
    async def act(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
        statement: Any = _sql.pause_schedules(client._schema)
        done = await connection.execute(statement, {"paused": paused, "ids": form.ids})
        return changed(await done.fetchall(), "paused" if paused else "resumed")

    return act


async def _run_schedule(client: AsyncClient, connection: AsyncConnection[Any], form: Form) -> str:
    job = await client.run_scheduled_job(form.need("id"), connection=connection)
    return f"Job {job.id} is added."


ACTIONS: dict[str, Action] = {
    "retry_jobs": _retry,
    "cancel_jobs": _cancel,
    "reschedule_jobs": _reschedule,
    "run_now": _run_now,
    "redrive_jobs": _redrive,
    "pause_task": _pause_task,
    "resume_task": _resume_task,
    "pause_queue": _pause_queue,
    "resume_queue": _resume_queue,
    "set_queue_limit": _limit_queue,
    "pause_schedule": _pause_schedule(True),
    "resume_schedule": _pause_schedule(False),
    "run_scheduled_job": _run_schedule,
}


def changed(rows: Sequence[Any], how: str) -> str:
    """Say that it has happened; what has changed nothing is refused, and so not recorded."""
    if not rows:
        raise Refused(
            409, "Nothing has changed.", "It is not in a state that allows this any more."
        )
    return f"{how.capitalize()}."
