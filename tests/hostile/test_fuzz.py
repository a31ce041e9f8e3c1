"""Random arguments for every public function, as whoever may call it.

Only SQLSTATEs that docs/errors.md explains come back, no call hangs, what always holds still holds,
and the server has nothing to say of a crash. A few hundred calls with a fixed seed, as many with
one of the clock's, which is printed; 10,000 with APP_JOBS_FULL=1.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rules import BROKEN
from users import LONG, ROLES, Login

ERRORS = Path(__file__).parent.parent.parent / "docs" / "errors.md"
CALLS = 5000 if LONG else 350
LOOK_EVERY = 50

PUBLIC = """
    select
        p.oid::regproc::text, p.proargnames[:p.pronargs],
        p.proargtypes::regtype[]::text[], p.pronargdefaults,
        array(
            select r.role from unnest(%s::text[]) as r(role)
            where has_function_privilege('app_jobs_' || r.role, p.oid, 'execute')
        )
    from pg_proc as p
    where p.pronamespace = 'app_jobs'::regnamespace and p.prorettype <> 'trigger'::regtype
    order by p.oid::regprocedure::text
"""
IDS = """
    select coalesce(array_agg(i.id), '{}')
    from (
        select id from app_jobs.jobs union all select id from app_jobs.finished_jobs
        union all select id from app_jobs.scheduled_jobs
    ) as i
