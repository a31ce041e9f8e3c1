"""The console command `app-jobs`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the database is not reachable. Data goes to standard
output, all else to standard error.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import psycopg

from app_jobs import _sql, migrate
from app_jobs._client import Client
from app_jobs.errors import AppJobsError, BadArgument, UnknownJob
from app_jobs.tasks import Tasks
from app_jobs.worker import Worker

try:
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
except ModuleNotFoundError as missing:
    print(
        f"app-jobs needs the extra cli ({missing.name} is missing): pip install 'app-jobs[cli]'",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

FAILED, USAGE, UNREACHABLE = 1, 2, 3

app = typer.Typer(
    help="A job queue in PostgreSQL. The database: --dsn, DATABASE_URL, or libpq's PG* variables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# What is piped on is not cut off at the width of a terminal.
out = Console(width=None if sys.stdout.isatty() else 240)
err = Console(stderr=True, soft_wrap=True)

Dsn = Annotated[
    str,
    typer.Option(
        envvar="DATABASE_URL", help="URL or libpq keywords.", show_default="PG* variables"
    ),
]
Schema = Annotated[str, typer.Option(help="Name of the schema.")]
To = Annotated[str | None, typer.Option(metavar="CHANGE", help="Name of a change in the plan.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command line."""
    try:
        app(standalone_mode=True)
    except psycopg.OperationalError as error:
        _complain("the database is not reachable", str(error).strip())
        sys.exit(UNREACHABLE)
    except AppJobsError as error:
        _complain(error.message, error.detail, error.hint)
        sys.exit(USAGE if isinstance(error, BadArgument) else FAILED)
    except psycopg.Error as error:
        diagnostics = error.diag
        _complain(
            diagnostics.message_primary or str(error).strip(),
            diagnostics.message_detail,
            diagnostics.message_hint,
        )
        sys.exit(FAILED)


# --- the schema ---


@app.command("migrate")
def migrate_schema(dsn: Dsn = "", to: To = None, schema: Schema = "app_jobs") -> None:
    """Deploy the schema, or what is missing of it."""
    done = migrate.migrate(dsn, to=to, log=_say, schema=schema)
    _say(f"{len(done)} changes deployed" if done else "nothing to deploy")


@app.command()
def verify(dsn: Dsn = "", schema: Schema = "app_jobs") -> None:
    """Check every deployed change."""
    problems = migrate.verify(dsn, schema=schema)
    for problem in problems:
        _complain(problem)
    if problems:
        raise typer.Exit(FAILED)
    _say("all deployed changes are as they should be")


@app.command()
def revert(dsn: Dsn = "", to: To = None, schema: Schema = "app_jobs") -> None:
    """Take changes out again, down to the one given, or all."""
    done = migrate.revert(dsn, to=to, log=_say, schema=schema)
    _say(f"{len(done)} changes reverted" if done else "nothing to revert")


@app.command()
def status(dsn: Dsn = "", schema: Schema = "app_jobs", as_json: AsJson = False) -> None:
    """Tell which changes are deployed."""
    found = migrate.status(dsn, schema=schema)
    if as_json:
        _print_json(
            {"deployed": found.deployed, "pending": found.pending, "drifted": found.drifted}
        )
        return
    for label, names in (("pending", found.pending), ("drifted", found.drifted)):
        if names:
            out.print(f"{label}: {', '.join(names)}", highlight=False)
    out.print(f"{len(found.deployed)} changes deployed, {len(found.pending)} pending")


# --- work ---


