"""What Prometheus scrapes, and that rules and dashboard name what is there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import make_conninfo

from app_jobs import Client, Fail, Tasks, Worker
from app_jobs._prometheus import Exporter, WorkerCollector

pytestmark = pytest.mark.once

MONITORING = Path(__file__).resolve().parents[2] / "docs" / "monitoring"
PATIENCE = 20
LABELS = ("task", "state", "outcome", "severity", "le")

Connection = psycopg.Connection[Any]
Until = Callable[[str], None]
Samples = dict[tuple[str, ...], float]


def scrape(collector: Any) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def samples(text: str) -> Samples:
    """Values by name and values of labels, as in ("app_jobs_jobs", "mail", "ready")."""
    return {
        (sample.name, *(sample.labels[name] for name in LABELS if name in sample.labels)): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def busy(
    client: Client,
    connection: Connection,
    tasks: Tasks,
    running: Callable[..., AbstractContextManager[Worker]],
    until: Until,
) -> Worker:
    """A worker that has run some jobs and ended; others wait."""

    @tasks.task("mail")
    async def mail(payload: int) -> None:
        if payload == 0:
            raise Fail(permanent=True)

    client.add_jobs(identifier="mail", payloads=[0, 1, 2])
    with running() as worker:
        until("not exists (select from app_jobs.jobs)")
    client.register_worker("another", task_identifiers=["mail"])
    client.register_worker("dead", task_identifiers=["mail"])
    connection.execute(
        "update app_jobs.workers set last_seen_at = now() - interval '2 min'"
        " where worker_id <> 'another'"
    )
    client.add_jobs(identifier="mail", payloads=[1, 2])
    client.add_job(identifier="forgotten", queue_name="q")
    return worker


def test_the_exporter_shows_the_queue(busy: Worker, database: str, client: Client) -> None:
    found = samples(scrape(Exporter(database, "app_jobs")))
    assert found["app_jobs_up",] == 1
    assert found["app_jobs_jobs", "mail", "ready"] == 2
    assert found["app_jobs_jobs", "forgotten", "ready"] == 1
    assert found["app_jobs_jobs", "mail", "running"] == 0
    assert 0 < found["app_jobs_oldest_ready_age_seconds", "mail"] < 60
    assert found["app_jobs_recent_dead_letters", "mail"] == 1
    assert found["app_jobs_task_workers", "mail"] == 1, "the dead one does not count"
    assert found["app_jobs_task_workers", "forgotten"] == 0
    assert found["app_jobs_workers", "busy"] + found["app_jobs_workers", "idle"] == 1
    assert found["app_jobs_schedules_behind",] == 0
    criticals = sum(finding.severity == "critical" for finding in client.doctor())
    assert found["app_jobs_doctor_findings", "critical"] == criticals > 0


def test_the_exporter_counts_runs_minute_by_minute(
    busy: Worker, database: str, connection: Connection
) -> None:
    exporter = Exporter(database, "app_jobs")
    assert ("app_jobs_runs_total", "mail", "completed") not in samples(scrape(exporter))
    connection.execute(
        "update app_jobs.stat_reports"
        " set at = date_bin('1 minute', now(), 'epoch') - interval '3 min'"
    )
    exporter._counted_to = _minutes_ago(connection, 5)
    for _ in range(2):  # a minute counts once
        found = samples(scrape(exporter))
        assert found["app_jobs_runs_total", "mail", "completed"] == 2
        assert found["app_jobs_runs_total", "mail", "failed"] == 1
        assert found["app_jobs_wait_seconds_count", "mail"] == 3
        assert found["app_jobs_run_seconds_bucket", "mail", "+Inf"] == 3


def _minutes_ago(connection: Connection, minutes: int) -> Any:
    return connection.execute(
        "select date_bin('1 minute', now(), 'epoch') - make_interval(mins => %s)", [minutes]
    ).fetchall()[0][0]


def test_the_exporter_outlives_its_connection(database: str, connection: Connection) -> None:
    exporter = Exporter(database, "app_jobs")
    assert samples(scrape(exporter))["app_jobs_up",] == 1
    connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    assert samples(scrape(exporter)) == {("app_jobs_up",): 0}
    assert samples(scrape(exporter))["app_jobs_up",] == 1


def test_a_monitor_may_export(busy: Worker, database: str) -> None:
    as_monitor = make_conninfo(database, options="-c role=app_jobs_monitor")
    assert samples(scrape(Exporter(as_monitor, "app_jobs")))["app_jobs_up",] == 1


def test_a_worker_shows_what_it_has_run(busy: Worker, database: str, tasks: Tasks) -> None:
    found = samples(scrape(WorkerCollector(busy)))
    assert found["app_jobs_worker_runs_total", "mail", "completed"] == 2
    assert found["app_jobs_worker_runs_total", "mail", "failed"] == 1
    assert found["app_jobs_worker_wait_seconds_count", "mail"] == 3
    assert found["app_jobs_worker_run_seconds_count", "mail"] == 3
    assert samples(scrape(WorkerCollector(Worker(database, tasks)))) == {}, "not started"


# --- rules and dashboard ---


@pytest.mark.parametrize("name", ["alerts.yml", "grafana.json"])
def test_what_rules_and_dashboard_name_is_scraped(name: str, busy: Worker, database: str) -> None:
    exporter = Exporter(database, "app_jobs")
    exporter._tasks["mail"].runs["completed"] += 1
    scraped = {sample[0] for sample in samples(scrape(exporter))}
    text = (MONITORING / name).read_text()
    expressions = (
        re.findall(r'"(?:expr|query)": "(.*)"', text)
        if name.endswith("json")
        else re.findall(r"^ +expr: (.+(?:\n {10,}.+)*)", text, re.MULTILINE)
    )
    named = set(re.findall(r"\bapp_jobs_\w+", " ".join(expressions)))
    assert len(named) > 5
    assert named <= scraped


def test_the_dashboard_is_json_with_panels_of_their_own() -> None:
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) > 10


@pytest.mark.parametrize(
    "command", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]]
)
def test_promtool_finds_the_rules_good(command: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_the_names_good(busy: Worker, database: str) -> None:
    for collector in (Exporter(database, "app_jobs"), WorkerCollector(busy)):
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=scrape(collector),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- the commands ---


@contextmanager
def serving(folder: Path, *command: str, **variables: str) -> Iterator[tuple[Any, str]]:
    """A process, and the address at which it says that it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app_jobs", *command],
        cwd=folder,
        env={**os.environ, **variables},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        yield process, said.removeprefix("metrics: ").strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def test_the_commands_serve_until_sigterm(database: str, tmp_path: Path) -> None:
    (tmp_path / "mytasks.py").write_text(
        "from app_jobs import Tasks\ntasks = Tasks()\ntasks.task('quick')(lambda: None)\n"
    )
    for command, name in (
        (["exporter", "--port", "0"], b"app_jobs_up 1.0"),
        (["worker", "mytasks:tasks", "--metrics-port", "0"], b"app_jobs_worker_runs"),
    ):
        with serving(tmp_path, *command, DATABASE_URL=database) as (process, address):
            assert address.startswith("http://127.0.0.1:"), command
            assert name in urllib.request.urlopen(address, timeout=PATIENCE).read()
            port = address.split(":")[2].split("/")[0]
            other = subprocess.run(
                [sys.executable, "-m", "app_jobs", "exporter", "--port", port],
                env={**os.environ, "DATABASE_URL": database},
                capture_output=True,
                text=True,
                check=False,
            )
            assert other.returncode == 2
            assert f"port {port} of 127.0.0.1 cannot be used" in other.stderr
            if command[0] == "worker":  # SIGTERM would find it on its way up
                for line in process.stderr:
                    if "started with 1 tasks" in line:
                        break


def test_the_missing_extra_is_named(database: str, tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text(
        "raise ModuleNotFoundError(name='prometheus_client')"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "app_jobs", "exporter"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "DATABASE_URL": database},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "pip install 'app-jobs[metrics]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
