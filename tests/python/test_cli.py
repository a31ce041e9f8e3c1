"""The console command: commands, exit codes, errors; the worker as a process, and its signals."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from rich.console import Console

from app_jobs import Client, cli
from app_jobs._top import View

pytestmark = pytest.mark.once

PATIENCE = 20
TENANT = "018f0000-0000-7000-8000-000000000001"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

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

@tasks.task("bad")
def bad(payload):
    raise ValueError("bad")

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


def test_progress_is_shown(run: Run, client: Client) -> None:
    jobs = [client.add_job(identifier="[t]") for _ in range(3)]
    client.register_worker("w")
    client.get_jobs("w", job_limit=3)
    dones = [(jobs[0], 0.25), (jobs[1], 0.75)]
    client.set_progress(
        "w",
        [{"job_id": job.id, "lease": 1, "done": done, "note": "[x]"} for job, done in dones],
    )
    shown = json.loads(run("show", str(jobs[0].id), "--json").stdout)["progress"]
    assert (shown["done"], shown["note"]) == (0.25, "[x]")
    assert '"note": "[x]"' in run("show", str(jobs[0].id)).stdout
    assert "progress" not in run("show", str(jobs[2].id)).stdout
    assert "[t] 3 (0 s, 50% done)" in run("top").stdout


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
        (("cancel",), 2, "IDs or --key"),
        (("cancel", "1", "--key", "k"), 2, "IDs or --key"),
        (("cancel", "--key", "k"), 1, "no live job has the key k"),
        (("cancel", "1", "2"), 1, "not changed: 1, 2"),
        (("retry", "--all", "--task", "t"), 2, "IDs, --task or --all"),
        (("retry", "3"), 1, "not changed: 3"),
        (("pause",), 2, "--task or --queue"),
        (("resume", "--task", "t", "--queue", "q"), 2, "--task or --queue"),
        (("limit", "q", "0"), 2, "max_running is 0"),
        (("task", "t", "max_attempts"), 2, "key=value"),
        (("task", "t", "colour=red"), 2, "colour"),
        (("prune", "--older-than", "soon"), 2, "no age: soon"),
        (("prune", "--older-than", "9999999d"), 2, "no age: 9999999d"),
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


def ids(ended: Ended) -> list[int]:
    assert ended.code in (0, 1), ended.stderr
    return [int(line) for line in ended.stdout.split()]


def test_what_others_wrote_does_not_steer_the_terminal(run: Run, client: Client) -> None:
    evil = "\x1b]0;owned\x07[red]"
    job = client.add_job(identifier=evil, queue_name=evil, job_key=evil)
    client.get_job("w\x1b[2J")
    client.fail_job("w\x1b[2J", job.id, error_message=evil, detail=evil, permanent=True)
    for command in (("list",), ("show", str(job.id)), ("explain", str(job.id)), ("top",)):
        shown = run(*command).stdout
        assert "\x1b" not in shown
        assert "\x07" not in shown
    assert "\ufffd]0;owned\ufffd[red]" in run("list").stdout


def test_cancel(run: Run, client: Client) -> None:
    running = client.add_job(identifier="t")
    assert client.get_job("w 1") is not None
    waiting, keyed, tenants = (
        client.add_job(identifier="t", job_key=key, db_id=tenant).id
        for key, tenant in ((None, None), ("k", None), ("k", TENANT))
    )
    ended = run("cancel", str(running.id), str(waiting), "999", "--reason", "not wanted")
    assert (ended.code, ids(ended)) == (1, [running.id, waiting])
    assert f"job {running.id} is running on w 1" in ended.stderr
    assert "not changed: 999" in ended.stderr
    assert ids(run("cancel", "--key", "k", "--db-id", TENANT)) == [tenants]
    assert client.find_job("k") is not None
    assert ids(run("cancel", "--key", "k")) == [keyed]
    assert "not wanted" in run("show", str(waiting)).stdout
    assert client.heartbeat("w 1") == []


def dead_letter(client: Client, task: str, key: str | None = None) -> int:
    job = client.add_job(identifier=task, job_key=key)
    assert client.get_job("w", [task]) is not None
    client.fail_job("w", job.id, "no", permanent=True)
    return job.id


def test_retry(run: Run, client: Client) -> None:
    a, b, c = (dead_letter(client, task) for task in "aab")
    taken, outdated, last = (dead_letter(client, "k", key) for key in ("taken", "twice", "twice"))
    client.add_job(identifier="k", job_key="taken")
    assert ids(run("retry", str(a))) == [a]
    assert ids(run("retry", "--task", "a")) == [b]
    assert ids(run("retry", "--task", "a")) == []
    limited = run("retry", "--all", "--limit", "1")
    assert ids(limited) == [c]
    assert "run it again" in limited.stderr
    assert ids(run("retry", "--all")) == [last]
    refused = run("retry", str(taken), str(outdated))
    assert refused.code == 1
    assert '"taken"' in refused.stderr


def test_pause_and_resume(run: Run, client: Client) -> None:
    client.add_job(identifier="t", queue_name="q", db_id=TENANT)
    for what in (("--task", "t"), ("--queue", "q", "--db-id", TENANT)):
        assert run("pause", *what).code == 0
        assert client.get_job("w") is None
        assert run("resume", *what).code == 0
    assert run("pause", "--queue", "q").code == 0  # another tenant's
    assert client.get_job("w") is not None


def test_queues_and_their_limits(run: Run, client: Client) -> None:
    client.add_jobs(identifier="t", payloads=[1, 2, 3], queue_name="[long]", db_id=TENANT)
    client.add_jobs(identifier="t", payloads=[1], queue_name="short")
    assert client.get_job("w") is not None
    assert run("limit", "[long]", "2", "--db-id", TENANT).code == 0
    assert run("pause", "--queue", "short").code == 0
    listed = json.loads(run("queues", "--json").stdout)
    assert [
        (queue["queue_name"], queue["job_count"], queue["max_running"], queue["paused"])
        for queue in listed
    ] == [("[long]", 3, 2, False), ("short", 1, 1, True)]
    header, first, second = run("queues").stdout.splitlines()
    assert header.split()[:4] == ["queue", "tenant", "jobs", "limit"]
    assert first.split()[:5] == ["[long]", TENANT, "3", "2", "w"]
    assert second.split() == ["short", "1", "1", "paused"]
    assert len(run("queues", "--limit", "1").stdout.splitlines()) == 2


def test_task_settings(run: Run, client: Client) -> None:
    nothing = run("task", "t")
    assert (nothing.code, nothing.stdout) == (0, "")
    assert "no settings" in nothing.stderr
    shown = run("task", "t", "max_attempts=5", "timeout=10 minutes", 'backoff={"type":"linear"}')
    assert (shown.code, shown.stderr) == (0, "")
    assert '{"type": "linear"}' in shown.stdout
    settings = json.loads(run("task", "t", "timeout=null", "--json").stdout)
    assert (settings["max_attempts"], settings["timeout"]) == (5, None)
    assert client.add_job(identifier="t").max_attempts == 5


def test_prune(run: Run, client: Client, database: str) -> None:
    jobs = [dead_letter(client, "t") for _ in range(5)]
    with psycopg.connect(database) as connection:
        connection.execute(
            "update app_jobs.finished_jobs set finished_at = now() - interval '8 days'"
            " where id <> %s",
            [jobs[0]],
        )
    assert run("prune").stdout == "0\n"
    assert run("prune", "--older-than", "7d", "--batch", "3").stdout == "4\n"
    assert run("prune", "--older-than", "0s").stdout == "1\n"


def test_explain(run: Run, client: Client) -> None:
    job = client.add_job(identifier="t", run_at=datetime(2040, 1, 1, tzinfo=timezone.utc))
    explained = run("explain", str(job.id))
    assert (explained.code, explained.stderr) == (0, "")
    assert "2040" in explained.stdout
    assert len(explained.stdout.splitlines()) == 1


def test_doctor(run: Run, client: Client) -> None:
    healthy = run("doctor")
    assert (healthy.code, healthy.stdout) == (0, "ok        nothing found\n")
    client.add_job(identifier="[t]")
    sick = run("doctor", "--json")
    assert sick.code == 1
    findings = json.loads(sick.stdout)
    assert findings[0]["severity"] == "critical"
    first, remedy, *_ = run("doctor").stdout.splitlines()
    assert first == f"critical  {findings[0]['finding']}: {findings[0]['figure']}"
    assert remedy.strip() == findings[0]["remedy"]


def test_top_prints_one_frame_into_a_pipe(run: Run, client: Client) -> None:
    client.add_jobs(identifier="mail [x]", payloads=[1, 2, 3])
    client.add_job(identifier="later", run_at=datetime(2040, 1, 1, tzinfo=timezone.utc))
    client.register_worker("idle one")
    client.set_worker_idle("idle one", True)
    assert len(client.get_jobs("busy one", job_limit=2)) == 2
    client.heartbeat("busy one")
    client.record_stats(
        "w",
        [
            {
                "task_identifier": "quick",
                "completed": 150,
                "retried": 50,
                "wait_histogram": [0, 0, 200] + [0] * 18,
                "run_histogram": [0] * 12 + [100, 0, 100] + [0] * 6,
            }
        ],
    )

    ended = run("top")
    assert (ended.code, ended.stderr) == (0, "")
    assert run("top", "--once").stdout.splitlines()[2:5] == ended.stdout.splitlines()[2:5]
    lines = [" ".join(line.split()) for line in ended.stdout.splitlines()]
    assert "workers 2, idle 1" in lines[0]
    assert lines[1] == "added - ended -"
    assert lines[2] == "ready 1 scheduled 1 parked 0 running 2 expired 0"
    assert lines[5:7] == ["mail [x] 1 0 0 2 0 s 0 █ 0", "later 0 1 0 0 0 ▁ 0"]
    assert re.fullmatch(r"quick 0 0 0 0 0 ▁ [\d.]+ 25% 3.75 ms 4.88 ms 10 s 57 s", lines[7])
    assert lines[10:12] == ["busy one 0 s 2 mail [x] 2 (0 s)", "idle one 0 s 0 idle"]

    look = json.loads(run("top", "--json").stdout)
    assert look["added"] >= 0
    assert [(task["task"], task["ready"], task["running"]) for task in look["tasks"]] == [
        ("mail [x]", 1, 2),
        ("later", 0, 0),
        ("quick", 0, 0),
    ]
    (busy, idle) = look["workers"]
    assert (busy["worker"], busy["running"], busy["runs"][0]["jobs"]) == ("busy one", 2, 2)
    assert (idle["worker"], idle["idle"], idle["runs"]) == ("idle one", True, [])


class Terminal:
    """A terminal of 80 by 24, with a process in it."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self._ours, self.theirs = os.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app_jobs", *arguments],
            env={**environment, "TERM": "xterm"},
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
        )

    def wait_for(self, text: str) -> str:
        """Read on until the text is shown; return the frame that has it."""
        read, shown = b"", ""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and select.select([self._ours], [], [], PATIENCE)[0]:
            read += os.read(self._ours, 65_536)
            shown = read.decode(errors="replace")
            *frames, _ = shown.split("\x1b[H")  # the last one may be incomplete
            for frame in frames:
                if text in frame:
                    return frame
        pytest.fail(f"never shown: {text}\n{shown[-5000:]}")

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    with ExitStack() as stack:

        def start(*arguments: str) -> Terminal:
            terminal = Terminal(environment, *arguments)
            stack.callback(terminal.close)
            return terminal

        yield start


