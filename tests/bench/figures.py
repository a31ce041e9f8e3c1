"""Results as figures: medians, ratios of pairs, and the bars that they are held to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

OURS = "ours"

Result = dict[str, Any]


class Figures:
    """The results of one scenario. Noisy runs count only where there are no others."""

    def __init__(self, results: Iterable[Result]) -> None:
        self.results = [result for result in results if "error" not in result]

    def of(self, contender: str, case: str = "") -> list[Result]:
        found = [r for r in self.results if (r["contender"], r["case"]) == (contender, case)]
        return [r for r in found if not r["noisy"]] or found

    def noisy(self) -> bool:
        """Whether ours have been measured in noise alone."""
        return all(r["noisy"] for r in self.results if r["contender"].startswith(OURS))

    def median(self, contender: str, case: str, key: str) -> float | None:
        values = [r[key] for r in self.of(contender, case) if key in r]
        return median(values) if values else None

    def ratio(self, one: tuple[str, str], other: tuple[str, str], key: str) -> float | None:
        """Median over the rounds of one's figure by the other's."""
        others = {r["round"]: r[key] for r in self.of(*other) if key in r}
        ratios = [
            r[key] / others[r["round"]]
            for r in self.of(*one)
            if key in r and others.get(r["round"])
        ]
        return median(ratios) if ratios else None

    def peers(self, key: str, case: str = "") -> dict[str, float]:
        """The peers' medians, the best first: the highest, or the lowest if key begins with "-"."""
        sign, key = (-1, key[1:]) if key.startswith("-") else (1, key)
        names = {r["contender"] for r in self.results if not r["contender"].startswith(OURS)}
        figures = {name: self.median(name, case, key) for name in names}
        known = {name: figure for name, figure in figures.items() if figure is not None}
        return dict(sorted(known.items(), key=lambda item: -sign * item[1]))


@dataclass(frozen=True)
class Outcome:
    """What was found, and whether it is enough."""

    figure: str
    met: bool


@dataclass(frozen=True)
class Bar:
    """What is promised; judge() answers None while there are no figures."""

    promise: str
    judge: Callable[[Figures], Outcome | None]


def times_best(factor: float, key: str = "rate", *, ours: str = OURS, aim: str = "") -> Bar:
    """At least (with "-" before the key: at most) so many times the figure of the best peer."""
    least = not key.startswith("-")
    name = key.removeprefix("-")

    def judge(figures: Figures) -> Outcome | None:
        for peer in figures.peers(key):
            ratio = figures.ratio((ours, ""), (peer, ""), name)
            if ratio is not None:
                met = ratio >= factor if least else ratio <= factor
                return Outcome(f"{ratio:.2f} ({peer})", met)
        return None

    sign = "≥" if least else "≤"
    return Bar(f"{name} {sign} {factor:g} times the best peer's{aim}", judge)


def times_own(
    factor: float, case: str, base: str, key: str = "rate", *, ours: str = OURS, text: str = ""
) -> Bar:
    """At least so many times our own figure in another case."""

    def judge(figures: Figures) -> Outcome | None:
        ratio = figures.ratio((ours, case), (ours, base), key)
        return None if ratio is None else Outcome(f"{ratio:.2f}", ratio >= factor)

    return Bar(text or f"{key}: {case} ≥ {factor:g} times {base}", judge)


def at_most(
    limit: float, key: str, text: str, *, case: str = "", unit: str = "", below: bool = False
) -> Bar:
    """Our figure, no larger than that."""

    def judge(figures: Figures) -> Outcome | None:
        value = figures.median(OURS, case, key)
        if value is None:
            return None
        return Outcome(f"{value:.3g}{unit}", value < limit if below else value <= limit)

    return Bar(text, judge)


def at_least(limit: float, key: str, text: str, *, case: str = "") -> Bar:
    """Our figure, no smaller than that."""

    def judge(figures: Figures) -> Outcome | None:
        value = figures.median(OURS, case, key)
        return None if value is None else Outcome(f"{value:.3g}", value >= limit)

    return Bar(text, judge)


def fewest(key: str) -> Bar:
    """No peer has less."""

    def judge(figures: Figures) -> Outcome | None:
        value, peers = figures.median(OURS, "", key), figures.peers(f"-{key}")
        if value is None or not peers:
            return None
        peer, least = next(iter(peers.items()))
        return Outcome(f"{value:.3g}, {peer} {least:.3g}", value <= least)

    return Bar(f"{key} per job: fewest of all", judge)


def throughout(factor: float, cases: list[str], key: str = "rate") -> Bar:
    """In each case so much of the best case."""

    def judge(figures: Figures) -> Outcome | None:
        values = [figures.median(OURS, case, key) for case in cases]
        known = [value for value in values if value is not None]
        if len(known) < len(cases):
            return None
        ratio = min(known) / max(known)
        return Outcome(f"{ratio:.2f}", ratio >= factor)

    return Bar(f"{key} ≥ {factor:g} times the best of them, with {', '.join(cases)}", judge)
