"""Handlers in processes: what they are given, how they end, and that one's death harms no other."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app_jobs import Client, Tasks, Worker
from app_jobs.errors import BadArgument

pytestmark = pytest.mark.once

Connection = psycopg.Connection[Any]
Running = Callable[..., AbstractContextManager[Worker]]
Until = Callable[[str], None]

NO_JOBS = "not exists (select from app_jobs.jobs)"
ERRORS = """
    select distinct e.error_message, coalesce(f.state, 'retried')
    from app_jobs.job_errors as e left join app_jobs.finished_jobs as f on f.id = e.job_id
"""
SAYS = "exists (select from app_jobs.progress() where done = 1)"

MODULE = """
import contextvars, os, time
from dataclasses import dataclass
from datetime import timedelta
from app_jobs import Fail, JobContext, Snooze, Tasks

tasks = Tasks()
who = contextvars.ContextVar("who", default="nobody")

@tasks.middleware
def middleware(ctx):
    who.set(f"job {ctx.id}")
    yield

@dataclass
class Numbers:
    values: list[int]

@tasks.task(process=True)
def add(payload: Numbers, ctx: JobContext):
    ctx.log.info("adding for %s", who.get())
    assert ctx.heartbeat() and not ctx.cancelled
    return {"sum": sum(payload.values), "pid": os.getpid(), "attempt": ctx.job.attempts}

@tasks.task(process=True, discard_on=KeyError)
def end(payload, ctx):
    endings = {
        "key": lambda: {}["key"],
        "value": lambda: int("x"),
        "fail": lambda: (_ for _ in ()).throw(Fail("said so", permanent=True)),
        "snooze": lambda: (_ for _ in ()).throw(Snooze(timedelta(hours=1))),
        "result": lambda: {1, 2},
        "exit": lambda: os._exit(3),
        "run_once": lambda: ctx.run_once("key", print),
        "transaction": lambda: ctx.transaction(),
        "set_attributes": lambda: ctx.set_attributes({}),
    }
    return endings[payload]()

def compute(ctx):
    ctx.progress(1, str(os.getpid()))
    while True:
        pass

@tasks.task("endless", process=True)
def endless(ctx):
    compute(ctx)

@tasks.task("limited", process=True, timeout=timedelta(seconds=0.5))
def limited(ctx):
    compute(ctx)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "crunching.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "crunching", raising=False)
    return importlib.import_module("crunching")


