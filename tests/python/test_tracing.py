"""Traces of OpenTelemetry: from whoever adds a job, in Python or SQL, to its handler."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from app_jobs import Client, JobContext, Snooze, Tasks, Worker

pytestmark = pytest.mark.once

Connection = psycopg.Connection[Any]
Running = Callable[..., AbstractContextManager[Worker]]
Until = Callable[[str], None]

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def exported() -> Iterator[Any]:
    """What keeps the spans. Other test modules do not see that OpenTelemetry was imported."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield exporter
    del sys.modules["opentelemetry.trace"]


@pytest.fixture
def spans(exported: Any) -> Callable[[str], list[Any]]:
    """A function (name): the spans of that name."""
    exported.clear()
    return lambda name: [span for span in exported.get_finished_spans() if span.name == name]


def attributes(connection: Connection) -> list[Any]:
    return [row[0] for row in connection.execute("select attributes from app_jobs.jobs")]


def test_without_opentelemetry_nothing_is_added(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    client.add_job(identifier="task")
    client.add_jobs([{"identifier": "task"}])
    assert attributes(connection) == [{}, {}]


def test_no_span_is_current(spans: Any, client: Client, connection: Connection) -> None:
    client.add_job(identifier="task")
    assert attributes(connection) == [{}]


def test_a_trace_goes_from_the_producer_to_the_handler(
    spans: Any,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from opentelemetry import trace

    tracer = trace.get_tracer("test")

    @tasks.task("async")
    async def coroutine(ctx: JobContext) -> None:
        with tracer.start_as_current_span("inner"):
            ctx.log.info("hello")

    @tasks.task("sync")
    def function(ctx: JobContext) -> None:
        with tracer.start_as_current_span("inner"):
            ctx.log.info("hello")

    caplog.set_level(logging.INFO)
    with tracer.start_as_current_span("request") as request:
        for task in ("async", "sync"):
            client.add_job(identifier=task, attributes={"mine": 1})
            client.add_jobs(identifier=task, payloads=[1])
            client.add_jobs([{"identifier": task}])
    assert [a.get("mine") for a in attributes(connection)] == [1, None, None] * 2
    with running():
        until("not exists (select from app_jobs.jobs)")
    parent = request.get_span_context()
    trace_id = f"{parent.trace_id:032x}"
    inner = {span.parent.span_id for span in spans("inner")}
    for task in ("async", "sync"):
        found = spans(f"process {task}")
        assert len(found) == 3
        for span in found:
            assert span.kind is trace.SpanKind.CONSUMER
            assert (span.parent.span_id, span.parent.trace_id) == (parent.span_id, parent.trace_id)
            assert span.context.span_id in inner
            assert span.attributes["messaging.destination.name"] == task
            assert span.attributes["app_jobs.attempt"] == 1
            assert span.status.is_unset
    logged = [vars(r)["trace_id"] for r in caplog.records if r.message == "hello"]
    assert logged == [trace_id] * 6


def test_how_long_a_job_waited_is_a_span(
    spans: Any, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    tasks.task("task")(lambda: None)
    connection.execute(
        "select app_jobs.add_job(identifier => 'task', run_at => now() - interval '1 hour',"
        " attributes => json_build_object('traceparent', %s::text)::jsonb)",
        [TRACEPARENT],
    )
    connection.execute("select app_jobs.add_job(identifier => 'task')")
    with running():
        until("not exists (select from app_jobs.jobs)")
    (waited,) = spans("wait task")
    assert f"{waited.parent.trace_id:032x}" == TRACE_ID
    assert 3600e9 <= waited.end_time - waited.start_time < 3660e9
    traced, other = sorted(spans("process task"), key=lambda span: span.parent is None)
    assert traced.start_time >= waited.end_time
    assert traced.parent == waited.parent
    assert other.parent is None


@pytest.mark.parametrize("sync", [True, False])
def test_a_batch_is_linked_to_the_traces_of_its_jobs(
    sync: bool,
    spans: Any,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
) -> None:
    from opentelemetry import trace

    def function(payloads: list[int]) -> None:
        raise ValueError("no")

    async def coroutine(payloads: list[int]) -> None:
        raise ValueError("no")

    tasks.batch_task("task", size=10)(function if sync else coroutine)
    requests = []
    for number in range(2):
        with trace.get_tracer("test").start_as_current_span("request") as request:
            client.add_job(identifier="task", payload=number, max_attempts=1)
            requests.append(request.get_span_context())
    client.add_job(identifier="task", payload=2, max_attempts=1)
    with running():
        until("not exists (select from app_jobs.jobs)")
    (span,) = spans("process task")
    assert span.parent is None
    assert span.kind is trace.SpanKind.CONSUMER
    assert span.attributes["messaging.batch.message_count"] == 3
    assert [link.context.span_id for link in span.links] == [r.span_id for r in requests]
    assert span.status.description == "ValueError: no"
    assert [wait.parent.span_id for wait in spans("wait task")] == [r.span_id for r in requests]


def test_errors_are_recorded(
    spans: Any, client: Client, tasks: Tasks, running: Running, until: Until
) -> None:
    hour = timedelta(hours=1)

    @tasks.task("fails")
    async def fails() -> None:
        raise ValueError("no")

    @tasks.task("snoozes")
    def snoozes() -> None:
        raise Snooze(hour)

    client.add_job(identifier="fails", max_attempts=1)
    client.add_job(identifier="snoozes")
    with running():
        until(
            "not exists (select from app_jobs.jobs where locked_by is not null or attempts = 0"
            " and run_at < now())"
        )
    (failed,) = spans("process fails")
    assert failed.parent is None
    assert (failed.status.is_ok, failed.status.description) == (False, "ValueError: no")
    assert [event.name for event in failed.events] == ["exception"]
    (snoozed,) = spans("process snoozes")
    assert snoozed.status.is_unset
    assert snoozed.events == ()


def test_a_trace_comes_through_a_trigger(
    spans: Any,
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
) -> None:
    tasks.task("welcome")(lambda: None)
    connection.execute(
        """
        create table users (id bigint);
        create trigger welcome after insert on users
        for each row execute function app_jobs.tg_add_job_with_row_id('', 'welcome');
        create trigger welcome_all after insert on users referencing new table as new_rows
        for each statement execute function app_jobs.tg_add_jobs_with_rows('', 'welcome');
        """
    )
    with connection.transaction():
        connection.execute("select set_config('app_jobs.traceparent', %s, true)", [TRACEPARENT])
        connection.execute("insert into users values (1)")
    with running():
        until("not exists (select from app_jobs.jobs)")
    assert [f"{s.parent.trace_id:032x}" for s in spans("process welcome")] == [TRACE_ID] * 2


@pytest.mark.parametrize("odd", ['"00-zz-1-1"', "7", "[]", '"' + TRACEPARENT + '0"'])
def test_an_odd_traceparent_is_passed_over(
    odd: str, spans: Any, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    tasks.task("task")(lambda: None)
    connection.execute(
        "select app_jobs.add_job(identifier => 'task', attributes => %s::jsonb)",
        [f'{{"traceparent": {odd}}}'],
    )
    with running():
        until("not exists (select from app_jobs.jobs)")
    (span,) = spans("process task")
    assert span.parent is None
