"""The way over from other queues in the same database: their waiting jobs become ours.

In one transaction that keeps their workers and producers out, jobs are added here and deleted
there, so none is lost and none is run by both. What is running stays: import again later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import psycopg
from psycopg import Connection, sql
from psycopg.rows import dict_row

from app_jobs import _sql
from app_jobs._client import Client
from app_jobs.errors import AppJobsError, BadArgument

if TYPE_CHECKING:
    from typing_extensions import LiteralString

BATCH = 10_000  # jobs in one statement


@dataclass(frozen=True, slots=True)
class Source:
    """Another queue: its tables, and what can be read from them.

    `jobs` selects id, problem (null: it can be carried over), the names of add_jobs()'s members,
    attempts, and what else attributes are to keep. `notes` selects text.
    """

    name: str
    schema: str
    tables: tuple[str, ...]
    jobs: LiteralString
    notes: LiteralString
    schedules: LiteralString | None = None


GRAPHILE_WORKER = Source(
    "graphile-worker",
    "graphile_worker",
    ("_private_jobs",),
    """
    select
        j.id, t.identifier, j.payload, j.key as job_key, q.queue_name, j.run_at,
        j.max_attempts::integer as max_attempts, j.priority::integer as priority,
        null::uuid as db_id, j.attempts::integer as attempts,
        jsonb_build_object('flags', j.flags, 'last_error', j.last_error) as more,
        case
            when j.locked_at >= now() - interval '4 hours' then 'running'
            when j.attempts >= j.max_attempts then 'failed for good'
            when q.locked_at >= now() - interval '4 hours' then 'behind a running job in its queue'
        end as problem
    from {schema}._private_jobs as j
    join {schema}._private_tasks as t on t.id = j.task_id
    left join {schema}._private_job_queues as q on q.id = j.job_queue_id
    """,
    """
    select
        'cron item ' || identifier || ' stands in your crontab: give that as --crontab'
    from {schema}._private_known_crontabs
    order by identifier
    """,
)
PROCRASTINATE = Source(
    "procrastinate",
    "public",
    ("procrastinate_jobs",),
    """
    select
        j.id, j.task_name as identifier, j.args::json as payload, j.queueing_lock as job_key,
        j.lock as queue_name, coalesce(j.scheduled_at, now()) as run_at,
        null::integer as max_attempts, -j.priority as priority, null::uuid as db_id, j.attempts,
        jsonb_build_object('queue', j.queue_name) as more,
        case
            when j.status = 'doing' then 'running'
            when j.status <> 'todo' then j.status::text
            when exists (
                select from {schema}.procrastinate_jobs as r
                where r.lock = j.lock and r.status = 'doing'
            ) then 'behind a running job with its lock'
        end as problem
    from {schema}.procrastinate_jobs as j
    """,
    """
    select distinct
        'periodic task ' || task_name || coalesce(' (' || nullif(periodic_id, '') || ')', '')
        || ' is in your code, not in the database: declare it with @tasks.task(cron=…)'
    from {schema}.procrastinate_periodic_defers
    order by 1
    """,
)
PGPM_JOBS = Source(
    "pgpm-jobs",
    "app_jobs",
    ("jobs", "scheduled_jobs"),
    """
    select
        j.id, j.task_identifier as identifier, j.payload, j.key as job_key,
        -- the default of the column, a queue for one job, is none
        case
            when j.queue_name !~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$'
                or count(*) over (partition by j.queue_name) > 1
            then j.queue_name
        end as queue_name,
        j.run_at, j.max_attempts, j.priority, j.database_id as db_id, j.attempts,
        jsonb_build_object('last_error', j.last_error) as more,
        case
            when j.locked_at >= now() - interval '4 hours' then 'running'
            when j.attempts >= j.max_attempts then 'failed for good'
            when q.locked_at >= now() - interval '4 hours' then 'behind a running job in its queue'
        end as problem
    from {schema}.jobs as j
    left join {schema}.job_queues as q on q.queue_name = j.queue_name
    """,
    "select null where false",
    """
    select
        id, database_id as db_id, task_identifier as identifier, payload::text, key as job_key,
        schedule_info::text, max_attempts, priority,
        case
            when queue_name !~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' then queue_name
        end as queue_name
    from {schema}.scheduled_jobs
    order by id
    """,
)
SOURCES = {source.name: source for source in (GRAPHILE_WORKER, PROCRASTINATE, PGPM_JOBS)}

_CRONTAB_LINE = re.compile(
    r"(?P<rule>[0-9*/,-]+(?:\s+[0-9*/,-]+){4})\s+(?P<task>[_a-zA-Z][_a-zA-Z0-9:_-]*)"
    r"(?:\s+\?(?P<options>\S+))?(?:\s+(?P<payload>\{.*\}))?"
)

# Their jobs, in their order of service. {source} is a query of the above.
_READ = """
create temporary table app_jobs_import on commit drop as
select
    s.*,
    row_number() over (order by s.priority, s.run_at, s.id) as position,
    coalesce(
        s.problem,
        case
            when char_length(s.identifier) > 126 then 'name of the task above 126 characters'
            when char_length(s.queue_name) > 200 then 'name of the queue above 200 characters'
            when char_length(s.job_key) > 512 then 'key above 512 characters'
            when exists (
                select from {target}.jobs as k
                where k.key = s.job_key and k.database_id is not distinct from s.db_id
            ) then 'its key is in use here'
        end
    ) as why_not
