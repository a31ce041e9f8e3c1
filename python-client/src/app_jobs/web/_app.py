"""The web application: who may do what, pages, and actions."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import psycopg
import uvicorn
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app_jobs.errors import AppJobsError, BadArgument, translate
from app_jobs.web._board import Board, Look, stats_charts
from app_jobs.web._requests import ACTIONS, Filter, Form, Refused, read_form, whole

HERE = Path(__file__).parent
LIVE_STATES = ("ready", "parked", "scheduled", "running", "processing")
KEPT_STATES = ("completed", "failed", "cancelled")
# What is live, and the templates that make its parts.
LIVE = {
    "overview": ("now", "charts"),
    "overview-queues": ("now", "queue_charts"),
    "tasks": ("tasks",),
    "queues": ("queues",),
    "workers": ("workers",),
}
VIEWERS = 200  # at once
SESSIONS = 1000  # the latest are remembered …
SESSION = 12 * 3600  # … for so many seconds
HEADERS = {
    # no inline script or style, nothing from elsewhere
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """Who may reach the dashboard, and who may write."""

    hosts: Sequence[str] = ()
    """Names under which it is reached, besides localhost: any other is refused."""
    allow_writes: bool = False
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Person by token."""
    user_header: str | None = None
    """Where a reverse proxy says who the person is …"""
    trusted_proxies: Sequence[str] = ()
    """… believed from these addresses or networks alone."""
    show_payloads: bool = False

    def __post_init__(self) -> None:
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise BadArgument(
                    f"trusted_proxy is no address or network: {network}",
                    hint="For example 10.0.0.5 or 10.0.0.0/24.",
                ) from None
        if (self.user_header is None) != (not self.trusted_proxies):
            raise BadArgument(
                "user_header and trusted_proxy belong together",
                hint="The header is believed only if it comes from one of the proxies.",
            )
        for token, name in self.tokens.items():
            if len(token) < 16 or not 1 <= len(name) <= 100:
                raise BadArgument(
                    f"the token of {name!r} has {len(token)} characters",
                    hint="Tokens have 16 or more, names 1 to 100: NAME:TOKEN,NAME:TOKEN.",
                )

    def trusts(self, address: str | None) -> bool:
        """Whether this peer is one of the reverse proxies."""
        with suppress(ValueError):
            peer = ipaddress.ip_address(address or "")
            return any(peer in ipaddress.ip_network(net) for net in self.trusted_proxies)
        return False


@dataclass(frozen=True)
class Person:
    """Somebody who may write: the name that is recorded, and the proof that a form is ours."""

    name: str
    csrf: str


