"""All SQL text, the parameters that go in and the rows that come out. No I/O here.

Every function of the schema is one `Function`; clients and worker run it and hand its rows to
`decode`. Values are sent by argument name, so an argument added at the end of a signature changes
nothing for older clients. Rows are read in binary, and json as text, so that no setting of a
connection (DateStyle, IntervalStyle, json loaders) can change what they mean.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar, cast

from psycopg import BaseConnection, ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8BinaryLoader
from psycopg.types.string import TextBinaryLoader

from app_jobs._tracing import current_traceparent
from app_jobs.errors import BadArgument, SchemaTooNew, SchemaTooOld

T = TypeVar("T")
Row = tuple[Any, ...]


class RawJson(str):
    """JSON text that is to be sent as it is, byte for byte."""

    __slots__ = ()


class Job(NamedTuple):
    """A row of `jobs`: one request to run a task. `payload` and `attributes` are decoded JSON.

    What Python cannot decode (hundreds of levels, numbers of thousands of digits) stays a RawJson.
    """

    id: int
    database_id: uuid.UUID | None
    queue_name: str | None
    task_identifier: str
    payload: Any
    attributes: dict[str, Any]
    priority: int
    run_at: datetime
    attempts: int
    max_attempts: int
    lease: int
    key: str | None
    last_error: str | None
    retry_after: timedelta | None
    locked_by: str | None
    locked_at: datetime | None
    lease_expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


class JobDetails(NamedTuple):
    """A job, live or finished, as job_details() shows it.

    `state` is "created" (it waits), "active" (leased), "processing" (held with no expiry),
    "completed", "failed" or "cancelled". `started_at` is when its last run was claimed.
    """

    id: int
    task_identifier: str
    state: str
    payload: Any
    attributes: dict[str, Any]
    run_at: datetime
    started_at: datetime | None
    created_at: datetime
    retry_after: timedelta | None
    database_id: uuid.UUID | None
    queue_name: str | None
    key: str | None
    priority: int
    attempts: int
    max_attempts: int
    lease: int
    last_error: str | None
    locked_by: str | None
    lease_expires_at: datetime | None
    finished_at: datetime | None
    finished_by: str | None
    result: Any


class Once(NamedTuple):
    """Whether to perform an effect; if not, it has happened, with this result."""

    run: bool
    result: Any


class ScheduledJob(NamedTuple):
    """A row of `scheduled_jobs`: a rule that adds jobs. JSON is decoded."""

    id: int
    database_id: uuid.UUID | None
    queue_name: str | None
    task_identifier: str
    payload: Any
    attributes: dict[str, Any]
    priority: int
    max_attempts: int | None
    key: str | None
    schedule_info: dict[str, Any]
    time_zone: str
    missed: str
    overlap: str
    paused: bool
    locked_at: datetime | None
    locked_by: str | None
    last_scheduled: datetime | None
    last_scheduled_id: int | None
    next_run_at: datetime | None


class Tick(NamedTuple):
    """What tick() did, in numbers of jobs or slots, and when the next scheduled job is due."""

    next_due_at: datetime | None
    made_ready: int
    expired: int
    moved: int
    closed: int
    relisted: int
    pruned: int


class QueueSettings(NamedTuple):
    """A row of `queue_settings`: what is set for a queue."""

    database_id: uuid.UUID | None
    queue_name: str
    max_running: int
    paused: bool


class TaskSettings(NamedTuple):
    """A row of `tasks`: what is set for a task, and the defaults of the rest."""

    task_identifier: str
    max_attempts: int | None
    retry_after: timedelta | None
    timeout: timedelta | None
    backoff: dict[str, Any] | None
    keep_completed: timedelta
    keep_failed: timedelta
    paused: bool


class Metric(NamedTuple):
    """How many jobs there are of one tenant, task and queue; see the view `metrics`."""

    database_id: uuid.UUID | None
    task_identifier: str
    queue_name: str | None
    ready: int
    scheduled: int
    running: int
    parked: int
    expired: int
    oldest_ready_age: timedelta | None
    failed_1h: int


class TaskStats(NamedTuple):
    """What workers counted of a task in a step of time, from `at` on; see task_stats().

    The histograms have a count per bucket of histogram_bounds(), and one beyond the last.
    """

    at: datetime
    task_identifier: str
    completed: int
    failed: int
    retried: int
    wait_histogram: list[int]
    run_histogram: list[int]
    wait_seconds: float
    run_seconds: float


class Depth(NamedTuple):
    """How many jobs there were in a step of time, from `at` on; see depths().

    `kind` is task or queue, and `name` its name. Each figure is the highest within the step.
    """

    at: datetime
    kind: str
    name: str
    ready: int
    scheduled: int
    running: int
    parked: int
    oldest_ready_age: timedelta | None


class Finding(NamedTuple):
    """What doctor() found: severity is critical, warning, info, or ok if there is nothing else."""

    severity: str
    finding: str
    figure: str
    remedy: str


class VitalSigns(NamedTuple):
    """What doctor() looks at, in figures; see vital_signs()."""

    ticked_ago: timedelta | None
    schedules_behind: int
    schedule_delay: timedelta
    oldest_transaction: timedelta
    transactions_behind: int
    sees_sessions: bool


class RunningJobs(NamedTuple):
    """How many jobs of a task a worker holds, and since when the first of them."""

    worker_id: str
    task_identifier: str
    jobs: int
    since: datetime


class ListedJob(NamedTuple):
    """A job in a list, live or finished, without its payload; `last_error` is the first line.

    `state` is "ready", "parked", "scheduled", "running", "processing", "completed", "failed" or
    "cancelled". `held_by` and `held_since` say who runs it, or has run it last, and since when.
    """

    id: int
    state: str
    task_identifier: str
    queue_name: str | None
    database_id: uuid.UUID | None
    key: str | None
    priority: int
    run_at: datetime
    attempts: int
    max_attempts: int
    created_at: datetime
    held_by: str | None
    held_since: datetime | None
    finished_at: datetime | None
    last_error: str | None


class ListedJobs(list[ListedJob]):
    """Jobs of a list, and where to go on: None if it has come to its end.

    A list is bounded in what it looks at, so it may have few jobs, or none, and yet go on:
    `client.list_jobs(…, before=jobs.before)`,
    `client.list_finished(…, before=jobs.before_time, before_id=jobs.before)`.
    """

    before: int | None = None
    before_time: datetime | None = None


class ListedQueue(NamedTuple):
    """A named queue with its counts and settings."""

    database_id: uuid.UUID | None
    queue_name: str
    ready: int
    scheduled: int
    running: int
    parked: int
    oldest_ready_age: timedelta | None
    max_running: int
    paused: bool


class ListedTask(NamedTuple):
    """A task with its counts, the number of its workers, and its settings (None: the default)."""

    task_identifier: str
    ready: int
    scheduled: int
    running: int
    parked: int
    expired: int
    oldest_ready_age: timedelta | None
    failed_1h: int
    workers: int
    paused: bool
    max_attempts: int | None
    retry_after: timedelta | None
    timeout: timedelta | None
    keep_completed: timedelta | None
    keep_failed: timedelta | None


class Progress(NamedTuple):
    """How far a running job is, 0 to 1, as its handler says, and since when it has said that."""

    worker_id: str
    id: int
    task_identifier: str
    done: float
    note: str | None
    since: datetime


class BatchOptions(TypedDict, total=False):
    """What can be said about each of many jobs of a task: arguments of add_jobs()."""

    db_id: uuid.UUID | str | None
    queue_name: str | None
    run_at: datetime | None
    max_attempts: int | None
    priority: int
    attributes: Mapping[str, Any] | None
    retry_after: timedelta | None


class _KeyOptions(BatchOptions, total=False):
    job_key: str | None
    job_key_mode: Literal["replace", "preserve_run_at", "keep", "once"]


class JobOptions(_KeyOptions, total=False):
    """What can be said about a job besides its task and payload: arguments of add_job()."""

    idempotency_key: str | None


class ScheduleOptions(TypedDict, total=False):
    """What @tasks.task() says about the schedule of its task: see Tasks.schedule()."""

    key: str | None
    cron: str | None
    every: timedelta | str | None
    schedule: Mapping[str, Any] | None
    tz: str
    payload: Any
    missed: Literal["skip", "once", "all"]
    overlap: Literal["allow", "skip"]
    attributes: Mapping[str, Any] | None


class JobSpec(_KeyOptions, total=False):
    """One job for add_jobs(): the arguments of add_job(); `identifier` is required."""

    identifier: str
    payload: Any


class JobFailure(TypedDict, total=False):
    """One failed run for fail_jobs(): the arguments of fail_job(); `job_id` is required."""

    job_id: int
    error_message: str | None
    lease: int | None
    retry_in: timedelta | None
    detail: str | None
    permanent: bool


class Report(TypedDict, total=False):
    """How far one job is, for set_progress(): 0 to 1; all but `note` are required."""

    job_id: int
    lease: int
    done: float
    note: str | None


_MOMENTS = ("run_at", "locked_at", "lease_expires_at", "created_at", "updated_at")
JOB_COLUMNS = (
    "id, database_id, queue_name, task_identifier, payload::text, attributes::text, priority,"
    " run_at, attempts, max_attempts, lease, key, last_error, retry_after, locked_by, locked_at,"
    " lease_expires_at, created_at, updated_at"
)
# The same for the worker, which decodes what is asked for (claimed_job()): a time is 1.5 µs of
# psycopg's time, a json cast to text a good deal of the server's. What goes without saying is null.
CLAIM_COLUMNS = (
    "id, database_id, queue_name, task_identifier, payload, nullif(attributes, '{}'), priority,"
    " run_at, attempts, max_attempts, lease, key, last_error, retry_after, null, locked_at,"
    " lease_expires_at, created_at, null"
)

DETAIL_COLUMNS = ", ".join(
    f"{name}::text" if name in ("payload", "attributes", "result") else name
    for name in JobDetails._fields
)

# Where a row has what the worker looks at without decoding the whole.
ID = Job._fields.index("id")
QUEUE = Job._fields.index("queue_name")
TASK = Job._fields.index("task_identifier")
PAYLOAD = Job._fields.index("payload")
ATTRIBUTES = Job._fields.index("attributes")
ATTEMPTS = Job._fields.index("attempts")
MAX_ATTEMPTS = Job._fields.index("max_attempts")
LEASE = Job._fields.index("lease")
RUN_AT = Job._fields.index("run_at")
LOCKED_AT = Job._fields.index("locked_at")
LEASE_EXPIRES_AT = Job._fields.index("lease_expires_at")
_LOCKED_BY = Job._fields.index("locked_by")
_UPDATED_AT = Job._fields.index("updated_at")
_MOMENT_INDEXES = [Job._fields.index(name) for name in _MOMENTS]

_STATE = ListedJob._fields.index("state")
_FINISHED_AT = ListedJob._fields.index("finished_at")

_SCHEDULE_JSON = ("payload", "attributes", "schedule_info")
SCHEDULE_COLUMNS = ", ".join(
    f"{name}::text" if name in _SCHEDULE_JSON else name for name in ScheduledJob._fields
)


# --- what comes out ------------------------------------------------------------------------------

_decoder = json.JSONDecoder()
_scan: Callable[[str, int], tuple[Any, int]] = vars(_decoder)["scan_once"]  # not in typeshed


def from_json(text: str) -> Any:
    """Decode JSON text, as json.loads() does."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:  # white space in front, which decode() looks for first, at some cost
        return _decoder.decode(text)
    return value if end == len(text) else _decoder.decode(text)


