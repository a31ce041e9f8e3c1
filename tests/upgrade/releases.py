"""Releases as their users have them, and the one after this tree, which next/ describes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from app_jobs._plan import Plan

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
THIS = (ROOT / "VERSION").read_text("utf-8").strip()
NEXT = re.sub(r"\.(\d+)\..*", lambda minor: f".{int(minor[1]) + 1}.0", THIS)
SCRIPTS = ("deploy", "revert", "verify")


@dataclass(frozen=True)
class Release:
    """A version of the package that is installed in a folder of its own."""

    version: str
    site: Path

    def python(self, *arguments: str | Path, **options: object) -> subprocess.Popen[str]:
        """Start Python with this version of app_jobs."""
        env = {**os.environ, "PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str | Path, fails: bool = False) -> str:
        """Run Python with this version of app_jobs; return what it printed."""
        process = self.python(*arguments)
        said, _ = process.communicate()
        assert (process.returncode != 0) == fails, said
        return said


def released(folder: Path, site: Path) -> Release:
    """Install the wheel that tools/release_dump.py has kept."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return Release(folder.name, site)


def installed(version: str, checkout: Path, site: Path) -> Release:
    """Install this tree's Python files with the SQL files of a checkout, as a wheel would."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "python-client/src/app_jobs", site / "app_jobs", ignore=ignored)
    for name in SCRIPTS:
        shutil.copytree(checkout / name, site / "app_jobs/schema" / name)
    shutil.copy(checkout / "sqitch.plan", site / "app_jobs/schema")
    about = site / f"app_jobs-{version}.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: app-jobs\nVersion: {version}\n", "utf-8")
    return Release(version, site)


def next_checkout(folder: Path) -> Path:
    """Make the SQL files as they will be when next/ has been developed on top of this release."""
    for name in (*SCRIPTS, "sqitch.plan", "sqitch.conf"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    plan = Plan.load(ROOT)
    last = plan.changes[-1]
    lines = [(ROOT / "sqitch.plan").read_text("utf-8").rstrip("\n")]
    if not last.tags:
        lines.append(f"@v{THIS} {last.planned_at} {last.planner_name} <{last.planner_email}> #")
    lines.append(filled((HERE / "next/sqitch.plan").read_text("utf-8")))
    (folder / "sqitch.plan").write_text("\n".join(lines), "utf-8")
    for name in SCRIPTS:
        for source in (HERE / "next" / name).iterdir():
            script = folder / name / source.name
            if script.exists():  # reworked
                script.rename(script.with_stem(f"{script.stem}@v{THIS}"))
            script.write_text(filled(source.read_text("utf-8"), plan), "utf-8")
    return folder


def filled(text: str, plan: Plan | None = None) -> str:
    """Put the versions in, and for a revert the deploy script that it goes back to."""

    def old(match: re.Match[str]) -> str:
        assert plan is not None
        return plan.statements("deploy", plan.changes[plan.position(match[1])])

    text = re.sub(r"-- here stands .*deploy/(\w+)@.*", old, text)
    return text.replace("THIS", THIS).replace("NEXT", NEXT)
