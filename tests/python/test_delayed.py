"""Delayed tasks: the application moves jobs on by their ids."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest

from app_jobs import AsyncDelayedTasks, BadArgument, Client, DelayedTasks, Job

pytestmark = pytest.mark.once

Until = Callable[[str], None]
Connection = psycopg.Connection[Any]

PATIENCE = 20
EXPIRE = "update app_jobs.jobs set lease_expires_at = now() - interval '1 s' where id = %s"


@pytest.fixture
def delayed(database: str) -> Iterator[DelayedTasks]:
    with DelayedTasks(database) as delayed:
        yield delayed


def state(delayed: DelayedTasks, job_id: int) -> str | None:
    job = delayed.get_job(job_id)
    return None if job is None else job.state


def received(delayed: DelayedTasks, client: Client, topic: str = "t") -> list[int]:
    client.tick()
    return [job.id for job in delayed.receive_jobs(topic)]


@pytest.mark.parametrize("schema", ["app_jobs", "reminders"])
def test_it_brings_its_own_schema(schema: str, empty_database: str) -> None:
    with DelayedTasks(empty_database, schema) as delayed:
        delayed.start()
        delayed.start()
        assert delayed.add_job("t") > 0
    with DelayedTasks(empty_database, schema) as delayed:
        delayed.start(migrate=False)


def test_what_a_job_is_added_with(delayed: DelayedTasks, connection: Connection) -> None:
    moment = datetime(2041, 1, 2, tzinfo=timezone.utc)
    job = delayed.get_job(
        delayed.add_job("t", [1], {"a": 2}, run_after_date=moment, retry_after_seconds=1.5)
    )
    assert job is not None
    assert (job.task_identifier, job.payload, job.attributes) == ("t", [1], {"a": 2})
    assert (job.run_at, job.retry_after, job.state) == (moment, timedelta(seconds=1.5), "created")

    job = delayed.get_job(delayed.add_job("t", run_after_seconds=3600))
    assert job is not None
    assert (job.payload, job.retry_after) == ({}, timedelta(seconds=30))
    assert connection.execute(
        "select %s between now() + interval '59 minutes' and now() + interval '1 hour'",
        [job.run_at],
    ).fetchone() == (True,)

    with pytest.raises(BadArgument, match="run_after_seconds is 1"):
        delayed.add_job("t", run_after_seconds=1, run_after_date=moment)


def test_a_job_is_added_in_the_callers_transaction(
    database: str, delayed: DelayedTasks, client: Client
) -> None:
    with psycopg.connect(database) as mine:
        job_id = delayed.add_job("t", run_after_seconds=-1, connection=mine)
        assert delayed.get_job(job_id) is None
    assert received(delayed, client) == [job_id]


def test_a_job_that_is_not_moved_on_appears_again(
    delayed: DelayedTasks, client: Client, connection: Connection
) -> None:
    job_id = delayed.add_job("t")
    assert received(delayed, client, "another") == []
    assert received(delayed, client) == [job_id]
    assert state(delayed, job_id) == "active"
    assert received(delayed, client) == []
    connection.execute(EXPIRE, [job_id])
    assert received(delayed, client) == [job_id]
    connection.execute("update app_jobs.jobs set attempts = 25")
    connection.execute(EXPIRE, [job_id])
    assert received(delayed, client) == []
    assert state(delayed, job_id) == "failed"


def test_a_job_in_processing_does_not_appear_again(
    database: str, delayed: DelayedTasks, client: Client
) -> None:
    job_id = delayed.add_job("t")
    assert not delayed.move_job_to_processing(job_id)
    received(delayed, client)
    with DelayedTasks(database) as another:
        assert another.move_job_to_processing(job_id)
        assert received(delayed, client) == []
        assert state(delayed, job_id) == "processing"
        assert another.move_job_to_done(job_id)
    assert state(delayed, job_id) == "completed"
    assert not delayed.move_job_to_done(job_id)


def test_how_a_job_goes(delayed: DelayedTasks, client: Client) -> None:
    done, failed, gone_done, gone_failed, deleted = (delayed.add_job("t") for _ in range(5))
    received(delayed, client)
    assert delayed.move_job_to_done(done)
    assert delayed.move_job_to_failed(failed)
    assert delayed.move_job_to_done(gone_done, delete_on_complete=True)
    assert delayed.move_job_to_failed(gone_failed, delete_on_fail=True)
    assert delayed.delete_job(deleted)
    states = [state(delayed, i) for i in (done, failed, gone_done, gone_failed, deleted)]
    assert states == ["completed", "failed", None, None, None]
    assert delayed.delete_job(done)
    assert state(delayed, done) is None


def test_what_can_be_set(delayed: DelayedTasks, client: Client) -> None:
    job_id = delayed.add_job("t", attributes={"a": 1}, run_after_seconds=3600)
    assert delayed.set_attributes(job_id, {"b": 2})
    assert delayed.set_retry_after_seconds(job_id, 90)
    assert received(delayed, client) == []
    assert delayed.set_job_start_date(job_id, datetime.now(timezone.utc) - timedelta(minutes=1))
    assert received(delayed, client) == [job_id]
    job = delayed.get_job(job_id)
    assert job is not None
    assert job.attributes == {"a": 1, "b": 2}
    assert job.started_at is not None and job.lease_expires_at is not None
    assert job.lease_expires_at - job.started_at == timedelta(seconds=90)
    assert not delayed.set_attributes(job_id + 1, {})
    assert not delayed.set_retry_after_seconds(job_id + 1, 1)
    assert not delayed.set_job_start_date(job_id + 1, datetime.now(timezone.utc))


def test_jobs_are_processed_in_the_background(
    delayed: DelayedTasks, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    def handler(job: Job) -> None:
        seen.append(job.payload)
        if job.payload == 2:
            raise ValueError("broken")
        delayed.move_job_to_done(job.id)

    for number in range(5):
        delayed.add_job("t", number)
    delayed.process_jobs("t", handler, heart_beat=0.01, max_jobs=2)
    until("(select count(*) = 4 from app_jobs.finished_jobs)")
    delayed.add_job("t", 5)
    until("(select count(*) = 5 from app_jobs.finished_jobs)")
    delayed.shutdown()
    assert seen == [0, 1, 2, 3, 4, 5]
    assert "the handler of job" in caplog.text and "broken" in caplog.text


def test_the_background_outlives_its_connection(
    delayed: DelayedTasks, connection: Connection, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    delayed.process_jobs("t", lambda job: delayed.move_job_to_done(job.id), heart_beat=0.01)
    until("exists (select from pg_stat_activity where query like '%get_jobs%')")
    connection.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    with DelayedTasks(connection.info.dsn) as producer:
        producer.add_job("t")
    until("exists (select from app_jobs.finished_jobs)")
    assert "no jobs of t are received" in caplog.text


def test_shutdown_waits_for_the_handler_and_starts_no_more(
    delayed: DelayedTasks, connection: Connection
) -> None:
    started, go_on = threading.Event(), threading.Event()
    seen = []

    def handler(job: Job) -> None:
        started.set()
        go_on.wait(PATIENCE)
        seen.append(job.payload)

    for number in range(3):
        delayed.add_job("t", number)
    delayed.process_jobs("t", handler)
    (background,) = delayed._backgrounds
    assert started.wait(PATIENCE)
    stopping = threading.Thread(target=delayed.shutdown)
    stopping.start()
    assert background._stop.wait(PATIENCE)
    go_on.set()
    stopping.join(PATIENCE)
    assert seen == [0]


def test_what_waited_too_long_is_not_handed_over(
    delayed: DelayedTasks, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    def handler(job: Job) -> None:
        until("exists (select from app_jobs.jobs where lease_expires_at < now())")
        seen.append(job.payload)
        delayed.move_job_to_done(job.id)

    delayed.add_job("t", 1, retry_after_seconds=1)
    delayed.add_job("t", 2, retry_after_seconds=1)
    delayed.process_jobs("t", handler, heart_beat=60)
    until("exists (select from app_jobs.finished_jobs)")
    delayed.shutdown()
    assert seen == [1]
    assert "it appears again" in caplog.text


def test_the_twins_are_alike() -> None:
    def signatures(kind: type) -> dict[str, list[str]]:
        return {
            node.name: [a.arg for a in (*node.args.args, *node.args.kwonlyargs)]
            for node in ast.walk(ast.parse(inspect.getsource(kind)))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name[0] != "_"
        }

    assert signatures(DelayedTasks) == signatures(AsyncDelayedTasks)


def test_the_async_twin(database: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        done = asyncio.Event()

        async with AsyncDelayedTasks(database) as delayed:
            await delayed.start()

            async def handler(job: Job) -> None:
                if job.payload == 1:
                    raise ValueError("broken")
                assert await delayed.move_job_to_processing(job.id)
                assert await delayed.move_job_to_done(job.id)
                done.set()

            broken = await delayed.add_job("t", 1)
            job_id = await delayed.add_job("t", 2, run_after_seconds=0)
            await delayed.process_jobs("t", handler, heart_beat=0.01)
            await asyncio.wait_for(done.wait(), PATIENCE)
            await delayed.shutdown()
            states = [await delayed.get_job(i) for i in (broken, job_id)]
            assert [job and job.state for job in states] == ["active", "completed"]

    with caplog.at_level(logging.WARNING, "app_jobs"):
        asyncio.run(main())
    assert "broken" in caplog.text
