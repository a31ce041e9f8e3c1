"""The console command: commands, exit codes, errors; the worker as a process, and its signals."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app_jobs import Client, cli

PATIENCE = 20

Run = Callable[..., "Ended"]

TASKS = """
import asyncio, os, time
from app_jobs import Tasks

tasks = Tasks()
not_tasks = 1

@tasks.task("quick")
async def quick(payload):
    print("quick", payload, flush=True)

@tasks.task("block")
def block(payload):
    print("blocked", flush=True)
    os.read(0, 1)

@tasks.task("wait")
async def wait(payload):
    print("waiting", flush=True)
    await asyncio.Event().wait()

@tasks.task("hang")
async def hang(payload):
    print("hanging", flush=True)
    while True:  # a signal that comes just before a long sleep would wait for its end
        time.sleep(0.05)
"""


@pytest.fixture
def environment(database: str, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "mytasks.py").write_text(TASKS)
    return {**os.environ, "DATABASE_URL": database, "PYTHONUNBUFFERED": "1"}


@dataclass
class Ended:
    code: object
    stdout: str
    stderr: str


@pytest.fixture
def run(
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """A function (arguments, variables): what the command did, run inside this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mytasks", raising=False)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)

    def run(*arguments: str, **variables: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["app-jobs", *arguments])
        for name, value in {**environment, **variables}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """A function (options): a worker process for the length of a block."""

    @contextmanager
    def start(*options: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "app_jobs", "worker", "mytasks:tasks", *options],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=PATIENCE)

    return start


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def wait_for_log(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for logged in process.stderr:
        if text in logged:
            return
    pytest.fail(f"the worker ended without logging: {text}")


# --- commands ---


def test_add_list_show(run: Run, client: Client) -> None:
    added = run("add", "send_email", '{"to":"ä"}', "--key", "k", "--queue", "q", "--priority", "3")
    assert (added.code, added.stderr) == (0, "")
    job = client.find_job("k")
    assert job is not None
    assert added.stdout == f"{job.id}\n"
    assert (job.payload, job.queue_name, job.priority) == ({"to": "ä"}, "q", 3)

    later = run("add", "other", "--run-at", "2031-02-03T04:05:06+00:00", "--json")
    assert json.loads(later.stdout)["run_at"].startswith("2031-02-03T")

    shown = run("show", str(job.id))
    assert shown.code == 0
    assert '{"to": "ä"}' in shown.stdout
    as_json = json.loads(run("show", str(job.id), "--json").stdout)
    assert (as_json["key"], as_json["state"], as_json["errors"]) == ("k", "created", [])

    listed = json.loads(run("list", "--json").stdout)
    assert [row["task_identifier"] for row in listed] == ["other", "send_email"]
    assert "send_email" in run("list").stdout
    for filters, expected in (
        (("--task", "other"), ["other"]),
        (("--queue", "q"), ["send_email"]),
        (("--state", "completed"), []),
        (("--limit", "1"), ["other"]),
    ):
        found = json.loads(run("list", "--json", *filters).stdout)
        assert [row["task_identifier"] for row in found] == expected


def test_finished_jobs_are_shown_with_their_errors(run: Run, client: Client) -> None:
    job = client.add_job(identifier="t", max_attempts=1)
    client.get_job("w")
    client.fail_job("w", job.id, "no [way]", detail="Traceback: …")
    shown = run("show", str(job.id)).stdout
    assert "attempt 1 failed" in shown
    assert "no [way]" in shown
    assert "Traceback: …" in shown
    (listed,) = json.loads(run("list", "--state", "failed", "--json").stdout)
    assert listed["id"] == job.id
    assert "no [way]" in run("list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "t", '{"a": [1}'), 2, "line 1 column 9"),
        (("add", ""), 2, "identifier"),
        (("add", "t", "--db-id", "x"), 2, "uuid"),
        (("add",), 2, "Missing argument"),
        (("list", "--state", "nowhere"), 2, "nowhere"),
        (("show", "123"), 1, "123"),
        (("worker", "no_such_module:tasks"), 2, "no_such_module"),
        (("worker", "mytasks:missing"), 2, "missing"),
        (("worker", "mytasks:not_tasks"), 2, "mytasks:not_tasks"),
        (("worker", "mytasks:tasks", "--concurrency", "0"), 2, "concurrency"),
        (("list", "--dsn", "nonsense"), 2, "connection string"),
        (("list", "--dsn", "host=127.0.0.1 port=1"), 3, "not reachable"),
        (("worker", "mytasks", "--dsn", "host=127.0.0.1 port=1"), 3, "not reachable"),
    ],
)
def test_errors(run: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    ended = run(*arguments)
    assert ended.code == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_schema_commands(run: Run, empty_database: str) -> None:
    before = run("list", DATABASE_URL=empty_database)
    assert before.code == 1
    assert "app-jobs migrate" in before.stderr
    for command, code in (
        (("migrate",), 0),
        (("migrate",), 0),
        (("verify",), 0),
        (("status", "--json"), 0),
        (("list",), 0),
        (("revert",), 0),
        (("list",), 1),
    ):
        ended = run(*command, DATABASE_URL=empty_database)
        assert ended.code == code, ended.stderr
        if command[0] == "status":
            assert json.loads(ended.stdout)["pending"] == []


def test_the_missing_extra_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError(name='rich')")
    ended = subprocess.run(
        [sys.executable, "-m", "app_jobs", "list"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "pip install 'app-jobs[cli]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


# --- the worker process ---


def test_sigterm_lets_handlers_end_gives_back_and_exits_0(
    worker: Callable[..., Any], client: Client, database: str
) -> None:
    client.add_jobs(identifier="block", payloads=[1, 2, 3])
    with worker("--concurrency", "1", "--prefetch", "3") as process:
        assert line(process) == "blocked"
        process.send_signal(signal.SIGTERM)
        wait_for_log(process, "1 handlers are running")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 0
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "select count(*), count(locked_by), sum(attempts) from app_jobs.jobs"
        ).fetchone()
    assert row == (2, 0, 0)


@pytest.mark.parametrize(("task", "said"), [("wait", "waiting"), ("block", "blocked")])
def test_a_second_signal_stops_at_once(
    task: str, said: str, worker: Callable[..., Any], client: Client, database: str
) -> None:
    client.add_job(identifier=task)
    with worker("--shutdown-timeout", "3600") as process:
        assert line(process) == said
        process.send_signal(signal.SIGTERM)
        wait_for_log(process, "1 handlers are running")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    with psycopg.connect(database) as connection:
        row = connection.execute("select locked_by, attempts from app_jobs.jobs").fetchone()
    assert row == (None, 0)


def test_a_hung_process_shows_its_stacks_and_exits_1(
    worker: Callable[..., Any], client: Client
) -> None:
    client.add_job(identifier="hang")  # a coroutine that blocks the loop
    with worker() as process:
        assert line(process) == "hanging"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        wait_for_log(process, "in hang")
        assert process.wait(PATIENCE) == 1


def test_work_flows_from_the_command_line(run: Run, worker: Callable[..., Any]) -> None:
    with worker() as process:
        assert run("add", "quick", '{"n": 1}').code == 0
        assert line(process) == "quick {'n': 1}"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def test_schedules(run: Run, database: str) -> None:
    with Client(database) as client:
        nightly = client.add_scheduled_job(
            identifier="report",
            schedule_info={"rule": "30 2 * * *"},
            time_zone="Asia/Kolkata",
            job_key="nightly",
        ).id
        often = client.add_scheduled_job(identifier="poll", schedule_info={"every": "1 hour"}).id

    listed = run("schedules", "list")
    assert listed.code == 0
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:]] == [
        [str(nightly), "report", "nightly"],
        [str(often), "poll", '{"every":'],
    ]
    (found,) = json.loads(run("schedules", "list", "--task", "poll", "--json").stdout)
    assert (found["id"], found["schedule_info"]) == (often, {"every": "1 hour"})

    previewed = json.loads(run("schedules", "preview", str(nightly), "--json").stdout)
    assert len(previewed) == 10
    assert all(moment.endswith("02:30:00+05:30") for moment in previewed)
    tried = run("schedules", "preview", "--cron", "0 12 1 1 *", "--count", "2", "--tz", "UTC")
    assert [line[4:] for line in tried.stdout.splitlines()] == ["-01-01 12:00:00+00:00"] * 2
    assert len(run("schedules", "preview", "--every", "1 day").stdout.splitlines()) == 10
    spelled = run("schedules", "preview", "--every", "1 day", "--tz", "asia/kolkata")
    assert spelled.stdout.count("18:30:00+00:00") == 10
    assert "never again" in run("schedules", "preview", "--cron", "0 0 30 2 *").stderr
    assert "schedule_info.rule" in run("schedules", "preview", "--cron", "61 * * * *").stderr
    for wrong in ([], [str(often), "--cron", "* * * * *"]):
        assert run("schedules", "preview", *wrong).code == 2

    ran = run("schedules", "run", str(often))
    assert (ran.code, int(ran.stdout) > 0) == (0, True)
    again = run("schedules", "run", str(often))
    assert (again.code, "still waits" in again.stderr) == (1, True)

    assert run("schedules", "pause", str(often), str(nightly)).code == 0
    assert run("schedules", "list").stdout.count("paused") == 2
    assert run("schedules", "resume", str(often)).code == 0
    assert run("schedules", "list").stdout.count("paused") == 1
    unknown = run("schedules", "remove", str(often), "987654")
    assert (unknown.code, "no schedule 987654" in unknown.stderr) == (1, True)
    assert run("schedules", "remove", str(often)).code == 0
    assert len(json.loads(run("schedules", "list", "--json").stdout)) == 1
