"""The worker: how jobs run and end, leases, wake-ups, trouble with the database."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import app_jobs
from app_jobs import Client, Fail, JobContext, Snooze, Tasks, Worker, _lanes, _sql
from app_jobs._link import Link
from app_jobs.errors import BadArgument, SchemaMissing
from app_jobs.worker import BUSY_PAUSE, _busy_pause

PATIENCE = 20
SECOND = timedelta(seconds=1)

Connection = psycopg.Connection[Any]
Running = Callable[..., AbstractContextManager[Worker]]
Until = Callable[[str], None]

LONG_HELD = (
    "exists (select from app_jobs.jobs where lease_expires_at > locked_at + '3 s'::interval)"
)
NO_JOBS = "not exists (select from app_jobs.jobs)"


def both_kinds(tasks: Tasks, name: str) -> Callable[[Callable[..., Any]], None]:
    """Register a function as the handlers name_async and name_sync."""

    def register(function: Callable[..., Any]) -> None:
        @tasks.task(f"{name}_async")
        async def coroutine(payload: Any, ctx: JobContext) -> Any:
            return function(payload, ctx)

        tasks.task(f"{name}_sync")(function)

    return register


# --- how jobs end ---


def test_handlers_get_payload_and_context_and_their_result_is_kept(
    client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    seen = []

    @both_kinds(tasks, "double")
    def double(payload: Any, ctx: JobContext) -> Any:
        job = ctx.job
        seen.append((ctx.id, ctx.attempt, ctx.max_attempts, ctx.lease, job.id, job.key, job.run_at))
        return {"twice": payload["n"] * 2}

    for kind in ("async", "sync"):
        connection.execute(
            "insert into app_jobs.tasks (task_identifier, keep_completed) values (%s, '1 day')",
            [f"double_{kind}"],
        )
    added = [
        client.add_job(identifier=f"double_{kind}", payload={"n": 21}, job_key=kind)
        for kind in ("async", "sync")
    ]
    with running():
        until(NO_JOBS)
    assert sorted(seen) == [(j.id, 1, 25, 1, j.id, j.key, j.run_at) for j in added]
    rows = connection.execute("select state, result from app_jobs.finished_jobs").fetchall()
    assert rows == [("completed", {"twice": 42})] * 2


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_an_exception_fails_the_attempt_and_is_recorded(
    kind: str, client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    @both_kinds(tasks, "break")
    def handler(payload: Any, ctx: JobContext) -> None:
        raise ValueError("no\0 \ud800 way")

    client.add_job(identifier=f"break_{kind}")
    with running():
        until("exists (select from app_jobs.jobs where last_error is not null)")
    row = connection.execute(
        """
        select j.last_error, j.attempts, j.run_at > now(), j.locked_by, e.error_message, e.detail
        from app_jobs.jobs as j inner join app_jobs.job_errors as e on e.job_id = j.id
        """
    ).fetchone()
    assert row is not None
    message = r"ValueError: no\0 \ud800 way"
    assert row[:5] == (message, 1, True, None, message)
    assert "test_worker.py" in row[5]
    assert "raise ValueError" in row[5]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_fail_says_when_to_retry_or_that_it_is_for_good(
    kind: str, client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    attempts = []

    @both_kinds(tasks, "fail")
    def handler(payload: Any, ctx: JobContext) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise Fail("again", retry_in=timedelta(0))
        raise Fail("never", permanent=True)

    client.add_job(identifier=f"fail_{kind}")
    with running():
        until("exists (select from app_jobs.finished_jobs)")
    assert attempts == [1, 2, 3]
    row = connection.execute("select state, last_error from app_jobs.finished_jobs").fetchone()
    assert row == ("failed", "never")


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_snooze_counts_no_attempt(
    kind: str, client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    attempts = []

    @both_kinds(tasks, "snooze")
    def handler(payload: Any, ctx: JobContext) -> None:
        attempts.append((ctx.attempt, ctx.lease))
        if len(attempts) < 3:
            raise Snooze(timedelta(0))

    client.add_job(identifier=f"snooze_{kind}")
    with running():
        until(NO_JOBS)
    assert attempts == [(1, 1), (1, 2), (1, 3)]


def test_a_result_that_is_not_json_fails_for_good(
    client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    tasks.task("t")(lambda payload: {1, 2})
    client.add_job(identifier="t")
    with running():
        until("exists (select from app_jobs.finished_jobs where state = 'failed')")
    row = connection.execute("select last_error from app_jobs.finished_jobs").fetchone()
    assert row is not None
    assert "not JSON" in row[0]


def test_handlers_that_leave_the_loop_or_threads_harm_nobody(
    client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    @tasks.task("exit_async")
    async def exit_async() -> None:
        raise SystemExit(3)

    @tasks.task("exit_sync")
    def exit_sync() -> None:
        raise KeyboardInterrupt

    @tasks.task("cancel")
    async def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    @tasks.task("coroutine")
    def forgotten() -> Any:
        return asyncio.sleep(0)

    @tasks.task("good_async")
    async def good_async() -> None: ...

    @tasks.task("good_sync")
    def good_sync() -> None: ...

    with running(concurrency=1, lease=SECOND):
        for name in ("exit_async", "exit_sync", "cancel", "coroutine", "good_async", "good_sync"):
            client.add_job(identifier=name, max_attempts=1)
        until(NO_JOBS)
        client.add_job(identifier="good_async")
        client.add_job(identifier="good_sync")
        until(NO_JOBS)


def test_five_thousand_jobs_run_once_each(
    client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    seen: list[int] = []

    @both_kinds(tasks, "count")
    def handler(payload: Any, ctx: JobContext) -> None:
        seen.append(payload)

    client.add_jobs(identifier="count_async", payloads=range(2500))
    client.add_jobs(identifier="count_sync", payloads=range(2500, 5000))
    with running():
        until(NO_JOBS)
    assert sorted(seen) == list(range(5000))


# --- where handlers run ---


def test_coroutines_run_side_by_side_up_to_concurrency(
    client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    inside, most = 0, 0
    full = asyncio.Event()

    @tasks.task("t")
    async def handler() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if inside == 4:
            full.set()
        await full.wait()
        await asyncio.sleep(0)
        inside -= 1

    client.add_jobs(identifier="t", payloads=range(50))
    with running(concurrency=4):
        until(NO_JOBS)
    assert most == 4


def test_functions_run_in_so_many_threads(
    client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    together = threading.Barrier(4)

    @tasks.task("t")
    def handler() -> None:
        together.wait(PATIENCE)

    client.add_jobs(identifier="t", payloads=range(12))
    with running(concurrency=4):
        until(NO_JOBS)


def test_jobs_run_in_order(client: Client, tasks: Tasks, running: Running, until: Until) -> None:
    seen = []

    @tasks.task("t")
    async def handler(payload: int) -> None:
        seen.append(payload)

    for number, priority in enumerate([3, 1, 2, 1, 3]):
        client.add_job(identifier="t", payload=number, priority=priority)
    with running(concurrency=1):
        until(NO_JOBS)
    assert seen == [1, 3, 2, 0, 4]


def test_each_handler_has_a_context_of_its_own(
    client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=-1)
    before, after = [], []

    @tasks.task("async")
    async def coroutine(payload: int) -> None:
        before.append(variable.get())
        variable.set(payload)
        await asyncio.sleep(0)
        after.append(variable.get() == payload)

    @tasks.task("sync")
    def function(payload: int) -> None:
        before.append(variable.get())
        variable.set(payload)

    client.add_jobs(identifier="async", payloads=range(20))
    client.add_jobs(identifier="sync", payloads=range(20))
    with running(concurrency=2):
        until(NO_JOBS)
    assert before == [-1] * 40
    assert after == [True] * 20


def test_asyncio_tools_work_inside_handlers(
    client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    done = []

    @tasks.task("timeout")
    async def timeout() -> None:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.01)
        if hasattr(asyncio, "timeout"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            async with asyncio.timeout(PATIENCE):
                await asyncio.sleep(0.001)
        done.append("timeout")

    @tasks.task("group")
    async def group() -> None:
        assert await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2)) == [1, 2]
        if hasattr(asyncio, "TaskGroup"):
            with pytest.raises(BaseException, match="unhandled") as caught:
                await _group()
            assert "KeyError" in repr(caught.value)
        assert await asyncio.to_thread(lambda: 3) == 3
        done.append("group")

    for name in ("timeout", "group", "timeout", "group"):
        client.add_job(identifier=name, max_attempts=1)
    with running(concurrency=1):
        until(NO_JOBS)
    assert sorted(done) == ["group", "group", "timeout", "timeout"]


async def _group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(PATIENCE))
        group.create_task(_raise(KeyError("inside")))


async def _raise(error: Exception) -> None:
    raise error


# --- leases ---


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_long_job_keeps_its_lease(
    kind: str, client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    enough = threading.Event()

    @both_kinds(tasks, "long")
    def handler(payload: Any, ctx: JobContext) -> None:
        enough.wait(PATIENCE)  # blocks the loop, too, in the form of a coroutine

    client.add_job(identifier=f"long_{kind}")
    with running(lease=SECOND):
        until("exists (select from app_jobs.jobs where locked_by is not null)")
        # It lives longer than two leases after its claim.
        until(LONG_HELD)
        enough.set()
        until(NO_JOBS)
    assert connection.execute("select count(*) from app_jobs.job_errors").fetchone() == (0,)


@pytest.mark.parametrize("whose", ["job", "task"])
def test_a_job_with_a_short_lease_of_its_own_keeps_it(
    whose: str,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
) -> None:
    enough = threading.Event()
    attempts = []

    @tasks.task("t")
    def handler(ctx: JobContext) -> None:
        attempts.append(ctx.attempt)
        enough.wait(PATIENCE)

    with running():  # a lease of a minute, renewed every 20 s
        if whose == "task":
            connection.execute(
                "insert into app_jobs.tasks (task_identifier, retry_after) values ('t', '3 s')"
            )
        client.add_job(identifier="t", retry_after=3 * SECOND if whose == "job" else None)
        until(LONG_HELD)
        enough.set()
        until(NO_JOBS)
    assert attempts == [1]


def test_a_short_lease_that_begins_during_a_heartbeat_is_kept(
    client: Client, database: str, tasks: Tasks, running: Running, until: Until
) -> None:
    enough = threading.Event()
    attempts = []

    @tasks.task("t")
    def handler(ctx: JobContext) -> None:
        attempts.append(ctx.attempt)
        enough.wait(PATIENCE)

    lock = "select from app_jobs.workers where worker_id = 'w' for update"
    with running(worker_id="w") as worker, psycopg.connect(database) as other:  # a minute's lease
        until("exists (select from app_jobs.workers where idle)")
        other.execute(lock)
        time.sleep(1)  # heartbeats are at least so far apart
        worker._heart._next_at = time.monotonic()  # it is time for one
        worker._heart.renew()
        until("exists (select from pg_locks where not granted)")
        client.add_job(identifier="t", retry_after=3 * SECOND)
        until("exists (select from app_jobs.jobs where locked_by is not null)")
        other.rollback()
        until(LONG_HELD)
        enough.set()
        until(NO_JOBS)
    assert attempts == [1]


def test_a_run_over_its_time_is_stopped_and_fails(
    client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    connection.execute(
        "insert into app_jobs.tasks (task_identifier, timeout) values ('t', '0.6 s')"
    )
    stopped = threading.Event()

    @tasks.task("t")
    async def coroutine() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with running():  # a lease of a minute
        job = client.add_job(identifier="t", max_attempts=1)
        assert stopped.wait(PATIENCE)
        until(NO_JOBS)
    errors = connection.execute("select job_id, error_message from app_jobs.job_errors").fetchall()
    assert errors == [(job.id, "timed out after 00:00:00.6")]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_lost_lease_stops_the_handler_and_drops_its_result(
    kind: str,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
) -> None:
    started, stopped = threading.Event(), threading.Event()

    @tasks.task("async")
    async def coroutine() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()  # and goes on as if it had succeeded

    @tasks.task("sync")
    def function(ctx: JobContext) -> None:
        started.set()
        while ctx.heartbeat():
            time.sleep(0.01)
        stopped.set()

    job = client.add_job(identifier=kind)
    with running(lease=SECOND):
        assert started.wait(PATIENCE)
        connection.execute(
            "update app_jobs.jobs set locked_by = 'another', lease = lease + 1,"
            " lease_expires_at = now() + '1 hour'::interval"
        )
        assert stopped.wait(PATIENCE)
        client.add_job(identifier="no such task")
        until("(select count(*) = 2 from app_jobs.jobs)")
    row = connection.execute(
        "select locked_by, last_error from app_jobs.jobs where id = %s", [job.id]
    ).fetchone()
    assert row == ("another", None)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_job_that_is_to_be_cancelled_is(
    kind: str, client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    started = threading.Event()

    @tasks.task("async")
    async def coroutine() -> None:
        started.set()
        await asyncio.Event().wait()

    @tasks.task("sync")
    def function(ctx: JobContext) -> None:
        started.set()
        while not ctx.cancelled:
            time.sleep(0.01)
        raise RuntimeError("stopped half-way")

    job = client.add_job(identifier=kind)
    with running(lease=SECOND):
        assert started.wait(PATIENCE)
        client.cancel_jobs([job.id], reason="changed my mind")
        until("exists (select from app_jobs.finished_jobs where state = 'cancelled')")
    assert connection.execute("select count(*) from app_jobs.jobs").fetchone() == (0,)


def test_an_end_that_another_transaction_holds_up_is_told_again(
    client: Client, database: str, tasks: Tasks, running: Running, until: Until
) -> None:
    started, go_on = threading.Event(), threading.Event()

    @tasks.task("t")
    def handler() -> None:
        started.set()
        go_on.wait(PATIENCE)

    client.add_job(identifier="t")
    client.add_job(identifier="t")
    with running(), psycopg.connect(database) as other:
        assert started.wait(PATIENCE)
        until("(select count(*) = 2 from app_jobs.jobs where locked_by is not null)")
        other.execute("select from app_jobs.jobs order by id limit 1 for update")
        go_on.set()
        until("(select count(*) = 1 from app_jobs.jobs)")
        other.rollback()
        until(NO_JOBS)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_job_whose_lease_is_over_is_not_started(
    kind: str, client: Client, tasks: Tasks, running: Running, logged: Callable[[str], None]
) -> None:
    started, go_on = threading.Event(), threading.Event()
    seen = []

    @tasks.task("async")
    async def coroutine(payload: int) -> None:
        seen.append(payload)
        started.set()
        await asyncio.to_thread(go_on.wait, PATIENCE)

    @tasks.task("sync")
    def function(payload: int) -> None:
        seen.append(payload)
        started.set()
        go_on.wait(PATIENCE)

    client.add_jobs(identifier=kind, payloads=[1, 2])
    with running(concurrency=1, prefetch=5) as worker:
        assert started.wait(PATIENCE)
        for context in worker._outbox.held.values():
            context._deadline = time.monotonic()
        go_on.set()
        logged("the lease of a claimed job ended too early")
    assert seen == [1]


def test_a_run_ends_no_later_run_of_the_same_worker(
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    logged: Callable[[str], None],
) -> None:
    started = [threading.Event(), threading.Event()]
    go_on = [threading.Event(), threading.Event()]

    @tasks.task("t")
    def handler(ctx: JobContext) -> None:
        started[ctx.lease - 1].set()
        go_on[ctx.lease - 1].wait(PATIENCE)

    client.add_job(identifier="t")
    with running(concurrency=2):
        assert started[0].wait(PATIENCE)
        connection.execute("update app_jobs.jobs set lease_expires_at = now()")
        connection.execute("select app_jobs.tick()")
        assert started[1].wait(PATIENCE)
        go_on[0].set()
        logged("how it ended does not count")
        assert connection.execute("select lease from app_jobs.jobs").fetchall() == [(2,)]
        go_on[1].set()
        until(NO_JOBS)


class LaneOfFastHandlers(_lanes.Lane):
    """A lane without handlers."""

    def _take_back(self) -> int:
        return 0

    def cancel(self) -> None: ...


def test_lots_follow_the_handlers_and_not_a_slow_database(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(_lanes, "monotonic", lambda: now)

    async def claim() -> list[int]:
        nonlocal now
        lane = LaneOfFastHandlers([], cast("Any", None), concurrency=20, prefetch=None, lease=60.0)
        lots = []
        for available in [2000] * 12 + [1, 2000, 2000]:
            lots.append(await lane.appetite())
            brought = min(lots[-1], available)
            lane.put([cast("Any", None)] * brought)
            now += brought / 100_000
            lane._end(brought)
            now += 1  # until the database answers
        return lots

    lots = asyncio.run(claim())
    assert lots[0] == 20
    assert lots[11] == 1000
    assert lots[13:] == [20, 40]  # after a calm


@pytest.mark.parametrize(("took", "size"), [(0.01, 64), (0.1, 102), (3.0, 256)])
def test_lots_last_while_slow_claims_are_under_way(
    monkeypatch: pytest.MonkeyPatch, took: float, size: int
) -> None:
    now = 0.0
    monkeypatch.setattr(_lanes, "monotonic", lambda: now)

    async def claim() -> int:
        nonlocal now
        lane = LaneOfFastHandlers([], cast("Any", None), concurrency=20, prefetch=None, lease=60.0)
        for _ in range(12):
            lot = await lane.appetite()
            lane.claim_took = took
            lane.put([cast("Any", None)] * lot)
            now += lot / 512
            lane._end(lot)
        return lot

    assert asyncio.run(claim()) == size


# --- wake-ups ---


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle worker looks for jobs only when it is woken, or when one is due."""
    monkeypatch.setattr(app_jobs.worker, "FIRST_LOOK", 3600.0)


