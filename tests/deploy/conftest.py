"""A server of our own, on which the extension is installed and tests may make and drop roles."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from roads import BIN_DIR, ROOT, with_older_release

from app_jobs.embedded import find_binaries, throw_away


@pytest.fixture(scope="session")
def sharedir() -> Iterator[Path]:
    """Where `make install` has put the extension: its folder under DESTDIR."""
    with tempfile.TemporaryDirectory(prefix="app-jobs-") as folder:
        Path(folder).chmod(0o755)  # the server may run as another user
        variables = [f"DESTDIR={folder}", f"PG_CONFIG={find_binaries() / 'pg_config'}"]
        subprocess.run(["make", "--silent", "install", *variables], check=True, cwd=ROOT)
        (control,) = Path(folder).rglob("app_jobs.control")
        tagged = Path(folder, "tagged")
        tagged.mkdir()
        for name, text in with_older_release(tagged).items():
            (control.parent / name).write_text(text, "utf-8")
        yield control.parent.parent


@pytest.fixture(scope="session")
def own_server(sharedir: Path) -> Iterator[str]:
    """Connection string of a superuser on the server that has the extension."""
    if os.environ["APP_JOBS_TEST_VERSION"] == "18":
        path = f"$system:{sharedir}"
        with throw_away(bin_dir=BIN_DIR, settings={"extension_control_path": path}) as dsn:
            yield dsn
        return
    # Older servers look for extensions only in a folder that they find from their own: copy them.
    with tempfile.TemporaryDirectory(prefix="app-jobs-") as folder:
        Path(folder).chmod(0o755)
        if (extensions := BIN_DIR.parent / "share/postgresql/extension").exists():
            moved = shutil.copytree(BIN_DIR.parent, Path(folder, "moved"), symlinks=True)
            for path in (sharedir / "extension").iterdir():
                shutil.copy(path, moved / extensions.relative_to(BIN_DIR.parent))
            with throw_away(bin_dir=moved / "bin") as dsn:
                yield dsn
            return
        pg_config = subprocess.run(
            [BIN_DIR / "pg_config"], check=True, capture_output=True, text=True
        ).stdout
        paths = dict(line.split(" = ", 1) for line in pg_config.splitlines())
        bin_dir, lib, share = (
            Path(folder, *Path(paths[name]).parts[1:])
            for name in ("BINDIR", "PKGLIBDIR", "SHAREDIR")
        )
        shutil.copytree(BIN_DIR, bin_dir)
        lib.symlink_to(paths["PKGLIBDIR"])
        (share / "extension").mkdir(parents=True)
        for source in (
            Path(paths["SHAREDIR"]),
            Path(paths["SHAREDIR"]) / "extension",
            sharedir / "extension",
        ):
            for path in source.iterdir():
                target = share / path.relative_to(
                    sharedir if source.parent == sharedir else paths["SHAREDIR"]
                )
                if not target.exists():
                    target.symlink_to(path)
        with throw_away(bin_dir=bin_dir) as dsn:
            yield dsn


@pytest.fixture
def own_database(own_server: str) -> Iterator[str]:
    """An empty database on that server; roles named test_… that the test leaves are dropped."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(own_server, autocommit=True) as connection:
        connection.execute(f"create database {name} template template0")
        try:
            yield make_conninfo(own_server, dbname=name)
        finally:
            connection.execute(f"drop database {name} with (force)")
            for (role,) in connection.execute(
                "select rolname from pg_roles where rolname ~ '^test_' order by oid desc"
            ).fetchall():
                connection.execute(f"drop role {role}")
