"""What can fail: servers of our own, a pooler, a network."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app_jobs import migrate
from app_jobs.embedded import EmbeddedServer, throw_away

BIN = Path(os.environ.get("APP_JOBS_TEST_BIN", ""))
# A crash of the server must lose nothing; a crash of the machine is not tried.
SETTINGS = {"synchronous_commit": "on", "full_page_writes": "on", "max_connections": "340"}
PATH = f"{os.environ['PATH']}:/usr/sbin"


class Server:
    """A throw-away server that can be stopped, killed and started again.

    `dsn` stays the same: each start has a new socket folder, and the link leads to it.
    """

    def __init__(self, url: str, link: Path, settings: Mapping[str, str]) -> None:
        with psycopg.connect(url) as connection:
            row = connection.execute("show data_directory").fetchone()
        assert row is not None
        self.data = Path(row[0])
        self.link = link
        self.dsn = make_conninfo(url, host=str(link))
        self._server = EmbeddedServer(
            self.data.parent, bin_dir=BIN, settings={"fsync": "off", **settings}
        )
        self._show(url)

    def _show(self, url: str) -> None:
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(str(conninfo_to_dict(url)["host"]))

    def start(self) -> None:
        """Start it unless it runs; wait until it accepts connections."""
        while True:
            self._show(self._server.start())
            # One that has been hurt may answer, and end after all.
            with suppress(psycopg.OperationalError), psycopg.connect(self.dsn):
                return

    def stop(self, how: str = "fast") -> None:
        """Stop it as pg_ctl stop -m `how` does, or kill it: "fast", "immediate", "kill"."""
        if how == "fast":
            self._server.stop()
            return
        pid_file = self.data / "postmaster.pid"
        pid = int(pid_file.read_text().split()[0])
        os.kill(pid, signal.SIGQUIT if how == "immediate" else signal.SIGKILL)
        while how == "immediate" and pid_file.exists():
            time.sleep(0.01)

    def log(self) -> str:
        """Return what it has logged."""
        return (self.data.parent / "log").read_text(errors="replace")

    def set(self, name: str, value: str) -> None:
        """Change a setting that needs no restart."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(f"alter system set {name} = '{value}'".encode())
            connection.execute("select pg_reload_conf()")

    def promote(self) -> None:
        """Make a standby the primary."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("select pg_promote()")

    def last_replayed(self) -> float:
        """When the last commit was that came from a primary: seconds since 1970, by its clock."""
        with psycopg.connect(self.dsn) as connection:
            statement = "select extract(epoch from pg_last_xact_replay_timestamp())"
            (moment,) = connection.execute(statement).fetchone() or ("nan",)
        return float(moment)

    def lose_primary(self) -> None:
        """Let a standby hear no more of its primary."""
        self.set("primary_conninfo", "")
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while connection.execute("select from pg_stat_wal_receiver").fetchone() is not None:
                time.sleep(0.01)

    def move_wal(self, folder: Path) -> None:
        """Keep the WAL in another folder, which is empty."""
        self.stop()
        wal = self.data / "pg_wal"
        owner = wal.stat()
        shutil.move(wal, folder / "wal")
        wal.symlink_to(folder / "wal")
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, owner.st_uid, owner.st_gid)
        self.start()

    def take_over(self, data: Path) -> None:
        """Put another data folder in place of its own, while it is stopped."""
        owner = self.data.stat()
        shutil.rmtree(self.data)
        data.rename(self.data)
        for path in [self.data, *self.data.rglob("*")]:
            os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def own_server(*, deployed: bool = True, **settings: str) -> Iterator[Server]:
    """Run a server for the length of a block."""
    settings = SETTINGS | settings
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        throw_away(bin_dir=BIN, settings=settings) as url,
    ):
        Path(folder).chmod(0o755)
        server = Server(url, Path(folder) / "server", settings)
        if deployed:
            migrate.migrate(server.dsn, log=lambda _: None)
        yield server


@contextmanager
def standby_of(primary: Server) -> Iterator[Server]:
    """Run a standby for the length of a block; it streams from the start."""
    with own_server(deployed=False) as standby:
        standby.stop()
        copy = standby.data.with_name("copy")
        command = [BIN / "pg_basebackup", "-h", primary.link, "-U", "postgres", "-c", "fast"]
        subprocess.run([*command, "-R", "-D", copy], check=True)
        standby.take_over(copy)
        standby.start()
        yield standby


def with_hosts(*servers: Server) -> str:
    """Return a connection string that leads to whichever of the servers is the primary."""
    hosts = ",".join(str(server.link) for server in servers)
    return make_conninfo(servers[0].dsn, host=hosts, target_session_attrs="read-write")


def with_clock(**settings: str) -> dict[str, str]:
    """Return the environment of a process whose clock libfaketime sets."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {"LD_PRELOAD": str(library), "DONT_FAKE_MONOTONIC": "1", **settings}