@pytest.mark.usefixtures("no_looks")
def test_an_idle_worker_is_woken_by_a_notification(
    client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    started = threading.Event()

    @tasks.task("t")
    async def handler() -> None:
        started.set()

    with running(poll_interval=timedelta(hours=1)):
        for _ in range(5):
            until("(select bool_or(idle) from app_jobs.workers)")
            started.clear()
            client.add_job(identifier="t")
            assert started.wait(PATIENCE)
            until(NO_JOBS)


def test_idle_workers_of_the_same_tasks_share_their_looks(
    connection: psycopg.Connection[Any], tasks: Tasks, running: Running, until: Until
) -> None:
    @tasks.task("t")
    async def handler() -> None: ...

    connection.execute(
        "insert into app_jobs.workers (worker_id, task_identifiers, idle)"
        " select n::text, case when n <= 39 then array['t'] end, true"
        " from generate_series(1, 500) as n"
    )
    with running(poll_interval=timedelta(seconds=2)) as worker:
        until("(select count(*) = 501 from app_jobs.workers where idle)")
        for _ in range(PATIENCE * 100):
            if worker._peers == 40:
                break
            time.sleep(0.01)
        assert worker._longest_pause() == 20
        worker._peers = 400
        assert worker._longest_pause() == 60
        worker._listening = False
        assert worker._longest_pause() == 2


def test_a_busy_worker_looks_as_often_as_it_is_worth() -> None:
    assert _busy_pause(found=1, seconds=1.0) == BUSY_PAUSE
    assert _busy_pause(found=40, seconds=0.005) == pytest.approx(0.001)  # in which 8 come


def test_a_job_starts_before_an_idle_worker_asks_for_more(
    client: Client, tasks: Tasks, running: Running, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    insist = Link.insist

    async def noted(link: Link, function: Any, /, **arguments: Any) -> Any:
        is_claim = function is _sql.CLAIM
        events.extend(["asks"] * is_claim)
        rows = await insist(link, function, **arguments)
        events.extend(["gets"] * (is_claim and len(rows)))
        return rows

    monkeypatch.setattr(Link, "insist", noted)

    @tasks.task("t")
    async def handler() -> None:
        events.append("starts")

    with running():
        for _ in range(3):
            until("exists (select from app_jobs.workers where idle)")
            client.add_job(identifier="t")
            until(NO_JOBS)
    assert re.findall("gets [a-z]+", " ".join(events)) == ["gets starts"] * 3


@pytest.mark.usefixtures("no_looks")
def test_a_scheduled_job_starts_at_its_time(
    client: Client,
    tasks: Tasks,
    running: Running,
    until: Until,
    record_property: Callable[[str, object], None],
) -> None:
    delays = []

    @tasks.task("t")
    async def handler(ctx: JobContext) -> None:
        delays.append((datetime.now(timezone.utc) - ctx.job.run_at).total_seconds())

    with running(poll_interval=timedelta(hours=1)):
        until("(select bool_or(idle) from app_jobs.workers)")
        for milliseconds in (300, 600, 900):
            moment = datetime.now(timezone.utc) + timedelta(milliseconds=milliseconds)
            client.add_job(identifier="t", run_at=moment)
        until(NO_JOBS)
    record_property("delays", delays)
    assert len(delays) == 3
    assert min(delays) >= 0
    assert max(delays) < 0.5  # a loaded machine; some milliseconds otherwise


def test_without_listen_the_worker_polls_and_says_so(
    server: str,
    client: Client,
    tasks: Tasks,
    running: Running,
    until: Until,
    logged: Callable[[str], None],
) -> None:
    tasks.task("t")(lambda: None)
    # Notifications do not cross databases: to listen in another one is like behind a pooler.
    elsewhere = make_conninfo(server, dbname="postgres")
    with running(listen_dsn=elsewhere, poll_interval=timedelta(seconds=0.05)):
        client.add_job(identifier="t")
        until(NO_JOBS)
        logged("LISTEN does not work here (a pooler in transaction mode?): polling every 0.05 s")
        client.add_job(identifier="t")
        until(NO_JOBS)


# --- trouble ---


def test_the_worker_outlives_its_connections(
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    started, go_on = threading.Event(), threading.Event()

    @tasks.task("held")
    def held() -> None:
        started.set()
        go_on.wait(PATIENCE)

    @tasks.task("t")
    async def handler() -> None: ...

    with running(poll_interval=timedelta(seconds=0.1)):
        until("(select bool_or(idle) from app_jobs.workers)")
        client.add_job(identifier="held")
        assert started.wait(PATIENCE)
        for _ in range(3):
            # all of the worker's: claims, acknowledgements, heartbeat, LISTEN
            connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            client.add_job(identifier="t")
            until("not exists (select from app_jobs.jobs where task_identifier = 't')")
        go_on.set()
        until(NO_JOBS)
        until("(select bool_or(idle) from app_jobs.workers)")
    assert "database trouble" in caplog.text


def test_it_waits_for_a_database_that_refuses_connections(
    server: str,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
) -> None:
    count = []

    @tasks.task("t")
    async def handler() -> None:
        count.append(1)

    name = connection.info.dbname
    with (
        running(poll_interval=timedelta(seconds=0.1)),
        psycopg.connect(server, autocommit=True) as admin,
    ):
        until("(select bool_or(idle) from app_jobs.workers)")
        admin.execute(f"alter database {name} allow_connections false")
        connection.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        connection.execute("select from app_jobs.add_job(identifier => 't')")
        assert not count
        admin.execute(f"alter database {name} allow_connections true")
        until(NO_JOBS)
    assert count == [1]


def test_it_starts_though_it_is_cut_off(
    database: str, client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    @tasks.task("t")
    async def handler() -> None: ...

    client.add_job(identifier="t")
    registering = (
        "from pg_stat_activity where query ~ 'register_worker' and wait_event = 'relation'"
    )
    with psycopg.connect(database) as blocker:
        blocker.execute("lock table app_jobs.workers in exclusive mode")
        with running():
            until(f"(select count(*) = 1 {registering})")
            blocker.execute(f"select pg_terminate_backend(pid, 5000) {registering}".encode())
            blocker.commit()
            until(NO_JOBS)


def test_trouble_at_the_start_is_raised(empty_database: str, tasks: Tasks) -> None:
    tasks.task("t")(lambda: None)
    with pytest.raises(SchemaMissing):
        Worker(empty_database, tasks).run()
    with pytest.raises(psycopg.OperationalError):
        Worker("host=127.0.0.1 port=1", tasks).run()


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"prefetch": -1},
        {"lease": timedelta(milliseconds=1)},
        {"poll_interval": timedelta(0)},
        {"shutdown_timeout": timedelta(-1)},
    ],
)
def test_bad_options_are_named(tasks: Tasks, options: dict[str, Any]) -> None:
    with pytest.raises(BadArgument, match="tasks"):
        Worker("", tasks)
    tasks.task("t")(lambda: None)
    with pytest.raises(BadArgument, match=next(iter(options))) as caught:
        Worker("", tasks, **options)
    assert caught.value.hint


def test_a_column_that_comes_while_a_call_is_under_way(
    database: str,
    client: Client,
    tasks: Tasks,
    running: Running,
    until: Until,
) -> None:
    """As in an upgrade: the call returns rows of the table as it was, and fails once."""

    @tasks.task("work")
    async def work(payload: Any, ctx: JobContext) -> None: ...

    with running(), psycopg.connect(database) as upgrade:
        until("exists (select from app_jobs.workers where idle)")
        client.add_job(identifier="work", connection=upgrade)
        upgrade.execute("alter table app_jobs.jobs add column origin text")
        waiting = "select pid from pg_locks where relation = 'app_jobs.jobs'::regclass"
        until(f"exists ({waiting} and not granted)")
        upgrade.commit()
        until(NO_JOBS)


async def pooled(dsn: str, path: Path) -> asyncio.Server:
    """A way to the server that tells a process id of its own making, as poolers do."""
    info = psycopg.conninfo.conninfo_to_dict(dsn)
    number = f".s.PGSQL.{info.get('port') or 5432}"
    way_on = f"{info['host']}/{number}"

    async def forward(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(way_on)

        async def there() -> None:
            while piece := await client.read(65536):
                to_server.write(piece)
            to_server.close()

        async def back() -> None:
            while piece := await server.read(65536):
                to_client.write(re.sub(rb"(?s)(K\0\0\0\x0c)....", rb"\g<1>" + bytes(4), piece))
            to_client.close()

        await asyncio.gather(there(), back())

    return await asyncio.start_unix_server(forward, path / number)


@pytest.mark.parametrize("way", ["directly", "through a pooler"])
def test_statements_are_prepared_where_no_pooler_is(
    way: str, database: str, tmp_path: Path
) -> None:
    async def prepared() -> Any:
        async with await pooled(database, tmp_path):
            dsn = database if way == "directly" else make_conninfo(database, host=str(tmp_path))
            link = Link(dsn, "app_jobs")
            names = _sql.Query("names", {}, list, text="select name from pg_prepared_statements")
            for _ in range(5):
                rows = await link.call(names)
            await link.close()
            return rows

    assert len(asyncio.run(prepared())) == (way == "directly")


def test_a_prepared_statement_that_returns_another_column_now(
    database: str, connection: Connection
) -> None:
    create = "create function app_jobs.f({}) language sql as 'select {}'"
    connection.execute(create.format("out a int, out b int", "1, 2").encode())

    async def call() -> Any:
        link = Link(database, "app_jobs")
        function = _sql.Function("f", {}, list)
        for _ in range(5):
            await link.insist(function)
        connection.execute("drop function app_jobs.f")
        connection.execute(create.format("out a int", "3").encode())
        rows = await link.insist(function)
        await link.close()
        return rows

    assert asyncio.run(call()) == [(3,)]


# --- the end (signals: test_cli.py) ---


def test_stop_finishes_what_runs_and_gives_the_rest_back(
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    logged: Callable[[str], None],
) -> None:
    started, go_on = threading.Event(), threading.Event()

    @tasks.task("t")
    def handler() -> None:
        started.set()
        go_on.wait(PATIENCE)

    client.add_jobs(identifier="t", payloads=range(10))
    with running(concurrency=1, prefetch=5) as worker:
        assert started.wait(PATIENCE)
        worker.stop()
        logged("1 handlers are running")
        go_on.set()
    row = connection.execute(
        "select count(*), count(locked_by), sum(attempts) from app_jobs.jobs"
    ).fetchone()
    assert row == (9, 0, 0)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_what_takes_too_long_is_cancelled_and_given_back(
    kind: str, client: Client, connection: Connection, tasks: Tasks, running: Running
) -> None:
    started, cancelled = threading.Event(), threading.Event()

    @tasks.task("async")
    async def coroutine() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    @tasks.task("sync")
    def function(ctx: JobContext) -> None:
        started.set()
        while not ctx.cancelled:
            time.sleep(0.01)
        cancelled.set()
        raise RuntimeError("stopped half-way")

    client.add_job(identifier=kind)
    with running(shutdown_timeout=timedelta(0)):
        assert started.wait(PATIENCE)
    assert cancelled.wait(PATIENCE)
    row = connection.execute("select locked_by, attempts, last_error from app_jobs.jobs").fetchone()
    assert row == (None, 0, None)


def test_cancelling_run_async_gives_back_and_ends(
    database: str, client: Client, connection: Connection, tasks: Tasks
) -> None:
    started = asyncio.Event()

    @tasks.task("t")
    async def handler() -> None:
        started.set()
        await asyncio.Event().wait()

    client.add_job(identifier="t")

    async def main() -> None:
        task = asyncio.create_task(Worker(database, tasks).run_async())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []

    asyncio.run(main())
    row = connection.execute("select locked_by, attempts from app_jobs.jobs").fetchone()
    assert row == (None, 0)


def test_log_records_carry_the_job_and_never_the_payload(
    client: Client, tasks: Tasks, running: Running, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    @tasks.task("t")
    async def handler(ctx: JobContext) -> None:
        ctx.log.info("at work")
        raise Fail("no", permanent=True)

    with caplog.at_level(logging.DEBUG, "app_jobs"), running():
        job = client.add_job(identifier="t", payload={"secret": "s3cret"})
        until(NO_JOBS)
    records = [r for r in caplog.records if hasattr(r, "job_id")]
    assert len(records) == 2
    assert {(r.job_id, r.attempt, r.task) for r in records} == {(job.id, 1, "t")}  # type: ignore[attr-defined]
    assert "s3cret" not in caplog.text


# --- schedules ---


def test_declared_schedules_are_registered_and_run(
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    logged: Callable[[str], None],
) -> None:
    seen: list[Any] = []

    @tasks.task("tell", every=3600 * SECOND, tz="Europe/Berlin", payload={"n": 1})
    async def tell(payload: Any, ctx: JobContext) -> None:
        seen.append((payload, ctx.job.attributes["schedule"]["id"]))

    row = "select id, next_run_at, xmin::text from app_jobs.scheduled_jobs where key = 'tasks:tell'"
    with running():
        until("exists (select from app_jobs.scheduled_jobs where key = 'tasks:tell')")
        before = connection.execute(row).fetchone()
        assert before is not None
        with running():
            until("(select count(*) from app_jobs.workers) = 2")
        assert connection.execute(row).fetchone() == before, "to start again changes nothing"
        connection.execute("update app_jobs.scheduled_jobs set next_run_at = now()")
        until("exists (select from app_jobs.scheduled_jobs where last_scheduled_id is not null)")
        until(NO_JOBS)
    assert seen == [({"n": 1}, before[0])]

    connection.execute("update app_jobs.scheduled_jobs set key = 'tasks:gone'")
    with running():
        logged(
            f"schedule tasks:gone (task tell) goes on, but is declared no more: app-jobs"
            f" schedules remove {before[0]} ends it"
        )


def test_idle_workers_are_woken_for_a_schedule_that_is_due_soon(
    database: str, client: Client
) -> None:
    with psycopg.connect(database, autocommit=True) as listener:
        listener.execute("listen app_jobs")
        client.set_worker_idle("w", True)
        client.add_scheduled_job(identifier="t", schedule_info={"every": "100 days"})
        client.add_scheduled_job(identifier="t", schedule_info={"every": "1 second"})
        listener.execute("notify app_jobs, 'end'")
        heard = []
        for notification in listener.notifies():
            heard.append(notification.payload)
            if notification.payload == "end":
                break
    assert heard == ["", "end"]


def test_a_schedule_that_cannot_be_is_an_error_at_the_start(database: str, tasks: Tasks) -> None:
    tasks.task("t", cron="61 * * * *")(lambda: None)
    with pytest.raises(BadArgument, match="rule"):
        Worker(database, tasks).run()
