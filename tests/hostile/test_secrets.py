"""What stands in a payload is seen by who may read payloads, and by nobody else.

A word is put into payloads wherever one goes, by calls that succeed and by calls that are refused,
and then looked for in all that others get to see. What a handler raises, logs or says of its
progress is its own: it is told to operators as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient
from users import Login

from app_jobs import AppJobsError, Client, JobContext, Tasks, Worker
from app_jobs._logs import TEXT, JsonFormatter
from app_jobs.web import Access, create_app

WORD = "kanarienvogel"
PAYLOAD = {"secret": WORD, "deep": [{WORD: WORD}]}
TEXT_OF_IT = json.dumps(PAYLOAD)
# All that a role may read without an argument.
READABLE = """
    select format('select * from %%s', c.oid::regclass) from pg_class as c
    where
        c.relnamespace = 'app_jobs'::regnamespace and c.relkind in ('r', 'v')
        and has_table_privilege(%(user)s, c.oid, 'select')
    union all
    select format('select * from %%s()', p.oid::regproc) from pg_proc as p
    where
        p.pronamespace = 'app_jobs'::regnamespace and p.pronargs = p.pronargdefaults
        and p.prorettype <> 'trigger'::regtype
        and has_function_privilege(%(user)s, p.oid, 'execute')
        and p.proname not in ('tick', 'sweep', 'prune', 'redrive_jobs')
