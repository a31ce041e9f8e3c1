"""The dashboard without a browser: who may do what, what is shown, what it costs."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from starlette.testclient import TestClient

from app_jobs import Client
from app_jobs.errors import BadArgument
from app_jobs.web import Access, create_app, serve
from app_jobs.web._app import moment
from app_jobs.web._board import Board, Look
from app_jobs.web._requests import ACTIONS, time_of

TOKEN = "0123456789abcdef"
WRITES = Access(allow_writes=True, tokens={TOKEN: "ada"})
PAGES = [
    "/",
    "/?by=queue",
    "/tasks",
    "/queues",
    "/jobs",
    "/jobs?state=failed",
    "/schedules",
    "/workers",
    "/dead-letters",
    "/dead-letters?dry_run=1",
    "/doctor",
    "/actions",
    "/sign-in",
]
EVIL = "<img src=x onerror=alert(1)>\"'&{{7*7}}</script>"

Open = Callable[..., TestClient]


@pytest.fixture
def browse(database: str) -> Iterator[Open]:
    """A function (access, dsn, peer): a browser of a dashboard."""
    with ExitStack() as stack:

        def start(
            access: Access | None = None, dsn: str = database, peer: str = "127.0.0.1"
        ) -> TestClient:
            app = create_app(dsn, access=access, every=0.01)
            return stack.enter_context(
                TestClient(app, "http://localhost", client=(peer, 7), follow_redirects=False)
            )

        yield start


def sign_in(browser: TestClient) -> str:
    """Sign in; return what proves that a form is of this session."""
    assert browser.post("/sign-in", data={"token": TOKEN}).status_code == 303
    found = re.search(r'name="csrf" value="(\w+)"', browser.get("/sign-in").text)
    assert found
    return found[1]


def actions(connection: psycopg.Connection[Any]) -> list[Any]:
    return connection.execute(
        "select actor, action, details from app_jobs.operator_actions order by id"
    ).fetchall()


@pytest.fixture
def failed(client: Client) -> int:
    """A dead letter."""
    job = client.add_job(identifier="task", payload={"secret": "hush"})
    client.permanently_fail_jobs([job.id], "no route")
    return job.id


# --- who may do what -----------------------------------------------------------------------------


def test_it_is_read_only_unless_told_otherwise(
    browse: Open, failed: int, connection: psycopg.Connection[Any]
) -> None:
    browser = browse(Access(tokens={TOKEN: "ada"}))
    assert browser.post("/sign-in", data={"token": TOKEN}).status_code == 403
    answer = browser.post("/actions/retry_jobs", data={"id": failed})
    assert (answer.status_code, "--allow-writes" in answer.text) == (403, True)
    assert "/actions/retry_jobs" not in browser.get(f"/jobs/{failed}").text
    proxied = browse(Access(user_header="x-user", trusted_proxies=["127.0.0.1"]))
    page = proxied.get(f"/jobs/{failed}", headers={"x-user": "ada"}).text
    assert "/actions/retry_jobs" not in page
    assert actions(connection) == []


FORGED: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"csrf": ""}, {}),
    ({"csrf": "0" * 64}, {}),
    ({}, {"origin": "http://evil.example"}),
    ({}, {"origin": "null"}),
    ({}, {"sec-fetch-site": "cross-site"}),
    ({}, {"cookie": "app_jobs_session=stolen"}),
]


def test_a_form_must_be_of_the_session(
    browse: Open, failed: int, connection: psycopg.Connection[Any]
) -> None:
    browser = browse(WRITES)
    form = {"csrf": sign_in(browser), "id": str(failed)}
    cookies = {"cookie": f"app_jobs_session={browser.cookies['app_jobs_session']}"}
    browser.cookies.clear()
    for changes, headers in FORGED:
        answer = browser.post(
            "/actions/retry_jobs", data={**form, **changes}, headers={**cookies, **headers}
        )
        assert answer.status_code == 403, (changes, headers)
    assert actions(connection) == []
    assert browser.post("/actions/retry_jobs", data=form, headers=cookies).status_code == 303


def test_a_wrong_token(browse: Open) -> None:
    browser = browse(WRITES)
    for token in ("", "0123456789abcdeF", "ä"):
        assert browser.post("/sign-in", data={"token": token}).status_code == 403
    assert browser.cookies.get("app_jobs_session") is None


def test_the_session_ends(browse: Open, failed: int) -> None:
    browser = browse(WRITES)
    csrf = sign_in(browser)
    session = browser.cookies["app_jobs_session"]
    assert browser.post("/sign-out", data={"csrf": csrf}).status_code == 303
    browser.cookies.set("app_jobs_session", session)
    form = {"csrf": csrf, "id": failed}
    assert browser.post("/actions/retry_jobs", data=form).status_code == 403


def test_the_session_cookie_is_kept_from_scripts_and_other_sites(browse: Open) -> None:
    cookie = browse(WRITES).post("/sign-in", data={"token": TOKEN}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_a_reverse_proxy_names_the_person(
    browse: Open, failed: int, connection: psycopg.Connection[Any]
) -> None:
    access = Access(allow_writes=True, user_header="x-user", trusted_proxies=["10.0.0.0/24", "::1"])
    headers = {"x-user": "eve"}
    stranger = browse(access, peer="10.0.1.1")
    assert "csrf" not in stranger.get(f"/jobs/{failed}", headers=headers).text
    browser = browse(access, peer="10.0.0.9")
    found = re.search(r'"csrf" value="(\w+)"', browser.get(f"/jobs/{failed}", headers=headers).text)
    assert found
    form = {"csrf": found[1], "id": failed}
    assert stranger.post("/actions/retry_jobs", data=form, headers=headers).status_code == 403
    assert browser.post("/actions/retry_jobs", data=form).status_code == 403
    other = {"x-user": "mallory"}
    assert browser.post("/actions/retry_jobs", data=form, headers=other).status_code == 403
    assert browser.post("/actions/retry_jobs", data=form, headers=headers).status_code == 303
    assert [actor for actor, _, _ in actions(connection)] == ["eve"]


def test_an_action_is_recorded_with_what_it_does_or_not_at_all(
    browse: Open, failed: int, client: Client, connection: psycopg.Connection[Any]
) -> None:
    browser = browse(WRITES)
    form = {"csrf": sign_in(browser), "id": str(failed), "back": f"/jobs/{failed}"}
    answer = browser.post("/actions/retry_jobs", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{failed}")
    assert "Back to work." in browser.get(f"/jobs/{failed}").text
    assert "Back to work." not in browser.get(f"/jobs/{failed}").text
    assert [job.state for job in client.list_jobs()] == ["ready"]
    recorded = [("ada", "retry_jobs", {"id": str(failed)})]
    assert actions(connection) == recorded
    # again: it is not finished any more
    assert browser.post("/actions/retry_jobs", data=form).status_code == 409
    assert browser.post("/actions/reschedule_jobs", data={**form, "run_at": "x"}).status_code == 400
    assert browser.post("/actions/drop", data=form).status_code == 404
    assert actions(connection) == recorded
    assert "retry_jobs" in browser.get("/actions").text


def test_nobody_is_sent_elsewhere(browse: Open) -> None:
    browser = browse(WRITES)
    csrf = sign_in(browser)
    for back in ("//evil.example", "https://evil.example", "/\\evil.example", ""):
        form = {"csrf": csrf, "name": "task", "back": back}
        assert browser.post("/actions/pause_task", data=form).headers["location"] == "/"


def test_every_action(browse: Open, client: Client, connection: psycopg.Connection[Any]) -> None:
    browser = browse(WRITES)
    csrf = sign_in(browser)

    def act(action: str, **values: Any) -> None:
        answer = browser.post(f"/actions/{action}", data={"csrf": csrf, **values})
        assert answer.status_code == 303, answer.text

    def job() -> Any:
        return client.list_jobs()[0]

    later = client.add_job(identifier="task", queue_name="q").id
    act("reschedule_jobs", id=later, run_at="2031-02-03T04:05", priority=-7)
    assert (job().state, job().run_at.isoformat()) == ("scheduled", "2031-02-03T04:05:00+00:00")
    act("run_now", id=later)
    assert (job().state, job().priority) == ("ready", -7)
    act("pause_queue", name="q")
    assert client.list_queues()[0].paused
    act("resume_queue", name="q")
    act("set_queue_limit", name="q", max_running=7)
    assert (client.list_queues()[0].paused, client.list_queues()[0].max_running) == (False, 7)
    act("pause_task", name="task")
    assert client.list_tasks()[0].paused
    act("resume_task", name="task")
    assert not client.list_tasks()[0].paused
    act("cancel_jobs", id=later, reason="not needed")
    assert client.list_finished()[0].last_error == "not needed"
    client.permanently_fail_jobs([client.add_job(identifier=f"t{n}").id for n in range(3)])
    act("redrive_jobs", task="t1", per_second="0.5", most="10")
    assert [j.task_identifier for j in client.list_jobs()] == ["t1"]
    schedule = client.add_scheduled_job(identifier="daily", schedule_info={"rule": "0 2 * * *"}).id
    paused = "select paused from app_jobs.scheduled_jobs"
    act("pause_schedule", id=schedule)
    assert connection.execute(paused).fetchone() == (True,)
    act("resume_schedule", id=schedule)
    assert connection.execute(paused).fetchone() == (False,)
    act("run_scheduled_job", id=schedule)
    assert client.list_jobs()[0].task_identifier == "daily"
    assert {name for _, name, _ in actions(connection)} | {"retry_jobs"} == set(ACTIONS)


@pytest.fixture
def as_role(database: str, connection: psycopg.Connection[Any]) -> Iterator[Callable[[str], str]]:
    """A function (role): a connection string of somebody who has it, and no other."""
    made = []

    def make(role: str) -> str:
        user = f"web_{connection.info.backend_pid}_{len(made)}"
        connection.execute(f"create role {user} login password 'x' in role {role}")
        made.append(user)
        return make_conninfo(database, user=user, password="x")

    yield make
    for user in made:
        connection.execute(f"drop role {user}")


def test_what_the_database_role_may_do_is_the_limit(
    browse: Open, failed: int, connection: psycopg.Connection[Any], as_role: Callable[[str], str]
) -> None:
    browser = browse(WRITES, as_role("app_jobs_monitor"))
    csrf = sign_in(browser)
    answer = browser.post("/actions/retry_jobs", data={"csrf": csrf, "id": failed})
    assert (answer.status_code, "permission denied" in answer.text) == (400, True)
    assert actions(connection) == []
    for path in ("/", "/tasks", "/queues", "/jobs", "/workers", "/dead-letters", "/doctor"):
        assert browser.get(path).status_code == 200, path
    page = browser.get(f"/jobs/{failed}")
    assert page.status_code == 200
    assert "failed for good" in page.text
    assert "may not see more" in page.text


# --- what is served, and to whom -----------------------------------------------------------------


def test_it_is_served_under_its_own_names_alone(browse: Open) -> None:
    browser = browse(Access(hosts=["jobs.example"]))
    for host in ("evil.example", "jobs.example.evil.example", "", "127.0.0.1.evil.example"):
        for path in ("/", "/live/tasks", "/static/app.css"):
            assert browser.get(path, headers={"host": host}).status_code == 421, host
    for host in ("localhost:8680", "127.0.0.1", "[::1]:80", "Jobs.example:443"):
        assert browser.get("/", headers={"host": host}).status_code == 200, host


def test_nothing_runs_but_our_own_files(browse: Open, failed: int) -> None:
    browser = browse(WRITES)
    sign_in(browser)
    for path in [*PAGES, f"/jobs/{failed}", "/nothing", "/static/app.js"]:
        answer = browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        if not path.startswith("/static"):
            assert answer.headers["cache-control"] == "no-store"
            assert not re.search(
                r"<style|<script(?! src)| style=|\son\w+=|javascript:", answer.text
            )


def test_what_others_have_written_is_text(
    browse: Open, client: Client, connection: psycopg.Connection[Any]
) -> None:
    client.add_scheduled_job(
        identifier=EVIL, schedule_info={"rule": "0 2 * * *"}, job_key=EVIL, queue_name=EVIL
    )
    ids = [
        client.add_job(
            identifier=EVIL,
            payload={EVIL: EVIL},
            job_key=f"{EVIL}{n}",
            queue_name=EVIL,
            attributes={EVIL: EVIL},
        ).id
        for n in range(3)
    ]
    client.permanently_fail_jobs(ids[:1], EVIL)
    client.register_worker(EVIL, EVIL, 7, [EVIL])
    client.get_job(EVIL, [EVIL])
    client.fail_job(EVIL, ids[1], EVIL, detail=EVIL)
    client.record_action(EVIL, EVIL, {EVIL: EVIL})
    browser = browse(Access(allow_writes=True, tokens={TOKEN: EVIL}, show_payloads=True))
    sign_in(browser)
    paths = [
        *PAGES,
        *(f"/jobs/{id}" for id in ids),
        "/jobs/0",
        f"/jobs?{urlencode({'search': EVIL, 'task': EVIL, 'queue': EVIL})}",
        f"/jobs?{urlencode({'tenant': EVIL})}",
        f"/dead-letters?{urlencode({'search': EVIL, 'since': EVIL})}",
        f"/task?{urlencode({'name': EVIL})}",
        f"/task?{urlencode({'name': EVIL + 'x'})}",
        f"/queue?{urlencode({'name': EVIL})}",
        f"/{EVIL}",
    ]
    shown = 0
    for path in paths:
        text = browser.get(path).text
        assert "<img" not in text, path
        assert '</script>"' not in text, path
        assert "49" not in re.findall(r"&amp;(\w+)", text), path
        shown += "&lt;img src=x" in text
    assert shown > 15


def test_payloads_are_hidden_unless_allowed(browse: Open, failed: int) -> None:
    assert "hush" not in browse(WRITES).get(f"/jobs/{failed}").text
    assert "hush" in browse(Access(show_payloads=True)).get(f"/jobs/{failed}").text


# --- lists ---------------------------------------------------------------------------------------


def test_lists_go_on(browse: Open, client: Client) -> None:
    ids = client.add_jobs(identifier="task", payloads=[{}] * 120)
    client.permanently_fail_jobs(ids[:60], "no route")
    browser = browse()
    for start, expected in (
        ("/jobs?task=task", ids[60:]),
        ("/dead-letters?search=route", ids[:60]),
    ):
        path: str | None = start
        found: list[str] = []
        while path:
            text = browser.get(path).text
            found += re.findall(r'<th scope="row"><a href="/jobs/(\d+)"', text)
            more = re.search(r'<p class="more"><a href="([^"]+)"', text)
            path = more and more[1].replace("&amp;", "&")
        assert sorted(map(int, found)) == sorted(expected)
        assert len(found) == 60


def test_bad_arguments_are_named(browse: Open) -> None:
    browser = browse()
    for path, message in {
        "/jobs?state=lost": "state is &#34;lost&#34;",
        "/jobs?tenant=x": "db_id is not a uuid",
        "/jobs?before_id=x": "before_id is &#39;x&#39;",
        "/dead-letters?since=noon": "since is &#39;noon&#39;",
        "/dead-letters?dry_run=1&per_second=fast": "per_second is &#39;fast&#39;",
        "/dead-letters?dry_run=1&most=0": "most is 0",
    }.items():
        answer = browser.get(path)
        assert (answer.status_code, message in answer.text) == (400, True), path


def test_a_dry_run_changes_nothing(browse: Open, failed: int, client: Client) -> None:
    text = browse(WRITES).get("/dead-letters?dry_run=1&per_second=2.5").text
    assert "1 dead letters would go back to work, 2.5 per second" in text
    assert [job.state for job in client.list_finished()] == ["failed"]


def test_unknown_things(browse: Open) -> None:
    browser = browse()
    for path in ("/jobs/7", "/task?name=x", "/queue?name=x", "/live/x", "/x"):
        assert browser.get(path).status_code == 404


def test_a_database_that_is_away(browse: Open) -> None:
    answer = browse(dsn="host=127.0.0.1 port=1 dbname=none").get("/jobs")
    assert (answer.status_code, "did not answer" in answer.text) == (503, True)


# --- live ----------------------------------------------------------------------------------------


def test_all_viewers_share_one_look(database: str, client: Client) -> None:
    """50 viewers, three looks: the database is read three times."""
    reads = 0

    class Counting(Board):
        async def _read(self, connection: Any) -> Look:
            nonlocal reads
            reads += 1
            return await super()._read(connection)

    async def view(board: Board, ready: asyncio.Semaphore) -> list[Any]:
        seen = []
        looks = board.looks()
        async for look in looks:
            seen.append(look)
            ready.release()
            if len(seen) == 3:
                break
        await looks.aclose()
        return seen

    async def run() -> list[list[Any]]:
        board = Counting(database, "app_jobs", 0)
        ready = asyncio.Semaphore(0)
        viewers = [asyncio.create_task(view(board, ready)) for _ in range(50)]
        for _ in range(3):
            await board.look()
            for _ in viewers:
                await ready.acquire()
        seen = await asyncio.gather(*viewers)
        assert board.viewers == 0
        await board.close()
        return seen

    seen = asyncio.run(run())
    assert reads == 3
    assert all(looks == seen[0] for looks in seen)


def test_pages_share_a_look_that_is_new_enough(database: str) -> None:
    async def run() -> None:
        board = Board(database, "app_jobs", 60)
        first, *others = await asyncio.gather(*(board.look() for _ in range(20)))
        assert all(look is first for look in others)
        board.outdate()
        assert await board.look() is not first
        await board.close()

    asyncio.run(run())


def test_a_look_that_began_before_a_change_is_old(database: str) -> None:
    class Meanwhile(Board):
        async def _read(self, connection: Any) -> Look:
            look = await super()._read(connection)
            if self._look is None:
                self.outdate()
            return look

    async def run() -> None:
        board = Meanwhile(database, "app_jobs", 60)
        first, second = await board.look(), await board.look()
        assert second is not first
        assert await board.look() is second
        await board.close()

    asyncio.run(run())


def test_viewers_are_told_of_trouble() -> None:
    async def run() -> None:
        board = Board("host=127.0.0.1 port=1 dbname=none", "app_jobs", 0.01)
        watching = asyncio.create_task(board.watch())
        looks = board.looks()
        assert await anext(looks) is None
        assert "No news from the database" in board.trouble
        await looks.aclose()
        watching.cancel()

    asyncio.run(run())


def test_times_are_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        read = time_of({"run_at": "2031-02-03T04:05"}, "run_at")
        assert read == datetime(2031, 2, 3, 4, 5, tzinfo=timezone.utc)
        assert moment(read) == "2031-02-03 04:05:00"
    time.tzset()


def test_no_page_can_write(database: str) -> None:
    async def run() -> None:
        board = Board(database, "app_jobs", 1)
        try:
            async with board.reading() as connection:
                await connection.execute("insert into app_jobs.tasks values ('x')")
        finally:
            await board.close()

    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        asyncio.run(run())


def test_charts_show_what_workers_have_counted(
    browse: Open, client: Client, connection: psycopg.Connection[Any]
) -> None:
    bounds = connection.execute("select cardinality(app_jobs.histogram_bounds())").fetchone()
    assert bounds
    histogram = [0] * (bounds[0] + 1)
    histogram[3] = 7
    stats = [
        {
            "task_identifier": "task",
            "completed": 7,
            "retried": 2,
            "wait_histogram": histogram,
            "run_histogram": histogram,
        }
    ]
    client.set_task("task", {})
    connection.execute("select app_jobs.record_stats('w', %s)", [json.dumps(stats)])
    connection.execute("update app_jobs.stat_reports set at = at - interval '1 min'")
    for path in ("/", "/task?name=task"):
        text = browse().get(path).text
        for caption in ("Completed", "Failed attempts", "Wait, 95 % within", "Run, 95 % within"):
            assert caption in text
        assert "task: 7" in text
        assert "task: 2" in text


def test_charts_show_what_has_waited(browse: Open, connection: psycopg.Connection[Any]) -> None:
    """As the database knows it: who has just started sees the last hour."""
    connection.execute(
        """
        insert into app_jobs.depth_figures
        select date_bin('1 minute', now(), 'epoch') - n * interval '1 minute', d.*
        from generate_series(0, 30) as n
        cross join (values
            ('task', 'deep', 40, 9, 0, 2, interval '70 seconds'),
            ('queue', 'orders', 30, 9, 0, 3, interval '50 seconds')
        ) as d"""
    )
    browser = browse()
    for path, jobs, oldest in (
        ("/", "deep: 42", "deep: 70"),
        ("/?by=queue", "orders: 33", "orders: 50"),
    ):
        text = browser.get(path).text
        assert jobs in text
        assert oldest in text


# --- how it is started ---------------------------------------------------------------------------


def test_who_can_reach_it_must_be_said() -> None:
    def start(bind: str, **access: Any) -> None:
        serve("", schema="app_jobs", bind=bind, port=1, access=Access(**access), every=1, say=print)

    with pytest.raises(BadArgument, match=r"bind is 0\.0\.0\.0"):
        start("0.0.0.0")
    with pytest.raises(BadArgument, match="belong together"):
        start("127.0.0.1", user_header="x-user")
    with pytest.raises(BadArgument, match="no address or network: proxy"):
        start("127.0.0.1", user_header="x-user", trusted_proxies=["proxy"])
    with pytest.raises(BadArgument, match="the token of 'ada' has 5 characters"):
        start("127.0.0.1", allow_writes=True, tokens={"short": "ada"})


def test_a_token_belongs_to_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_JOBS_WEB_TOKENS", f"ada:{TOKEN}, {TOKEN}")
    with pytest.raises(BadArgument, match="without a name"):
        serve("", schema="app_jobs", bind="::1", port=1, access=WRITES, every=1, say=print)


def test_a_missing_extra_is_told() -> None:
    """In one sentence, with what to install."""
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv = ['app-jobs', 'web'];"
        "from app_jobs.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "the dashboard needs the extra web (uvicorn is missing)" in done.stderr
    assert "pip install 'app-jobs[web]'" in done.stderr
