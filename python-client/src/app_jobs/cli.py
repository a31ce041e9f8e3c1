"""The console command `app-jobs`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the database is not reachable. Data goes to standard
output, all else to standard error.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import asdict
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import psycopg

from app_jobs import _sql
from app_jobs._client import Client
from app_jobs._logs import LogFormat, log_to_stderr
from app_jobs._plain import escape, plain
from app_jobs._sql import Job
from app_jobs.errors import AppJobsError, BadArgument, UnknownJob
from app_jobs.tasks import Tasks

try:
    import rich  # noqa: F401 (what it draws with is imported when there is something to draw)
    import typer
except ModuleNotFoundError as missing:
    print(
        f"app-jobs needs the extra cli ({missing.name} is missing): pip install 'app-jobs[cli]'",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FAILED, USAGE, UNREACHABLE = 1, 2, 3
COLOURS = {"critical": "bold red", "warning": "yellow", "ok": "green"}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Dsn = Annotated[
    str,
    typer.Option(
        envvar="DATABASE_URL", help="URL or libpq keywords.", show_default="PG* variables"
    ),
]
Schema = Annotated[str, typer.Option(help="Name of the schema.")]
To = Annotated[str | None, typer.Option(metavar="CHANGE", help="Name of a change in the plan.")]
DbId = Annotated[str | None, typer.Option(help="Tenant, a uuid.")]
TaskOption = Annotated[str | None, typer.Option("--task", help="The task.")]
QueueOption = Annotated[str | None, typer.Option("--queue", help="The queue.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command line."""
    try:
        _application(sys.argv[1:2])(standalone_mode=True)
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


def _application(name: list[str]) -> typer.Typer:
    """The application, without its other commands: typer makes each ready, which takes its time."""
    named = [
        command
        for command in app.registered_commands
        if [command.name or getattr(command.callback, "__name__", None)] == name
    ]
    if not named:
        return app
    narrow = copy(app)
    narrow.registered_commands, narrow.registered_groups = named, []
    return narrow


def _tell_versions(wanted: bool) -> None:
    if wanted:
        from app_jobs._versions import versions

        for part, version in versions().items():
            _out().print(f"{part:6} {escape(version)}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_tell_versions,
            is_eager=True,
            help="Tell the versions of client, schema and server.",
        ),
    ] = False,
) -> None:
    """A job queue in PostgreSQL. The database: --dsn, DATABASE_URL, or libpq's PG* variables."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", show_default="here")] = Path(),
) -> None:
    """Write a project to begin with: a task, its trigger, files for systemd and compose."""
    from app_jobs._starter import write_starter

    for path in write_starter(folder):
        print(path)
    _say("next: app-jobs migrate; psql -f migrations/001_welcome.sql; app-jobs worker tasks:tasks")


# --- the schema ---


@app.command("migrate")
def migrate_schema(dsn: Dsn = "", to: To = None, schema: Schema = "app_jobs") -> None:
    """Deploy the schema, or what is missing of it."""
    from app_jobs import migrate

    done = migrate.migrate(dsn, to=to, log=_say, schema=schema)
    _say(f"{len(done)} changes deployed" if done else "nothing to deploy")


@app.command()
def verify(dsn: Dsn = "", schema: Schema = "app_jobs") -> None:
    """Check every deployed change."""
    from app_jobs import migrate

    problems = migrate.verify(dsn, schema=schema)
    for problem in problems:
        _complain(problem)
    if problems:
        raise typer.Exit(FAILED)
    _say("all deployed changes are as they should be")


@app.command()
def revert(dsn: Dsn = "", to: To = None, schema: Schema = "app_jobs") -> None:
    """Take changes out again, down to the one given, or all."""
    from app_jobs import migrate

    done = migrate.revert(dsn, to=to, log=_say, schema=schema)
    _say(f"{len(done)} changes reverted" if done else "nothing to revert")


@app.command()
def status(dsn: Dsn = "", schema: Schema = "app_jobs", as_json: AsJson = False) -> None:
    """Tell which changes are deployed."""
    from app_jobs import migrate

    found = migrate.status(dsn, schema=schema)
    if as_json:
        _print_json(
            {"deployed": found.deployed, "pending": found.pending, "drifted": found.drifted}
        )
        return
    for label, names in (("pending", found.pending), ("drifted", found.drifted)):
        if names:
            _out().print(f"{label}: {', '.join(names)}", highlight=False)
    _out().print(f"{len(found.deployed)} changes deployed, {len(found.pending)} pending")


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
    processes: Annotated[
        int | None,
        typer.Option(help="Handlers with process=True at once.", show_default="as processors"),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus there, on --metrics-bind.")
    ] = None,
    metrics_bind: Annotated[str, typer.Option(help="Address for it.")] = "127.0.0.1",
    log_format: Annotated[LogFormat, typer.Option(help="A line of text, or of JSON.")] = "text",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run jobs until SIGTERM or SIGINT."""
    from app_jobs.worker import Worker

    log_to_stderr(logging.DEBUG if verbose else logging.INFO, log_format)
    found = Worker(
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
        processes=processes,
    )
    if metrics_port is not None:
        from app_jobs._prometheus import WorkerCollector, serve

        port = serve(WorkerCollector(found), metrics_port, metrics_bind)
        _say(f"metrics: http://{metrics_bind}:{port}/metrics")
    gc.freeze()  # what is loaded stays: the collector need not look at it after each thousand jobs
    found.run()