def as_far_as_possible(text: str) -> Any:
    """Decode JSON text; what is too deep, or has too long numbers, for Python stays text.

    So nobody who adds a job can make those fail who read many.
    """
    try:
        return from_json(text)
    except (ValueError, RecursionError):
        return RawJson(text)


def job(row: Row) -> Job:
    """Decode a row of JOB_COLUMNS."""
    values = list(row)
    values[PAYLOAD] = as_far_as_possible(row[PAYLOAD])
    values[ATTRIBUTES] = as_far_as_possible(row[ATTRIBUTES])
    return Job(*values)


_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)  # PostgreSQL's


def read_raw(connection: BaseConnection[Any]) -> None:
    """Have a connection leave times as microseconds since 2000, and JSON as text."""
    connection.adapters.register_loader("timestamptz", Int8BinaryLoader)
    connection.adapters.register_loader("json", TextBinaryLoader)
    connection.adapters.register_loader("jsonb", TextBinaryLoader)


def claimed_attributes(row: Row) -> str:
    """Return the attributes in a row of CLAIM_COLUMNS, as JSON text."""
    # the binary form of jsonb begins with its version
    return "{}" if row[ATTRIBUTES] is None else cast("str", row[ATTRIBUTES][1:])


def claimed_job(row: Row, worker_id: str) -> Job:
    """Decode a row of CLAIM_COLUMNS that came over a connection with read_raw()."""
    values = list(row)
    values[PAYLOAD] = as_far_as_possible(row[PAYLOAD])
    values[ATTRIBUTES] = as_far_as_possible(claimed_attributes(row))
    values[_LOCKED_BY] = worker_id
    values[_UPDATED_AT] = row[LOCKED_AT]  # a claim sets both
    for index in _MOMENT_INDEXES:
        values[index] = _EPOCH + timedelta(microseconds=values[index])
    return Job(*values)


def scheduled_job(row: Row) -> ScheduledJob:
    """Decode a row of SCHEDULE_COLUMNS."""
    return ScheduledJob(
        *(
            as_far_as_possible(value) if name in _SCHEDULE_JSON else value
            for name, value in zip(ScheduledJob._fields, row, strict=True)
        )
    )


def _one_scheduled_job(rows: Sequence[Row]) -> ScheduledJob | None:
    return scheduled_job(rows[0]) if rows[0][0] is not None else None


