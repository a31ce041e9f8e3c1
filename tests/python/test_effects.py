"""Effects that happen once, and transactions that complete their job, in a worker's handlers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from app_jobs import Client, Fail, JobContext, NotSupported, Tasks, Worker

Running = Callable[..., AbstractContextManager[Worker]]
Until = Callable[[str], None]
Connection = psycopg.Connection[Any]
# What a handler does on its context, written once for both kinds: a generator that yields what an
# async handler awaits.
Steps = Callable[[JobContext], Any]

PATIENCE = 20
NOW = timedelta(0)
SECOND = timedelta(seconds=1)
OVER = "select from app_jobs.jobs where lease_expires_at < now()"
NO_JOBS = "not exists (select from app_jobs.jobs)"

both_kinds = pytest.mark.parametrize("kind", ["async", "sync"])


def register(tasks: Tasks, kind: str, steps: Steps) -> None:
    """Make the steps the handler of task "t"; what run_once() returns is sent into them."""
    if kind == "async":

        @tasks.task("t")
        async def coroutine(ctx: JobContext) -> None:
            generator = steps(ctx)
            step, value = generator.send, None
            while True:
                try:
                    waits_for = step(value)
                except StopIteration:
                    return
                try:
                    step, value = generator.send, await waits_for
                except Exception as error:
                    step, value = generator.throw, error

    else:

        @tasks.task("t")
        def function(ctx: JobContext) -> None:
            generator, value = steps(ctx), None
            while True:
                try:
                    value = generator.send(value)
                except StopIteration:
                    return


def register_transaction(
    tasks: Tasks,
    kind: str,
    body: Callable[[JobContext, Callable[[str], Any]], None],
    before: Callable[[JobContext], None] = lambda ctx: None,
    after: Callable[[JobContext], Any] = lambda ctx: None,
) -> None:
    """Make a handler of task "t" that runs `body(ctx, execute)` in a transaction."""
    if kind == "async":

        @tasks.task("t")
        async def coroutine(ctx: JobContext) -> Any:
            before(ctx)
            async with ctx.transaction() as connection:
                loop = asyncio.get_running_loop()

                def execute(statement: str) -> Any:
                    done = connection.execute(statement.encode())
                    return asyncio.run_coroutine_threadsafe(done, loop).result()

                await asyncio.to_thread(body, ctx, execute)
            return await asyncio.to_thread(after, ctx)

    else:

        @tasks.task("t")
        def function(ctx: JobContext) -> Any:
            before(ctx)
            with ctx.transaction() as connection:
                body(ctx, lambda statement: connection.execute(statement.encode()))
            return after(ctx)


@pytest.fixture
def written(connection: Connection) -> Callable[[], list[int]]:
    """A function: what handlers have written into the table `written`."""
    connection.execute("create table written (job bigint)")

    def rows() -> list[int]:
        return [job for (job,) in connection.execute("select job from written").fetchall()]

    return rows


def keep_results(connection: Connection) -> None:
    connection.execute(
        "insert into app_jobs.tasks (task_identifier, keep_completed) values ('t', '1 day')"
    )


def outcome(connection: Connection, job_id: int) -> tuple[Any, ...]:
    row = connection.execute(
        "select state, attempts, result, last_error from app_jobs.finished_jobs where id = %s",
        [job_id],
    ).fetchone()
    assert row is not None
    return tuple(row)


# --- run_once ---


@both_kinds
def test_an_effect_that_has_happened_is_not_repeated(
    kind: str, client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    sent, results = [], []

    def send(to: str, count: int) -> Any:
        sent.append((to, count))
        return {"ids": (1, 2)}

    def steps(ctx: JobContext) -> Any:
        results.append((yield ctx.run_once("email", send, "me", 1)))
        results.append((yield ctx.run_once("nothing", lambda: None)))
        if ctx.attempt == 1:
            raise Fail("later", retry_in=NOW)

    register(tasks, kind, steps)
    client.add_job(identifier="t")
    with running():
        until(NO_JOBS)
    assert sent == [("me", 1)]
    assert results == [{"ids": [1, 2]}, None] * 2, "the same in each run"


def test_an_async_effect(client: Client, tasks: Tasks, running: Running, until: Until) -> None:
    results = []

    async def send() -> int:
        await asyncio.sleep(0)
        return 7

    @tasks.task("t")
    async def handler(ctx: JobContext) -> None:
        results.append(await ctx.run_once("email", send))

    client.add_job(identifier="t")
    with running():
        until(NO_JOBS)
    assert results == [7]


@both_kinds
def test_an_effect_in_doubt_is_left_to_a_person(
    kind: str, client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    sent = []

    def send() -> None:
        sent.append(1)
        raise ConnectionError("no answer")

    def steps(ctx: JobContext) -> Any:
        try:
            yield ctx.run_once("email", send)
        except ConnectionError:
            raise Fail("no answer", retry_in=NOW) from None

    register(tasks, kind, steps)
    job_id = client.add_job(identifier="t").id
    with running():
        until(NO_JOBS)
    state, attempts, _, error = outcome(connection, job_id)
    assert (sent, state, attempts) == ([1], "failed", 2)
    assert f"app_jobs.forget_once({job_id}, 'email')" in error


@both_kinds
def test_exceptions_that_prove_that_nothing_happened(
    kind: str, client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    tried = []

    def send() -> None:
        tried.append(1)
        if len(tried) == 1:
            raise ConnectionRefusedError

    def steps(ctx: JobContext) -> Any:
        try:
            yield ctx.run_once("email", send, nothing_done=ConnectionRefusedError)
        except ConnectionRefusedError:
            raise Fail("refused", retry_in=NOW) from None

    register(tasks, kind, steps)
    client.add_job(identifier="t")
    with running():
        until(NO_JOBS)
    assert tried == [1, 1]


@both_kinds
def test_a_result_that_is_not_json_fails_the_job_but_the_effect_is_noted(
    kind: str, client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    def steps(ctx: JobContext) -> Any:
        yield ctx.run_once("email", object)

    register(tasks, kind, steps)
    job_id = client.add_job(identifier="t").id
    with running():
        until(NO_JOBS)
    state, attempts, _, error = outcome(connection, job_id)
    assert (state, attempts) == ("failed", 1)
    assert 'effect "email" has happened' in error
    assert connection.execute(
        "select finished_at is not null from app_jobs.effects"
    ).fetchone() == (True,)


@both_kinds
def test_a_beginning_whose_answer_is_lost_raises_no_doubt(
    kind: str,
    client: Client,
    connection: Connection,
    database: str,
    tasks: Tasks,
    running: Running,
    until: Until,
) -> None:
    """As if the first try had been committed, and its connection lost just then."""
    started, go_on = threading.Event(), threading.Event()
    sent = []

    def steps(ctx: JobContext) -> Any:
        started.set()
        go_on.wait(PATIENCE)
        yield ctx.run_once("email", sent.append, 1)

    register(tasks, kind, steps)
    client.add_job(identifier="t")
    with running(lease=timedelta(minutes=5)):
        assert started.wait(PATIENCE)
        connection.execute(
            """
            insert into app_jobs.effects (job_id, effect_key, lease, worker_id)
            select id, 'email', lease, locked_by from app_jobs.jobs
            """
        )
        with psycopg.connect(database) as other:
            other.execute("select from app_jobs.jobs for update")
            go_on.set()
            blocked = "(select pid from pg_stat_activity where wait_event_type = 'Lock')"
            until(f"exists {blocked}")
            connection.execute(f"select pg_terminate_backend({blocked}, 5000)")
        until(NO_JOBS)
    assert sent == [1]


@both_kinds
def test_a_doubt_of_this_very_run_outlives_a_lost_connection(
    kind: str,
    client: Client,
    connection: Connection,
    database: str,
    tasks: Tasks,
    running: Running,
    until: Until,
) -> None:
    """Asked again in the same run, an effect in doubt is never forgotten by ourselves."""
    tried, go_on = threading.Event(), threading.Event()
    sent = []

    def send() -> None:
        sent.append(1)
        raise ConnectionError("no answer")

    def steps(ctx: JobContext) -> Any:
        try:
            yield ctx.run_once("email", send)
        except ConnectionError:
            tried.set()
        go_on.wait(PATIENCE)
        yield ctx.run_once("email", send)

    register(tasks, kind, steps)
    job_id = client.add_job(identifier="t").id
    with running(lease=timedelta(minutes=5)):
        assert tried.wait(PATIENCE)
        with psycopg.connect(database) as other:
            other.execute("select from app_jobs.jobs for update")
            go_on.set()
            blocked = "(select pid from pg_stat_activity where wait_event_type = 'Lock')"
            until(f"exists {blocked}")
            connection.execute(f"select pg_terminate_backend({blocked}, 5000)")
        until(NO_JOBS)
    assert sent == [1]
    assert outcome(connection, job_id)[:2] == ("failed", 1)


def test_what_has_happened_is_noted_though_the_handler_is_cancelled(
    client: Client,
    connection: Connection,
    database: str,
    tasks: Tasks,
    running: Running,
    until: Until,
) -> None:
    happened, cancelled, go_on = threading.Event(), threading.Event(), asyncio.Event()

    async def send() -> str:
        happened.set()
        await go_on.wait()
        return "sent"

    loops = []

    @tasks.task("t")
    async def handler(ctx: JobContext) -> None:
        loops.append(asyncio.get_running_loop())
        try:
            await ctx.run_once("email", send)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    client.add_job(identifier="t")
    with running() as worker, psycopg.connect(database) as other:
        assert happened.wait(PATIENCE)
        other.execute("select from app_jobs.effects for update")
        loops[0].call_soon_threadsafe(go_on.set)
        until("exists (select from pg_stat_activity where wait_event_type = 'Lock')")
        worker.stop(now=True)
        assert cancelled.wait(PATIENCE)
        other.rollback()
    assert connection.execute("select result from app_jobs.effects").fetchone() == ("sent",)


@both_kinds
def test_one_effect_cannot_be_begun_within_itself(
    kind: str, client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    raised = []

    def steps(ctx: JobContext) -> Any:
        ctx._effects = {"email": True}
        try:
            yield ctx.run_once("email", object)
        except RuntimeError as error:
            raised.append(str(error))

    register(tasks, kind, steps)
    client.add_job(identifier="t")
    with running():
        until(NO_JOBS)
    assert raised == ['effect "email" is under way in this very run']


@both_kinds
def test_handlers_set_attributes(
    kind: str, client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    def steps(ctx: JobContext) -> Any:
        yield ctx.set_attributes({"page": 3})
        if ctx.attempt == 1:
            raise Fail(permanent=True)

    register(tasks, kind, steps)
    job_id = client.add_job(identifier="t", attributes={"a": 1}).id
    with running():
        until(NO_JOBS)
    details = client.job_details(job_id)
    assert details is not None
    assert details.attributes == {"a": 1, "page": 3}


# --- transaction ---


@both_kinds
def test_a_transaction_completes_the_job(
    kind: str,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    written: Callable[[], list[int]],
) -> None:
    seen = []

    def body(ctx: JobContext, execute: Callable[[str], Any]) -> None:
        execute(f"insert into written values ({ctx.id})")
        ctx.result = {"rows": 1}
        # nothing is to be seen outside yet
        seen.append((written(), client.heartbeat(ctx.job.locked_by or "", [ctx.id])))

    keep_results(connection)
    register_transaction(tasks, kind, body)
    job_id = client.add_job(identifier="t").id
    with running():
        until(NO_JOBS)
    assert seen == [([], [job_id])]
    assert written() == [job_id]
    assert outcome(connection, job_id) == ("completed", 1, {"rows": 1}, None)


@both_kinds
def test_an_exception_rolls_all_back_and_fails_the_attempt(
    kind: str,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    written: Callable[[], list[int]],
) -> None:
    def body(ctx: JobContext, execute: Callable[[str], Any]) -> None:
        execute(f"insert into written values ({ctx.id})")
        if ctx.attempt == 1:
            raise Fail("half-way", retry_in=NOW)

    keep_results(connection)
    register_transaction(tasks, kind, body)
    job_id = client.add_job(identifier="t").id
    with running():
        until(NO_JOBS)
    assert written() == [job_id]
    assert outcome(connection, job_id) == ("completed", 2, None, "half-way")


@both_kinds
def test_a_lease_that_ends_within_the_transaction_is_not_taken_over(
    kind: str,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    written: Callable[[], list[int]],
) -> None:
    expired = []

    def body(ctx: JobContext, execute: Callable[[str], Any]) -> None:
        while connection.execute(OVER).fetchone() is None:
            execute("select")  # silence would end the transaction
        expired.append(client.tick().expired)
        execute(f"insert into written values ({ctx.id})")

    keep_results(connection)
    register_transaction(tasks, kind, body)
    job_id = client.add_job(identifier="t").id
    with running(lease=SECOND):
        until(NO_JOBS)
    assert expired == [0]
    assert written() == [job_id]
    assert outcome(connection, job_id)[:2] == ("completed", 1)


@both_kinds
def test_a_silent_transaction_is_ended(
    kind: str,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    written: Callable[[], list[int]],
) -> None:
    """Within a lease: a holder that has died in it would keep the job for hours."""
    taken_over = threading.Event()

    def body(ctx: JobContext, execute: Callable[[str], Any]) -> None:
        execute(f"insert into written values ({ctx.id})")
        if ctx.attempt > 1:
            taken_over.set()
        assert taken_over.wait(PATIENCE)

    keep_results(connection)
    register_transaction(tasks, kind, body)
    job_id = client.add_job(identifier="t").id
    with running(lease=SECOND):
        until(NO_JOBS)
    assert written() == [job_id]
    assert outcome(connection, job_id)[:2] == ("completed", 2)


@both_kinds
def test_who_has_lost_the_job_gets_no_transaction(
    kind: str,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    written: Callable[[], list[int]],
) -> None:
    entered = []
    refused = threading.Event()

    def before(ctx: JobContext) -> None:
        connection.execute("update app_jobs.jobs set lease = lease + 1, locked_by = 'another'")

    if kind == "async":

        @tasks.task("t")
        async def coroutine(ctx: JobContext) -> None:
            before(ctx)
            try:
                async with ctx.transaction():
                    entered.append(1)
            except NotSupported:
                refused.set()
                raise

    else:

        @tasks.task("t")
        def function(ctx: JobContext) -> None:
            before(ctx)
            try:
                with ctx.transaction():
                    entered.append(1)
            except NotSupported:
                refused.set()
                raise

    client.add_job(identifier="t")
    with running(lease=SECOND):
        assert refused.wait(PATIENCE)
    assert entered == []
    assert connection.execute("select locked_by, lease from app_jobs.jobs").fetchone() == (
        "another",
        2,
    )


@both_kinds
@pytest.mark.parametrize("when", ["within", "at the commit"])
def test_a_connection_lost_in_the_transaction(
    kind: str,
    when: str,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    written: Callable[[], list[int]],
) -> None:
    """Nothing is committed, and the job runs again."""
    connection.execute(
        """
        create function pg_temp_end() returns trigger language plpgsql as $$
        begin
            perform pg_terminate_backend(pg_backend_pid());
            return null;
        end $$;
        create constraint trigger fatal after insert on written
        deferrable initially deferred for each row when (new.job < 0)
        execute function pg_temp_end()
        """
    )

    def body(ctx: JobContext, execute: Callable[[str], Any]) -> None:
        execute(f"insert into written values ({ctx.id})")
        if ctx.attempt == 1 and when == "within":
            (pid,) = connection.execute(
                "select pid from pg_stat_activity where state = 'idle in transaction'"
            ).fetchone() or (0,)
            connection.execute("select pg_terminate_backend(%s, 5000)", [pid])
        elif ctx.attempt == 1:
            execute("insert into written values (-1)")

    connection.execute(
        """
        insert into app_jobs.tasks (task_identifier, keep_completed, backoff)
        values ('t', '1 day', '{"type": "constant", "base": "1 ms"}')
        """
    )
    register_transaction(tasks, kind, body)
    job_id = client.add_job(identifier="t").id
    with running():
        until(NO_JOBS)
    assert written() == [job_id]
    assert outcome(connection, job_id)[:2] == ("completed", 2)


@both_kinds
def test_what_comes_after_the_transaction_does_not_count(
    kind: str,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    logged: Callable[[str], None],
    written: Callable[[], list[int]],
) -> None:
    go_on = threading.Event()

    def after(ctx: JobContext) -> int:
        go_on.wait(PATIENCE)
        if ctx.payload == "raise":
            raise ValueError("too late")
        assert not ctx.cancelled, "a heartbeat that finds the job gone cancels nobody"
        return 7

    keep_results(connection)
    register_transaction(
        tasks, kind, lambda ctx, execute: execute(f"insert into written values ({ctx.id})"),
        after=after,
    )  # fmt: skip
    ids = client.add_jobs(identifier="t", payloads=["return", "raise"])
    with running(lease=SECOND):
        until(NO_JOBS)
        (beat_at,) = connection.execute("select now()").fetchone() or ("",)
        until(f"(select min(last_seen_at) > '{beat_at}'::timestamptz from app_jobs.workers)")
        go_on.set()
        logged("what its handler returned is lost")
        logged("raised after its transaction had completed it")
    assert sorted(written()) == ids
    assert [outcome(connection, i) for i in ids] == [("completed", 1, None, None)] * 2


@both_kinds
def test_a_job_has_one_transaction_and_nothing_else_within_it(
    kind: str, client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    raised = []

    def try_all(ctx: JobContext) -> None:
        attempts: list[Callable[[], Any]] = [
            lambda: ctx.run_once("email", object),
            lambda: ctx.set_attributes({}),
        ]
        for attempt in attempts:
            try:
                attempt()
            except RuntimeError as error:
                raised.append(str(error))

    def twice(error: BaseException) -> None:
        raised.append(f"{type(error).__name__}: {error}")

    if kind == "async":

        @tasks.task("t")
        async def coroutine(ctx: JobContext) -> None:
            try:
                with ctx.transaction():
                    raise AssertionError
            except TypeError as error:
                twice(error)
            async with ctx.transaction():
                try_all(ctx)
            try:
                async with ctx.transaction():
                    raise AssertionError
            except RuntimeError as error:
                twice(error)

    else:

        @tasks.task("t")
        def function(ctx: JobContext) -> None:
            coroutine = ctx.transaction().__aenter__()
            try:
                coroutine.send(None)
            except TypeError as error:
                twice(error)
            with ctx.transaction():
                try_all(ctx)
            try:
                with ctx.transaction():
                    raise AssertionError
            except RuntimeError as error:
                twice(error)

    client.add_job(identifier="t")
    with running():
        until(NO_JOBS)
    wanted = "with" if kind == "sync" else "async with"
    assert raised == [
        f"TypeError: this handler {'runs in a thread' if kind == 'sync' else 'is async'}:"
        f" write {wanted} ctx.transaction()",
        "call run_once() before or after ctx.transaction(), not within it",
        "call set_attributes() before or after ctx.transaction(), not within it",
        "RuntimeError: a job is completed once: its transaction is under way, or over",
    ]


LEFT_BEHIND = b"""
    select pg_backend_pid(), current_setting('app.mine', true), to_regclass('pg_temp.x')
