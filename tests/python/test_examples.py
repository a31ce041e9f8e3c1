"""The examples run, against a real server and a real Redis; tests/docs compares the README."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
from redis import Redis

from app_jobs import Client, Tasks, Worker

pytestmark = pytest.mark.once

Running = Callable[..., AbstractContextManager[Worker]]
Until = Callable[[str], None]
Connection = psycopg.Connection[Any]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "python-client/examples"
NO_JOBS = "not exists (select from app_jobs.jobs)"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """The URL of a Redis server of our own, on a Unix socket."""
    socket = tmp_path / "redis"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL) as server:
        try:
            for _ in range(1000):
                if socket.exists() and Redis(unix_socket_path=str(socket)).ping():
                    break
                time.sleep(0.01)
            yield f"unix://{socket}"
        finally:
            server.terminate()


def test_delayed_tasks_through_redis(empty_database: str, redis_url: str) -> None:
    environment = os.environ | {"DATABASE_URL": empty_database, "REDIS_URL": redis_url}
    rq = Path(sys.executable).with_name("rq")
    with subprocess.Popen(
        [rq, "worker", "--quiet", "--url", redis_url, "reminders"],
        cwd=EXAMPLES,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as outside:
        try:
            done = subprocess.run(
                [sys.executable, "delayed_tasks.py"],
                cwd=EXAMPLES,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            outside.terminate()
        assert done.returncode == 0, done.stderr
        assert outside.stdout and "Ada: tea" in outside.stdout.read()
    assert re.match(r"reminder (\d+) is created\n(.*\n)*reminder \1 is completed\n$", done.stdout)


def test_a_payment_is_made_once(
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Running,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    example = load("effects")
    happened: list[str] = []

    async def pay(cents: int) -> str:
        if not happened:
            happened.append("refused")
            raise ConnectionRefusedError
        happened.append("charged")
        return f"receipt over {cents} cents"

    async def mail(order: int, receipt: str) -> None:
        if happened[-1] == "charged":
            happened.append("not mailed")
            raise ConnectionResetError
        happened.append(f"mailed: {receipt}")

    monkeypatch.setattr(example, "pay", pay)
    monkeypatch.setattr(example, "mail", mail)
    tasks.task("charge")(example.charge)
    connection.execute(
        """
        insert into app_jobs.tasks (task_identifier, backoff)
        values ('charge', '{"type": "constant", "base": "1 ms"}')
        """
    )
    client.add_job(identifier="charge", payload={"order": 7, "cents": 1250})
    with running():
        until(NO_JOBS)
    assert happened == ["refused", "charged", "not mailed", "mailed: receipt over 1250 cents"]


def test_a_transfer_happens_with_the_end_of_its_job(
    client: Client, connection: Connection, tasks: Tasks, running: Running, until: Until
) -> None:
    connection.execute(
        """
        create table accounts (id int primary key, cents int not null check (cents >= 0));
        insert into accounts values (1, 500), (2, 0);
        insert into app_jobs.tasks (task_identifier, keep_completed, max_attempts)
        values ('transfer', '1 day', 1)
        """
    )
    tasks.task("transfer")(load("effects").transfer)
    payload = {"source": 1, "target": 2, "cents": 300}
    ids = client.add_jobs(identifier="transfer", payloads=[payload, payload])
    with running():
        until(NO_JOBS)
    accounts = connection.execute("select cents from accounts order by id").fetchall()
    assert accounts == [(200,), (300,)]
    ended = [job for job in map(client.job_details, ids) if job is not None]
    # the one that came second would have overdrawn the account
    assert sorted((job.state, job.result) for job in ended) == [
        ("completed", {"moved": 300}),
        ("failed", None),
    ]


def test_the_gallery_of_the_page_about_tasks(
    client: Client,
    connection: Connection,
    running: Running,
    until: Until,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("writing_tasks")
    client.set_task("develop", {"keep_completed": "1 day"})
    example.add_some(client)
    gone = example.announce.enqueue(client, example.Picture(3))
    developed = example.develop.enqueue(client, example.Picture(1))
    client.add_job(identifier="export")
    example.tag.enqueue_many(client, [example.Picture(number) for number in (1, 2, 3)])
    with caplog.at_level("INFO"), running(tasks=example.tasks, processes=1):
        until("not exists (select from app_jobs.jobs where run_at <= now())")
    dead = "select task_identifier, last_error from app_jobs.finished_jobs where state = 'failed'"
    assert sorted(connection.execute(dead).fetchall()) == [
        ("announce", "PictureGone: 3"),
        ("tag", "no such picture"),
    ]
    details = client.job_details(gone.id)
    assert details is not None
    assert (details.queue_name, details.max_attempts) == ("mail", 5)
    details = client.job_details(developed.id)
    assert details is not None
    assert details.result == sum(value * value * (999 - value) for value in range(999))
    assert example.tags == example.pictures
    assert connection.execute("select priority from app_jobs.jobs").fetchall() == [(10,)]
    assert {"look at this sunset", "look at this cat"} <= set(caplog.messages)
    took = {text.split("/")[0] for text in caplog.messages if "took" in text}
    assert took == {"announce", "develop", "export", "tag"}