def _one_job(rows: Sequence[Row]) -> Job | None:
    # A function that returns one composite value answers "nothing" with a row of nulls.
    return job(rows[0]) if rows and rows[0][0] is not None else None


def _details(rows: Sequence[Row]) -> JobDetails | None:
    values = dict(zip(JobDetails._fields, rows[0], strict=True))
    if values["id"] is None:
        return None
    for name in ("payload", "attributes", "result"):
        if values[name] is not None:
            values[name] = as_far_as_possible(values[name])
    return JobDetails(**values)


def _once(rows: Sequence[Row]) -> Once:
    run, result = rows[0]
    return Once(run, None if result is None else from_json(result))


def _the_job(rows: Sequence[Row]) -> Job:
    return job(rows[0])


def _jobs(rows: Sequence[Row]) -> list[Job]:
    return [job(row) for row in rows]


def _queue_settings(rows: Sequence[Row]) -> QueueSettings:
    return QueueSettings(*rows[0])


def _task_settings(rows: Sequence[Row]) -> TaskSettings:
    values = dict(zip(TaskSettings._fields, rows[0], strict=True))
    values["backoff"] = values["backoff"] and from_json(values["backoff"])
    return TaskSettings(**values)


def _listed_jobs(rows: Sequence[Row]) -> ListedJobs:
    jobs = ListedJobs(ListedJob(*row) for row in rows if row[_STATE] is not None)
    if rows and rows[-1][_STATE] is None:
        jobs.before, jobs.before_time = rows[-1][0], rows[-1][_FINISHED_AT]
    return jobs


def _first_of_each(rows: Sequence[Row]) -> list[Any]:
    return [row[0] for row in rows]


def _only_value(rows: Sequence[Row]) -> Any:
    return rows[0][0]


def _nothing(rows: Sequence[Row]) -> None:
    return None


# --- what goes in --------------------------------------------------------------------------------

# Escaped to ASCII: any Python string, lone surrogates included, then fits any database encoding.
_encode_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def to_json(argument: str, value: Any) -> str:
    """Return the JSON text of `value`; BadArgument if it has none."""
    if isinstance(value, RawJson):
        return value
    try:
        return _encode_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadArgument(
            f"{argument} is not JSON: {error}",
            hint="Use dicts with string keys, lists, strings, finite numbers, booleans and None, "
            "or RawJson for JSON text.",
        ) from None


def _optional_json(argument: str, value: Any) -> str | None:
    return None if value is None else to_json(argument, value)


def _tenant(argument: str, value: uuid.UUID | str | None) -> str | None:
    if value is None or isinstance(value, uuid.UUID):
        return None if value is None else str(value)
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError):
        raise BadArgument(
            f"{argument} is not a uuid: {value!r}",
            hint="db_id, the tenant, comes first; give the task as identifier=… .",
        ) from None


