"""app_jobs.testing: what applications' tests see and run, in a transaction that is rolled back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from applications import EXAMPLES, run, url_of
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from app_jobs import BatchContext, Client, Fail, InDoubt, JobContext, NotSupported, Snooze, Tasks
from app_jobs.sqlalchemy import AsyncSessionClient, SessionClient
from app_jobs.testing import AsyncConnectionClient, AsyncJobs, Jobs

Connection = psycopg.Connection[Any]
HOUR = timedelta(hours=1)


@dataclass
class Email:
    to: str
    at: datetime | None = None


@pytest.fixture
def app_jobs_dsn(database: str) -> str:
    return database


@pytest.fixture(params=["psycopg", "SQLAlchemy"])
def jobs(request: pytest.FixtureRequest, database: str) -> Iterator[Jobs]:
    """Jobs in a transaction that is rolled back, of the plugin and of a session."""
    if request.param == "psycopg":
        yield request.getfixturevalue("app_jobs")
        return
    engine = create_engine(url_of(database, "postgresql+psycopg"))
    with Session(engine) as session:
        yield Jobs(SessionClient(session))
        session.rollback()
    engine.dispose()


@pytest.fixture
def tasks() -> Tasks:
    return Tasks()


def test_an_example(url: str) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."]
    done = run(url, EXAMPLES, sys.executable, "-m", "pytest", *options, "test_signup.py")
    assert "2 passed" in done.stdout


def test_functions_and_coroutines_run_in_order(jobs: Jobs, tasks: Tasks) -> None:
    seen: list[Any] = []

    @tasks.task()
    def first(payload: Any) -> str:
        seen.append(payload)
        asyncio.run(asyncio.sleep(0))  # no loop runs here
        second.enqueue(jobs.client, payload + 1)
        return "done"

    @tasks.task()
    async def second(payload: Any, ctx: JobContext) -> int:
        await asyncio.sleep(0)
        seen.append(payload)
        return ctx.attempt

    first.enqueue(jobs.client, 1, priority=1)
    first.enqueue(jobs.client, 10, priority=0)
    ended = [(run.job.task_identifier, run.state, run.result) for run in jobs.drain(tasks)]
    assert ended == [
        ("first", "completed", "done"),
        ("second", "completed", 1),
        ("first", "completed", "done"),
        ("second", "completed", 1),
    ]
    assert seen == [10, 11, 1, 2]
    assert jobs.enqueued() == []


def test_queued_jobs_are_run_one_after_the_other(jobs: Jobs, tasks: Tasks) -> None:
    @tasks.task()
    def nothing() -> None: ...

    for _ in range(3):
        nothing.enqueue(jobs.client, queue_name="line")
    assert len(jobs.drain(tasks)) == 3


def test_what_is_enqueued_is_told(jobs: Jobs, tasks: Tasks) -> None:
    @tasks.task("send")
    def send(payload: Email) -> None: ...

    moment = datetime(2030, 1, 1, tzinfo=timezone.utc)
    job = send.enqueue(jobs.client, Email("ada", moment), priority=3, job_key="k")
    assert jobs.assert_enqueued(send) == job
    assert jobs.assert_enqueued(send, Email("ada", moment), priority=3, key="k") == job
    assert jobs.assert_enqueued("send", {"to": "ada", "at": "2030-01-01T00:00:00+00:00"}) == job
    jobs.assert_not_enqueued(send, Email("bob"))
    jobs.assert_not_enqueued(send, priority=4)
    jobs.assert_not_enqueued("other")
    with pytest.raises(AssertionError, match=r"no job of task send .*'priority': 4.*\n.*'ada'"):
        jobs.assert_enqueued(send, priority=4)
    with pytest.raises(AssertionError, match=r"no job of task other .* none"):
        jobs.assert_enqueued("other")
    with pytest.raises(AssertionError, match=r"a job waits: .*'ada'"):
        jobs.assert_not_enqueued(send)


def test_time_comes_by_backdating(jobs: Jobs, tasks: Tasks) -> None:
    @tasks.task()
    def soon() -> None: ...

    @tasks.task()
    def other() -> None: ...

    later = datetime.now(timezone.utc) + HOUR
    soon.enqueue(jobs.client, run_at=later)
    other.enqueue(jobs.client, run_at=later)
    assert jobs.drain(tasks) == []
    assert jobs.make_due(soon) == 1
    assert [run.job.task_identifier for run in jobs.drain(tasks)] == ["soon"]
    assert jobs.make_due() == 1
    assert len(jobs.drain(tasks)) == 1

    jobs.client.add_scheduled_job(identifier="soon", schedule_info={"every": HOUR})
    assert jobs.make_due("other") == 0
    assert jobs.make_due("soon") == 1
    assert [run.job.task_identifier for run in jobs.drain(tasks)] == ["soon"]
    assert jobs.drain(tasks) == []


def test_workers_die_by_backdating(jobs: Jobs, tasks: Tasks) -> None:
    attempts = []

    @tasks.task()
    def heavy(ctx: JobContext) -> None:
        attempts.append(ctx.attempt)

    heavy.enqueue(jobs.client)
    dead = jobs.client.get_job("dead")
    assert dead
    assert jobs.drain(tasks) == []
    assert jobs.expire_leases("other") == 0
    assert jobs.expire_leases(heavy) == 1
    jobs.drain(tasks)
    assert attempts == [2]
    assert jobs.client.complete_job("dead", dead.id, dead.lease) is None


def test_failures_are_raised_unless_they_are_expected(jobs: Jobs, tasks: Tasks) -> None:
    @tasks.task()
    def flaky(ctx: JobContext) -> None:
        if ctx.attempt == 1:
            raise OSError("no route")
        if ctx.attempt == 2:
            raise Snooze(HOUR)
        raise Fail("never", permanent=True)

    job = flaky.enqueue(jobs.client)
    with pytest.raises(OSError, match="no route"):
        jobs.drain(tasks)
    jobs.expire_leases()
    states = []
    for _ in range(3):
        states += [(run.state, run.job.attempts) for run in jobs.drain(tasks, failing=True)]
        jobs.make_due()
    assert states == [("snoozed", 2), ("snoozed", 2), ("snoozed", 2)]
    jobs.client.reschedule_jobs([job.id], attempts=0)
    states = []
    (first,) = jobs.drain(tasks, failing=True)
    assert (first.state, str(first.error)) == ("failed", "no route")
    details = jobs.client.job_details(job.id)
    assert details and details.last_error == "OSError: no route"


def test_what_a_task_can_be_told_holds_in_tests_too(jobs: Jobs, tasks: Tasks) -> None:
    around: list[str] = []

    @tasks.middleware
    def note(ctx: Any) -> Iterator[None]:
        around.append(ctx.task.name)
        yield

    @tasks.task(discard_on=(KeyError,))
    def look_up(ctx: JobContext) -> None:
        ctx.progress(0.5, "half")
        raise KeyError("gone")

    @tasks.batch_task(size=10)
    def resize(payloads: list[int], batch: BatchContext) -> None:
        if payloads == [0]:
            batch.fail(0, OSError("no space"))
        batch.jobs[0].result = payloads[0]

    look_up.enqueue(jobs.client)
    resize.enqueue_many(jobs.client, [0, 1])
    gone, full, resized = jobs.drain(tasks, failing=True)
    assert (gone.state, str(full.error), resized.result) == ("failed", "no space", 1)
    assert around == ["look_up", "resize", "resize"]
    assert [job.id for job in jobs.enqueued()] == [full.job.id]  # the other is not retried


def test_a_job_that_adds_itself_comes_to_an_end(jobs: Jobs, tasks: Tasks) -> None:
    @tasks.task()
    def again() -> None:
        again.enqueue(jobs.client)

    again.enqueue(jobs.client)
    with pytest.raises(RuntimeError, match="3 jobs were run and there are more"):
        jobs.drain(tasks, at_most=3)


@pytest.mark.parametrize("is_async", [False, True])
def test_effects_happen_once(jobs: Jobs, tasks: Tasks, is_async: bool) -> None:
    paid: list[int] = []

    def pay(cents: int) -> str:
        paid.append(cents)
        if cents < 0:
            raise OSError
        return f"receipt {cents}"

    if is_async:

        @tasks.task("charge")
        async def charge_async(payload: int, ctx: JobContext) -> Any:
            receipt = await ctx.run_once("pay", pay, payload)
            await ctx.set_attributes({"mailed": True})
            if ctx.attempt == 1:
                raise ConnectionError
            return receipt

    else:

        @tasks.task("charge")
        def charge(payload: int, ctx: JobContext) -> Any:
            receipt = ctx.run_once("pay", pay, payload)
            ctx.set_attributes({"mailed": True})
            if ctx.attempt == 1:
                raise ConnectionError
            return receipt

    jobs.client.add_job(identifier="charge", payload=5)
    jobs.drain(tasks, failing=True)
    assert jobs.assert_enqueued("charge").attributes == {"mailed": True}
    jobs.make_due()
    (run,) = jobs.drain(tasks)
    assert (run.result, paid) == ("receipt 5", [5])

    jobs.client.add_job(identifier="charge", payload=-5)
    jobs.drain(tasks, failing=True)
    jobs.make_due()
    with pytest.raises(InDoubt):
        jobs.drain(tasks, failing=True)


@pytest.mark.parametrize("is_async", [False, True])
def test_transactions_are_savepoints(
    app_jobs: Jobs, app_jobs_connection: Connection, tasks: Tasks, is_async: bool
) -> None:
    app_jobs_connection.execute("create table accounts (cents int check (cents < 3))")

    @tasks.task("in thread")
    def in_thread(payload: int, ctx: JobContext) -> None:
        with ctx.transaction() as connection:
            connection.execute("insert into accounts values (%s)", [payload])
            ctx.result = connection.execute("select count(*) from accounts").fetchone()[0]

    @tasks.task("in loop")
    async def in_loop(payload: int, ctx: JobContext) -> None:
        async with ctx.transaction() as connection:
            async with connection.cursor() as cursor:
                await cursor.execute("insert into accounts values (%s)", [payload])
            rows = [row async for row in await connection.execute("table accounts")]
            ctx.result = len(rows)

    task = "in loop" if is_async else "in thread"
    app_jobs.client.add_job(identifier=task, payload=1)
    app_jobs.client.add_job(identifier=task, payload=2)
    assert [run.result for run in app_jobs.drain(tasks)] == [1, 2]
    app_jobs.client.add_job(identifier=task, payload=3)
    (run,) = app_jobs.drain(tasks, failing=True)
    assert isinstance(run.error, psycopg.errors.CheckViolation)
    assert len(app_jobs_connection.execute("table accounts").fetchall()) == 2
    app_jobs.assert_enqueued(task, 3)


def test_a_transaction_needs_a_connection_of_psycopg(database: str, tasks: Tasks) -> None:
    @tasks.task()
    def task(ctx: JobContext) -> None:
        with ctx.transaction():
            pass

    engine = create_engine(url_of(database, "postgresql+psycopg"))
    with Session(engine) as session:
        jobs = Jobs(SessionClient(session))
        task.enqueue(jobs.client)
        with pytest.raises(NotSupported, match="no connection in this test"):
            jobs.drain(tasks)


@pytest.mark.parametrize("driver", ["psycopg", "SQLAlchemy"])
def test_coroutines_as_tests(database: str, tasks: Tasks, driver: str) -> None:
    seen: list[Any] = []

    @tasks.task()
    def first(payload: str, ctx: JobContext) -> None:
        seen.append(ctx.run_once("it", len, payload))
        ctx.set_attributes({"n": 1})

    @tasks.task()
    async def second(ctx: JobContext) -> None:
        await ctx.set_attributes({"n": 1})
        seen.append(await ctx.run_once("it", int, "7"))
        if driver == "psycopg":
            async with ctx.transaction() as connection:
                await connection.execute("select 1")

    async def test(jobs: AsyncJobs) -> None:
        client: Any = jobs.client
        await first.enqueue(client, "four")
        await second.enqueue(client, run_at=datetime.now(timezone.utc) + HOUR)
        await jobs.assert_enqueued(first, "four")
        await jobs.assert_not_enqueued(first, "five")
        assert len(await jobs.drain(tasks)) == 1
        assert await jobs.make_due() == 1
        assert await client.get_job("dead")
        assert await jobs.expire_leases() == 1
        assert [run.state for run in await jobs.drain(tasks)] == ["completed"]
        assert await jobs.enqueued() == []

    async def main() -> None:
        if driver == "psycopg":
            async with await psycopg.AsyncConnection.connect(database) as connection:
                await test(AsyncJobs(AsyncConnectionClient(connection)))
                await connection.rollback()
        else:
            engine = create_async_engine(url_of(database, "postgresql+asyncpg"))
            async with engine.connect() as session:
                await test(AsyncJobs(AsyncSessionClient(session)))
            await engine.dispose()

    asyncio.run(main())
    assert seen == [4, 7]
    with Client(database) as client:
        assert client.metrics() == []
