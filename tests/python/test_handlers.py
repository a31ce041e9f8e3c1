"""What tasks may say about their handlers' runs: which errors count, time limits, middleware."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest

from app_jobs import BatchContext, Client, Fail, JobContext, Snooze, Tasks, Worker
from app_jobs.errors import BadArgument

Connection = psycopg.Connection[Any]
Running = Callable[..., AbstractContextManager[Worker]]
Until = Callable[[str], None]

PATIENCE = 20
MOMENT = timedelta(milliseconds=50)
NO_JOBS = "not exists (select from app_jobs.jobs)"
ALL_TRIED = "not exists (select from app_jobs.jobs where attempts = 0 or locked_by is not null)"
ERRORS = "select distinct error_message from app_jobs.job_errors order by 1"
ENDS = """
    select coalesce(f.task_identifier, j.task_identifier), coalesce(f.state, 'retried')
    from app_jobs.jobs as j full join app_jobs.finished_jobs as f on false order by 1
"""


@dataclass
class Page:
    number: int


# --- options of the jobs that a task adds ---


def test_enqueue_takes_the_options_of_the_task_then_of_its_configuration_then_its_own(
    client: Client, connection: Connection, tasks: Tasks
) -> None:
    @tasks.task("t", queue_name="q", priority=5, max_attempts=3)
    def handler(payload: int) -> None: ...

    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    later = handler.configure(run_at=tomorrow, priority=6)
    (many,) = later.enqueue_many(client, [4])
    jobs = [
        handler.enqueue(client, 1),
        later.enqueue(client, 2),
        later.configure(job_key="k", queue_name=None).enqueue(client, 3, priority=7),
        client.job_details(many),
    ]
    found = [
        (job.payload, job.queue_name, job.priority, job.max_attempts, job.run_at == tomorrow)
        for job in jobs
        if job is not None
    ]
    assert found == [
        (1, "q", 5, 3, False),
        (2, "q", 6, 3, True),
        (3, None, 7, 3, True),
        (4, "q", 6, 3, True),
    ]
    with pytest.raises(BadArgument, match="job_key is configured for task 't'"):
        handler.configure(job_key="k").enqueue_many(client, [1, 2])


def test_a_schedule_has_the_options_of_its_task(tasks: Tasks) -> None:
    @tasks.task("t", cron="0 2 * * *", queue_name="q", priority=5, max_attempts=3)
    def handler() -> None: ...

    tasks.schedule("t", key="other", every="1 day", priority=0, max_attempts=4)
    options = [
        (schedule["queue_name"], schedule["priority"], schedule["max_attempts"])
        for schedule in tasks.schedules.values()
    ]
    assert options == [("q", 5, 3), ("q", 0, 4)]


# --- which errors are worth another run ---


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_the_type_of_an_exception_decides_whether_the_run_is_repeated(
    kind: str, client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    errors: dict[str, BaseException] = {
        "as listed": ConnectionError(),
        "derived": ConnectionResetError(),
        "not listed": KeyError("x"),
        "discarded": BrokenPipeError(),
        "said so": Fail("later"),
        "not an error": SystemExit(),
    }

    def register(name: str, error: BaseException) -> None:
        async def coroutine() -> None:
            raise error

        def function() -> None:
            raise error

        tasks.task(name, retry_on=(OSError, ConnectionError), discard_on=BrokenPipeError)(
            coroutine if kind == "async" else function
        )
        client.add_job(identifier=name)

    for name, error in errors.items():
        register(name, error)
    with running():
        until(ALL_TRIED)
    ends = dict(connection.execute(ENDS).fetchall())
    assert ends == dict.fromkeys(errors, "retried") | {
        "not listed": "failed",
        "discarded": "failed",
    }


# --- time limits ---


def test_an_async_run_that_takes_too_long_is_cancelled_and_fails(
    client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    cleaned_up = []

    @tasks.task("waits", timeout=MOMENT)
    async def waits(ctx: JobContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(ctx.cancelled)

    @tasks.task("swallows", timeout=MOMENT)
    async def swallows() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    @tasks.task("in time", timeout=timedelta(seconds=PATIENCE))
    async def in_time() -> None:
        runner = asyncio.current_task()
        assert runner is not None
        if sys.version_info >= (3, 11):
            assert runner.cancelling() == 0, "left behind on the runner by another's time limit"
        await asyncio.sleep(0)

    for name in ("waits", "swallows", "in time"):
        client.add_job(identifier=name)
    with running(concurrency=1):
        until(ALL_TRIED)
    assert cleaned_up == [True]
    assert connection.execute(ENDS).fetchall() == [("swallows", "retried"), ("waits", "retried")]
    message = "TimeoutError: the run took longer than its task's timeout of 0.05 s"
    assert connection.execute(ERRORS).fetchall() == [(message,)]


def test_a_sync_run_is_told_that_its_time_is_over_and_fails_if_it_went_on(
    client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    def wait(ctx: JobContext) -> None:
        while not ctx.cancelled:
            time.sleep(0.005)
        assert not ctx.heartbeat()

    @tasks.task("returns", timeout=MOMENT)
    def returns(ctx: JobContext) -> None:
        wait(ctx)

    @tasks.task("raises", timeout=MOMENT, discard_on=TimeoutError)
    def raises(ctx: JobContext) -> None:
        wait(ctx)
        raise KeyError

    @tasks.task("snoozes", timeout=MOMENT)
    def snoozes(ctx: JobContext) -> None:
        wait(ctx)
        raise Snooze(timedelta(hours=1))

    @tasks.task("in time", timeout=timedelta(seconds=PATIENCE))
    def in_time(ctx: JobContext) -> None:
        assert not ctx.cancelled

    for name in ("returns", "raises", "snoozes", "in time"):
        client.add_job(identifier=name)
    with running():
        until(
            "not exists (select from app_jobs.jobs where locked_by is not null or run_at <= now())"
        )
    assert connection.execute(ENDS).fetchall() == [
        ("raises", "failed"),
        ("returns", "retried"),
        ("snoozes", "retried"),
    ]
    row = connection.execute("select attempts from app_jobs.jobs order by task_identifier desc")
    assert row.fetchone() == (0,)
    message = "TimeoutError: the run took longer than its task's timeout of 0.05 s"
    assert connection.execute(ERRORS).fetchall() == [(message,)]


def test_a_time_limit_is_positive(tasks: Tasks) -> None:
    with pytest.raises(BadArgument, match="timeout is not positive: 0:00:00"):
        tasks.task("t", timeout=timedelta(0))


# --- middleware ---

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


def test_middleware_is_around_all_handlers_in_order_and_shares_contextvars_with_them(
    client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    seen: dict[str, list[str]] = {"async": [], "sync": []}

    @tasks.middleware
    def outer(ctx: JobContext) -> Iterator[None]:
        seen[ctx.task.name].append("outer in")
        token = who.set(f"outer {ctx.payload}")
        yield
        who.reset(token)
        seen[ctx.task.name].append("outer out")

    @tasks.task("async")
    async def coroutine() -> None:
        await asyncio.sleep(0)
        seen["async"].append(who.get())

    @tasks.middleware
    def inner(ctx: JobContext) -> Iterator[None]:
        seen[ctx.task.name].append("inner in")
        who.set(f"inner {ctx.payload}")
        yield
        seen[ctx.task.name].append("inner out")

    @tasks.task("sync")
    def function() -> None:
        seen["sync"].append(who.get())

    for kind in seen:
        client.add_job(identifier=kind, payload=7)
    with running():
        until(NO_JOBS)
    order = ["outer in", "inner in", "inner 7", "inner out", "outer out"]
    assert seen == {"async": order, "sync": order}


def test_middleware_decides_over_errors(
    client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    started = []

    @tasks.middleware
    async def guard(ctx: JobContext) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        if ctx.payload == "not yet":
            raise Snooze(timedelta(hours=1))
        try:
            yield
        except KeyError:
            pass
        except ValueError as error:
            raise Fail("it is of no use", permanent=True) from error

    @tasks.task("t")
    async def handler(payload: str) -> None:
        started.append(payload)
        if payload == "missing":
            raise KeyError
        if payload == "bad":
            raise ValueError

    client.add_jobs(identifier="t", payloads=["not yet", "missing", "bad"])
    with running(concurrency=1):
        until("not exists (select from app_jobs.jobs where run_at <= now())")
    assert started == ["missing", "bad"]
    assert connection.execute("select payload, attempts from app_jobs.jobs").fetchall() == [
        ("not yet", 0)
    ]
    rows = connection.execute("select payload, last_error from app_jobs.finished_jobs").fetchall()
    assert rows == [("bad", "it is of no use")]


def test_middleware_that_could_not_be_around_a_handler_is_refused(tasks: Tasks) -> None:
    async def waits(ctx: JobContext) -> AsyncIterator[None]:
        yield

    with pytest.raises(TypeError, match="'plain' is no generator"):

        @tasks.middleware  # type: ignore[type-var]
        def plain(ctx: JobContext) -> None: ...

    @tasks.task("sync")
    def function() -> None: ...

    with pytest.raises(TypeError, match=r"'waits' is async, and cannot be around .* 'sync'"):
        tasks.middleware(waits)
    other = Tasks()
    other.middleware(waits)
    with pytest.raises(TypeError, match=r"'waits' is async, and cannot be around .* 'sync'"):
        other.task("sync")(function)
    assert len(other) == 0


# --- progress ---


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_progress_is_told_at_once_and_the_last_word_always(
    kind: str, client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    connection.execute(
        """
        create table said (progress jsonb);
        create function note() returns trigger language plpgsql as $$
        begin
            insert into public.said values (new.progress);
            return new;
        end $$;
        create trigger note after update of progress on app_jobs.workers
        for each row when (new.progress is distinct from old.progress) execute function note();
        """
    )
    go_on, end = threading.Event(), threading.Event()

    def tell(ctx: JobContext) -> None:
        ctx.progress(0, "it begins")
        go_on.wait(PATIENCE)
        for step in range(1, 1001):
            ctx.progress(step / 1000, f"\0 {step}")

    @tasks.task("async")
    async def coroutine(ctx: JobContext) -> None:
        await asyncio.to_thread(tell, ctx)
        await asyncio.to_thread(end.wait, PATIENCE)

    @tasks.task("sync")
    def function(ctx: JobContext) -> None:
        tell(ctx)
        end.wait(PATIENCE)

    job = client.add_job(identifier=kind)
    with running():
        until("exists (select from app_jobs.progress() where note = 'it begins')")
        go_on.set()
        until("exists (select from app_jobs.progress() where done = 1)")
        (progress,) = client.progress()
        end.set()
        until(NO_JOBS)
    assert (progress.id, progress.note) == (job.id, "\\0 1000")
    assert client.progress() == []
    # In a second of its own each; a burst of a thousand takes a few milliseconds.
    row = connection.execute("select count(*) from said").fetchone()
    assert row is not None
    assert 1 <= row[0] < 100


def test_progress_is_0_to_1(
    client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    @tasks.task("t")
    def handler(payload: float, ctx: JobContext) -> None:
        ctx.progress(payload)

    client.add_jobs(identifier="t", payloads=[-0.1, 1.1])
    with running():
        until(ALL_TRIED)
    hint = "\nHINT: Give 0 to 1."
    assert [message for (message,) in connection.execute(ERRORS)] == [
        f"BadArgument: done is out of range: -0.1{hint}",
        f"BadArgument: done is out of range: 1.1{hint}",
    ]


# --- batches ---


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_batch_has_up_to_so_many_jobs_and_each_ends_as_it_does(
    kind: str, client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    batches: list[list[int]] = []

    def handle(pages: list[Page], batch: BatchContext) -> None:
        batches.append([page.number for page in pages])
        for index, page in enumerate(pages):
            job = batch.jobs[index]
            assert (job.payload, job.attempt) == ({"number": page.number}, 1)
            if page.number == 3:
                batch.fail(index, Fail("not this one", permanent=True))
            elif page.number == 4:
                batch.fail(index, KeyError("later"))
            elif page.number == 5:
                batch.fail(index, Snooze(timedelta(hours=1)))
            else:
                job.result = page.number * 10

    async def coroutine(pages: list[Page], batch: BatchContext) -> None:
        await asyncio.sleep(0)
        handle(pages, batch)

    @tasks.middleware
    def middleware(ctx: JobContext | BatchContext) -> Iterator[None]:
        assert isinstance(ctx, BatchContext)
        ctx.log.info("a batch of %s", ctx.task.name)
        who.set(ctx.task.name)
        yield
        assert not ctx.cancelled

    task = tasks.batch_task("t", size=4)(coroutine if kind == "async" else handle)  # type: ignore[arg-type, var-annotated]
    client.set_task("t", {"keep_completed": "1 day"})
    ids = task.enqueue_many(client, [Page(number) for number in range(10)])
    (unfit,) = client.add_jobs(identifier="t", payloads=[{"number": "x"}], priority=-1)
    with running():
        until("not exists (select from app_jobs.jobs where run_at <= now())")
    assert batches == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9]]
    ends = [job for job in map(client.job_details, ids) if job is not None]
    assert [(job.state, job.attempts, job.result, job.last_error) for job in ends] == [
        *(("completed", 1, number * 10, None) for number in range(3)),
        ("failed", 1, None, "not this one"),
        ("created", 1, None, "KeyError: 'later'"),
        ("created", 0, None, None),
        *(("completed", 1, number * 10, None) for number in range(6, 10)),
    ]
    misfit = client.job_details(unfit)
    assert misfit is not None
    assert (misfit.state, misfit.last_error) == (
        "failed",
        "the payload does not fit Page: number: expected int, got str",
    )


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_batch_that_fails_or_takes_too_long_does_so_for_all_of_which_nothing_was_said(
    kind: str, client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    def begin(batch: BatchContext) -> None:
        batch.fail(0, Fail("the first", permanent=True))

    async def raises(payloads: list[Any], batch: BatchContext) -> None:
        begin(batch)
        raise ValueError("the others")

    def raises_in_thread(payloads: list[Any], batch: BatchContext) -> None:
        begin(batch)
        raise ValueError("the others")

    async def waits(payloads: list[Any], batch: BatchContext) -> None:
        begin(batch)
        await asyncio.Event().wait()

    def waits_in_thread(payloads: list[Any], batch: BatchContext) -> None:
        begin(batch)
        while not batch.jobs[1].cancelled:
            time.sleep(0.005)

    is_async = kind == "async"
    tasks.batch_task("raises")(raises if is_async else raises_in_thread)  # type: ignore[arg-type]
    tasks.batch_task("waits", timeout=MOMENT)(waits if is_async else waits_in_thread)  # type: ignore[arg-type]
    for name in ("raises", "waits"):
        client.add_jobs(identifier=name, payloads=[1, 2, 3])
    with running():
        until(ALL_TRIED)
    rows = connection.execute(
        """
        select coalesce(j.task_identifier, f.task_identifier), e.error_message, count(*)
        from app_jobs.job_errors as e
        left join app_jobs.jobs as j on j.id = e.job_id
        left join app_jobs.finished_jobs as f on f.id = e.job_id
        group by 1, 2 order by 1, e.error_message collate "C"
        """
    ).fetchall()
    assert rows == [
        ("raises", "ValueError: the others", 2),
        ("raises", "the first", 1),
        ("waits", "TimeoutError: the run took longer than its task's timeout of 0.05 s", 2),
        ("waits", "the first", 1),
    ]


def test_jobs_of_a_batch_that_are_lost_or_fit_nowhere(
    client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    started = threading.Event()
    alone: list[bool] = []

    @tasks.batch_task("t")
    def handler(payloads: list[int], batch: BatchContext) -> None:
        started.set()
        while not batch.jobs[0].cancelled:
            time.sleep(0.005)
        alone.append(batch.cancelled)

    first, _ = client.add_jobs(identifier="t", payloads=[1, 2])
    with running(lease=timedelta(seconds=1)):
        assert started.wait(PATIENCE)
        client.cancel_jobs([first])
        until(NO_JOBS)
        client.add_jobs(identifier="t", payloads=["x", "y"])
        until("(select count(*) = 2 from app_jobs.finished_jobs where state = 'failed')")
    assert alone == [False]
    states = connection.execute(
        "select state, last_error from app_jobs.finished_jobs order by id"
    ).fetchall()
    misfit = "the payload does not fit int: expected int, got str"
    assert states == [("failed", misfit)] * 2


def test_jobs_of_a_batch_have_effects_and_transactions_of_their_own(
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection.execute("create table written (n int)")

    @tasks.batch_task("t")
    async def handler(payloads: list[int], batch: BatchContext) -> None:
        for payload, job in zip(payloads, batch.jobs, strict=True):
            async with job.transaction() as its_connection:
                await its_connection.execute("insert into written values (%s)", [payload])
                job.result = payload

    client.set_task("t", {"keep_completed": "1 day"})
    ids = client.add_jobs(identifier="t", payloads=[1, 2])
    with caplog.at_level("WARNING"), running():
        until(NO_JOBS)
    assert [job.result for job in map(client.job_details, ids) if job] == [1, 2]
    assert connection.execute("select n from written order by n").fetchall() == [(1,), (2,)]
    assert caplog.messages == []


def test_a_batch_task_that_could_not_run_is_refused(tasks: Tasks) -> None:
    for size in (0, 5001):
        with pytest.raises(BadArgument, match=f"size is out of range: {size}"):
            tasks.batch_task("t", size=size)
    with pytest.raises(TypeError, match="in no process"):
        tasks.batch_task("t", process=True)
    with pytest.raises(TypeError, match=r"'t': it gets a list of payloads: .* list\[…\]"):

        @tasks.batch_task("t")  # type: ignore[arg-type]
        def handler(page: Page) -> None: ...