def test_top_lives_on_a_terminal(
    terminal: Callable[..., Terminal], client: Client, database: str, server: str
) -> None:
    client.add_jobs([{"identifier": f"task {n}"} for n in range(30)])
    top = terminal("top", "--interval", "0.1")
    settings = termios.tcgetattr(top.theirs)
    frame = top.wait_for("… 15 more")
    assert frame.count("\n") == 23
    client.add_jobs(identifier="fresh", payloads=[1, 2])
    top.wait_for("fresh")

    name = conninfo_to_dict(database)["dbname"]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'alter database "{name}" allow_connections false')
        top.wait_for("not reachable")
        connection.execute(f'alter database "{name}" allow_connections true')
    client.add_jobs(identifier="afterwards", payloads=[1, 2, 3])
    assert "not reachable" not in top.wait_for("afterwards")

    top.type(b"x")
    top.wait_for("afterwards")
    assert top.process.poll() is None
    top.type(b"q")
    assert top.process.wait(PATIENCE) == 0
    assert termios.tcgetattr(top.theirs) == settings


def test_top_is_ended_by_an_interrupt(terminal: Callable[..., Terminal], client: Client) -> None:
    top = terminal("top", "--interval", "0.1")
    settings = termios.tcgetattr(top.theirs)
    top.wait_for("app_jobs")
    top.process.send_signal(signal.SIGINT)
    assert top.process.wait(PATIENCE) == 0
    assert termios.tcgetattr(top.theirs) == settings