def _moment(argument: str, value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.utcoffset() is None:
        raise BadArgument(
            f"{argument} has no time zone: {value.isoformat()}",
            hint="Use datetime.now(timezone.utc), or value.astimezone() for local time.",
        )
    return value.isoformat()


def _duration(argument: str, value: timedelta | None) -> str | None:
    # ISO 8601, since it means the same under every IntervalStyle.
    return None if value is None else f"PT{value / timedelta(seconds=1):.6f}S"


# Arrays go in their text form: psycopg's own list dumper costs more than to encode what is in them.


def _array_text(elements: Iterable[str | None]) -> str:
    """Return the text of an array."""
    return "{" + ",".join(map(_quoted_element, elements)) + "}"


def _quoted_element(element: str | None) -> str:
    if element is None:
        return "null"
    return '"' + element.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text_array(argument: str, values: Iterable[str] | None) -> str | None:
    if values is None:
        return None
    texts = list(values)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadArgument(f"{argument}[{index}] is no text: {text!r:.100}", hint="Give a str.")
    return _array_text(texts)


def _int_array(argument: str, values: Iterable[int | None] | None) -> str | None:
    if values is None:
        return None
    return "{" + ",".join(["null" if v is None else str(int(v)) for v in values]) + "}"


def _json_array(argument: str, values: Sequence[Any] | None) -> str | None:
    if values is None:
        return None
    return _array_text(
        _optional_json(f"{argument}[{index}]", value) for index, value in enumerate(values)
    )


def _payload_list(argument: str, payloads: Sequence[Any]) -> str:
    """Return a JSON array. To make it at once takes a fifth of the time."""
    values = [{} if payload is None else payload for payload in payloads]
    try:
        return _encode_json(values)
    except (TypeError, ValueError, RecursionError):
        # the one that has no JSON text is named
        texts = [to_json(f"{argument}[{index}]", value) for index, value in enumerate(values)]
        return "[" + ",".join(texts) + "]"


def _member(argument: str, value: Any) -> str:
    if isinstance(value, timedelta):
        value = _duration(argument, value)
    elif isinstance(value, datetime):
        value = _moment(argument, value)
    elif isinstance(value, uuid.UUID):
        value = str(value)
    return to_json(argument, value)


def _object(argument: str, element: Mapping[str, Any]) -> str:
    """Return a JSON object; a member that is None is left out."""
    members = (
        f"{to_json(argument, key)}:{_member(f'{argument}.{key}', value)}"
        for key, value in element.items()
        if value is not None
    )
    return "{" + ",".join(members) + "}"


def _objects(argument: str, objects: Iterable[Mapping[str, Any]]) -> str:
    """Return a JSON array of objects whose keys are argument names."""
    elements = []
    for index, element in enumerate(objects):
        if not isinstance(element, Mapping):
            raise BadArgument(
                f"{argument}[{index}] is not a dict: {element!r:.100}",
                hint="Each element is a dict of argument names and values.",
            )
        elements.append(_object(f"{argument}[{index}]", element))
    return "[" + ",".join(elements) + "]"


def _settings(argument: str, members: Mapping[str, Any]) -> str:
    """Return a JSON object in which None means null."""
    return to_json(
        argument,
        {
            name: _duration(name, value) if isinstance(value, timedelta) else value
            for name, value in members.items()
        },
    )


def _schedule(argument: str, value: Any) -> str | None:
    if isinstance(value, Mapping):
        return _object(argument, value)
    return _optional_json(argument, value)


def _attributes(argument: str, value: Any) -> str | None:
    return _optional_json(argument, _traced(value, current_traceparent()))


def _specs(argument: str, specs: Iterable[Any]) -> str:
    traceparent = current_traceparent()
    if traceparent is not None:
        specs = [
            {**spec, "attributes": _traced(spec.get("attributes"), traceparent)}
            if isinstance(spec, Mapping)
            else spec
            for spec in specs
        ]
    return _objects(argument, specs)


def _traced(attributes: Any, traceparent: str | None) -> Any:
    """Return the attributes, with the current trace unless they name one."""
    if traceparent is None or not isinstance(attributes, Mapping | None):
        return attributes
    return {"traceparent": traceparent, **(attributes or {})}


@dataclass(frozen=True, slots=True)
class _Kind:
    """An SQL type, how a Python value becomes one of it, and the expression that it stands in."""

    type: str
    encode: Callable[[str, Any], Any] = lambda argument, value: value
    within: str = "{}"


_TEXT = _Kind("text")
_INTEGER = _Kind("integer")
_BIGINT = _Kind("bigint")
_NUMERIC = _Kind("numeric")
_BOOLEAN = _Kind("boolean")
_UUID = _Kind("uuid", _tenant)
_JSON = _Kind("json", _optional_json)
_JSONB = _Kind("jsonb", _optional_json)
_ATTRIBUTES = _Kind("jsonb", _attributes)
_SPECS = _Kind("json", _specs)
_SETTINGS = _Kind("json", _settings)
_OBJECTS = _Kind("json", _objects)
_SCHEDULE = _Kind("json", _schedule)
_FLOAT = _Kind("double precision")
_MOMENT = _Kind("timestamptz", _moment)
_DURATION = _Kind("interval", _duration)
_FROM_NOW = _Kind("interval", _duration, "pg_catalog.clock_timestamp() + {}")
_TEXTS = _Kind("text[]", _text_array)
_BIGINTS = _Kind("bigint[]", _int_array)
_INTEGERS = _Kind("integer[]", _int_array)
_JSONS = _Kind("json[]", _json_array)
_PAYLOADS = _Kind("json", _payload_list, "array(select pg_catalog.json_array_elements({}))")


def _as_text(value: Any) -> str | None:
    """Return the text by which PostgreSQL knows a value, as encoded for a placeholder."""
    return None if value is None else str(value)


# --- the functions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Function(Generic[T]):
    """A function of the schema: its arguments in their order, and what its rows mean."""

    name: str
    arguments: Mapping[str, _Kind]
    decode: Callable[[Sequence[Row]], T]
    columns: str = "*"

    def query(self, schema: str) -> str:
        """Return the statement, with a named placeholder per argument."""
        arguments = ", ".join(
            f"{quoted(name)} => " + kind.within.format(f"%({name})s::{kind.type}")
            for name, kind in self.arguments.items()
        )
        return f"select {self.columns} from {quoted(schema)}.{self.name}({arguments})"

    def parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the placeholders' values; an argument that is not given is null, the default."""
        return {name: kind.encode(name, values.get(name)) for name, kind in self.arguments.items()}

    def text_query(self, schema: str, placeholder: Callable[[str, int], str]) -> str:
        """Return the statement for any driver: `placeholder` is given a name and its number.

        All values are text, which every driver can send, whatever it makes of the other types.
        """
        arguments = ", ".join(
            f"{name} => "
            + kind.within.format(f"cast(cast({placeholder(name, number)} as text) as {kind.type})")
            for number, (name, kind) in enumerate(self.arguments.items(), 1)
        )
        name = quoted(schema).replace("%%", "%")
        return f"select {self.columns} from {name}.{self.name}({arguments})"

    def text_parameters(self, values: Mapping[str, Any]) -> dict[str, str | None]:
        """Return the values of text_query()'s placeholders."""
        return {name: _as_text(value) for name, value in self.parameters(values).items()}


@dataclass(frozen=True, slots=True, eq=False)
class Query(Function[T]):
    """A statement that is run like a function; it names its values and {schema} in braces."""

    text: str = ""

    def query(self, schema: str) -> str:
        """Return the statement, with a named placeholder per value."""
        values = {name: f"%({name})s::{kind.type}" for name, kind in self.arguments.items()}
        return self.text.format(schema=quoted(schema), **values)

    def text_query(self, schema: str, placeholder: Callable[[str, int], str]) -> str:
        """Return the statement for any driver, as Function does."""
        values = {
            name: f"cast(cast({placeholder(name, number)} as text) as {kind.type})"
            for number, (name, kind) in enumerate(self.arguments.items(), 1)
        }
        return self.text.format(schema=quoted(schema).replace("%%", "%"), **values)


_WHEN = {
    "queue_name": _TEXT,
    "run_at": _MOMENT,
    "max_attempts": _INTEGER,
    "priority": _INTEGER,
}
_WHAT_ELSE = {"attributes": _ATTRIBUTES, "retry_after": _DURATION}

ADD_JOB = Function(
    "add_job",
    {
        "db_id": _UUID,
        "identifier": _TEXT,
        "payload": _JSON,
        "job_key": _TEXT,
        **_WHEN,
        "job_key_mode": _TEXT,
        **_WHAT_ELSE,
    },
    _the_job,
    JOB_COLUMNS,
)
ADD_JOBS = Function("add_jobs", {"specs": _SPECS}, _first_of_each)
ADD_JOBS_OF_TASK = Function(
    "add_jobs",
    {"identifier": _TEXT, "payloads": _PAYLOADS, "db_id": _UUID, **_WHEN, **_WHAT_ELSE},
    _first_of_each,
)
ADD_RAW_JOBS_OF_TASK = Function(
    "add_jobs", {**ADD_JOBS_OF_TASK.arguments, "payloads": _JSONS}, _first_of_each
)


def adding(payloads: Sequence[Any] | None) -> Function[list[int]]:
    """Return the function for jobs of one task: RawJson goes in an array of texts, as it is."""
    if payloads is None or any(isinstance(payload, RawJson) for payload in payloads):
        return ADD_RAW_JOBS_OF_TASK
    return ADD_JOBS_OF_TASK


FIND_JOB = Function("find_job", {"job_key": _TEXT, "db_id": _UUID}, _one_job, JOB_COLUMNS)
CANCEL_JOB = Function(
    "cancel_job", {"job_key": _TEXT, "db_id": _UUID, "reason": _TEXT}, _one_job, JOB_COLUMNS
)
_SCHEDULED = {"after": _MOMENT, "time_zone": _TEXT}
NEXT_RUN_AT: Function[datetime | None] = Function(
    "next_run_at", {"schedule_info": _SCHEDULE, **_SCHEDULED}, _only_value
)
PREVIEW_SCHEDULE: Function[list[datetime]] = Function(
    "preview_schedule",
    {"schedule_info": _SCHEDULE, "count": _INTEGER, **_SCHEDULED},
    _first_of_each,
)
REGISTER_WORKER = Function(
    "register_worker",
    {"worker_id": _TEXT, "host": _TEXT, "pid": _INTEGER, "task_identifiers": _TEXTS},
    _nothing,
)
SET_WORKER_IDLE = Function("set_worker_idle", {"worker_id": _TEXT, "idle": _BOOLEAN}, _nothing)
IDLE_PEERS: Function[int] = Function("idle_peers", {"worker_id": _TEXT}, _only_value)
GET_JOB = Function(
    "get_job",
    {"worker_id": _TEXT, "task_identifiers": _TEXTS, "job_expiry": _DURATION},
    _one_job,
    JOB_COLUMNS,
)
GET_JOBS = Function(
    "get_jobs",
    {
        "worker_id": _TEXT,
        "task_identifiers": _TEXTS,
        "job_expiry": _DURATION,
        "job_limit": _INTEGER,
    },
    _jobs,
    JOB_COLUMNS,
)
COMPLETE_JOB = Function(
    "complete_job",
    {"worker_id": _TEXT, "job_id": _BIGINT, "lease": _INTEGER, "result": _JSON},
    _one_job,
    JOB_COLUMNS,
)
COMPLETE_JOBS = Function(
    "complete_jobs",
    {"worker_id": _TEXT, "job_ids": _BIGINTS, "leases": _INTEGERS, "results": _JSONS},
    _first_of_each,
)
FAIL_JOB = Function(
    "fail_job",
    {
        "worker_id": _TEXT,
        "job_id": _BIGINT,
        "error_message": _TEXT,
        "lease": _INTEGER,
        "retry_in": _DURATION,
        "detail": _TEXT,
        "permanent": _BOOLEAN,
    },
    _one_job,
    JOB_COLUMNS,
)
FAIL_JOBS = Function("fail_jobs", {"worker_id": _TEXT, "failures": _OBJECTS}, _first_of_each)
SNOOZE_JOB = Function(
    "snooze_job",
    {"worker_id": _TEXT, "job_id": _BIGINT, "delay": _DURATION, "lease": _INTEGER},
    _one_job,
    JOB_COLUMNS,
)
HEARTBEAT = Function(
    "heartbeat",
    {"worker_id": _TEXT, "job_ids": _BIGINTS, "job_expiry": _DURATION},
    _first_of_each,
)
RELEASE_JOBS = Function("release_jobs", {"worker_id": _TEXT}, _first_of_each)
HOLD_JOB: Function[bool] = Function(
    "hold_job", {"worker_id": _TEXT, "job_id": _BIGINT, "lease": _INTEGER}, _only_value
)
BEGIN_ONCE = Function(
    "begin_once",
    {"worker_id": _TEXT, "job_id": _BIGINT, "effect_key": _TEXT, "lease": _INTEGER},
    _once,
    "run, result::text",
)
FINISH_ONCE = Function(
    "finish_once",
    {
        "worker_id": _TEXT,
        "job_id": _BIGINT,
        "effect_key": _TEXT,
        "result": _JSON,
        "lease": _INTEGER,
    },
    _nothing,
)
FORGET_ONCE: Function[bool] = Function(
    "forget_once", {"job_id": _BIGINT, "effect_key": _TEXT, "lease": _INTEGER}, _only_value
)
JOB_DETAILS = Function("job_details", {"job_id": _BIGINT}, _details, DETAIL_COLUMNS)
SET_ATTRIBUTES: Function[bool] = Function(
    "set_attributes", {"job_id": _BIGINT, "attributes": _JSONB}, _only_value
)
SET_RETRY_AFTER: Function[bool] = Function(
    "set_retry_after", {"job_id": _BIGINT, "retry_after": _DURATION}, _only_value
)
SET_RUN_AT: Function[bool] = Function(
    "set_run_at", {"job_id": _BIGINT, "run_at": _MOMENT}, _only_value
)
MOVE_JOB_TO_PROCESSING: Function[bool] = Function(
    "move_job_to_processing", {"job_id": _BIGINT}, _only_value
)
MOVE_JOB_TO_DONE: Function[bool] = Function(
    "move_job_to_done", {"job_id": _BIGINT, "delete_on_complete": _BOOLEAN}, _only_value
)
MOVE_JOB_TO_FAILED: Function[bool] = Function(
    "move_job_to_failed", {"job_id": _BIGINT, "delete_on_fail": _BOOLEAN}, _only_value
)
DELETE_JOB: Function[bool] = Function("delete_job", {"job_id": _BIGINT}, _only_value)
ADD_SCHEDULED_JOB = Function(
    "add_scheduled_job",
    {
        "db_id": _UUID,
        "identifier": _TEXT,
        "payload": _JSON,
        "schedule_info": _SCHEDULE,
        "job_key": _TEXT,
        "queue_name": _TEXT,
        "max_attempts": _INTEGER,
        "priority": _INTEGER,
        "time_zone": _TEXT,
        "missed": _TEXT,
        "attributes": _JSONB,
        "overlap": _TEXT,
    },
    lambda rows: scheduled_job(rows[0]),
    SCHEDULE_COLUMNS,
)
LIST_SCHEDULED_JOBS = Function(
    "list_scheduled_jobs",
    {"key_prefix": _TEXT},
    lambda rows: [scheduled_job(row) for row in rows],
    SCHEDULE_COLUMNS,
)
RUN_DUE_SCHEDULES = Function("run_due_schedules", {}, _jobs, JOB_COLUMNS)
RUN_SCHEDULED_JOB = Function(
    "run_scheduled_job",
    {"scheduled_job_id": _BIGINT, "job_expiry": _DURATION},
    _the_job,
    JOB_COLUMNS,
)
GET_SCHEDULED_JOB = Function(
    "get_scheduled_job",
    {"worker_id": _TEXT, "task_identifiers": _TEXTS},
    _one_scheduled_job,
    SCHEDULE_COLUMNS,
)
RELEASE_SCHEDULED_JOBS = Function(
    "release_scheduled_jobs", {"worker_id": _TEXT, "ids": _BIGINTS}, _first_of_each
)
TICK = Function(
    "tick",
    {"every": _DURATION},
    lambda rows: Tick(*rows[0]),
    "next_due_at, made_ready, expired, moved, closed, relisted, pruned",
)
COMPLETE_JOBS_BY_ID = Function("complete_jobs", {"job_ids": _BIGINTS}, _jobs, JOB_COLUMNS)
PERMANENTLY_FAIL_JOBS = Function(
    "permanently_fail_jobs", {"job_ids": _BIGINTS, "error_message": _TEXT}, _jobs, JOB_COLUMNS
)
CANCEL_JOBS = Function("cancel_jobs", {"job_ids": _BIGINTS, "reason": _TEXT}, _jobs, JOB_COLUMNS)
RESCHEDULE_JOBS = Function(
    "reschedule_jobs",
    {
        "job_ids": _BIGINTS,
        "run_at": _MOMENT,
        "priority": _INTEGER,
        "attempts": _INTEGER,
        "max_attempts": _INTEGER,
    },
    _jobs,
    JOB_COLUMNS,
)
RETRY_JOBS = Function("retry_jobs", {"finished_job_ids": _BIGINTS}, _jobs, JOB_COLUMNS)
_QUEUE = {"queue_name": _TEXT, "db_id": _UUID}
PAUSE_QUEUE = Function("pause_queue", _QUEUE, _queue_settings, ", ".join(QueueSettings._fields))
RESUME_QUEUE = Function("resume_queue", _QUEUE, _queue_settings, ", ".join(QueueSettings._fields))
SET_QUEUE_LIMIT = Function(
    "set_queue_limit",
    {"queue_name": _TEXT, "max_running": _INTEGER, "db_id": _UUID},
    _queue_settings,
    ", ".join(QueueSettings._fields),
)
_TASK_COLUMNS = ", ".join(TaskSettings._fields).replace("backoff", "backoff::text")
SET_TASK = Function(
    "set_task", {"task": _TEXT, "settings": _SETTINGS}, _task_settings, _TASK_COLUMNS
)
PAUSE_TASK = Function("pause_task", {"task": _TEXT}, _task_settings, _TASK_COLUMNS)
RESUME_TASK = Function("resume_task", {"task": _TEXT}, _task_settings, _TASK_COLUMNS)
PRUNE: Function[int] = Function("prune", {"older_than": _DURATION, "batch": _INTEGER}, _only_value)
SWEEP: Function[int] = Function("sweep", {}, _only_value)
METRICS = Function(
    "metrics",
    {},
    lambda rows: [Metric(*row) for row in rows],
    "database_id, task_identifier, queue_name, ready, scheduled, running, parked, expired,"
    " oldest_ready_age, failed_1h",
)
RUNNING_JOBS = Function(
    "running_jobs",
    {},
    lambda rows: [RunningJobs(*row) for row in rows],
    "worker_id, task_identifier, jobs, since",
)
RECORD_STATS = Function("record_stats", {"worker_id": _TEXT, "stats": _JSON}, _nothing)
TASK_STATS = Function(
    "task_stats",
    {"from": _MOMENT, "to": _MOMENT, "step": _DURATION},
    lambda rows: [TaskStats(*row) for row in rows],
    ", ".join(TaskStats._fields),
)
DEPTHS = Function(
    "depths",
    {"from": _MOMENT, "to": _MOMENT, "step": _DURATION},
    lambda rows: [Depth(*row) for row in rows],
    ", ".join(Depth._fields),
)
HISTOGRAM_BOUNDS: Function[list[float]] = Function("histogram_bounds", {}, _only_value)
HISTOGRAM_QUANTILE: Function[float | None] = Function(
    "histogram_quantile", {"histogram": _BIGINTS, "quantile": _FLOAT}, _only_value
)
SET_PROGRESS = Function("set_progress", {"worker_id": _TEXT, "reports": _OBJECTS}, _nothing)
PROGRESS = Function(
    "progress",
    {},
    lambda rows: [Progress(*row) for row in rows],
    "worker_id, id, task_identifier, done, note, since",
)
EXPLAIN_JOB: Function[str] = Function("explain_job", {"job_id": _BIGINT}, _only_value)
DOCTOR = Function(
    "doctor",
    {},
    lambda rows: [Finding(*row) for row in rows],
    "severity, finding, figure, remedy",
)
VITAL_SIGNS = Function(
    "vital_signs",
    {},
    lambda rows: VitalSigns(*rows[0]),
    ", ".join(VitalSigns._fields),
)
_FILTER = {"task": _TEXT, "queue": _TEXT, "db_id": _UUID}
LIST_JOBS = Function(
    "list_jobs",
    {**_FILTER, "state": _TEXT, "search": _TEXT, "before": _BIGINT, "most": _INTEGER},
    _listed_jobs,
    ", ".join(ListedJob._fields),
)
_SPAN = {"since": _MOMENT, "before": _MOMENT, "before_id": _BIGINT, "most": _INTEGER}
LIST_FINISHED = Function(
    "list_finished",
    {**_FILTER, "state": _TEXT, "search": _TEXT, **_SPAN},
    _listed_jobs,
    ", ".join(ListedJob._fields),
)
LIST_QUEUES = Function(
    "list_queues",
    {"search": _TEXT, "most": _INTEGER},
    lambda rows: [ListedQueue(*row) for row in rows],
    ", ".join(ListedQueue._fields),
)
LIST_TASKS = Function(
    "list_tasks",
    {},
    lambda rows: [ListedTask(*row) for row in rows],
    ", ".join(ListedTask._fields),
)
REDRIVE_JOBS = Function(
    "redrive_jobs",
    {**_FILTER, "search": _TEXT, **_SPAN, "per_second": _NUMERIC, "dry_run": _BOOLEAN},
    _listed_jobs,
    ", ".join(ListedJob._fields),
)
RECORD_ACTION: Function[int] = Function(
    "record_action", {"actor": _TEXT, "action": _TEXT, "details": _JSONB}, _only_value
)
VERSION: Function[str] = Function("version", {}, _only_value)

FUNCTIONS: tuple[Function[Any], ...] = (
    ADD_JOB,
    ADD_JOBS,
    ADD_JOBS_OF_TASK,
    ADD_RAW_JOBS_OF_TASK,
    FIND_JOB,
    CANCEL_JOB,
    NEXT_RUN_AT,
    PREVIEW_SCHEDULE,
    REGISTER_WORKER,
    SET_WORKER_IDLE,
    IDLE_PEERS,
    GET_JOB,
    GET_JOBS,
    COMPLETE_JOB,
    COMPLETE_JOBS,
    FAIL_JOB,
    FAIL_JOBS,
    SNOOZE_JOB,
    HEARTBEAT,
    RELEASE_JOBS,
    HOLD_JOB,
    BEGIN_ONCE,
    FINISH_ONCE,
    FORGET_ONCE,
    JOB_DETAILS,
    SET_ATTRIBUTES,
    SET_RETRY_AFTER,
    SET_RUN_AT,
    MOVE_JOB_TO_PROCESSING,
    MOVE_JOB_TO_DONE,
    MOVE_JOB_TO_FAILED,
    DELETE_JOB,
    ADD_SCHEDULED_JOB,
    LIST_SCHEDULED_JOBS,
    RUN_DUE_SCHEDULES,
    RUN_SCHEDULED_JOB,
    GET_SCHEDULED_JOB,
    RELEASE_SCHEDULED_JOBS,
    TICK,
    COMPLETE_JOBS_BY_ID,
    PERMANENTLY_FAIL_JOBS,
    CANCEL_JOBS,
    RESCHEDULE_JOBS,
    RETRY_JOBS,
    PAUSE_QUEUE,
    RESUME_QUEUE,
    SET_QUEUE_LIMIT,
    SET_TASK,
    PAUSE_TASK,
    RESUME_TASK,
    PRUNE,
    SWEEP,
    METRICS,
    RUNNING_JOBS,
    RECORD_STATS,
    TASK_STATS,
    DEPTHS,
    HISTOGRAM_BOUNDS,
    HISTOGRAM_QUANTILE,
    SET_PROGRESS,
    PROGRESS,
    EXPLAIN_JOB,
    DOCTOR,
    VITAL_SIGNS,
    LIST_JOBS,
    LIST_FINISHED,
    LIST_QUEUES,
    LIST_TASKS,
    REDRIVE_JOBS,
    RECORD_ACTION,
    VERSION,
)

# What the worker asks for in a form of its own: rows as they come; seconds until a job is due, and
# how many workers are idle beside it.
CLAIM: Function[list[Row]] = Function("get_jobs", GET_JOBS.arguments, list, CLAIM_COLUMNS)
TICK_AND_PEERS: Query[tuple[float | None, int]] = Query(
    "tick",
    {**TICK.arguments, **IDLE_PEERS.arguments},
    lambda rows: (rows[0][0], rows[0][1]),
    text="""
select
    extract(epoch from t.next_due_at - pg_catalog.clock_timestamp())::double precision,
    {schema}.idle_peers({worker_id})
from {schema}.tick({every}) as t""",
)

# What DelayedTasks asks for in a form of its own: a time by the database's clock.
ADD_JOB_FROM_NOW = Function(
    "add_job", {**ADD_JOB.arguments, "run_at": _FROM_NOW}, _the_job, JOB_COLUMNS
)


# What tests of applications ask for: app_jobs.testing.
_OF_TASK = {"task": _TEXT}
WAITING = Query(
    "jobs",
    _OF_TASK,
    _jobs,
    text=f"select {JOB_COLUMNS} from {{schema}}.jobs"
    " where locked_by is null and ({task} is null or task_identifier = {task})"
    " order by priority, run_at, id",
)
MAKE_DUE: Query[int] = Query(
    "reschedule_jobs",
    _OF_TASK,
    len,
    text="""
select j.id
from {schema}.reschedule_jobs(
    array(
        select w.id from {schema}.jobs as w
        where
            w.run_at > pg_catalog.clock_timestamp() and w.locked_by is null
            and ({task} is null or w.task_identifier = {task})
    ),
    run_at => pg_catalog.now()
) as j""",
)
MAKE_SCHEDULES_DUE: Query[int] = Query(
    "scheduled_jobs",
    _OF_TASK,
    len,
    text="""
update {schema}.scheduled_jobs set next_run_at = pg_catalog.now()
where next_run_at is not null and ({task} is null or task_identifier = {task})
returning id""",
)
EXPIRE_LEASES: Query[int] = Query(
    "jobs",
    _OF_TASK,
    len,
    text="""
update {schema}.jobs
set
    lease_expires_at = pg_catalog.clock_timestamp() - interval '1 second',
    slot = {schema}.enter_slot()
where lease_expires_at is not null and ({task} is null or task_identifier = {task})
returning id""",
)


def listen(schema: str) -> str:
    """Return the statement that listens to the schema's channel."""
    return f"listen {quoted(schema)}".replace("%%", "%")


# Producers' notifications have no payload: one that has tells nobody of jobs.
NOTIFY: Query[None] = Query(
    "pg_notify",
    {"channel": _TEXT},
    lambda _: None,
    text="select pg_catalog.pg_notify({channel}, 'test')",
)


# --- what an operator looks at -------------------------------------------------------------------

_SHARED = (
    "id, task_identifier, queue_name, database_id, key, payload, attributes, priority, run_at,"
    " attempts, max_attempts, lease, last_error, retry_after, created_at"
)
_ALL_JOBS = f"""
    select
        case
            when locked_by is null then 'created'
            when lease_expires_at is null then 'processing'
            else 'active'
        end as state,
        {_SHARED}, locked_by, locked_at, lease_expires_at,
        null::timestamptz as finished_at, null::text as finished_by, null::json as result
    from {{schema}}.jobs
    union all
    select
        state,
        {_SHARED}, null, started_at, null, finished_at, finished_by, result
    from {{schema}}.finished_jobs
"""
STATES = ("created", "active", "processing", "completed", "failed", "cancelled")


def list_jobs(schema: str) -> str:
    """Return the query for the newest jobs, live or finished, one JSON object each."""
    return f"""
select pg_catalog.row_to_json(j)::text
from ({_ALL_JOBS.format(schema=quoted(schema))}) as j
where
    (%(task)s::text is null or j.task_identifier = %(task)s)
    and (%(queue)s::text is null or j.queue_name = %(queue)s)
    and (%(state)s::text is null or j.state = %(state)s)
order by j.id desc
limit %(limit)s"""


def show_job(schema: str) -> str:
    """Return the query for one job, live or finished, as a JSON object; no row if unknown."""
    name = quoted(schema)
    return f"""
select pg_catalog.row_to_json(s)::text
from (
    select j.*, p.said as progress
    from ({_ALL_JOBS.format(schema=name)}) as j
    left join lateral (
        select pg_catalog.json_build_object('done', r.done, 'note', r.note, 'since', r.since)
        from {name}.progress() as r
        where r.id = j.id
    ) as p(said) on true
    where j.id = %(id)s
) as s"""


def list_errors(schema: str) -> str:
    """Return the query for the failed attempts of a job, one JSON object each."""
    return f"""
select pg_catalog.row_to_json(e)::text
from {quoted(schema)}.job_errors as e
where e.job_id = %(id)s
order by e.lease"""


def list_schedules(schema: str) -> str:
    """Return the query for schedules, one JSON object each, of all ids or some."""
    return f"""
select pg_catalog.row_to_json(s)::text
from (select {", ".join(ScheduledJob._fields)} from {quoted(schema)}.scheduled_jobs) as s
where
    (%(task)s::text is null or s.task_identifier = %(task)s)
    and (%(ids)s::bigint[] is null or s.id = any(%(ids)s))
order by s.id"""


def pause_schedules(schema: str) -> str:
    """Return the statement that pauses schedules, or lets them go on; it returns their ids."""
    return f"""
update {quoted(schema)}.scheduled_jobs set paused = %(paused)s
where id = any(%(ids)s) returning id::text"""


def remove_schedules(schema: str) -> str:
    """Return the statement that removes schedules; it returns their ids."""
    return f"""
delete from {quoted(schema)}.scheduled_jobs where id = any(%(ids)s) returning id::text"""


def dead_letters(schema: str) -> str:
    """Return the query for the ids of failed jobs that can be retried, the oldest first.

    Left out are those whose key a live job has, or a later one of them.
    """
    name = quoted(schema)
    return f"""
select pg_catalog.to_json(f.id)::text
from {name}.finished_jobs as f
where
    f.state = 'failed'
    and (%(task)s::text is null or f.task_identifier = %(task)s)
    and (
        f.key is null
        or not exists (
            select from {name}.jobs as j
            where j.key = f.key and j.database_id is not distinct from f.database_id
        )
        and not exists (
            select from {name}.finished_jobs as g
            where
                g.key = f.key
                and g.database_id is not distinct from f.database_id
                and g.state = 'failed'
                and g.id > f.id
        )
    )
order by f.id
limit %(limit)s"""


def list_queues(schema: str) -> str:
    """Return the query for named queues, those with most jobs first, one JSON object each."""
    return f"""
select pg_catalog.row_to_json(q)::text
from {quoted(schema)}.job_queues as q
order by q.job_count desc, q.queue_name, q.database_id
limit %(limit)s"""


def show_task(schema: str) -> str:
    """Return the query for the settings of a task, as a JSON object; no row if it has none."""
    return f"""
select pg_catalog.row_to_json(t)::text
from {quoted(schema)}.tasks as t
where t.task_identifier = %(task)s"""


def live_workers(schema: str) -> str:
    """Return the query for workers that were seen within a minute: their tasks, whether idle."""
    return f"""
select w.task_identifiers, w.idle
from {quoted(schema)}.workers as w
where w.last_seen_at > pg_catalog.clock_timestamp() - interval '1 minute'"""


def top(schema: str) -> str:
    """Return the query for what `app-jobs top` shows, as a JSON object; times are in seconds.

    `added` and `ended` count jobs since the server's statistics were reset; rates, failures and
    quantiles are of the last five minutes.
    """
    name = quoted(schema)
    return f"""
with
minutes as (
    select s.*
    from {name}.task_stats(
        pg_catalog.clock_timestamp() - interval '5 minutes', pg_catalog.clock_timestamp()
    ) as s
),
buckets as (
    select m.task_identifier, b.n, pg_catalog.sum(b.wait) as wait, pg_catalog.sum(b.run) as run
    from minutes as m
    cross join unnest(m.wait_histogram, m.run_histogram) with ordinality as b(wait, run, n)
    group by m.task_identifier, b.n
),
histograms as (
    select
        b.task_identifier,
        pg_catalog.array_agg(b.wait::bigint order by b.n) as wait,
        pg_catalog.array_agg(b.run::bigint order by b.n) as run
    from buckets as b
    group by b.task_identifier
),
ends as (
    select
        m.task_identifier,
        pg_catalog.sum(m.completed + m.failed + m.retried) as runs,
        pg_catalog.sum(m.failed + m.retried) as failures
    from minutes as m
    group by m.task_identifier
),
lately as (
    select
        e.task_identifier as task,
        e.runs / extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.date_bin(
            '1 minute', pg_catalog.clock_timestamp() - interval '5 minutes', 'epoch'
        )) as rate,
        e.failures / e.runs as failing,
        {name}.histogram_quantile(h.wait, 0.5) as wait_p50,
        {name}.histogram_quantile(h.wait, 0.95) as wait_p95,
        {name}.histogram_quantile(h.run, 0.5) as run_p50,
        {name}.histogram_quantile(h.run, 0.95) as run_p95
    from ends as e
    inner join histograms as h on h.task_identifier = e.task_identifier
    where e.runs > 0
),
waiting as (
    select
        m.task_identifier as task,
        pg_catalog.sum(m.ready)::bigint as ready,
        pg_catalog.sum(m.scheduled)::bigint as scheduled,
        pg_catalog.sum(m.parked)::bigint as parked,
        pg_catalog.sum(m.running)::bigint as running,
        pg_catalog.sum(m.expired)::bigint as expired,
        pg_catalog.sum(m.failed_1h)::bigint as failed_1h,
        extract(epoch from pg_catalog.max(m.oldest_ready_age))::double precision as oldest
    from {name}.metrics as m
    group by m.task_identifier
),
tasks as (
    select
        task,
        coalesce(w.ready, 0) as ready,
        coalesce(w.scheduled, 0) as scheduled,
        coalesce(w.parked, 0) as parked,
        coalesce(w.running, 0) as running,
        coalesce(w.expired, 0) as expired,
        coalesce(w.failed_1h, 0) as failed_1h,
        w.oldest,
        coalesce(l.rate, 0) as rate,
        l.failing, l.wait_p50, l.wait_p95, l.run_p50, l.run_p95
    from waiting as w
    full join lately as l using (task)
    order by coalesce(w.ready + w.parked, 0) desc, coalesce(w.running, 0) desc, 1
),
said as (
    select p.worker_id, p.task_identifier, pg_catalog.avg(p.done) as done
    from {name}.progress() as p
    group by p.worker_id, p.task_identifier
),
runs as (
    select
        r.worker_id,
        pg_catalog.json_agg(pg_catalog.json_build_object(
            'task', r.task_identifier,
            'jobs', r.jobs,
            'longest', extract(epoch from pg_catalog.clock_timestamp() - r.since),
            'done', s.done
        ) order by r.since) as list
    from {name}.running_jobs() as r
    left join said as s on s.worker_id = r.worker_id and s.task_identifier = r.task_identifier
    group by r.worker_id
),
workers as (
    select
        w.worker_id as worker,
        w.idle,
        w.running,
        extract(epoch from pg_catalog.clock_timestamp() - w.last_seen_at) as seen,
        coalesce(r.list, '[]') as runs
    from {name}.workers as w
    left join runs as r on r.worker_id = w.worker_id
    order by w.running desc, w.worker_id
)
select pg_catalog.json_build_object(
    'at', extract(epoch from pg_catalog.clock_timestamp()),
    'clock', pg_catalog.to_char(pg_catalog.clock_timestamp(), 'HH24:MI:SS'),
    'database', pg_catalog.current_database(),
    'version', {name}.version(),
    'added', s.n_tup_ins,
    'ended', s.n_tup_del,
    'tasks', (select coalesce(pg_catalog.json_agg(t), '[]') from tasks as t),
    'workers', (select coalesce(pg_catalog.json_agg(w), '[]') from workers as w)
)::text
from pg_catalog.pg_stat_user_tables as s
where s.schemaname = %(namespace)s and s.relname = 'jobs'"""


# --- connections and versions --------------------------------------------------------------------


def quoted(name: str) -> str:
    """Return a name as an SQL identifier, ready to stand in a query with placeholders."""
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


@lru_cache
def conninfo(dsn: str) -> str:
    """Return `dsn` with time limits on connecting and on a peer that has gone silent.

    What the DSN says itself stays. Environment variables of libpq (PGHOST …) apply as always.
    """
    defaults: dict[str, Any] = {
        "connect_timeout": 5,
        "keepalives_idle": 20,
        "keepalives_interval": 5,
        "keepalives_count": 4,
        "tcp_user_timeout": 40_000,
        "fallback_application_name": "app_jobs",
    }
    try:
        return make_conninfo("", **{**defaults, **conninfo_to_dict(dsn)})
    except ProgrammingError as error:
        raise BadArgument(
            f"dsn is no connection string: {str(error).strip()}",
            hint="For example postgresql://user@host/database, or host=… dbname=… .",
        ) from None


def check_version(schema_version: str, client_version: str) -> None:
    """Raise unless the schema is of the client's version (major.minor) or of the next one."""
    schema, client = _major_minor(schema_version), _major_minor(client_version)
    if schema < client:
        raise SchemaTooOld(
            f"the schema is version {schema_version}, older than this client, {client_version}",
            hint="Upgrade the schema: app-jobs migrate.",
        )
    if schema > (client[0], client[1] + 1):
        raise SchemaTooNew(
            f"the schema is version {schema_version}, too new for this client, {client_version}",
            hint="Upgrade the Python package: pip install --upgrade app-jobs.",
        )


def _major_minor(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise ValueError(f"not a version: {version!r}")
    return int(match[1]), int(match[2])