@app.command()
def add(
    task: Annotated[str, typer.Argument(help="Task to run.")],
    payload: Annotated[str, typer.Argument(help="Its payload, as JSON.")] = "{}",
    dsn: Dsn = "",
    db_id: DbId = None,
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


@app.command("import")
def import_jobs(
    source: Annotated[str, typer.Argument(help="graphile-worker, procrastinate or pgpm-jobs.")],
    apply: Annotated[bool, typer.Option("--apply", help="Do it; else tell what would be.")] = False,
    dsn: Dsn = "",
    from_schema: Annotated[
        str | None, typer.Option(help="Theirs.", show_default="as they have it")
    ] = None,
    crontab: Annotated[
        Path | None, typer.Option(help="That of graphile-worker.", exists=True, dir_okay=False)
    ] = None,
    time_zone: Annotated[str, typer.Option(help="Of their schedules.")] = "UTC",
    schema: Schema = "app_jobs",
    as_json: AsJson = False,
) -> None:
    """Carry the waiting jobs of another queue in this database over."""
    from app_jobs import importer

    done = importer.import_jobs(
        dsn,
        source,
        from_schema=from_schema,
        schema=schema,
        crontab=crontab.read_text("utf-8") if crontab else None,
        time_zone=time_zone,
        apply=apply,
    )
    if as_json:
        _print_json(asdict(done))
        return
    table = _table("task", "due", "later", "")
    for row in done.jobs + done.schedules:
        fate = f"stays: {row['why_not']}" if row["why_not"] else "comes over"
        if "schedule_info" in row:
            fate = f"schedule {json.dumps(row['schedule_info'])} {fate}"
        due, later = str(row.get("due", "")), str(row.get("later", ""))
        table.add_row(escape(row["task"]), due, later, escape(fate))
    _out().print(table)
    for note in done.notes:
        _say(f"note: {note}")
    if apply:
        _say(f"{done.carried} jobs came over")
    else:
        _say(f"{done.carried} jobs would come over; nothing was changed: --apply does it")


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
    table = _table("id", "state", "task", "queue", "key", "attempts", "run at", "last error")
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
    _out().print(table)


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
    _print_members(found[0])
    for error in errors:
        _out().print(
            f"\nattempt {error['attempt']} failed at {error['failed_at']} on"
            f" {escape(error['worker_id'] or '')}: {escape(error['error_message'] or '')}",
            highlight=False,
        )
        if error["detail"]:
            _out().print(escape(error["detail"].rstrip()), highlight=False)


@app.command()
def explain(
    job_id: Annotated[int, typer.Argument(metavar="ID")], dsn: Dsn = "", schema: Schema = "app_jobs"
) -> None:
    """Say why a job is not running, and the next step."""
    with Client(dsn, schema=schema) as client:
        print(plain(client.explain_job(job_id)))


@app.command()
def queues(
    dsn: Dsn = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    schema: Schema = "app_jobs",
    as_json: AsJson = False,
) -> None:
    """List named queues, those with most jobs first. Reads all jobs."""
    found = _fetch(dsn, schema, _sql.list_queues(schema), limit=limit)
    if as_json:
        _print_json(found)
        return
    table = _table("queue", "tenant", "jobs", "limit", "paused", "held by", "since")
    for queue in found:
        table.add_row(
            escape(queue["queue_name"]),
            queue["database_id"] or "",
            str(queue["job_count"]),
            str(queue["max_running"]),
            "paused" if queue["paused"] else "",
            escape(queue["locked_by"] or ""),
            (queue["locked_at"] or "")[:19],
        )
    _out().print(table)


@app.command()
def doctor(dsn: Dsn = "", schema: Schema = "app_jobs", as_json: AsJson = False) -> None:
    """Look for what is wrong or will be. Exit code 1: something is critical."""
    with Client(dsn, schema=schema) as client:
        findings = client.doctor()
    if as_json:
        _print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            severity = f"[{COLOURS.get(finding.severity, 'default')}]{finding.severity:8}[/]"
            figure = f": {finding.figure}" if finding.figure else ""
            _out().print(f"{severity}  {escape(finding.finding + figure)}", highlight=False)
            if finding.remedy:
                _out().print(f"{'':8}  {escape(finding.remedy)}", highlight=False)
    if any(finding.severity == "critical" for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def exporter(
    dsn: Dsn = "",
    port: Annotated[int, typer.Option(help="Port; 0: one that is free.")] = 9187,
    bind: Annotated[str, typer.Option(help="Address.")] = "127.0.0.1",
    schema: Schema = "app_jobs",
) -> None:
    """Serve what the database knows of the queue to Prometheus, until SIGTERM or SIGINT."""
    from app_jobs._prometheus import Exporter, serve

    log_to_stderr(logging.INFO, "text")
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # in the threads to come, too
    port = serve(Exporter(dsn, schema), port, bind)
    _say(f"metrics: http://{bind}:{port}/metrics")
    signal.sigwait(stops)


@app.command()
def top(
    dsn: Dsn = "",
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Print one frame.")] = False,
    schema: Schema = "app_jobs",
    as_json: AsJson = False,
) -> None:
    """Watch tasks and workers; q ends it. Into a pipe: one frame."""

    def look() -> Any:
        return _fetch(dsn, schema, _sql.top(schema), namespace=schema)[0]

    from rich.live import Live

    from app_jobs._top import View, keyboard

    view, out = View(), _out()
    view.add(look())
    if as_json:
        _print_json(view.look)
        return
    if once or not sys.stdout.isatty():
        out.print(view.frame())
        return
    note = ""
    with (
        suppress(KeyboardInterrupt),
        keyboard() as wait,
        Live(console=out, screen=True, auto_refresh=False) as live,
    ):
        while True:
            live.update(view.frame(out.height, note, out.width), refresh=True)
            if not wait(interval):
                return
            try:
                view.add(look())
                note = ""
            except psycopg.OperationalError as error:
                note = f"the database is not reachable: {' '.join(str(error).split())}"


@app.command()
def web(
    dsn: Dsn = "",
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8680,
    host: Annotated[
        list[str] | None, typer.Option(help="A name under which it is reached, besides localhost.")
    ] = None,
    allow_writes: Annotated[
        bool,
        typer.Option("--allow-writes", help="Let those act who sign in with a token, or by proxy."),
    ] = False,
    user_header: Annotated[
        str | None, typer.Option(help="Header in which a reverse proxy names the person.")
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="Address or network that may set this header.")
    ] = None,
    show_payloads: Annotated[
        bool, typer.Option("--show-payloads", help="Show payloads and results of jobs.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between looks.")] = 2,
    schema: Schema = "app_jobs",
) -> None:
    """Serve the dashboard. Read only, and for this machine alone, unless told otherwise.

    Tokens are taken from APP_JOBS_WEB_TOKENS, NAME:TOKEN,NAME:TOKEN; without it one is made up.
    """
    from app_jobs import web

    access = web.Access(
        hosts=host or [],
        allow_writes=allow_writes,
        user_header=user_header,
        trusted_proxies=trusted_proxy or [],
        show_payloads=show_payloads,
    )
    web.serve(
        dsn,
        schema=schema,
        bind=bind,
        port=port,
        access=access,
        every=interval,
        say=_say,
    )


# --- steering ---


@app.command()
def cancel(
    job_ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...")] = None,
    job_key: Annotated[str | None, typer.Option("--key", help="The job with this key.")] = None,
    db_id: DbId = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept as the job's last error.")] = None,
    dsn: Dsn = "",
    schema: Schema = "app_jobs",
) -> None:
    """Cancel jobs, and print their ids. One that runs is stopped at its worker's next heartbeat."""
    _one_of({"IDs": job_ids, "--key": job_key})
    with Client(dsn, schema=schema) as client:
        if job_key is None:
            jobs = client.cancel_jobs(job_ids or [], reason)
        else:
            job = client.cancel_job(job_key, db_id, reason)
            if job is None:
                raise UnknownJob(f"no live job has the key {job_key}")
            jobs = [job]
    for job in jobs:
        if job.lease_expires_at is not None:
            _say(f"job {job.id} is running on {job.locked_by}, which will be told to stop")
    _print_ids(jobs, job_ids)


@app.command()
def retry(
    job_ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...")] = None,
    task: Annotated[str | None, typer.Option(help="The dead letters of this task.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="With --task or --all: so many.")] = 1000,
    dsn: Dsn = "",
    schema: Schema = "app_jobs",
) -> None:
    """Put finished jobs back to work, all or none, and print their ids.

    Of --task or --all, jobs whose key has been given to another one since are left out.
    """
    _one_of({"IDs": job_ids, "--task": task, "--all": everything})
    chosen = job_ids or _fetch(dsn, schema, _sql.dead_letters(schema), task=task, limit=limit)
    with Client(dsn, schema=schema) as client:
        jobs = client.retry_jobs(chosen)
    if not job_ids and len(chosen) == limit:
        _say("there may be more: run it again")
    _print_ids(jobs, job_ids)


@app.command()
def pause(
    task: TaskOption = None,
    queue: QueueOption = None,
    db_id: DbId = None,
    dsn: Dsn = "",
    schema: Schema = "app_jobs",
) -> None:
    """Start no more jobs of a task or a queue. Those that run go on."""
    _one_of({"--task": task, "--queue": queue})
    with Client(dsn, schema=schema) as client:
        if task is not None:
            client.pause_task(task)
        elif queue is not None:
            client.pause_queue(queue, db_id)


@app.command()
def resume(
    task: TaskOption = None,
    queue: QueueOption = None,
    db_id: DbId = None,
    dsn: Dsn = "",
    schema: Schema = "app_jobs",
) -> None:
    """Let a paused task or queue go on."""
    _one_of({"--task": task, "--queue": queue})
    with Client(dsn, schema=schema) as client:
        if task is not None:
            client.resume_task(task)
        elif queue is not None:
            client.resume_queue(queue, db_id)


@app.command("limit")
def limit_queue(
    queue: Annotated[str, typer.Argument(help="Name of the queue.")],
    max_running: Annotated[int, typer.Argument(metavar="N", help="Jobs at once, 1 to 10,000.")],
    db_id: DbId = None,
    dsn: Dsn = "",
    schema: Schema = "app_jobs",
) -> None:
    """Set how many jobs of a queue may run at once."""
    with Client(dsn, schema=schema) as client:
        client.set_queue_limit(queue, max_running, db_id)


@app.command("task")
def set_task(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="null: back to the default."),
    ] = None,
    dsn: Dsn = "",
    schema: Schema = "app_jobs",
    as_json: AsJson = False,
) -> None:
    """Show the settings of a task, after changing some.

    For example: app-jobs task report max_attempts=5 keep_completed='1 day' timeout=null
    """
    changes = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise BadArgument(f"no setting: {setting}", hint="Give key=value.")
        changes[key] = _json_or_text(value)
    if changes:
        with Client(dsn, schema=schema) as client:
            client.set_task(task, changes)
    found = _fetch(dsn, schema, _sql.show_task(schema), task=task)
    if as_json:
        _print_json(found[0] if found else None)
    elif found:
        _print_members(found[0])
    else:
        _say(f"task {task} has no settings of its own")


@app.command()
def prune(
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Finished longer ago than that: 90s, 30m, 12h, 7d or 2w.",
            show_default="as their tasks keep them",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows in one transaction.")] = 10_000,
    dsn: Dsn = "",
    schema: Schema = "app_jobs",
) -> None:
    """Delete finished jobs, in batches until none is left; print how many."""
    age = None if older_than is None else _age(older_than)
    total = 0
    with Client(dsn, schema=schema) as client, _err().status("deleting finished jobs") as status:
        while True:
            deleted = client.prune(age, batch)
            total += deleted
            if deleted < batch:
                break
            status.update(f"{total:,} finished jobs deleted")
    print(total)


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
    table = _table("id", "task", "key", "when", "time zone", "last", "next")
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
    _out().print(table)


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


def _one_of(choices: dict[str, Any]) -> None:
    """Refuse a command line that gives not exactly one of these."""
    if sum(bool(value) for value in choices.values()) != 1:
        *others, last = choices
        raise BadArgument(f"give {', '.join(others)} or {last}, and one of them only")


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text)
    if match is None:
        raise BadArgument(f"no age: {text}", hint="For example 90s, 30m, 12h, 7d or 2w.")
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    return timedelta(**{units[match[2]]: int(match[1])})


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _print_ids(jobs: Sequence[Job], wanted: Sequence[int] | None) -> None:
    """Print the ids of jobs that were changed; those that were not are a failure."""
    for job in jobs:
        print(job.id)
    rest = sorted(set(wanted or []) - {job.id for job in jobs})
    if rest:
        _complain(f"not changed: {', '.join(map(str, rest))}", hint="app-jobs explain ID says why.")
        raise typer.Exit(FAILED)


@cache
def _out() -> Console:
    from rich.console import Console

    # What is piped on is not cut off at the width of a terminal.
    return Console(width=None if sys.stdout.isatty() else 240)


@cache
def _err() -> Console:
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)


def _table(*headings: str) -> Table:
    """A table whose last column takes the room that is left."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1], overflow="ellipsis")
    return table


def _print_members(record: dict[str, Any]) -> None:
    for name, value in record.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            _out().print(f"{name:17} {escape(text)}", highlight=False)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _say(message: str) -> None:
    _err().print(message, highlight=False, markup=False)


def _complain(message: str, detail: str | None = None, hint: str | None = None) -> None:
    _err().print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    for label, text in (("detail", detail), ("hint", hint)):
        if text:
            _err().print(f"{label}: {text}", highlight=False, markup=False)
