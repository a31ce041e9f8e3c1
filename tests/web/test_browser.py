"""The dashboard in a browser: every page, every action, by mouse and keyboard, in both themes.

The server, a worker and `app-jobs web` are real. With APP_JOBS_SCREENSHOTS=FOLDER some pages are
written there as pictures.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright
from psycopg.conninfo import make_conninfo

from app_jobs import Client, Fail, JobContext, Tasks, Worker

TOKEN = "0123456789abcdef"
EVIL = "<img src=x onerror=alert(1)>"
CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = {
    "Overview": "/",
    "Tasks": "/tasks",
    "Queues": "/queues",
    "Jobs": "/jobs",
    "Dead letters": "/dead-letters",
    "Schedules": "/schedules",
    "Workers": "/workers",
    "Doctor": "/doctor",
    "Actions": "/actions",
}


@dataclass(frozen=True)
class Site:
    """The dashboard of a database in which jobs of all kinds are."""

    url: str
    client: Client
    connection: psycopg.Connection[Any]
    release: threading.Event
    """Set it to let the job end that runs."""

    def job(self, task: str) -> int:
        """A job of that task, live or finished, the latest."""
        listed = [*self.client.list_jobs(task=task), *self.client.list_finished(task=task)]
        return listed[0].id

    def until(self, condition: str) -> None:
        """Return once this SQL expression is true."""
        for _ in range(2000):
            row = self.connection.execute(f"select {condition} from pg_sleep(0.01)").fetchone()
            if row == (True,):
                return
        pytest.fail(f"never true: {condition}")


@pytest.fixture(scope="module")
def site(server: str) -> Iterator[Site]:
    name = f"test_{uuid4().hex}"
    dsn = make_conninfo(server, dbname=name)
    with psycopg.connect(server, autocommit=True) as root:
        root.execute(f"create database {name} template app_jobs_template")
        try:
            with Client(dsn) as client, psycopg.connect(dsn, autocommit=True) as connection:
                yield from run(dsn, client, connection)
        finally:
            root.execute(f"drop database {name} with (force)")


def run(dsn: str, client: Client, connection: psycopg.Connection[Any]) -> Iterator[Site]:
    tasks, release = Tasks(), threading.Event()

    @tasks.task("send-email")
    async def send_email(payload: dict[str, Any], ctx: JobContext) -> None: ...

    @tasks.task("resize-image")
    async def resize_image(payload: dict[str, Any], ctx: JobContext) -> None:
        raise Fail(f"cannot read the picture {EVIL}", permanent=True)

    @tasks.task("export")
    def export(payload: dict[str, Any], ctx: JobContext) -> None:
        release.wait()

    worker = Worker(dsn, tasks, worker_id="worker-1")
    thread = threading.Thread(target=worker.run)
    thread.start()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dashboard = subprocess.Popen(
        [
            *(sys.executable, "-m", "app_jobs", "web", "--allow-writes", "--show-payloads"),
            *("--port", str(port), "--interval", "0.5"),
        ],
        env={**os.environ, "DATABASE_URL": dsn, "APP_JOBS_WEB_TOKENS": f"ada:{TOKEN}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        seed(client, connection)
        site = Site(f"http://127.0.0.1:{port}", client, connection, release)
        site.until("exists (select from app_jobs.running_jobs())")
        site.until("(select count(*) = 3 from app_jobs.finished_jobs)")
        assert dashboard.stderr is not None
        assert "The dashboard is at" in dashboard.stderr.readline()
        while not reachable(port):
            assert dashboard.poll() is None
        yield site
    finally:
        release.set()
        worker.stop()
        thread.join()
        dashboard.terminate()
        assert dashboard.wait() in (0, -15)
        assert dashboard.stderr is not None
        dashboard.stderr.close()


def reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def seed(client: Client, connection: psycopg.Connection[Any]) -> None:
    """Jobs in all states, figures of the last hour, schedules."""
    client.add_jobs(identifier="send-email", payloads=[{"to": n} for n in range(50)])
    client.add_jobs(identifier="resize-image", payloads=[{"n": n} for n in range(3)])
    client.add_job(identifier="export", queue_name="exports", payload={"customer": 7})
    client.add_job(identifier="export", queue_name="exports")
    client.add_jobs(identifier=EVIL, payloads=[{EVIL: EVIL}] * 60, queue_name=EVIL)
    connection.execute(
        "select app_jobs.add_job(identifier => 'report', run_at => now() + interval '1 day')"
    )
    client.add_scheduled_job(
        identifier="report", schedule_info={"rule": "0 2 * * *"}, time_zone="Europe/Berlin"
    )
    client.set_queue_limit("imports", 3)
    # an hour of figures: what workers would have told, minute by minute
    for minutes in range(1, 61):
        with connection.transaction():
            connection.execute(
                "select app_jobs.record_stats('worker-0', %s)", [json.dumps(figures(minutes))]
            )
            connection.execute(
                "update app_jobs.stat_reports set at = at - %s * interval '1 min'"
                " where id = (select max(id) from app_jobs.stat_reports)",
                [minutes],
            )


def figures(n: int) -> list[dict[str, Any]]:
    """Some that go up and down with n."""
    return [
        {
            "task_identifier": task,
            "completed": jobs + n * 37 % 50,
            "failed": n % 3,
            "retried": n % (k + 4),
            "wait_histogram": [100 if b == 4 + k + n % 3 else 0 for b in range(21)],
            "run_histogram": [100 if b == 5 + k + n % 2 else 0 for b in range(21)],
        }
        for k, (task, jobs) in enumerate(
            {"send-email": 400, "resize-image": 90, "export": 12}.items()
        )
    ]


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
    yield browser
    browser.close()


class Errors(list[str]):
    """What a page has complained about."""

    def watch(self, page: Page) -> None:
        page.on("console", lambda m: self.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("dialog", lambda dialog: (self.append(dialog.message), dialog.dismiss()))
        page.on("requestfailed", self.failed)

    def failed(self, request: Any) -> None:
        # a page that is left ends what it has not got yet
        if request.failure != "net::ERR_ABORTED":
            self.append(f"{request.url}: {request.failure}")


@pytest.fixture
def errors() -> Iterator[Errors]:
    errors = Errors()
    yield errors
    assert errors == []


@pytest.fixture
def page(chromium: Browser, site: Site, errors: Errors) -> Iterator[Page]:
    """A page of somebody who is signed in."""
    with chromium.new_context(base_url=site.url) as context:
        context.set_default_timeout(15_000)
        page = context.new_page()
        errors.watch(page)
        assert context.request.post("/sign-in", form={"token": TOKEN}).ok
        yield page


def picture(page: Page, name: str) -> None:
    folder = os.environ.get("APP_JOBS_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder, f"{name}.png"))


@pytest.mark.parametrize(
    ("theme", "width"),
    [("light", 1280), ("dark", 390)],
    ids=["light", "dark-phone"],
)
def test_every_page_can_be_used_by_all(
    chromium: Browser, site: Site, errors: Errors, theme: Any, width: int
) -> None:
    """Contrast, labels and roles by axe-core; nothing is wider than the screen."""
    size: Any = {"width": width, "height": 800}
    with chromium.new_context(base_url=site.url, color_scheme=theme, viewport=size) as context:
        page = context.new_page()
        errors.watch(page)
        jobs = [f"/jobs/{site.job(task)}" for task in ("export", "resize-image", EVIL)]
        others = ["/dead-letters?dry_run=1", "/task?name=send-email", "/sign-in"]
        for path in [*PAGES.values(), *jobs, *others, "/queue?name=exports"]:
            page.goto(path)
            if path == "/" or path.startswith("/task?"):
                expect(page.locator("canvas").first).to_be_visible()
            found = Axe().run(page)
            assert found.violations_count == 0, f"{path}: {found.generate_report()}"
            assert page.evaluate(
                "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            ), f"{path} is wider than the screen"
            if path in ("/", jobs[1]):
                picture(page, f"{'overview' if path == '/' else 'job'}-{theme}")


def test_links_lead_to_every_page(page: Page) -> None:
    page.goto("/doctor")
    for name in PAGES:
        page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.locator("nav [aria-current]")).to_have_text(name)


def test_it_is_live(page: Page, site: Site) -> None:
    page.goto("/tasks")
    page.get_by_role("link", name="Queues").focus()
    site.client.add_jobs(identifier="newcomer", payloads=[{}] * 3)
    row = page.get_by_role("row", name=re.compile("newcomer"))
    expect(row.locator("td").first).to_have_text("3")
    expect(page.get_by_role("link", name="Queues")).to_be_focused()
    site.client.cancel_jobs([job.id for job in site.client.list_jobs(task="newcomer")])
    expect(row).to_have_count(0)


def test_charts_follow(page: Page, site: Site) -> None:
    page.goto("/")
    before = page.locator("canvas").count()
    assert before == 6
    figure = page.locator(".figures div", has_text="scheduled").locator("dd")
    expect(figure).to_have_text("1")
    site.connection.execute(
        "select app_jobs.add_job(identifier => 'report', run_at => now() + interval '2 days')"
    )
    expect(figure).to_have_text("2")
    assert page.locator("canvas").count() == before
    site.client.cancel_jobs([site.job("report")])


def test_the_keyboard_is_enough(page: Page) -> None:
    page.goto("/jobs")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("State")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("export")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("task=export"))
    expect(page.locator("tbody tr")).to_have_count(2)


def test_filters_and_pages(page: Page, site: Site) -> None:
    page.goto("/jobs")
    page.evaluate("window.same = true")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Next").click()
    expect(page.locator("tbody tr")).to_have_count(13)
    page.get_by_label("State").select_option("failed")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_label("Search").fill("CANNOT READ")
    page.get_by_label("Search").press("Enter")
    expect(page).to_have_url(re.compile("search=CANNOT"))
    expect(page.locator("tbody tr")).to_have_count(3)
    assert page.evaluate("window.same")  # all this was no new page
    page.get_by_label("Job", exact=True).fill(str(site.job("export")))
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Job {site.job('export')}")


def test_what_others_have_written_is_text(page: Page, site: Site) -> None:
    page.goto(f"/jobs/{site.job(EVIL)}")
    expect(page.locator("main")).to_contain_text(EVIL)
    page.get_by_role("link", name=EVIL).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Task {EVIL}")
    page.goto("/queues")
    page.get_by_role("link", name=EVIL).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Queue {EVIL}")
    assert page.locator("img").count() == 0


def act(page: Page, button: str, notice: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("status").filter(has_text=notice)).to_be_visible()


def test_a_job_is_steered(page: Page, site: Site) -> None:
    site.connection.execute(
        "select app_jobs.add_job(identifier => 'later', run_at => now() + interval '1 day')"
    )
    page.goto(f"/jobs/{site.job('later')}")
    page.get_by_text("Reschedule …").click()
    page.get_by_label("Run at, UTC").fill("2031-02-03T04:05:06")
    page.get_by_label("Priority").fill("-3")
    act(page, "Reschedule", "Rescheduled.")
    expect(page.locator(".explained")).to_contain_text("scheduled for 2031-02-03")
    act(page, "Run now", "Due now.")
    expect(page.locator(".explained")).to_contain_text("no live worker is known")
    page.get_by_text("Cancel …").click()
    page.get_by_label("Reason").fill("not needed")
    act(page, "Cancel the job", "Cancelled.")
    expect(page.locator(".explained")).to_contain_text("not needed")
    act(page, "Retry", "Back to work.")
    expect(page.locator(".explained")).to_contain_text("is ready")
    page.get_by_role("link", name="Actions").click()
    expect(page.locator("tbody tr").first).to_contain_text("retry_jobs")
    expect(page.locator("tbody tr").first).to_contain_text("ada")
    site.client.cancel_jobs([site.job("later")])


def test_tasks_and_queues_are_steered(page: Page, site: Site) -> None:
    page.goto("/tasks")
    page.get_by_role("main").get_by_role("link", name="export").click()
    act(page, "Pause the task", "The task is paused.")
    act(page, "Resume the task", "The task goes on.")
    page.goto("/queues")
    page.get_by_role("link", name="imports").click()
    act(page, "Pause the queue", "The queue is paused.")
    act(page, "Resume the queue", "The queue goes on.")
    page.get_by_label("At once").fill("7")
    act(page, "Set", "The queue runs 7 at a time.")


def test_schedules_are_steered(page: Page) -> None:
    page.goto("/schedules")
    page.get_by_text("10 times").click()
    expect(page.locator("tbody ol li").nth(9)).to_be_visible()
    act(page, "Pause", "Paused.")
    act(page, "Resume", "Resumed.")
    act(page, "Run now", "is added.")


def test_dead_letters_are_redriven(page: Page, site: Site) -> None:
    site.client.permanently_fail_jobs(
        site.client.add_jobs(identifier="import", payloads=[{}] * 5), "disk full"
    )
    page.goto("/dead-letters")
    page.get_by_label("Search").fill("DISK")
    page.get_by_label("Per second").fill("0.01")
    page.get_by_role("button", name="Dry run").click()
    expect(page.get_by_role("status").first).to_contain_text("5 dead letters would go back")
    picture(page, "dead-letters")
    act(page, "Put them back to work", "5 jobs are back to work.")
    states = [job.state for job in site.client.list_jobs(task="import")]
    assert sorted(states) == ["ready"] + ["scheduled"] * 4
    site.client.cancel_jobs([job.id for job in site.client.list_jobs(task="import")])


def test_a_running_job_is_cancelled(page: Page, site: Site) -> None:
    job_id = site.client.list_jobs(task="export", state="running")[0].id
    page.goto(f"/jobs/{job_id}")
    page.get_by_text("Cancel …").click()
    act(page, "Cancel the job", "Marked:")
    site.release.set()
    site.until(f"not exists (select from app_jobs.jobs where id = {job_id})")


def test_a_refused_write(page: Page, site: Site, errors: Errors) -> None:
    """Whoever has signed out elsewhere changes nothing, and is told so."""
    page.goto("/task?name=export")
    other = page.context.new_page()
    other.goto("/")
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("link", name="Sign in")).to_be_visible()
    page.get_by_role("button", name="Pause the task").click()
    expect(page.get_by_role("alert")).to_have_text("Nobody is signed in.")
    assert not any(task.paused for task in site.client.list_tasks())
    assert all("403" in error for error in errors)
    errors.clear()


def test_it_works_without_scripts(chromium: Browser, site: Site) -> None:
    with chromium.new_context(base_url=site.url, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/sign-in")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("main").get_by_role("button", name="Sign in").click()
        page.goto("/jobs")
        page.get_by_label("Task").fill("export")
        page.get_by_role("button", name="Show").click()
        expect(page).to_have_url(re.compile("task=export"))
        page.goto("/task?name=export")
        act(page, "Pause the task", "The task is paused.")
        act(page, "Resume the task", "The task goes on.")
