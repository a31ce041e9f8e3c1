"""Faults under load: no job that was committed is lost, no effect doubled, no worker hangs or ends.

`make chaos ARGS='-k sigstop'` runs one of them, and prints its row of docs/reliability.md.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import Run, run_under_load
from machines import (
    Server,
    network,
    own_server,
    pooler,
    server_with_a_clock,
    small_volume,
    standby_of,
    with_clock,
    with_hosts,
)

LONG = "APP_JOBS_FULL" in os.environ
TIMES = 3 if LONG else 1  # how often something is hurt in one run
long = pytest.mark.skipif(not LONG, reason="in the long form: make chaos")

UnderLoad = Callable[..., AbstractContextManager[Run]]
CUT = """
    select pg_terminate_backend(a.pid)
    from pg_stat_activity as a
    where a.datname = current_database() and a.pid <> pg_backend_pid()
    order by random()
    limit 1
"""
CUT_OTHERS = """
    select pg_terminate_backend(a.pid)
    from pg_stat_activity as a
    where a.application_name = 'app_jobs'
"""


@pytest.fixture
def under_load(tmp_path: Path, request: pytest.FixtureRequest) -> UnderLoad:
    """A function (dsn, …): a run to hurt, whose row is printed when it is over."""

    @contextmanager
    def start(dsn: str, **options: Any) -> Iterator[Run]:
        with run_under_load(dsn, tmp_path, **options) as run:
            yield run
        what = request.function.__doc__.rstrip(".")
        words = request.node.name.removeprefix("test_").rstrip("]").replace("[", " and ")
        print(f"\n| {what} | {run.row} | `make chaos ARGS='-k \"{words}\"'` |")

    return start


@pytest.fixture
def own() -> Iterator[Server]:
    """A server of our own."""
    with own_server() as server:
        yield server


# --- workers ---


def test_sigkill(database: str, under_load: UnderLoad) -> None:
    """Workers killed with SIGKILL, others started in their place."""
    with under_load(database) as run:
        for _ in range(TIMES + 1):
            place, _ = run.a_busy_worker()
            run.workers.kill(place)
            run.go_on()


def test_sigstop(database: str, under_load: UnderLoad) -> None:
    """Workers stopped (SIGSTOP) until others have taken over all they held, then continued."""
    with under_load(database) as run:
        for _ in range(TIMES):
            _, process = run.a_busy_worker()
            process.send_signal(signal.SIGSTOP)
            run.is_over()  # from here on: nobody has to wait for it
            run.wait_for_recovery()
            process.send_signal(signal.SIGCONT)
            run.go_on()


@long
@pytest.mark.parametrize("shift", ["+5h", "-5h"])
def test_clock_of_workers(database: str, under_load: UnderLoad, shift: str) -> None:
    """The clock of the workers' host is five hours off; a worker is killed."""
    with under_load(database, env=with_clock(FAKETIME=shift)) as run:
        run.go_on(50)
        place, _ = run.a_busy_worker()
        run.workers.kill(place)


# --- connections ---


@long
def test_cut(database: str, under_load: UnderLoad) -> None:
    """Connections cut by `pg_terminate_backend`, two a second."""
    with under_load(database) as run:
        for _ in range(60):
            run.get(CUT)
            run.go_on(5)


@long
def test_connections(own: Server, under_load: UnderLoad) -> None:
    """300 idle connections held, then all that the server has, while those of others are cut."""
    with under_load(own.dsn) as run, ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(psycopg.connect(own.dsn, autocommit=True))
        run.go_on(50)
        end = time.monotonic() + 10
        last = stack.enter_context(psycopg.connect(own.dsn, autocommit=True))
        while time.monotonic() < end:
            try:
                stack.enter_context(psycopg.connect(own.dsn, autocommit=True))
            except psycopg.OperationalError:
                last.execute(CUT_OTHERS)  # they cannot come back


@long
@pytest.mark.parametrize("seconds", [5, 40])
def test_swallowed(database: str, under_load: UnderLoad, seconds: int) -> None:
    """The workers' network swallows all packets for a while, and loses its connections."""
    with network(database) as line, under_load(database, workers_dsn=line.dsn) as run:
        run.a_busy_worker()
        order = run.next_order()
        line.swallow()
        time.sleep(seconds)
        line.heal()
        run.is_over(order)  # what has been ordered meanwhile is a backlog, not to be recovered


# --- the server ---


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"] if LONG else ["kill"])
def test_restart(own: Server, under_load: UnderLoad, how: str) -> None:
    """The server is restarted."""
    with under_load(own.dsn) as run:
        for _ in range(TIMES):
            run.a_busy_worker()
            own.stop(how)
            own.start()
            run.go_on()


@long
def test_disk_full(under_load: UnderLoad) -> None:
    """The volume of the WAL is full: PANIC; then there is room again."""
    try:
        volume = small_volume(70)
        folder = volume.__enter__()
    except OSError as error:
        pytest.skip(f"no small volume can be mounted here: {error}")
    with ExitStack() as stack:
        stack.push(volume)
        server = stack.enter_context(own_server(max_wal_size="32MB", min_wal_size="32MB"))
        server.move_wal(folder)
        run = stack.enter_context(under_load(server.dsn))
        run.a_busy_worker()
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        with suppress(psycopg.OperationalError), psycopg.connect(server.dsn) as connection:
            connection.autocommit = True
            while True:
                connection.execute("select pg_logical_emit_message(true, '', repeat('x', 10000))")
        assert "PANIC" in server.log()
        filler.unlink()
        server.start()


# --- between workers and the server ---


@long
@pytest.mark.parametrize("listen", ["directly", "through_it"])
def test_pooler(own: Server, under_load: UnderLoad, listen: str) -> None:
    """PgBouncer in transaction mode before the server, killed and started again."""
    with pooler(own) as bouncer:
        listen_dsn = own.dsn if listen == "directly" else None
        with under_load(bouncer.dsn, listen_dsn=listen_dsn) as run:
            for _ in range(TIMES):
                run.a_busy_worker()
                bouncer.kill()
                bouncer.start()
                run.go_on()


def test_standby_synchronous(own: Server, under_load: UnderLoad) -> None:
    """The primary is killed and its synchronous standby promoted."""
    with standby_of(own) as standby:
        own.set("synchronous_standby_names", "*")
        with under_load(with_hosts(own, standby)) as run:
            run.a_busy_worker()
            own.stop("kill")
            standby.promote()


@long
def test_standby_asynchronous(own: Server, under_load: UnderLoad) -> None:
    """The primary is killed and its asynchronous standby, cut off before, promoted."""
    unknown: list[float] = []  # to the standby: after the last commit that it has replayed

    def may_be_gone(moment: float) -> bool:
        after, before = unknown
        return after < moment < before

    with (
        standby_of(own) as standby,
        under_load(with_hosts(own, standby), may_be_gone=may_be_gone) as run,
    ):
        run.a_busy_worker()
        standby.lose_primary()
        run.go_on()
        own.stop("kill")
        killed = time.time()
        standby.promote()
        unknown[:] = standby.last_replayed(), killed


@long
def test_clock_of_server(under_load: UnderLoad) -> None:
    """The server's clock steps an hour ahead, and back."""
    with server_with_a_clock() as (server, set_clock), under_load(server.dsn) as run:
        begun_at = run.get("select clock_timestamp()")
        for shift, ahead in ("+1h", True), ("+0", False):
            set_clock(shift)
            run.wait_until("select (clock_timestamp() > %s + '30 min') = %s", begun_at, ahead)
            run.go_on(50)