class Guard:
    """Refuses foreign names of this host (DNS rebinding), and adds the headers of safety."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app = app
        self.hosts = {"localhost", "127.0.0.1", "[::1]", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                cache = b"no-cache" if scope["path"].startswith("/static/") else b"no-store"
                message["headers"] = [
                    *message["headers"],
                    (b"cache-control", cache),
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        host = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"host"), "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        app = self.app
        if name.lower() not in self.hosts:
            app = PlainTextResponse(
                f"This is not known as {name!r:.100}: start it with --host NAME.", 421
            )
        await app(scope, receive, with_headers)


class Dashboard:
    """The pages and actions of one database."""

    def __init__(self, board: Board, access: Access) -> None:
        self.board = board
        self.access = access
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()  # name, end
        self._secret = secrets.token_bytes(32)
        self._notices: dict[str, str] = {}
        self._templates = Environment(
            loader=PackageLoader("app_jobs.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(age=age, number=number, moment=moment, chart=chart_data)
        self._templates.globals.update(
            access=access, link=link, live_states=LIVE_STATES, kept_states=KEPT_STATES
        )

    def routes(self) -> list[Any]:
        """All of them."""
        pages = {
            "/jobs": self.jobs,
            "/jobs/{id:int}": self.job,
            "/task": self.task,
            "/queue": self.queue,
            "/schedules": self.schedules,
            "/dead-letters": self.dead_letters,
            "/doctor": self.doctor,
            "/actions": self.actions,
            "/sign-in": self.sign_in_page,
        }
        return [
            Route("/", self.overview),
            *(Route(f"/{name}", self.live_page) for name in ("tasks", "queues", "workers")),
            *(Route(path, page) for path, page in pages.items()),
            Route("/live/{topic}", self.live),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            Route("/sign-out", self.sign_out, methods=["POST"]),
            Route("/actions/{name}", self.act, methods=["POST"]),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]

    # --- who ------------------------------------------------------------------------------------

    def person(self, request: Request) -> Person | None:
        """Who asks, if we know: by the reverse proxy's word, or by a session of ours."""
        access = self.access
        if not access.allow_writes:
            return None
        name = None
        if access.user_header and access.trusts(request.client and request.client.host):
            name = request.headers.get(access.user_header, "").strip()[:100] or None
        proof = name and f"proxy {name}"
        if name is None:
            session = request.cookies.get("app_jobs_session", "")
            signed_in, end = self._sessions.get(session, ("", 0.0))
            name, proof = signed_in if end > time.monotonic() else None, f"session {session}"
        if name is None:
            return None
        return Person(name, hmac.digest(self._secret, str(proof).encode(), "sha256").hex())

    def check_person(self, request: Request, form: Mapping[str, str]) -> Person:
        """Who asks for a change; refused unless it is known, and has meant it."""
        if not self.access.allow_writes:
            raise Refused(403, "This dashboard is read only.", "Start it with --allow-writes.")
        person = self.person(request)
        if person is None:
            raise Refused(403, "Nobody is signed in.", "Sign in, and try again.")
        if not hmac.compare_digest(form.get("csrf", "").encode(), person.csrf.encode()):
            raise Refused(
                403, "The form is not of this session.", "Load the page anew, and try again."
            )
        check_origin(request)
        return person

    # --- pages ----------------------------------------------------------------------------------

    def page(
        self, request: Request, template: str, /, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """A page for whoever asks."""
        person = self.person(request)
        notice = self._notices.pop(person.csrf, "") if person else ""
        text = self._templates.get_template(template).render(
            person=person, notice=notice, path=request.url.path, **values
        )
        return HTMLResponse(text, status)

    def part(self, look: Look, name: str) -> str:
        """A part of a page that is the same for all viewers, made once per look."""
        if name not in look.rendered:
            template = self._templates.get_template(f"_{name}.html")
            look.rendered[name] = template.render(look=look)
        return look.rendered[name]

    async def overview(self, request: Request) -> Response:
        """Figures and charts; by task, or by queue where depths are concerned."""
        return await self._live_page(
            request, "overview-queues" if request.query_params.get("by") == "queue" else "overview"
        )

    async def live_page(self, request: Request) -> Response:
        """Tasks, queues or workers."""
        return await self._live_page(request, request.url.path.strip("/"))

    async def _live_page(self, request: Request, topic: str) -> Response:
        look = await self.board.look()
        parts = {name: self.part(look, name) for name in LIVE[topic]}
        return self.page(request, "live.html", topic=topic, parts=parts)

    async def live(self, request: Request) -> Response:
        """The parts of a page, again whenever they have changed, as server-sent events."""
        topic = request.path_params["topic"]
        if topic not in LIVE:
            raise Refused(404, "There is no such page.")
        if self.board.viewers >= VIEWERS:
            return PlainTextResponse(f"{VIEWERS} look already", 503)
        return StreamingResponse(
            self._events(LIVE[topic]),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no"},
        )

    async def _events(self, parts: Sequence[str]) -> AsyncIterator[str]:
        sent: dict[str, str] = {}
        async with aclosing(self.board.looks()) as looks:
            async for look in looks:
                if look is None:
                    yield event("trouble", self.board.trouble)
                    continue
                for name in parts:
                    text = self.part(look, name)
                    if sent.get(name) != text:
                        sent[name] = text
                        yield event(name, text)

    async def jobs(self, request: Request) -> Response:
        """Live jobs, or finished ones, by filter."""
        given = Filter(request.query_params)
        async with self.board.reading() as connection:
            if given.state in KEPT_STATES:
                found = await given.finished(self.board.client, connection)
            else:
                found = await given.live(self.board.client, connection)
        return self.page(request, "jobs.html", given=given, found=found, more_of=given.more(found))

    async def job(self, request: Request) -> Response:
        """One job."""
        page = await self.board.job(request.path_params["id"], self.access.show_payloads)
        missing = page["job"] is None and not page["hidden"]
        return self.page(request, "job.html", 404 if missing else 200, **page)

    async def task(self, request: Request) -> Response:
        """One task: its charts, counts, settings."""
        name = request.query_params.get("name", "")
        look = await self.board.look()
        tasks = [task for task in look.tasks if task.task_identifier == name]
        if not tasks:
            raise Refused(
                404, f'No task "{name:.126}" is known.', "It has no jobs and no settings."
            )
        charts = stats_charts(look.stats, look.at, name)
        return self.page(request, "task.html", task=tasks[0], charts_of=charts)

    async def queue(self, request: Request) -> Response:
        """One queue: its counts and settings."""
        name, tenant = request.query_params.get("name", ""), request.query_params.get("tenant", "")
        async with self.board.reading() as connection:
            queues = await self.board.client.list_queues(name, 1000, connection=connection)
        for queue in queues:
            if (queue.queue_name, str(queue.database_id or "")) == (name, tenant):
                return self.page(request, "queue.html", queue=queue)
        raise Refused(404, f'No queue "{name:.200}" is known.', "It has no jobs and no settings.")

    async def schedules(self, request: Request) -> Response:
        """Schedules, twenty at a time."""
        after = whole(request.query_params, "after") or 0
        found = await self.board.schedules(after)
        return self.page(request, "schedules.html", schedules=found)

    async def dead_letters(self, request: Request) -> Response:
        """Dead letters by filter; with `dry_run` those that redrive_jobs() would take."""
        given = Filter(request.query_params, state="failed")
        dry_run = None
        async with self.board.reading() as connection:
            if "dry_run" in request.query_params:
                dry_run = await self.board.client.redrive_jobs(
                    **given.redrive(), dry_run=True, connection=connection
                )
            found = await given.finished(self.board.client, connection)
        return self.page(
            request,
            "dead_letters.html",
            given=given,
            found=found,
            more_of=given.more(found),
            dry_run=dry_run,
        )

    async def doctor(self, request: Request) -> Response:
        """What is wrong, and what to do."""
        async with self.board.reading() as connection:
            findings = await self.board.client.doctor(connection=connection)
        return self.page(request, "doctor.html", findings=findings)

    async def actions(self, request: Request) -> Response:
        """Who did what here."""
        found = await self.board.actions(whole(request.query_params, "before"))
        return self.page(request, "actions.html", actions=found)

    async def sign_in_page(self, request: Request) -> Response:
        """Ask for a token."""
        return self.page(request, "sign_in.html", wrong=False)

    # --- changes --------------------------------------------------------------------------------

    async def sign_in(self, request: Request) -> Response:
        """Begin a session for whoever has a token."""
        check_origin(request)
        given = (await read_form(request)).get("token", "").strip()
        for token, name in self.access.tokens.items():
            if self.access.allow_writes and hmac.compare_digest(token.encode(), given.encode()):
                session = secrets.token_urlsafe(32)
                self._sessions[session] = (name, time.monotonic() + SESSION)
                while len(self._sessions) > SESSIONS:
                    self._sessions.popitem(last=False)
                response = RedirectResponse("/", 303)
                response.set_cookie(
                    "app_jobs_session",
                    session,
                    max_age=SESSION,
                    httponly=True,
                    samesite="strict",
                    secure=request.url.scheme == "https",
                )
                return response
        return self.page(request, "sign_in.html", 403, wrong=True)

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        self.check_person(request, await read_form(request))
        self._sessions.pop(request.cookies.get("app_jobs_session", ""), None)
        response = RedirectResponse("/", 303)
        response.delete_cookie("app_jobs_session")
        return response

    async def act(self, request: Request) -> Response:
        """Do what was asked for, and record it, in one transaction; then show the page again."""
        form = await read_form(request)
        person = self.check_person(request, form)
        name = request.path_params["name"]
        if name not in ACTIONS:
            raise Refused(404, "There is no such action.")
        details = {
            key: value for key, value in form.items() if key not in ("csrf", "back") and value
        }
        client = self.board.client
        async with self.board.writing() as connection:
            await client.record_action(person.name, name, details, connection=connection)
            done = await ACTIONS[name](client, connection, Form(form))
        self.board.outdate()
        self._notices[person.csrf] = done
        back = form.get("back", "/")
        return RedirectResponse(
            back if back[:1] == "/" and back[1:2] not in ("/", "\\") else "/", 303
        )

    async def failed(self, request: Request, error: Exception) -> Response:
        """Say what went wrong, and what to do."""
        if isinstance(error, psycopg.Error):
            error = translate(error)
        if isinstance(error, Refused):
            status, message, hint = error.status, error.message, error.hint
        elif isinstance(error, HTTPException):
            status, message, hint = error.status_code, error.detail, ""
        elif isinstance(error, AppJobsError):
            status, message, hint = 400, error.message, error.hint or ""
        elif isinstance(error, psycopg.OperationalError):
            status, message, hint = 503, "The database did not answer.", str(error).strip()
        else:
            status, message, hint = 400, "The database refused.", str(error).strip()
        return self.page(request, "failed.html", status, message=message, hint=hint)


# --- helpers --------------------------------------------------------------------------


def check_origin(request: Request) -> None:
    """Refuse what another site has sent, going by what the browser says."""
    origin = request.headers.get("origin")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or (
        origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    ):
        raise Refused(403, "Another site has sent this form.", "Use the dashboard's own.")


def event(name: str, text: str) -> str:
    """A server-sent event; a line break in the text must not end it."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n"


def link(path: str, /, **query: Any) -> str:
    """A path with a query; what is None or empty is left out."""
    given = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def age(span: timedelta | float | None) -> str:
    """A span in one unit."""
    if span is None:
        return ""
    seconds = max(span.total_seconds() if isinstance(span, timedelta) else float(span), 0)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.3g} s"


def number(value: float | None) -> str:
    """A number with thin spaces between thousands."""
    return "" if value is None else f"{value:,.0f}".replace(",", "\u2009")


def moment(value: datetime | None) -> str:
    """A time in UTC, to the second."""
    return "" if value is None else f"{value.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S}"


def chart_data(chart: Any) -> str:
    """A chart as JSON for app.js."""
    return json.dumps(
        {
            "unit": chart.unit,
            "names": list(chart.lines),
            "data": [chart.times, *chart.lines.values()],
        }
    )


# --- the application -----------------------------------------------------------------------------


def create_app(
    dsn: str = "", *, schema: str = "app_jobs", access: Access | None = None, every: float = 2
) -> ASGIApp:
    """The dashboard as an ASGI application; it looks at the database `every` so many seconds."""
    access = access or Access()
    board = Board(dsn, schema, every)
    dashboard = Dashboard(board, access)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        watching = asyncio.create_task(board.watch())
        yield
        watching.cancel()
        await asyncio.wait([watching])
        await board.close()

    handled: tuple[type[Exception], ...] = (Refused, HTTPException, AppJobsError, psycopg.Error)
    app = Starlette(
        routes=dashboard.routes(),
        lifespan=lifespan,
        exception_handlers=dict.fromkeys(handled, dashboard.failed),
    )
    return Guard(app, access.hosts)


def serve(
    dsn: str,
    *,
    schema: str,
    bind: str,
    port: int,
    access: Access,
    every: float,
    say: Callable[[str], None],
) -> None:
    """Serve the dashboard until SIGTERM or SIGINT."""
    tokens = {**access.tokens, **tokens_of(os.environ.get("APP_JOBS_WEB_TOKENS", ""))}
    loopback = bind == "localhost" or is_loopback(bind)
    if not loopback and not access.hosts:
        raise BadArgument(
            f"bind is {bind}, which others can reach, and no host is named",
            hint="Name those under which it is reached: --host jobs.example.org. Who reaches it may"
            " read, so put a reverse proxy in front that asks who they are.",
        )
    if access.allow_writes and not tokens and access.user_header is None:
        token = secrets.token_urlsafe(24)
        tokens = {token: "operator"}
        say(f"To sign in, use this token: {token}")
    access = replace(access, tokens=tokens)
    say(f"The dashboard is at http://{f'[{bind}]' if ':' in bind else bind}:{port}/")
    uvicorn.run(
        create_app(dsn, schema=schema, access=access, every=every),
        host=bind,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        # the peer's own address: whom we trust is our decision
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )


def is_loopback(bind: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return False


def tokens_of(text: str) -> dict[str, str]:
    """Read NAME:TOKEN,NAME:TOKEN."""
    pairs = [pair.strip().partition(":") for pair in text.split(",") if pair.strip()]
    if not all(colon for _, colon, _ in pairs):
        raise BadArgument(
            "APP_JOBS_WEB_TOKENS has a token without a name", hint="Give NAME:TOKEN,NAME:TOKEN."
        )
    return {token: name for name, _, token in pairs}
