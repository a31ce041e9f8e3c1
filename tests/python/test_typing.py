"""What mypy says about tasks: right calls pass, each wrong one is an error on its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]

SNIPPET = """
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

import psycopg

from app_jobs import AsyncClient, BatchContext, Client, Job, JobContext, Task, Tasks

tasks = Tasks()


@dataclass
class Email:
    to: str


class Note(TypedDict):
    text: str


@tasks.task("send-email")
async def send_email(payload: Email, ctx: JobContext) -> int:
    return 1


@tasks.task()
def take_note(ctx: JobContext, payload: Note) -> None: ...


@tasks.task()
def only_payload(payload: Email) -> None: ...


@tasks.task()
def only_context(ctx: JobContext) -> None: ...


@tasks.task()
def nothing() -> None: ...


@tasks.task()
def anything(payload: Any) -> None: ...


@tasks.task()
def with_default(payload: Email, retries: int = 3) -> None: ...


email, note = Email(to="x"), Note(text="x")


def add(client: Client, connection: psycopg.Connection[Any]) -> None:
    job: Job = send_email.enqueue(client, email, priority=1, connection=connection)
    ids: list[int] = take_note.enqueue_many(client, [note], queue_name="q")
    take_note.enqueue(client, {"text": "x"}, job_key="k", job_key_mode="keep")
    nothing.enqueue(client, idempotency_key="k")
    only_context.enqueue(client)
    only_context.enqueue(client, {"id": 7})
    anything.enqueue(client, 7)
    only_payload(email)
    add_by_type(client, only_payload)
    again: Email = send_email.from_payload(job.payload)
    later = send_email.configure(queue_name="q", job_key="k")
    job = later.enqueue(client, email, priority=1)
    ids = later.enqueue_many(client, [email])
    nothing.configure(priority=1).enqueue(client)

    send_email.configure(priorty=1)  # E: did you mean "priority"
    send_email.configure(priority="high")  # E: expected "int"
    later.enqueue(client, note)  # E: expected "Email"
    later.enqueue_many(client, [note])  # E: expected "Email"
    send_email.enqueue(client)  # E: Missing positional argument "payload"
    send_email.enqueue(client, 7)  # E: incompatible type "int"; expected "Email"
    send_email.enqueue(client, note)  # E: expected "Email"
    send_email.enqueue(client, Email(to=7))  # E: incompatible type "int"; expected "str"
    send_email.enqueue(client, Email())  # E: Missing positional argument "to"
    send_email.enqueue(client, email, priorty=1)  # E: did you mean "priority"
    send_email.enqueue(client, email, priority="high")  # E: expected "int"
    send_email.enqueue(client, email, job_key_mode="keeep")  # E: "Literal['keeep']"
    send_email.enqueue(client, email, idempotency_key=7)  # E: "idempotency_key"
    send_email.enqueue("client", email)  # E: "str"
    send_email.enqueue_many(client, email)  # E: expected "Sequence[Email]"
    send_email.enqueue_many(client, [note])  # E: expected "Email"
    send_email.enqueue_many(client, [email], job_key="k")  # E: Unexpected keyword argument
    send_email.to_payload(note)  # E: expected "Email"
    send_email(email)  # E: Too few arguments
    take_note.enqueue(client, {"txt": "x"})  # E: Missing key "text"
    take_note.enqueue(client, {"text": 7})  # E: TypedDict item "text" has type "str"
    only_payload.enqueue(client, {"to": "x"})  # E: expected "Email"
    with_default.enqueue(client, 7)  # E: expected "Email"
    nothing.enqueue(client, 7)  # E: No overload variant
    job_id: int = send_email.enqueue(client, email)  # E: expression has type "Job"


async def add_async(client: AsyncClient, connection: psycopg.AsyncConnection[Any]) -> None:
    job: Job = await send_email.enqueue(client, email, connection=connection)
    ids: list[int] = await send_email.enqueue_many(client, [email])
    await nothing.enqueue(client)
    await send_email(email, job)  # E: expected "JobContext"

    send_email.enqueue(client, email)  # E: must be used
    nothing.enqueue(client)  # E: must be used
    await send_email.enqueue(client, 7)  # E: expected "Email"


def add_by_type(client: Client, task: Task[Email]) -> None:
    task.enqueue(client, email)
    task.enqueue(client, note)  # E: expected "Email"


def mixed(client: Client, connection: psycopg.AsyncConnection[Any]) -> None:
    send_email.enqueue(client, email, connection=connection)  # E: Cannot infer


@tasks.task("nightly", cron="0 2 * * *", tz="Europe/Berlin", payload=note, overlap="skip")
def nightly(payload: Note) -> None: ...


tasks.schedule("nightly", key="often", every="5 minutes", payload=note, missed="all")
tasks.schedule("nightly", cron=5)  # E: expected "str | None"
tasks.schedule("nightly", every=5)  # E: expected "timedelta | str | None"
nightly(note)


@tasks.task("often", crn="0 2 * * *")  # E: Unexpected keyword argument "crn"
def often() -> None: ...


@tasks.task("seldom", cron="0 2 * * *", missed="never")  # E: "Literal['never']"
def seldom() -> None: ...


@tasks.task(
    queue_name="q", priority=-1, max_attempts=3, retry_on=OSError, discard_on=(KeyError, OSError),
    timeout=timedelta(minutes=5), cron="0 2 * * *",
)
def with_options() -> None: ...


tasks.task(retry_on="OSError")  # E: "str"
tasks.task(discard_on=[KeyError])  # E: "list[type[KeyError]]"
tasks.task(timeout=5)  # E: expected "timedelta | None"


@tasks.batch_task("batch", size=5, priority=1, timeout=timedelta(minutes=1))
async def batch(payloads: list[Email], ctx: BatchContext) -> None:
    ctx.fail(0, KeyError())


@tasks.batch_task()
def short_batch(payloads: list[Note]) -> None: ...


@tasks.batch_task()  # E: Argument 1
def no_batch(payload: Email) -> None: ...


def add_to_batches(client: Client) -> None:
    batch.enqueue(client, email)
    batch.enqueue_many(client, [email])
    short_batch([note])
    batch.enqueue(client, [email])  # E: expected "Email"
    short_batch.enqueue(client, email)  # E: expected "Note"
    short_batch(note)  # E: expected "list[Note]"


@tasks.middleware
def around(ctx: JobContext) -> Iterator[None]:
    yield


@tasks.middleware
async def async_around(ctx: JobContext) -> AsyncIterator[None]:
    yield


@tasks.middleware  # E: "middleware"
def no_generator(ctx: JobContext) -> None: ...


@tasks.task()  # E: Argument 1
def too_much(payload: Email, ctx: JobContext, more: int) -> None: ...


@tasks.task  # E: Argument 1
def no_call(payload: Email) -> None: ...
"""


def test_mypy_accepts_what_is_right_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET)
    config = ROOT / "python-client/pyproject.toml"
    # No cache: several servers' tests may run at once.
    options = [f"--config-file={config}", "--cache-dir=/dev/null", "--no-error-summary"]
    output, problems, _ = api.run([*options, str(tmp_path / "snippet.py")])
    assert problems == ""
    found: dict[int, str] = {}
    for number, message in re.findall(r"snippet\.py:(\d+): error: (.*)", output):
        found[int(number)] = f"{found.get(int(number), '')}{message}\n"
    expected = {
        number: line.partition("# E: ")[2]
        for number, line in enumerate(SNIPPET.splitlines(), 1)
        if "# E: " in line
    }
    assert sorted(found) == sorted(expected), output
    for number, text in expected.items():
        assert text in found[number], output