"""
# Settings of the caller's that must not matter to us.
SETTINGS = [
    "set datestyle = 'SQL, DMY'",
    "set intervalstyle = 'sql_standard'",
    "set timezone = 'Australia/Lord_Howe'",
    "set extra_float_digits = -15",
    "set search_path = pg_temp, public",
    "set default_transaction_isolation = 'repeatable read'",
    "set plan_cache_mode = force_custom_plan",
    "set enable_indexscan = off",
    "set row_security = off",
    "set app_jobs.notify = off",
    "set app_jobs.traceparent = 'x'",
]


class Arguments:
    """Random values of any type that our functions take, as text."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ids: list[int] = []

    def pick(self, *values: Any) -> Any:
        return self.random.choice(values)

    def of(self, kind: str, name: str) -> str | None:
        if self.random.random() < 0.08:
            return None
        if kind.endswith("[]"):
            return self.array(kind[:-2], name)
        makers: dict[str, Callable[[str], str]] = {
            "text": self.text,
            "json": lambda name: json.dumps(self.json(name)),
            "jsonb": lambda name: re.sub(r"\\u(0000|d800)", "", json.dumps(self.json(name))),
            "bigint": self.number,
            "integer": self.number,
            "boolean": lambda _: self.pick("true", "false"),
            "uuid": lambda _: "11111111-1111-1111-1111-11111111111" + self.pick("1", "2"),
            "interval": self.interval,
            "timestamp with time zone": self.moment,
            "numeric": lambda _: self.pick("0", "-1", "0.001", "1e6", "NaN", "Infinity", "1e400"),
            "double precision": lambda _: self.pick("0", "0.5", "1", "-1", "NaN", "Infinity"),
        }
        value = makers[kind](name)
        if kind == "integer" and abs(int(value)) >= 2**31:
            return str(self.pick(2**31 - 1, -(2**31)))
        return value

    def array(self, kind: str, name: str) -> str:
        rows = [
            [self.of(kind, name) for _ in range(self.pick(0, 1, 1, 2, 2, 5))]
            for _ in range(self.pick(1, 1, 1, 1, 2))
        ]
        size = min(map(len, rows))

        def write(values: Sequence[str | None]) -> str:
            return "{" + ",".join("null" if v is None else json.dumps(v) for v in values) + "}"

        if len(rows) == 1 or size == 0:
            return write(rows[0])
        return "{" + ",".join(write(row[:size]) for row in rows) + "}"

    def text(self, name: str) -> str:
        likely = {
            "job_key_mode": ("replace", "preserve_run_at", "keep", "once"),
            "state": ("ready", "parked", "failed", "completed", "running"),
            "time_zone": ("UTC", "Europe/Berlin", "Mars", "+25", "posix/UTC"),
            "missed": ("skip", "once", "all"),
            "overlap": ("allow", "skip"),
            "worker_id": ("w1", "w2"),
        }.get(name, ("a", "b", "k"))
        if self.random.random() < 0.8:
            return str(self.pick(*likely))
        return str(
            self.pick(
                *(
                    "",
                    " ",
                    "'",
                    '"',
                    "\\",
                    "{}",
                    "%",
                    "_",
                    "$1",
                    "*",
                    "%s",
                    "a\nb",
                    "\x01",
                    "\u202e",
                ),
                *("'; drop table app_jobs.jobs; --", "\U0001f600", "ü" * 200, "x" * 127, "x" * 513),
            )
        )

    def number(self, _: str) -> str:
        if self.ids and self.random.random() < 0.5:
            return str(self.pick(*self.ids))
        return str(self.pick(0, 1, 1, 2, 3, 10, -1, 1000, 10**6, 2**31 - 1, -(2**31), 2**63 - 1))

    def interval(self, _: str) -> str:
        return str(
            self.pick(
                *("1 second", "1 hour", "0", "-1 day", "1 month -30 days", "1 microsecond"),
                *("178000000 years", "-178000000 years", "100 years", "2147483647 days"),
            )
        )

    def moment(self, _: str) -> str:
        return str(
            self.pick(
                *("now", "tomorrow", "yesterday", "infinity", "-infinity", "epoch"),
                *("4713-01-01 00:00 BC", "294276-12-31 00:00+00", "2026-03-29 02:30 Europe/Berlin"),
            )
        )

    def json(self, name: str) -> Any:
        if self.random.random() < 0.25:
            return self.pick(
                *(None, True, 0, -1, 1.5, 10**400, "", "x", "\x00", "\ud800", [], {}, [None], [[]]),
                *([1], {"": 0}, {"a": {"b": [None]}}, [{}], [{}, 1], "9" * 30),
            )
        shapes: dict[str, Callable[[], Any]] = {
            "specs": lambda: [self.record(SPEC) for _ in range(self.pick(0, 1, 2, 5))],
            "failures": lambda: [self.record(FAILURE) for _ in range(self.pick(0, 1, 2, 5))],
            "reports": lambda: [self.record(REPORT) for _ in range(self.pick(0, 1, 2))],
            "settings": lambda: self.record(TASK),
            "backoff": lambda: self.record(BACKOFF),
            "schedule_info": self.schedule,
            "stats": lambda: self.record(STATS),
        }
        if name in shapes:
            return shapes[name]()
        return {"a": self.json("") if self.random.random() < 0.3 else 1}

    def record(self, members: dict[str, str]) -> dict[str, Any]:
        """Some members, each of the type that it should have, or of another."""
        value: dict[str, Any] = {}
        for name, kind in members.items():
            if self.random.random() < 0.5 or name in ("identifier", "job_id"):
                wrong = self.random.random() < 0.1
                text = self.of(self.pick("text", "interval", "boolean") if wrong else kind, name)
                is_json = kind in ("json", "integer", "bigint", "boolean") and not wrong
                value[name] = json.loads(text) if text is not None and is_json else text
        if self.random.random() < 0.05:
            value["unknown"] = 1
        return value

    def schedule(self) -> Any:
        field = self.pick(
            *(0, 1, [0, 30], {"start": 0, "end": 10, "step": 3}, -1, 99, [], "x", None, 1.5, {}),
            *([1] * 100, {"start": 5, "end": 1}, {"step": 0}),
        )
        return self.pick(
            {"rule": self.pick("* * * * *", "@daily", "0 0 30 2 *", "*/0 * * * *", "x", "", "L")},
            {"rule": "0 0 L * *", "start": self.moment(""), "end": self.moment("")},
            {"every": self.interval("")},
            {"every": "1 hour", "start": self.moment(""), "tz": self.text("time_zone")},
            {"at": self.moment("")},
            {self.pick("second", "minute", "hour", "dayOfWeek", "date", "month", "year"): field},
            {"hour": field, "minute": 0},
        )