from ({source}) as s
"""
_COUNT = """
select
    identifier as task, why_not,
    count(*) filter (where run_at <= now()) as due, count(*) filter (where run_at > now()) as later
from app_jobs_import
group by identifier, why_not
order by identifier, why_not nulls first
"""
# A lot without job_key is added in one piece, so it is left out where there is none; and as text,
# since jsonb would not keep the payload as it is.
_ADD = """
select array(select {target}.add_jobs(l.specs)), l.attempts
from (
    select
        json_agg((
            case
                when i.job_key is null then '{{'
                else '{{"job_key": ' || to_json(i.job_key)::text || ', '
            end || ltrim(json_build_object(
                'identifier', i.identifier, 'payload', i.payload, 'queue_name', i.queue_name,
                'run_at', i.run_at, 'max_attempts', i.max_attempts, 'priority', i.priority,
                'db_id', i.db_id,
                'attributes', jsonb_strip_nulls(i.more) || jsonb_build_object(
                    'imported_from', %(name)s::text, 'imported_id', i.id
                )
            )::text, '{{')
        )::json order by i.position) as specs,
        array_agg(i.attempts order by i.position) as attempts
    from app_jobs_import as i
    where i.why_not is null and i.position > %(after)s and i.position <= %(upto)s
) as l
where l.specs is not null
"""
_SET_ATTEMPTS = "select count(*) from {target}.reschedule_jobs(%s, attempts => %s)"
_DELETE = """
delete from {table} where id in (select id from app_jobs_import where why_not is null)
"""


@dataclass(slots=True)
class Imported:
    """What was carried over, or would be, and what was not."""

    jobs: list[dict[str, Any]]
    """Per task: due, later, and why_not (None: carried over)."""
    schedules: list[dict[str, Any]]
    """Per schedule: task, schedule_info, and why_not."""
    notes: list[str]
    applied: bool

    @property
    def carried(self) -> int:
        """How many jobs were carried over, or would be."""
        return sum(row["due"] + row["later"] for row in self.jobs if row["why_not"] is None)


def import_jobs(
    dsn: str,
    source_name: str,
    *,
    from_schema: str | None = None,
    schema: str = "app_jobs",
    crontab: str | None = None,
    time_zone: str = "UTC",
    apply: bool = False,
) -> Imported:
    """Carry jobs over from another queue, or, without `apply`, tell what would be.

    `crontab` is the text of graphile-worker's, `time_zone` that of their schedules.
    """
    source = SOURCES.get(source_name)
    if source is None:
        raise BadArgument(
            f"no such source: {source_name}", hint=f"One of {', '.join(sorted(SOURCES))}."
        )
    if crontab is not None and source is not GRAPHILE_WORKER:
        raise BadArgument(
            f"{source.name} has no crontab", hint="Only graphile-worker has: leave it out."
        )
    from_schema = from_schema or source.schema
    if from_schema == schema:
        raise BadArgument(
            f'their schema and ours are both "{schema}"',
            hint=f"Rename theirs (alter schema {schema} rename to {schema}_before), deploy ours"
            f" (app-jobs migrate), and give --from-schema {schema}_before; or deploy ours under"
            " another name and give --schema.",
        )
    with psycopg.connect(_sql.conninfo(dsn)) as connection:
        client = Client(schema=schema)
        client.version(connection=connection)
        names = {"schema": sql.Identifier(from_schema), "target": sql.Identifier(schema)}
        tables = [sql.Identifier(from_schema, table) for table in source.tables]
        _check_tables(connection, source, from_schema)
        if apply:
            _lock(connection, tables, source)
        read = sql.SQL(_READ).format(source=sql.SQL(source.jobs).format(**names), **names)
        connection.execute(read)
        connection.execute("analyze app_jobs_import")
        jobs = connection.cursor(row_factory=dict_row).execute(_COUNT).fetchall()
        schedules = _add_schedules(
            connection,
            client,
            _schedules_in(connection, source, names) + read_crontab(crontab or ""),
            time_zone=time_zone,
            attributes={"imported_from": source.name},
        )
        notes = []
        if crontab is None:
            notes = connection.execute(sql.SQL(source.notes).format(**names)).fetchall()
        if apply:
            _add(connection, source, names)
            # Their triggers name their schema: if it was renamed, they would look into ours.
            moved = source is PGPM_JOBS and from_schema != source.schema
            triggers = sql.SQL("alter table {table} {action} trigger user")
            if moved:
                connection.execute(triggers.format(table=tables[0], action=sql.SQL("disable")))
            connection.execute(sql.SQL(_DELETE).format(table=tables[0]))
            if moved:
                connection.execute(triggers.format(table=tables[0], action=sql.SQL("enable")))
            if source.schedules is not None:
                ids = [row["id"] for row in schedules if row["why_not"] is None]
                remove = sql.SQL("delete from {table} where id = any(%s)").format(table=tables[1])
                connection.execute(remove, [ids])
        else:
            connection.rollback()
    return Imported(jobs, schedules, [note for (note,) in notes], apply)


def _check_tables(connection: Connection[Any], source: Source, schema: str) -> None:
    for table in source.tables:
        found = connection.execute(
            "select to_regclass(format('%%I.%%I', %s::text, %s::text))", [schema, table]
        ).fetchone()
        if found == (None,):
            raise BadArgument(
                f"{source.name} is not here: there is no table {schema}.{table}",
                hint="Give its schema as --from-schema; bring an old version of it up to date.",
            )


def _lock(connection: Connection[Any], tables: list[sql.Identifier], source: Source) -> None:
    """Let nobody else write there till the end, in no statement that has begun before."""
    connection.execute(
        "select set_config('lock_timeout', '10s', true) where current_setting('lock_timeout') = '0'"
    )
    for table in tables:
        try:
            connection.execute(sql.SQL("lock table {} in exclusive mode").format(table))
        except psycopg.errors.LockNotAvailable as error:
            raise AppJobsError(
                f"the tables of {source.name} are in use by a long transaction",
                sqlstate=error.sqlstate,
                hint="Stop its workers, and try again. Nothing was changed.",
            ) from None


def _add(connection: Connection[Any], source: Source, names: Mapping[str, sql.Identifier]) -> None:
    counted = connection.execute("select max(position) from app_jobs_import").fetchone()
    last = (counted and counted[0]) or 0
    attempts: dict[int, list[int]] = {}
    for after in range(0, last, BATCH):
        rows = connection.execute(
            sql.SQL(_ADD).format(**names),
            {"after": after, "upto": after + BATCH, "name": source.name},
        )
        for ids, numbers in rows:
            for job_id, number in zip(ids, numbers, strict=True):
                if number > 0:
                    attempts.setdefault(number, []).append(job_id)
    for number, ids in attempts.items():
        connection.execute(sql.SQL(_SET_ATTEMPTS).format(**names), [ids, number])


def _schedules_in(
    connection: Connection[Any], source: Source, names: Mapping[str, sql.Identifier]
) -> list[dict[str, Any]]:
    """Read the schedules that stand in a table, as arguments of add_scheduled_job()."""
    if source.schedules is None:
        return []
    rows = connection.cursor(row_factory=dict_row).execute(
        sql.SQL(source.schedules).format(**names)
    )
    return [
        {
            **row,
            "payload": _sql.RawJson(row["payload"]),
            "job_key": row["job_key"] or f"{source.name}:{row['id']}",
            "schedule_info": _sql.from_json(row["schedule_info"]),
            "overlap": "skip",  # as theirs
        }
        for row in rows
    ]


def read_crontab(text: str) -> list[dict[str, Any]]:
    """Read a crontab of graphile-worker, as arguments of add_scheduled_job()."""
    schedules = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        match = _CRONTAB_LINE.fullmatch(line)
        if match is None:
            raise BadArgument(
                f"line {number} of the crontab cannot be read: {line}",
                hint="It has five fields, a task, and perhaps ?options and {payload}.",
            )
        options = dict(parse_qsl(match["options"] or ""))
        problem = None
        payload = match["payload"] or "{}"
        try:
            json.loads(payload)
        except json.JSONDecodeError:
            problem = "its payload is not JSON: put quotes around names"
        if "jobKey" in options:
            problem = "jobKey: a job of a schedule has no key here; see overlap"
        schedules.append(
            {
                "id": number,
                "why_not": problem,
                "identifier": match["task"],
                "schedule_info": {"rule": match["rule"]},
                "job_key": f"{GRAPHILE_WORKER.name}:{options.get('id', match['task'])}",
                "payload": _sql.RawJson(payload),
                "queue_name": options.get("queue"),
                "max_attempts": int(options["max"]) if "max" in options else None,
                "priority": int(options.get("priority", 0)),
                "missed": "all" if "fill" in options else "skip",
            }
        )
    return schedules


def _add_schedules(
    connection: Connection[Any], client: Client, schedules: list[dict[str, Any]], **also: Any
) -> list[dict[str, Any]]:
    """Add each in a savepoint, and tell of each; a dry run undoes it all."""
    told = []
    for schedule in schedules:
        number, problem = schedule.pop("id"), schedule.pop("why_not", None)
        if problem is None:
            try:
                with connection.transaction():
                    client.add_scheduled_job(connection=connection, **schedule, **also)
            except BadArgument as error:
                problem = error.message
        told.append(
            {
                "id": number,
                "task": schedule["identifier"],
                "schedule_info": schedule["schedule_info"],
                "why_not": problem,
            }
        )
    return told