@app.command()
def worker(
    tasks: Annotated[str, typer.Argument(metavar="MODULE:TASKS", help="Where the tasks are.")],
    dsn: Dsn = "",
    concurrency: Annotated[int, typer.Option(help="Handlers at once.")] = 20,
    prefetch: Annotated[
        int | None, typer.Option(help="Jobs to claim ahead.", show_default="as fast as they end")
    ] = None,
    lease: Annotated[float, typer.Option(help="Seconds that a lease lasts.")] = 60,
    poll_interval: Annotated[float, typer.Option(help="Seconds between looks.")] = 2,
    listen_dsn: Annotated[
        str | None, typer.Option(help="Direct connection for LISTEN, if --dsn is a pooler.")
    ] = None,
    shutdown_timeout: Annotated[float, typer.Option(help="Seconds to let handlers end.")] = 30,
    schema: Schema = "app_jobs",
    worker_id: Annotated[str | None, typer.Option(help="Name of this process alone.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run jobs until SIGTERM or SIGINT."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    Worker(
        dsn,
        _load(tasks),
        concurrency=concurrency,
        prefetch=prefetch,
        lease=timedelta(seconds=lease),
        poll_interval=timedelta(seconds=poll_interval),
        listen_dsn=listen_dsn,
        shutdown_timeout=timedelta(seconds=shutdown_timeout),
        schema=schema,
        worker_id=worker_id,
    ).run()


@app.command()
def add(
    task: Annotated[str, typer.Argument(help="Task to run.")],
    payload: Annotated[str, typer.Argument(help="Its payload, as JSON.")] = "{}",
    dsn: Dsn = "",
    db_id: Annotated[str | None, typer.Option(help="Tenant, a uuid.")] = None,
    job_key: Annotated[str | None, typer.Option("--key", help="Key of the job.")] = None,
    job_key_mode: Annotated[
        str, typer.Option("--key-mode", help="replace, preserve_run_at, keep or once.")
    ] = "replace",
    queue_name: Annotated[str | None, typer.Option("--queue", help="Run in this queue.")] = None,
    run_at: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S"], help="Not before."),
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Runs at most.")] = None,
    priority: Annotated[int, typer.Option(help="Lower runs first.")] = 0,
    schema: Schema = "app_jobs",
    as_json: AsJson = False,
) -> None:
    """Add a job."""
    try:
        json.loads(payload)
    except json.JSONDecodeError as error:
        raise BadArgument(
            f"the payload is not JSON: {error}",
            hint='Quote it for the shell: app-jobs add TASK \'{"name": "value"}\'.',
        ) from None
    with Client(dsn, schema=schema) as client:
        job = client.add_job(
            db_id=db_id,
            identifier=task,
            payload=_sql.RawJson(payload),
            job_key=job_key,
            queue_name=queue_name,
            run_at=run_at and run_at.astimezone(),
            max_attempts=max_attempts,
            priority=priority,
            job_key_mode=job_key_mode,
        )
    if as_json:
        _print_json(_fetch(dsn, schema, _sql.show_job(schema), id=job.id)[0])
    else:
        print(job.id)


# --- looking ---


@app.command("list")
def list_jobs(
    dsn: Dsn = "",
    task: Annotated[str | None, typer.Option(help="Only of this task.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only of this queue.")] = None,
    state: Annotated[str | None, typer.Option(help=f"Only in: {', '.join(_sql.STATES)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    schema: Schema = "app_jobs",
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first, finished ones that are kept included."""
    if state is not None and state not in _sql.STATES:
        raise BadArgument(f"no such state: {state}", hint=f"One of {', '.join(_sql.STATES)}.")
    query = _sql.list_jobs(schema)
    jobs = _fetch(dsn, schema, query, task=task, queue=queue, state=state, limit=limit)
    if as_json:
        _print_json(jobs)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("id", "state", "task", "queue", "key", "attempts", "run at", "last error"):
        table.add_column(heading, no_wrap=heading != "last error", overflow="ellipsis")
    for job in jobs:
        table.add_row(
            str(job["id"]),
            job["state"],
            escape(job["task_identifier"]),
            escape(job["queue_name"] or ""),
            escape(job["key"] or ""),
            f"{job['attempts']}/{job['max_attempts']}",
            job["run_at"][:19],
            escape((job["last_error"] or "").partition("\n")[0][:60]),
        )
    out.print(table)


@app.command()
def show(
    job_id: Annotated[int, typer.Argument(metavar="ID")],
    dsn: Dsn = "",
    schema: Schema = "app_jobs",
    as_json: AsJson = False,
) -> None:
    """Show a job with its failed attempts."""
    found = _fetch(dsn, schema, _sql.show_job(schema), id=job_id)
    if not found:
        raise UnknownJob(
            f"there is no job {job_id}",
            hint="It may have been completed: completed jobs are kept only if tasks.keep_completed "
            "says so.",
        )
    errors = _fetch(dsn, schema, _sql.list_errors(schema), id=job_id)
    if as_json:
        _print_json({**found[0], "errors": errors})
        return
    for name, value in found[0].items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            out.print(f"{name:17} {text}", highlight=False, markup=False)
    for error in errors:
        out.print(
            f"\nattempt {error['attempt']} failed at {error['failed_at']} on {error['worker_id']}:"
            f" {error['error_message']}",
            highlight=False,
            markup=False,
        )
        if error["detail"]:
            out.print(error["detail"].rstrip(), highlight=False, markup=False)


# --- schedules ---

schedules = typer.Typer(help="Recurring jobs.", no_args_is_help=True)
app.add_typer(schedules, name="schedules")

ScheduleIds = Annotated[list[int], typer.Argument(metavar="ID…", help="See: schedules list.")]


@schedules.command("list")
def list_schedules(
    dsn: Dsn = "",
    task: Annotated[str | None, typer.Option(help="Only of this task.")] = None,
    schema: Schema = "app_jobs",
    as_json: AsJson = False,
) -> None:
    """List schedules, with their last and next due times."""
    found = _fetch(dsn, schema, _sql.list_schedules(schema), task=task, ids=None)
    if as_json:
        _print_json(found)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("id", "task", "key", "when", "time zone", "last", "next"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for schedule in found:
        info = schedule["schedule_info"]
        table.add_row(
            str(schedule["id"]),
            escape(schedule["task_identifier"]),
            escape(schedule["key"] or ""),
            escape(info["rule"] if set(info) == {"rule"} else json.dumps(info)),
            escape(info.get("tz", schedule["time_zone"])),
            (schedule["last_scheduled"] or "")[:19],
            "paused" if schedule["paused"] else (schedule["next_run_at"] or "never")[:19],
        )
    out.print(table)


@schedules.command("preview")
def preview_schedule(
    schedule_id: Annotated[int | None, typer.Argument(metavar="[ID]")] = None,
    dsn: Dsn = "",
    cron: Annotated[str | None, typer.Option(help='Rule to try: "0 2 * * *".')] = None,
    every: Annotated[str | None, typer.Option(help='Interval to try: "15 minutes".')] = None,
    tz: Annotated[str, typer.Option(help="Its time zone.")] = "UTC",
    count: Annotated[int, typer.Option(help="So many, 1 to 1000.")] = 10,
    schema: Schema = "app_jobs",
    as_json: AsJson = False,
) -> None:
    """Show the next due times of a schedule, or of a rule that is to be tried."""
    if sum(given is not None for given in (schedule_id, cron, every)) != 1:
        raise BadArgument("nothing to preview", hint="Give one of ID, --cron and --every.")
    info: dict[str, Any] = {"every": every} if cron is None else {"rule": cron}
    if schedule_id is not None:
        (schedule,) = _schedules(dsn, schema, [schedule_id])
        info, tz = schedule["schedule_info"], schedule["time_zone"]
    with Client(dsn, schema=schema) as client:
        times = client.preview_schedule(info, count, time_zone=tz)
    zone = _zone(info.get("tz", tz))
    shown = [moment.astimezone(zone).isoformat(" ") for moment in times]
    if as_json:
        _print_json(shown)
    elif shown:
        print(*shown, sep="\n")
    else:
        _say("never again")


@schedules.command("run")
def run_schedule(
    schedule_id: Annotated[int, typer.Argument(metavar="ID")],
    dsn: Dsn = "",
    schema: Schema = "app_jobs",
) -> None:
    """Add a job of a schedule now, and print its id. Due times stay as they are."""
    with Client(dsn, schema=schema) as client:
        print(client.run_scheduled_job(schedule_id).id)


@schedules.command("pause")
def pause_schedules(ids: ScheduleIds, dsn: Dsn = "", schema: Schema = "app_jobs") -> None:
    """Add no jobs of these schedules until they are resumed."""
    _change_schedules(dsn, schema, ids, _sql.pause_schedules(schema), paused=True)


@schedules.command("resume")
def resume_schedules(ids: ScheduleIds, dsn: Dsn = "", schema: Schema = "app_jobs") -> None:
    """Go on with the next due time to come."""
    _change_schedules(dsn, schema, ids, _sql.pause_schedules(schema), paused=False)


@schedules.command("remove")
def remove_schedules(ids: ScheduleIds, dsn: Dsn = "", schema: Schema = "app_jobs") -> None:
    """Remove schedules. Jobs that they have added stay."""
    _change_schedules(dsn, schema, ids, _sql.remove_schedules(schema))


def _schedules(dsn: str, schema: str, ids: list[int]) -> list[Any]:
    found = _fetch(dsn, schema, _sql.list_schedules(schema), task=None, ids=ids)
    unknown = sorted(set(ids) - {schedule["id"] for schedule in found})
    if unknown:
        raise UnknownJob(
            f"there is no schedule {', '.join(map(str, unknown))}",
            hint="app-jobs schedules list shows what there is.",
        )
    return found


def _zone(name: str) -> tzinfo:
    """Return a time zone for showing times: UTC if only the database knows it by this spelling."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return timezone.utc


def _change_schedules(
    dsn: str, schema: str, ids: list[int], statement: str, **parameters: Any
) -> None:
    """Run a statement on schedules, all of which must be there."""
    _schedules(dsn, schema, ids)
    done = _fetch(dsn, schema, statement, ids=ids, **parameters)
    _say(f"{len(done)} schedules changed")


# --- helpers ---


def _fetch(dsn: str, schema: str, query: str, **parameters: Any) -> list[Any]:
    """Run a query that returns a JSON object per row; a database without the schema is told so."""
    with psycopg.connect(_sql.conninfo(dsn), autocommit=True) as connection:
        Client(schema=schema).version(connection=connection)
        return [json.loads(row[0]) for row in connection.execute(query.encode(), parameters)]


def _load(reference: str) -> Tasks:
    """Import the Tasks named by "package.module:name"."""
    module_name, _, name = reference.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        tasks = getattr(importlib.import_module(module_name), name or "tasks")
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise BadArgument(f"there is no module {error.name}", hint=_LOAD_HINT) from None
    except AttributeError:
        raise BadArgument(f"{module_name} has no {name or 'tasks'}", hint=_LOAD_HINT) from None
    if not isinstance(tasks, Tasks):
        raise BadArgument(f"{reference} is no app_jobs.Tasks", hint=_LOAD_HINT)
    return tasks


_LOAD_HINT = "Give package.module:name, importable from the current folder."


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _say(message: str) -> None:
    err.print(message, highlight=False, markup=False)


def _complain(message: str, detail: str | None = None, hint: str | None = None) -> None:
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    for label, text in (("detail", detail), ("hint", hint)):
        if text:
            err.print(f"{label}: {text}", highlight=False, markup=False)
