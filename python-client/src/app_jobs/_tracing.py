"""Traces of OpenTelemetry: from whoever adds a job to its handler. Nothing, unless it is imported.

The trace travels in the job's attributes, as `traceparent` (W3C Trace Context). Who has a span has
imported opentelemetry.trace: so nothing here imports it for others.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app_jobs.tasks import BatchContext, JobContext

TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def current_traceparent() -> str | None:
    """Return what names the current span; None if there is none."""
    trace = sys.modules.get("opentelemetry.trace")
    span = trace and trace.get_current_span().get_span_context()
    if not span or not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def traceparent_of(attributes: str) -> str | None:
    """Return the traceparent in a job's attributes, which are JSON text, if it is one."""
    if '"traceparent"' not in attributes:
        return None
    value = json.loads(attributes).get("traceparent")
    return value if isinstance(value, str) and TRACEPARENT.fullmatch(value) else None


def trace_id_of(attributes: str) -> str | None:
    """Return the id of the trace to which a job belongs, or else of the one that is current."""
    traceparent = traceparent_of(attributes) or current_traceparent()
    return traceparent and traceparent.split("-")[1]


Trace = Callable[["JobContext", Callable[["JobContext"], Any]], Any]
"""Calls a handler, given as the second argument, within a span."""


def tracer() -> Trace | None:
    """Return what calls handlers within a span; None where OpenTelemetry is not imported."""
    if "opentelemetry.trace" not in sys.modules:
        return None

    async def trace_async(context: JobContext, invoke: Callable[[JobContext], Any]) -> Any:
        with _span(context):
            return await invoke(context)

    def trace(context: JobContext, invoke: Callable[[JobContext], Any]) -> Any:
        if context.task.is_async:
            return trace_async(context, invoke)
        with _span(context):
            return invoke(context)

    return trace


@contextmanager
def _span(context: JobContext | BatchContext) -> Iterator[None]:
    """Run the block in a span, a child of the one in which the job was added.

    The span of a batch is linked to those of its jobs. What a job with a trace has waited since it
    was due is a span beside.
    """
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    from app_jobs.tasks import JobContext, Snooze

    name = context.task.name
    tracer = trace.get_tracer("app_jobs")
    about: dict[str, str | int] = {
        "messaging.system": "app_jobs",
        "messaging.destination.name": name,
    }
    parents = []
    now = time.time_ns()
    for job in [context] if isinstance(context, JobContext) else context.jobs:
        traceparent = traceparent_of(job._attributes)
        if traceparent is not None:
            parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
            parents.append(parent)
            waited = max(job._waited(context._started_at), 0)
            tracer.start_span(
                f"wait {name}",
                parent,
                attributes={**about, "messaging.message.id": str(job.id)},
                start_time=now - int(waited * 1e9),
            ).end(now)
    about["messaging.operation.type"] = "process"
    if isinstance(context, JobContext):
        about["messaging.message.id"] = str(context.id)
        about["app_jobs.attempt"] = context.attempt
        parent, links = parents[0] if parents else Context(), []
    else:
        about["messaging.batch.message_count"] = len(context.jobs)
        producers = [trace.get_current_span(parent).get_span_context() for parent in parents]
        parent, links = Context(), [trace.Link(producer) for producer in producers]
    with tracer.start_as_current_span(
        f"process {name}",
        parent,
        kind=trace.SpanKind.CONSUMER,
        attributes=about,
        links=links,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except Snooze:
            raise
        except BaseException as error:
            span.record_exception(error)
            span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
            raise