def look(at: float, added: int, ended: int, tasks: int = 0, workers: int = 0) -> dict[str, Any]:
    numbers = dict.fromkeys(("ready", "scheduled", "parked", "running", "expired", "failed_1h"), 7)
    lately = dict.fromkeys(("rate", "failing", "wait_p50", "wait_p95", "run_p50", "run_p95"), 1)
    return {
        "at": at,
        "clock": "12:00:00",
        "database": "d",
        "version": "1",
        "added": added,
        "ended": ended,
        "tasks": [
            {"task": f"task {n}", "oldest": 200_000, **numbers, **lately} for n in range(tasks)
        ],
        "workers": [
            {"worker": f"worker {n}", "seen": 61, "idle": False, "running": 1, "runs": []}
            for n in range(workers)
        ],
    }


def drawn(view: View, height: int | None = None, width: int = 80) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(view.frame(height, width=width))
    return capture.get().splitlines()


def test_top_shows_rates() -> None:
    view = View()
    for sample in (look(10, 500, 0), look(12, 600, 3), look(14, 20_100, 3), look(15, 0, 3)):
        view.add(sample)
    assert drawn(view)[1].split() == ["added", "0/s", "▁█▁", "ended", "0/s", "█▁▁"]
    view.add(look(17, 50_000, 8))
    assert drawn(view)[1].split() == ["added", "25k/s", "▁▄▁█", "ended", "2.5/s", "▅▁▁█"]


