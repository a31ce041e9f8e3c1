"""The report: a table of bars, a table per scenario, and plots."""

from __future__ import annotations

import os
import platform
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from figures import OURS, Figures, Result
from scenarios import SCENARIOS, Run, Scenario

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "app_jobs"  # the same plot is the same file
from matplotlib import pyplot as plt  # noqa: E402

AXES = {
    "rate": "jobs/s",
    "dead": "dead rows",
    "claim_pages": "pages of a claim of 100",
    "pages_per_job": "pages touched per job",
    "p50": "median, ms",
    "p99": "99th percentile, ms",
    "wal_bytes": "bytes of WAL per job",
    "table_mb": "tables, MB",
    "index_mb": "indexes, MB",
}


def write(folder: Path, results: list[Result]) -> Path:
    """Write report.md and its plots; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    by_scenario = {
        name: [r for r in results if r["scenario"] == name]
        for name in SCENARIOS
        if any(r["scenario"] == name for r in results)
    }
    head = results[0] if results else {}
    lines = [
        "# Benchmark",
        "",
        f"Commit {head.get('commit')}, PostgreSQL {head.get('postgresql')}, {machine()}."
        f" Sizes are {head.get('scale')} of the full ones. Medians; ratios are medians of pairs"
        " within a round. `~`: others used the machine in all of the runs that count.",
        "",
        "| scenario | bar | measured | | again |",
        "|---|---|---|---|---|",
    ]
    for name, found in by_scenario.items():
        lines += verdicts(name, found)
    for name, found in by_scenario.items():
        lines += ["", f"## {name}: {SCENARIOS[name].title}", "", *table(SCENARIOS[name], found)]
        for figure in SCENARIOS[name].plots:
            if plot(folder / f"{name}-{figure}.svg", SCENARIOS[name], figure, found):
                lines += ["", f"![{AXES[figure]}]({name}-{figure}.svg)"]
    path = folder / "report.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(": ")[2] for line in info.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = models[0] if models else platform.machine()
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Python {platform.python_version()}"


def verdicts(name: str, results: list[Result]) -> list[str]:
    figures = Figures(results)
    rows = []
    for bar in SCENARIOS[name].bars:
        outcome = bar.judge(figures)
        found = outcome.figure if outcome else "not measured"
        met = "" if outcome is None else "met" if outcome.met else "**missed**"
        met += " ~" if outcome and figures.noisy() else ""
        rows.append(
            f"| {SCENARIOS[name].title} | {bar.promise} | {found} | {met} "
            f"| `make bench SCENARIO={name}` |"
        )
    return rows


def table(scenario: Scenario, results: list[Result]) -> list[str]:
    figures = Figures(results)
    rows = [
        f"| contender | {' | '.join(scenario.show)} | runs | noisy |",
        "|---" * (len(scenario.show) + 3) + "|",
    ]
    for run in scenario.runs:
        mine = [r for r in results if is_of(run, r)]
        if not mine:
            continue
        counted = figures.of(run.contender, run.case)
        cells = [text(figure_of(figures, counted, run, key)) for key in scenario.show]
        errors = [r["error"] for r in mine if "error" in r]
        noisy = sum(r["noisy"] for r in mine)
        mark = " ~" if counted and all(r["noisy"] for r in counted) else ""
        label = run.contender + (run.case and f", {run.case}") + mark
        rows.append(f"| {label} | {' | '.join(cells)} | {len(mine)} | {noisy} |")
        rows += [f"| | {error.splitlines()[0]} {'| ' * len(scenario.show)}| |" for error in errors]
    return rows


def figure_of(figures: Figures, counted: list[Result], run: Run, key: str) -> Any:
    """The median, or the last of the series."""
    values = [r[key] for r in counted if key in r]
    if values and isinstance(values[-1], list):
        return values[-1]
    return figures.median(run.contender, run.case, key)


def is_of(run: Run, result: Result) -> bool:
    return (run.contender, run.case) == (result["contender"], result["case"])


def text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(map(text, value))
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def plot(path: Path, scenario: Scenario, figure: str, results: list[Result]) -> bool:
    """Draw the samples over time if there are any, else bars."""
    good = [r for r in results if "error" not in r]
    series = {label(r): series_of(r, figure) for r in good if "samples" in r}
    series = {name: points for name, points in series.items() if points}
    plt.figure(figsize=(8, 4))
    if series:
        for name, points in series.items():
            ours = name.startswith(OURS)
            plt.plot(*zip(*points, strict=True), label=name, linewidth=2.5 if ours else 1)
        plt.xlabel("seconds")
        plt.legend()
    else:
        figures = Figures(good)
        found = [(run, figures.median(run.contender, run.case, figure)) for run in scenario.runs]
        bars = [(run, value) for run, value in found if value is not None]
        if not bars:
            plt.close()
            return False
        colors = ["tab:blue" if run.contender.startswith(OURS) else "tab:gray" for run, _ in bars]
        names = [run.contender + (run.case and f"\n{run.case}") for run, _ in bars]
        plt.barh(names, [value for _, value in bars], color=colors)
        plt.gca().invert_yaxis()
    plt.title(scenario.title)
    plt.gca().set_ylim(bottom=0) if series else plt.gca().set_xlim(left=0)
    (plt.ylabel if series else plt.xlabel)(AXES[figure])
    plt.tight_layout()
    plt.savefig(path, metadata={"Date": None})
    plt.close()
    return True


def label(result: Result) -> str:
    return ", ".join(filter(None, [result["contender"], result["case"]]))


def series_of(result: Result, figure: str) -> list[tuple[float, float]]:
    """Points of one result over time: samples, or what was done between two of them."""
    samples = result["samples"]
    pairs = list(pairwise(samples))
    if figure == "rate":
        return [
            (b["at"], (b["handled"] - a["handled"]) / (b["at"] - a["at"]))
            for a, b in pairs
            if b["at"] > a["at"]
        ]
    if figure == "pages_per_job":
        return [
            (b["at"], (b["pages"] - a["pages"]) / max(1, b["handled"] - a["handled"]))
            for a, b in pairs
        ]
    return [(sample["at"], sample[figure]) for sample in samples if figure in sample]
