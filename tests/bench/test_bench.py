"""The benchmark itself: it measures, goes on where it stopped, and reports. No figure matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

RUN = [sys.executable, str(Path(__file__).with_name("run.py")), "--scale", "0.004", "--rounds", "1"]


def test_measures_goes_on_and_reports(tmp_path: Path) -> None:
    version = os.environ["APP_JOBS_TEST_VERSION"]
    results = tmp_path / "results.jsonl"

    def bench(*scenarios: str) -> list[str]:
        options = ["--peer", "ours", "--on", version, "--out", str(tmp_path)]
        subprocess.run([*RUN, *options, *scenarios], check=True, stdin=subprocess.DEVNULL)
        lines = map(json.loads, results.read_text().splitlines())
        return [line["scenario"] for line in lines if "error" not in line]

    assert bench("drain", "cost") == ["drain", "cost"]
    first, _ = results.read_text().splitlines(keepends=True)
    results.write_text(first)
    assert bench("drain", "cost") == ["drain", "cost"]
    assert results.read_text().startswith(first)

    report = (tmp_path / "report.md").read_text()
    assert "| 50,000 jobs, one worker process | rate ≥ 1.5 times the best peer's" in report
    assert "wal_bytes" in report
    assert "<svg" in (tmp_path / "cost-wal_bytes.svg").read_text()