@pytest.mark.parametrize(
    ("tasks", "workers", "shown"),
    [(3, 4, (3, 4)), (40, 2, (13, 2)), (2, 40, (2, 13)), (40, 40, (7, 8)), (0, 0, (0, 0))],
)
def test_top_fits_the_screen(tasks: int, workers: int, shown: tuple[int, int]) -> None:
    view = View()
    view.add(look(10, 0, 0, tasks, workers))
    assert max(map(len, drawn(view, 24, 120))) <= 120
    lines = drawn(view, 24)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    kinds = [line.split()[0] for line in lines if re.match(r"(task|worker) \d", line)]
    assert (kinds.count("task"), kinds.count("worker")) == shown
    hidden = re.findall(r"… (\d+) more", "\n".join(lines))
    assert [int(n) for n in hidden] == [n for n in (tasks - shown[0], workers - shown[1]) if n > 0]


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


def test_a_worker_logs_json(worker: Callable[..., Any], client: Client) -> None:
    client.add_job(
        identifier="bad",
        payload="a secret",
        max_attempts=1,
        attributes={"traceparent": TRACEPARENT},
    )
    with worker("--log-format", "json") as process:
        assert process.stderr is not None
        for logged in process.stderr:
            assert "a secret" not in logged
            record = json.loads(logged)
            if record["level"] == "warning":
                break
        assert (record["task"], record["attempt"], record["logger"]) == (
            "bad",
            1,
            "app_jobs.worker",
        )
        assert record["job_id"] >= 1
        assert record["trace_id"] == TRACEPARENT.split("-")[1]
        assert "failed in attempt 1 of 1" in record["message"]