"""


@pytest.fixture
def said() -> Iterator[list[str]]:
    """All that is logged at whatever level, as text and as JSON."""
    lines: list[str] = []
    forms = [logging.Formatter(TEXT), JsonFormatter()]

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend(form.format(record) for form in forms)

    root, collector = logging.getLogger(), Collector()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(collector)
    yield lines
    root.removeHandler(collector)
    root.setLevel(level)


@dataclass
class Order:
    """A payload that does not fit."""

    secret: int
    deep: list[int]


def refused(call: Callable[[], Any]) -> str:
    """All that a refusal says."""
    with pytest.raises((psycopg.Error, AppJobsError)) as caught:
        call()
    error = caught.value
    if isinstance(error, psycopg.Error):
        diag = error.diag
        parts = (diag.message_primary, diag.message_detail, diag.message_hint, diag.context)
    else:
        parts = (error.message, error.detail, error.hint, repr(error))
    return "\n".join(map(str, [error, *parts]))


def test_refusals_and_the_servers_log(
    dsn_of: Callable[[str], str], login: Login, server_log: Path, admin: psycopg.Connection[Any]
) -> None:
    before = server_log.stat().st_size
    told: list[str] = []
    spec = {"identifier": "t", "payload": PAYLOAD}
    with Client(dsn_of("operator")) as client:
        for wrong in (
            {"identifier": ""},
            {"max_attempts": 0},
            {"run_at": "soon"},
            {"run_at": "infinity"},
            {"retry_after": "101 years"},
            {"db_id": "x"},
            {"job_key": "", "priority": "x"},
            {"attributes": {"a": "\0"}},
            {"queue": "q"},
            {"job_key_mode": "x"},
        ):
            specs: Any = [spec, {**spec, **wrong}]
            connection = login("producer")
            told.append(
                refused(
                    lambda specs=specs, connection=connection: connection.execute(
                        "select app_jobs.add_jobs(%s::json)", [json.dumps(specs)]
                    )
                )
            )
        for options in (
            {"identifier": None},
            {"max_attempts": 0},
            {"job_key": "x" * 513},
            {"retry_after": timedelta(days=40_000)},
        ):
            arguments: Any = {"identifier": "t", "payload": PAYLOAD, **options}
            told.append(refused(lambda arguments=arguments: client.add_job(**arguments)))
        told.append(refused(lambda: client.add_job(identifier="t", payload={WORD, 1})))
        told.append(
            refused(
                lambda: client.add_scheduled_job(
                    identifier="t", payload=PAYLOAD, schedule_info={"every": "x"}
                )
            )
        )
        job = client.add_job(identifier="t", payload=PAYLOAD, job_key="k")
        client.permanently_fail_jobs([job.id])
        client.add_job(identifier="t", payload=PAYLOAD, job_key="k")
        told.append(refused(lambda: client.retry_jobs([job.id])))
    admin.execute("create schema theirs authorization hostile_producer")
    owner = login("producer")
    owner.execute("create table theirs.rows (id integer, secret text)")
    owner.execute(
        "create trigger t after insert on theirs.rows for each row"
        " execute function app_jobs.tg_add_job_with_row('secret', 't')"
    )
    insert = "insert into theirs.rows values (1, %s)"
    told.append(refused(lambda: owner.execute(insert, [WORD])))
    assert WORD not in "\n".join(told)
    with server_log.open("rb") as log:
        log.seek(before)
        logged = log.read().decode("utf-8", "replace")
    assert "run_at is infinity" in logged
    assert WORD not in logged


def test_sessions(dsn_of: Callable[[str], str], admin: psycopg.Connection[Any]) -> None:
    """What is sent is in no statement that others see in pg_stat_activity."""
    with Client(dsn_of("producer")) as client:
        client.add_job(identifier="t", payload=PAYLOAD)
        client.add_jobs([{"identifier": "t", "payload": PAYLOAD}])
        sessions = admin.execute("select query from pg_stat_activity").fetchall()
    assert any("add_jobs" in query for (query,) in sessions)
    assert WORD not in str(sessions)


def test_workers_logs_and_what_monitors_see(
    dsn_of: Callable[[str], str],
    login: Login,
    admin: psycopg.Connection[Any],
    running: Callable[[Tasks], AbstractContextManager[Worker]],
    until: Callable[[str], None],
    said: list[str],
) -> None:
    tasks = Tasks()

    @tasks.task("typed")
    async def typed(payload: Order, ctx: JobContext) -> None: ...

    @tasks.task("raises")
    def raises(payload: Any, ctx: JobContext) -> None:
        ctx.log.info("at it")
        raise KeyError("no such account")

    @tasks.task("odd result")
    async def odd_result(payload: Any, ctx: JobContext) -> Any:
        return {"secret": payload["secret"], "what": object()}

    for task in ("typed", "raises", "odd result", "nobody's"):
        admin.execute(
            "select app_jobs.add_job(identifier => %s, payload => %s, job_key => %s,"
            " max_attempts => 1)",
            [task, TEXT_OF_IT, task],
        )
    broken = '{"secret": "%s", "n": %s}' % (WORD, "9" * 5000)  # noqa: UP031
    admin.execute(
        "select app_jobs.add_job(identifier => 'raises', payload => %s, max_attempts => 1)",
        [broken],
    )
    admin.execute(
        "select app_jobs.add_scheduled_job(identifier => 't', payload => %s,"
        """ schedule_info => '{"every": "1 h"}')""",
        [TEXT_OF_IT],
    )
    with running(tasks):
        until("(select count(*) = 4 from app_jobs.finished_jobs)")
    assert any("failed in attempt 1" in line for line in said)
    assert WORD not in "\n".join(said)
    errors = admin.execute(
        "select error_message, detail, last_error from app_jobs.job_errors"
        " inner join app_jobs.finished_jobs on id = job_id"
    ).fetchall()
    assert len(errors) == 4
    assert WORD not in str(errors)

    monitor = login("monitor")
    seen = 0
    for (query,) in admin.execute(READABLE, {"user": "hostile_monitor"}).fetchall():
        rows = monitor.execute(query.encode()).fetchall()
        seen += len(rows)
        assert WORD not in str(rows), query
    for (job_id,) in admin.execute("select id from app_jobs.jobs").fetchall():
        explained = monitor.execute("select app_jobs.explain_job(%s)", [job_id]).fetchall()
        assert WORD not in str(explained)
    assert seen > 10
    assert WORD in str(login("operator").execute("select payload from app_jobs.jobs").fetchall())

    job = admin.execute("select id from app_jobs.jobs").fetchone()
    assert job is not None
    with TestClient(
        create_app(dsn_of("monitor"), every=0.01), "http://localhost", client=("127.0.0.1", 7)
    ) as browser:
        for page in (
            "/",
            "/jobs",
            "/jobs?state=failed",
            "/dead-letters",
            f"/jobs/{job[0]}",
            "/tasks",
            "/schedules",
            "/workers",
            "/doctor",
        ):
            assert WORD not in browser.get(page).text, page
    with TestClient(
        create_app(dsn_of("operator"), access=Access(show_payloads=True), every=0.01),
        "http://localhost",
        client=("127.0.0.1", 7),
    ) as browser:
        assert WORD in browser.get(f"/jobs/{job[0]}").text