SPEC = {
    "db_id": "uuid",
    "identifier": "text",
    "payload": "json",
    "job_key": "text",
    "queue_name": "text",
    "run_at": "timestamp with time zone",
    "max_attempts": "integer",
    "priority": "integer",
    "job_key_mode": "text",
    "attributes": "json",
    "retry_after": "interval",
}
FAILURE = {
    "job_id": "bigint",
    "error_message": "text",
    "lease": "integer",
    "retry_in": "interval",
    "detail": "text",
    "permanent": "boolean",
}
REPORT = {"job_id": "bigint", "lease": "integer", "done": "double precision", "note": "text"}
TASK = {
    "max_attempts": "integer",
    "retry_after": "interval",
    "timeout": "interval",
    "backoff": "json",
    "keep_completed": "interval",
    "keep_failed": "interval",
    "paused": "boolean",
}
BACKOFF = {"type": "text", "base": "interval", "cap": "interval", "jitter": "double precision"}
STATS = {"a": "json", "b": "json"}


def refusal(
    connection: psycopg.Connection[Any], query: str, values: list[str | None]
) -> psycopg.Error | None:
    """How a call is refused; None if it is not."""
    try:
        connection.execute(query.encode(), values)
    except psycopg.Error as error:
        return error
    return None


def explained() -> set[str]:
    """The SQLSTATEs in docs/errors.md."""
    return set(re.findall(r"\b(?:JQ\d{3}|[0-9][0-9A-Z]{4})\b", ERRORS.read_text("utf-8")))


@pytest.mark.parametrize("seed", [1, int(time.time())])
def test_only_explained_refusals(
    seed: int, admin: psycopg.Connection[Any], login: Login, server_log: Path
) -> None:
    print(f"seed {seed}")
    before = server_log.stat().st_size
    arguments = Arguments(seed)
    functions = admin.execute(PUBLIC, [ROLES]).fetchall()
    functions = [function for function in functions if function[-1]]
    assert len(functions) > 50
    known = explained()
    connections = {role: login(role) for role in ROLES}
    for connection in connections.values():
        connection.execute("set statement_timeout = '20 s'")
    states: Counter[str] = Counter()
    for number in range(CALLS):
        name, names, kinds, defaults, callers = functions[number % len(functions)]
        role = arguments.pick(*(ROLES if arguments.random.random() < 0.05 else callers))
        chosen = [
            (argument, kind, arguments.of(kind, argument))
            for n, (argument, kind) in enumerate(zip(names or [], kinds, strict=True))
            if n < len(kinds) - defaults or arguments.random.random() < 0.6
        ]
        places = ", ".join(f'"{argument}" => %s::{kind}' for argument, kind, _ in chosen)
        query = f"select * from {name}({places})"
        connection = connections[role]
        if arguments.random.random() < 0.05:
            connection.execute(arguments.pick(*SETTINGS).encode())
        values = [value for _, _, value in chosen]
        error = refusal(connection, query, values)
        if error is None:
            states["00000"] += 1
        else:
            state = error.sqlstate or "no SQLSTATE"
            states[state] += 1
            told = f"{role}: {query} {values}: {state} {error}"
            assert state in known, told
            assert (state == "42501") == (role not in callers), told
            if state in ("22004", "22023") or state.startswith("JQ"):
                assert error.diag.message_hint, told
        if number % LOOK_EVERY == 0 or number == CALLS - 1:
            broken = admin.execute(BROKEN).fetchall()
            assert broken == [], f"call {number}, {role}: {query}"
            ((arguments.ids,),) = admin.execute(IDS).fetchall()
    print(dict(states))
    assert states["00000"] > CALLS / 4
    with server_log.open("rb") as log:
        log.seek(before)
        said = log.read().decode("utf-8", "replace")
    assert not re.search(r"PANIC|TRAP|terminated by signal|XX000|crash", said)
