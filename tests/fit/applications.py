"""Applications as processes of their own, which find their database in DATABASE_URL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "python-client/examples"
APP_JOBS = Path(sys.executable).with_name("app-jobs")
PATIENCE = 20  # seconds after which what was waited for is taken to never come


def url_of(dsn: str, scheme: str = "postgresql") -> str:
    """A connection string as a URL; the server listens on a Unix socket."""
    parts = {name: quote(str(value), safe="") for name, value in conninfo_to_dict(dsn).items()}
    where = f"host={parts['host']}&port={parts.get('port', '5432')}"
    return f"{scheme}://{parts['user']}@/{parts['dbname']}?{where}"


def run(
    url: str, folder: Path, *command: str | Path, fails: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        command, cwd=folder, env=_environment(url), capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done


def work(url: str, folder: Path, *command: str | Path) -> str:
    """Run a worker until no job is left; return what it printed."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            for _ in range(PATIENCE * 100):
                waiting = "exists (select from app_jobs.jobs) from pg_sleep(0.01)"
                if connection.execute(f"select {waiting}").fetchone() == (False,):
                    break
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return output


def _environment(url: str) -> dict[str, str]:
    return os.environ | {"DATABASE_URL": url}