"""


def test_connections_are_used_again_as_new(
    client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    seen = []

    @tasks.task("async")
    async def coroutine(ctx: JobContext) -> None:
        async with ctx.transaction() as mine:
            rows = await mine.execute(LEFT_BEHIND)
            seen.append(await rows.fetchone())
            await mine.execute("set app.mine = 'yes'; create temp table x ()")
            mine.row_factory = dict_row  # type: ignore[assignment]

    @tasks.task("sync")
    def function(ctx: JobContext) -> None:
        with ctx.transaction() as mine:
            rows = mine.execute(LEFT_BEHIND)
            seen.append(rows.fetchone())
            mine.execute("set app.mine = 'yes'; create temp table x ()")
            mine.row_factory = dict_row  # type: ignore[assignment]

    for kind in ("async", "sync"):
        seen.clear()
        with running(concurrency=1):
            client.add_jobs(identifier=kind, payloads=[1, 2])
            until(NO_JOBS)
            assert len(seen) == 2
            assert seen[0][0] == seen[1][0], "the same backend"
            assert seen[0][1] is None and seen[1][1] in (None, "")
            assert seen[1][2] is None
            # one that was lost meanwhile is replaced
            connection.execute("select pg_terminate_backend(%s, 5000)", [seen[0][0]])
            client.add_job(identifier=kind)
            until(NO_JOBS)
            assert seen[2][0] != seen[0][0]