def test_a_process_gets_typed_payloads_and_runs_many_jobs(
    module: Any,
    client: Client,
    connection: Connection,
    running: Running,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.set_task("add", {"keep_completed": "1 day"})
    first = module.add.enqueue(client, module.Numbers([1, 2]))
    module.add.enqueue_many(client, [module.Numbers([n]) for n in range(20)])
    with caplog.at_level(logging.INFO), running(tasks=module.tasks, processes=2):
        until(NO_JOBS)
    results = [job.result for job in map(client.job_details, range(first.id, first.id + 21)) if job]
    assert [result["sum"] for result in results] == [3, *range(20)]
    assert {result["attempt"] for result in results} == {1}
    pids = {result["pid"] for result in results}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids
    (record,) = (r for r in caplog.records if getattr(r, "job_id", None) == first.id)
    assert record.getMessage() == f"adding for job {first.id}"


def test_how_runs_in_processes_end(
    module: Any, client: Client, connection: Connection, running: Running, until: Until
) -> None:
    refused = ["run_once", "transaction", "set_attributes"]
    endings = ["key", "value", "fail", "snooze", "result", "exit", *refused]
    client.add_jobs(identifier="end", payloads=endings)
    with running(tasks=module.tasks, processes=1):
        until(
            "not exists (select from app_jobs.jobs where run_at <= now() or locked_by is not null)"
        )
    errors = dict(connection.execute(ERRORS).fetchall())
    (not_json,) = (message for message in errors if "not JSON" in message)
    assert errors.pop(not_json) == "failed"
    assert errors == {
        "KeyError: 'key'": "failed",
        "ValueError: invalid literal for int() with base 10: 'x'": "retried",
        "said so": "failed",
        "the process that ran it exited with 3": "retried",
    } | {
        f"RuntimeError: ctx.{name}() is not there in a process: do it in a task of its own that"
        " runs in a thread, or leave out process=True": "retried"
        for name in refused
    }
    (detail,) = connection.execute(
        "select detail from app_jobs.job_errors where error_message like 'ValueError%'"
    ).fetchall()
    assert 'int("x")' in detail[0]


def test_a_killed_process_fails_its_own_job_only(
    module: Any, client: Client, connection: Connection, running: Running, until: Until
) -> None:
    client.set_task("endless", {"max_attempts": 1})
    client.add_job(identifier="endless")
    with running(tasks=module.tasks, processes=2, lease=timedelta(seconds=1)):
        until(SAYS)
        client.add_job(identifier="endless")
        until("(select count(*) = 2 from app_jobs.progress())")
        victim, other = client.progress()
        os.kill(int(victim.note or ""), signal.SIGKILL)
        until("exists (select from app_jobs.finished_jobs)")
        module.add.enqueue(client, module.Numbers([1]))
        until("not exists (select from app_jobs.jobs where task_identifier = 'add')")
        assert [said.id for said in client.progress()] == [other.id]
        client.cancel_jobs([other.id])
        until(NO_JOBS)
    rows = connection.execute("select error_message from app_jobs.job_errors").fetchall()
    assert rows[0] == ("the process that ran it was ended by SIGKILL",)


@pytest.mark.parametrize("how", ["cancelled", "stopped"])
def test_a_process_whose_job_is_not_wanted_any_more_is_killed(
    how: str, module: Any, client: Client, running: Running, until: Until
) -> None:
    job = client.add_job(identifier="endless")
    with running(tasks=module.tasks, processes=1, lease=timedelta(seconds=1)) as worker:
        until(SAYS)
        (said,) = client.progress()
        if how == "cancelled":
            client.cancel_jobs([job.id])
        else:
            worker.stop(now=True)
        until("not exists (select from app_jobs.jobs where locked_by is not null)")
        # its parent has waited for it, or it would be there still
        for _ in range(1000):
            if not (process := Path(f"/proc/{said.note}")).exists():
                break
            until("true")
        assert not process.exists()
    found = client.job_details(job.id)
    assert found is not None
    assert found.state == {"cancelled": "cancelled", "stopped": "created"}[how]


def test_a_process_that_takes_too_long_is_killed_and_the_next_job_gets_a_new_one(
    module: Any, client: Client, connection: Connection, running: Running, until: Until
) -> None:
    client.add_job(identifier="limited", max_attempts=1)
    module.add.enqueue(client, module.Numbers([1]))
    with running(tasks=module.tasks, processes=1):
        until(NO_JOBS)
    message = "TimeoutError: the run took longer than its task's timeout of 0.5 s"
    assert connection.execute(ERRORS).fetchall() == [(message, "failed")]


def plain() -> None: ...


def test_what_a_process_could_not_run_is_refused_at_the_start(
    tasks: Tasks, database: str, client: Client
) -> None:
    with pytest.raises(TypeError, match="'t' runs in a process: write it as def"):

        @tasks.task("t", process=True)
        async def coroutine() -> None: ...

    @tasks.task("local", process=True)
    def local() -> None: ...

    with pytest.raises(BadArgument, match=r"'local' as .*test_processes\.test_what.*local"):
        Worker(database, tasks).run()
    others = Tasks()
    others.task("not decorated", process=True)(plain)
    with pytest.raises(BadArgument, match="handler of task 'not decorated'"):
        Worker(database, others).run()
    with pytest.raises(BadArgument, match="processes is out of range: 0"):
        Worker(database, tasks, processes=0)