@contextmanager
def server_with_a_clock() -> Iterator[tuple[Server, Callable[[str], object]]]:
    """Run a server, and give a function (shift, such as "+1h") that sets its clock."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        clock = Path(folder) / "clock"
        clock.write_text("+0")
        settings = with_clock(FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_CACHE_DURATION="1")
        # Started again with it: the process that watches over the server keeps the true clock.
        server = stack.enter_context(own_server())
        server.stop()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            server.start()
        yield server, clock.write_text


@contextmanager
def small_volume(megabytes: int) -> Iterator[Path]:
    """Mount a file system in memory for the length of a block; OSError if that is not allowed."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(done.stderr.strip())
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


class Pooler:
    """PgBouncer in transaction mode."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.dsn = make_conninfo(server.dsn, host=str(folder))
        self._owner = server.data.stat() if os.geteuid() == 0 else None
        self._config = folder / "pgbouncer.ini"
        self._config.write_text(f"""
[databases]
* = host={server.link} user=postgres
[pgbouncer]
listen_addr =
listen_port = 5432
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = 30
max_client_conn = 500
logfile = {folder}/log
""")
        if self._owner:
            os.chown(folder, self._owner.st_uid, self._owner.st_gid)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        user = {} if self._owner is None else {"user": self._owner.st_uid}
        program = shutil.which("pgbouncer", path=PATH)
        assert program, "PgBouncer is not installed: see tools/system_packages.sh"
        self._process = subprocess.Popen([program, "-q", self._config], **user)
        while True:
            with suppress(psycopg.OperationalError), psycopg.connect(self.dsn):
                return

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


@contextmanager
def pooler(server: Server) -> Iterator[Pooler]:
    """Run a pooler for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, ExitStack() as stack:
        pooler = Pooler(server, Path(folder))
        stack.callback(pooler.kill)
        yield pooler


class Network:
    """Passes bytes between a TCP port and a server, until it swallows them.

    Then nobody gets an answer, a refusal or an end, as when a host or a firewall's memory is gone.
    Connections made before never come back; after heal() there can be new ones.
    """

    def __init__(self, dsn: str) -> None:
        self._socket = f"{conninfo_to_dict(dsn)['host']}/.s.PGSQL.5432"
        self._lost = threading.Event()  # shared by all connections that are made until heal()
        self._loop = asyncio.new_event_loop()
        self._closed = asyncio.Event()
        opened: Future[str] = Future()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._serve(opened))
        )
        self._thread.start()
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=opened.result())

    async def _serve(self, opened: Future[str]) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        opened.set_result(server.sockets[0].getsockname()[1])
        await self._closed.wait()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.wait(connections)

    async def _connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        lost = self._lost
        with suppress(OSError, asyncio.CancelledError):
            there = await asyncio.open_unix_connection(self._socket)
            await asyncio.gather(
                self._pass(reader, there[1], lost), self._pass(there[0], writer, lost)
            )

    async def _pass(
        self, reader: StreamReader, writer: StreamWriter, lost: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not lost.is_set():
                    writer.write(data)
                    await writer.drain()
        if not lost.is_set():
            writer.close()

    def swallow(self) -> None:
        """Swallow all that comes from now on."""
        self._lost.set()

    def heal(self) -> None:
        """Pass what comes over new connections."""
        self._lost = threading.Event()

    def close(self) -> None:
        """Stop serving, without a farewell."""
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()


@contextmanager
def network(dsn: str) -> Iterator[Network]:
    """Run a network for the length of a block."""
    network = Network(dsn)
    try:
        yield network
    finally:
        network.close()
