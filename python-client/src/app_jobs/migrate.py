"""The migrator: deploys, verifies and reverts the schema where Sqitch is not installed.

It works on the same ``sqitch.plan`` and scripts as Sqitch and keeps the same registry (schema
``sqitch``), so either tool goes on where the other stopped. With another schema name it works on
the files rendered for it and keeps a registry ``NAME_sqitch``. Unlike Sqitch it runs a change, its
verify script and its registry rows in one transaction: an interrupted deployment stands between two
changes, never inside one. Only psycopg is needed. Connect directly, not through a pooler in
transaction mode: the lock between deployers is held by the session.

``python -m app_jobs.migrate COMMAND [--to CHANGE] [--schema NAME] [--dsn DSN]``, where COMMAND is
migrate, verify, revert or status.
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from . import _render
from ._plan import Change, Entry, MigrationError, Plan, in_force
from .errors import AppJobsError, BadArgument, ForeignSchema, SchemaTooNew

__all__ = ["MigrationError", "Status", "migrate", "revert", "status", "verify"]

REGISTRY_VERSION = "1.1"
# The key that Sqitch locks between deployers.
DEPLOYMENT_LOCK = 75474063
OLDEST_SERVER = 140000

Connection = psycopg.Connection[tuple[Any, ...]]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Status:
    """What a database holds, by names of changes in the order of the plan."""

    deployed: list[str]
    pending: list[str]
    #: Deployed changes whose deploy script is not the one in the plan's folder any more.
    drifted: list[str]

    @property
    def up_to_date(self) -> bool:
        """Whether there is nothing to deploy and nothing has drifted."""
        return not self.pending and not self.drifted


def migrate(
    conninfo: str = "",
    *,
    to: str | None = None,
    verify: bool = True,
    log: Log = print,
    schema: str = _render.DEFAULT,
) -> list[str]:
    """Deploy what is missing, and return the names of the changes that were deployed.

    conninfo  a URL or libpq's keywords; what is left out comes from the PG* variables
    to        the last change to deploy; null: all of the plan
    verify    run each change's verify script before the change is committed
    log       gets a line per change
    schema    the name of the schema; roles, channel, settings and registry are named after it

    Every change is committed by itself. Waits while another deployer is at work. Raises
    ForeignSchema (JQ091), SchemaTooNew, MigrationError, BadArgument (the schema's name).
    """
    plan = Plan.load(schema=schema)
    with _connect(conninfo, schema) as connection:
        _lock(connection, log)
        registry = Registry(connection, plan)
        deployed = registry.deployed()
        if drifted := registry.drifted():
            raise MigrationError(
                f"the deploy script of {_names(drifted)} has changed since it was deployed",
                hint="Revert to the change before it, then migrate again. Sqitch deploys"
                " further changes on top without looking at this.",
            )
        last = len(plan.changes) if to is None else plan.position(to) + 1
        for change in deployed:
            registry.add_tags(change)
        pending = plan.changes[len(deployed) : last]
        for change in pending:
            log(f"  + {change.name}")
            with connection.transaction():
                _execute(connection, plan, "deploy", change)
                if verify:
                    _run_verify(connection, plan, change)
                # After the first change, which refuses a schema that is not ours.
                if change is plan.changes[0]:
                    registry.create()
                registry.add(change)
        return [change.name for change in pending]


def verify(conninfo: str = "", *, schema: str = _render.DEFAULT) -> list[str]:
    """Run the verify script of every deployed change; return the problems found, a line each.

    Writes nothing. A changed deploy script is a problem, an undeployed change is none.
    Raises SchemaTooNew, MigrationError, BadArgument.
    """
    plan = Plan.load(schema=schema)
    with _connect(conninfo, schema) as connection:
        registry = Registry(connection, plan)
        deployed = registry.deployed() or _extension(connection, plan)
        if not deployed:
            raise MigrationError(
                f"{schema} is not deployed in this database", hint="Run `app-jobs migrate`."
            )
        problems = [
            f"{change.name}: its deploy script has changed since it was deployed"
            for change in registry.drifted()
        ]
        for change in in_force(deployed):
            try:
                _run_verify(connection, plan, change)
            except MigrationError as error:
                problems.append(f"{change.name}: {error.message}")
    return problems


def revert(
    conninfo: str = "",
    *,
    to: str | None = None,
    log: Log = print,
    schema: str = _render.DEFAULT,
) -> list[str]:
    """Revert changes, the last one first; return their names.

    to  the change that shall be the last one; null: revert all. The registry itself stays.

    Every change is committed by itself. Waits while another deployer is at work.
    Raises SchemaTooNew, MigrationError (a change refuses: unfinished jobs, say), BadArgument,
    ForeignSchema (an extension).
    """
    plan = Plan.load(schema=schema)
    with _connect(conninfo, schema) as connection:
        _lock(connection, log)
        registry = Registry(connection, plan)
        keep = 0 if to is None else plan.position(to) + 1
        deployed = registry.deployed()
        if not deployed and _extension(connection, plan):
            raise ForeignSchema(
                f'schema "{schema}" is that of an extension',
                hint="ALTER EXTENSION … UPDATE TO brings an older version;"
                " sql/app_jobs_uninstall.sql removes it (DROP EXTENSION, too, jobs or no jobs).",
            )
        doomed = deployed[keep:][::-1]
        for change in doomed:
            log(f"  - {change.name}")
            with connection.transaction():
                _execute(connection, plan, "revert", change)
                registry.remove(change)
        return [change.name for change in doomed]


def status(conninfo: str = "", *, schema: str = _render.DEFAULT) -> Status:
    """Compare a database with the plan; writes nothing.

    Raises SchemaTooNew, MigrationError, BadArgument.
    """
    plan = Plan.load(schema=schema)
    with _connect(conninfo, schema) as connection:
        registry = Registry(connection, plan)
        deployed, drifted = registry.deployed(), registry.drifted()
        deployed = deployed or _extension(connection, plan)
    return Status(
        deployed=[change.name for change in deployed],
        pending=[change.name for change in plan.changes[len(deployed) :]],
        drifted=[change.name for change in drifted],
    )


class Registry:
    """What Sqitch's registry in a database says about the plan's changes."""

    def __init__(self, connection: Connection, plan: Plan) -> None:
        self._connection = connection
        self._plan = plan
        self._schema = plan.registry

    def deployed(self) -> list[Change]:
        """The deployed changes, which must be the first ones of the plan."""
        rows = self._rows()
        for index, (change_id, name, _) in enumerate(rows):
            if change_id in (change.id for change in self._plan.changes[index : index + 1]):
                continue
            if name in (change.name for change in self._plan.changes):
                raise MigrationError(
                    f'the deployed change "{name}" is not the one in the plan',
                    detail=f"Its id is {change_id} in the registry.",
                    hint="It was deployed from another version of sqitch.plan: use that one.",
                )
            raise SchemaTooNew(
                f'the database holds the change "{name}", which this version does not know',
                hint="Upgrade app-jobs: the schema is newer than its SQL files.",
            )
        return self._plan.changes[: len(rows)]

    def drifted(self) -> list[Change]:
        """Those of the deployed changes whose deploy script is another one by now."""
        return [
            change
            for change, (_, _, script_hash) in zip(self.deployed(), self._rows(), strict=True)
            if script_hash != self._plan.script_hash(change)
        ]

    def create(self) -> None:
        """Make the registry if there is none, and enter the project if it is not there."""
        with self._connection.transaction():
            if not self._exists():
                self._connection.execute("set local client_min_messages = warning")
                self._connection.execute(registry_script(self._schema).encode())
                self._insert("releases", version=REGISTRY_VERSION, **_committer("installer"))
            known = self._connection.execute(
                f"select uri from {self._schema}.projects where project = %s",
                [self._plan.project],
            ).fetchone()
            if known is None:
                self._insert(
                    "projects",
                    project=self._plan.project,
                    uri=self._plan.uri,
                    **_committer("creator"),
                )
            elif known != (self._plan.uri,):
                raise MigrationError(
                    f'the registry has another project "{self._plan.project}", of {known[0]}'
                )

    def add(self, change: Change) -> None:
        """Enter a change as deployed, with its dependencies, tags and event."""
        for table, row in rows_of(self._plan, change, _committer("committer")):
            self._insert(table, **row)

    def add_tags(self, change: Change) -> None:
        """Enter those of the change's tags that are not there; they may be younger than it."""
        known = self._connection.execute(
            f"select tag_id from {self._schema}.tags where change_id = %s", [change.id]
        ).fetchall()
        for tag in change.tags:
            if (tag.id,) not in known:
                self._insert("tags", **_tag_row(self._plan, change, tag, _committer("committer")))

    def remove(self, change: Change) -> None:
        """Take a reverted change out, and log the event."""
        for table in ("tags", "dependencies", "changes"):
            self._connection.execute(
                f"delete from {self._schema}.{table} where change_id = %s", [change.id]
            )
        self._insert("events", **_event_row(self._plan, change, "revert", _committer("committer")))

    def _exists(self) -> bool:
        exists = f"select to_regclass('{self._schema}.releases') is not null"
        if self._connection.execute(exists).fetchone() != (True,):
            return False
        newest = f"select max(version)::text from {self._schema}.releases"
        if (version := self._connection.execute(newest).fetchone()) != (REGISTRY_VERSION,):
            raise MigrationError(
                f"Sqitch's registry here has version {version and version[0]},"
                f" not {REGISTRY_VERSION}",
                hint="Bring it up to date with `sqitch upgrade`, or deploy with Sqitch.",
            )
        return True

    def _rows(self) -> list[tuple[Any, ...]]:
        """Id, name and script hash of what is deployed, in the order of deployment."""
        if not self._exists():
            return []
        return self._connection.execute(
            f"select change_id, change, script_hash from {self._schema}.changes"
            " where project = %s order by committed_at",
            [self._plan.project],
        ).fetchall()

    def _insert(self, table: str, **values: object) -> None:
        # Table and column names come from this class alone, the schema's has been checked.
        columns, places = ", ".join(values), ", ".join(["%s"] * len(values))
        self._connection.execute(
            f"insert into {self._schema}.{table} ({columns}) values ({places})",
            list(values.values()),
        )


def registry_script(registry: str) -> str:
    """The statements that make an empty registry in a schema of this name."""
    script = Path(__file__).with_name("sqitch_registry.sql").read_text("utf-8")
    return re.sub(r"\bsqitch\b", registry, script)


def rows_of(
    plan: Plan, change: Change, committer: dict[str, str]
) -> Iterator[tuple[str, dict[str, object]]]:
    """The rows that say that a change is deployed, with the names of their tables, in order.

    committer  committer_name and committer_email
    """
    yield (
        "changes",
        {
            "change_id": change.id,
            "script_hash": plan.script_hash(change),
            "change": change.name,
            "project": plan.project,
            **_about(change),
            **committer,
        },
    )
    for name, change_id in change.requires.items():
        yield (
            "dependencies",
            {
                "change_id": change.id,
                "type": "require",
                "dependency": name,
                "dependency_id": change_id,
            },
        )
    for tag in change.tags:
        yield "tags", _tag_row(plan, change, tag, committer)
    yield "events", _event_row(plan, change, "deploy", committer)


def _tag_row(
    plan: Plan, change: Change, tag: Entry, committer: dict[str, str]
) -> dict[str, object]:
    return {
        "tag_id": tag.id,
        "tag": f"@{tag.name}",
        "project": plan.project,
        "change_id": change.id,
        **_about(tag),
        **committer,
    }


def _event_row(
    plan: Plan, change: Change, event: str, committer: dict[str, str]
) -> dict[str, object]:
    return {
        "event": event,
        "change_id": change.id,
        "change": change.name,
        "project": plan.project,
        "requires": list(change.requires),
        "tags": [f"@{tag.name}" for tag in change.tags],
        **_about(change),
        **committer,
    }


def _about(entry: Entry) -> dict[str, str]:
    return {
        "note": entry.note,
        "planned_at": entry.planned_at,
        "planner_name": entry.planner_name,
        "planner_email": entry.planner_email,
    }


def _committer(role: str) -> dict[str, str]:
    """Who deploys, from the same variables as Sqitch, else user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user id without a name
        user = str(os.getuid())
    name = os.environ.get("SQITCH_FULLNAME") or user
    email = os.environ.get("SQITCH_EMAIL") or f"{user}@{socket.gethostname()}"
    return {f"{role}_name": name, f"{role}_email": email}


@contextmanager
def _connect(conninfo: str, schema: str) -> Iterator[Connection]:
    with psycopg.connect(
        conninfo,
        autocommit=True,
        client_encoding="utf8",
        fallback_application_name="app-jobs migrate",
    ) as connection:
        if connection.info.server_version < OLDEST_SERVER:
            raise MigrationError(
                f"app_jobs needs PostgreSQL {OLDEST_SERVER // 10000} or newer;"
                f" this server has {connection.info.parameter_status('server_version')}"
            )
        if connection.execute("select quote_ident(%s)", [schema]).fetchone() != (schema,):
            raise BadArgument(f'"{schema}" is a keyword of SQL', hint="Choose another name.")
        yield connection


def _lock(connection: Connection, log: Log) -> None:
    """Keep other deployers out for the rest of the session, and show what scripts report."""
    taken = connection.execute(f"select pg_try_advisory_lock({DEPLOYMENT_LOCK})").fetchone()
    if taken != (True,):
        log("another deployment is at work in this database: waiting for it")
        connection.execute(f"select pg_advisory_lock({DEPLOYMENT_LOCK})")
    connection.add_notice_handler(
        lambda notice: log(f"    {notice.severity}: {notice.message_primary}")
    )


def _extension(connection: Connection, plan: Plan) -> list[Change]:
    """The changes that `create extension app_jobs` has made under this schema name, if it did."""
    versions = connection.execute(
        "select e.extversion from pg_extension as e inner join pg_depend as d"
        " on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'"
        " inner join pg_class as c on d.classid = 'pg_class'::regclass and d.objid = c.oid"
        " where c.relnamespace = to_regnamespace(%s) limit 1",
        [plan.schema],
    ).fetchall()
    return plan.release(versions[0][0]) if versions else []


def _run_verify(connection: Connection, plan: Plan, change: Change) -> None:
    with connection.transaction(force_rollback=True):
        _execute(connection, plan, "verify", change)


def _execute(connection: Connection, plan: Plan, kind: str, change: Change) -> None:
    """Run a script inside the caller's transaction; say in which line it failed."""
    text = plan.statements(kind, change)
    try:
        connection.execute(text.encode())
    except psycopg.Error as error:
        if connection.closed:  # lost: not the script's fault
            raise
        line = ""
        if error.diag.statement_position:
            line = f":{text.count(chr(10), 0, int(error.diag.statement_position)) + 1}"
        refused = ForeignSchema if error.sqlstate == ForeignSchema.sqlstate else MigrationError
        raise refused(
            f"{kind}/{change.script}.sql{line}: {error.diag.message_primary}",
            sqlstate=error.sqlstate,
            detail=error.diag.message_detail,
            hint=error.diag.message_hint,
        ) from error


def _names(changes: Sequence[Change]) -> str:
    return ", ".join(f'"{change.name}"' for change in changes)


def main() -> None:
    """Run one of the four commands; exit with 0 when all is well, 1 when not, 3 unconnected."""
    parser = argparse.ArgumentParser(prog="python -m app_jobs.migrate")
    parser.add_argument("command", choices=["migrate", "verify", "revert", "status"])
    parser.add_argument("--to", metavar="CHANGE", help="the last change to deploy, or to keep")
    parser.add_argument("--schema", metavar="NAME", default=_render.DEFAULT, help="the schema")
    parser.add_argument("--dsn", default=os.environ.get("DATABASE_URL", ""), help="libpq's or URL")
    arguments = parser.parse_args()
    try:
        sys.exit(_command(arguments.command, arguments.dsn, arguments.to, arguments.schema))
    except psycopg.OperationalError as error:
        print(error, file=sys.stderr)
        sys.exit(3)
    except (AppJobsError, psycopg.Error) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


def _command(command: str, dsn: str, to: str | None, schema: str) -> int:
    if command == "migrate":
        print("deployed" if migrate(dsn, to=to, schema=schema) else "nothing to deploy")
        return 0
    if command == "revert":
        print("reverted" if revert(dsn, to=to, schema=schema) else "nothing to revert")
        return 0
    if command == "verify":
        problems = verify(dsn, schema=schema)
        print("\n".join(problems) or "verified")
        return 1 if problems else 0
    found = status(dsn, schema=schema)
    for label, names in vars(found).items():
        print(f"{label}: {', '.join(names) or 'nothing'}")
    return 0


if __name__ == "__main__":
    main()
