"""next_run_at() against cronsim, which follows Debian's cron, and against trying every time."""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import psycopg
import pytest
from cronsim import CronSim, CronSimError

RULES = 20_000
CALENDARS = 2_000
SEED = int(os.environ.get("APP_JOBS_SEED", "1"))

UTC = timezone.utc
HOUR = timedelta(hours=1)
# Changes by an hour in both hemispheres, at midnight, by half an hour, at a quarter past; of a
# whole day; with winter as the exception; none.
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Pacific/Apia",
    "Europe/Dublin",
    "Asia/Kolkata",
    "UTC",
]
BERLIN, HAVANA = ZONES[0], ZONES[2]
# The clock went back from 00:01 to 23:00 of the day before: cronsim never returns.
ONLY_WITHOUT_CRONSIM = "America/St_Johns"
FIRST, LAST = datetime(1995, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


class Case(NamedTuple):
    """A schedule_info, and where and after when its next time is wanted."""

    info: dict[str, Any]
    zone: str
    after: datetime

    def local(self, instant: datetime) -> datetime:
        """What the clock shows."""
        return instant.astimezone(ZoneInfo(self.zone)).replace(tzinfo=None)


def _change(zone: str, since: datetime, until: datetime) -> datetime:
    """The first instant of the offset that holds at `until`."""
    before = since.astimezone(ZoneInfo(zone)).utcoffset()
    while until - since > timedelta(seconds=1):
        middle = (since + (until - since) / 2).replace(microsecond=0)
        if middle.astimezone(ZoneInfo(zone)).utcoffset() == before:
            since = middle
        else:
            until = middle
    return until


def _changes(zone: str) -> list[datetime]:
    """When the zone's clocks were, and will be, changed."""
    weeks = [FIRST + timedelta(weeks=n) for n in range((LAST - FIRST).days // 7)]
    offsets = [week.astimezone(ZoneInfo(zone)).utcoffset() for week in weeks]
    return [
        _change(zone, weeks[n], weeks[n + 1])
        for n in range(len(weeks) - 1)
        if offsets[n] != offsets[n + 1]
    ]


CHANGES = {zone: _changes(zone) for zone in [*ZONES, ONLY_WITHOUT_CRONSIM]}


def _somewhen(dice: random.Random, zone: str) -> datetime:
    """Any instant, every other time about a day before a clock change, or shortly after it."""
    if CHANGES[zone] and dice.random() < 0.5:
        moment = dice.choice(CHANGES[zone]) + timedelta(seconds=dice.randint(-36 * 3600, 6 * 3600))
    else:
        moment = FIRST + timedelta(seconds=dice.randrange(int((LAST - FIRST).total_seconds())))
    return moment.replace(second=0) if dice.random() < 0.3 else moment


def _answers(connection: psycopg.Connection[Any], cases: Sequence[Case]) -> list[datetime | None]:
    rows = connection.execute(
        """
        select app_jobs.next_run_at(c.info, c.after, c.zone)
        from unnest(%s::json[], %s::timestamptz[], %s::text[])
            with ordinality as c(info, after, zone, number)
        order by c.number
        """,
        [
            [json.dumps(case.info) for case in cases],
            [case.after for case in cases],
            [case.zone for case in cases],
        ],
    )
    return [row[0] for row in rows]


# --- rules ---------------------------------------------------------------------------------------


def _field(
    dice: random.Random, low: int, high: int, names: Sequence[str] = (), others: Sequence[str] = ()
) -> str:
    def number(value: int) -> str:
        named = low <= value < low + len(names) and dice.random() < 0.3
        return names[value - low] if named else str(value)

    def item() -> str:
        kind = dice.random()
        if others and kind < 0.12:
            return dice.choice(others)
        if kind < 0.3:
            return f"*/{dice.randint(1, high)}"
        if kind < 0.55:
            first, last = sorted(dice.sample(range(low, high + 1), 2))
            step = f"/{dice.randint(1, high)}" if dice.random() < 0.4 else ""
            return f"{number(first)}-{number(last)}{step}"
        step = f"/{dice.randint(1, high)}" if kind < 0.65 else ""
        return number(dice.randint(low, high)) + step

    if dice.random() < 0.4:
        return "*"
    return ",".join(item() for _ in range(dice.choice([1, 1, 1, 2, 3])))


def _rule(dice: random.Random) -> Case:
    zone = dice.choice(ZONES)
    by_number = [f"{day}{which}" for day in range(8) for which in ("L", "#1", "#2", "#4", "#5")]
    rule = [
        _field(dice, 0, 59),
        _field(dice, 0, 23),
        _field(dice, 1, 31, others=["L"]),
        _field(dice, 1, 12, MONTHS),
        _field(dice, 0, 7, WEEKDAYS, by_number),
    ]
    return Case({"rule": " ".join(rule)}, zone, _somewhen(dice, zone))


def _names_hour(rule: str) -> bool:
    return not rule.split()[1].startswith("*")


def _without_stars_in_minutes(rule: str) -> str:
    minutes, rest = rule.split(maxsplit=1)
    return f"{minutes.replace('*', '0-59')} {rest}"


def _cronsim(case: Case, rule: str) -> datetime | None:
    """The next time as cronsim has it; CronSimError if it takes the rule for an impossible one."""
    zone = UTC if case.zone == "UTC" else ZoneInfo(case.zone)
    for answer in CronSim(rule, case.after.astimezone(zone)):
        # In the hour that comes again it starts from the first one.
        if answer > case.after:
            return answer.astimezone(UTC)
    return None


def _is_in(rule: str, wall: datetime) -> bool:
    """Whether a time of the clock is one of the rule's."""
    sets = CronSim(rule, wall)
    return (
        wall.second == 0
        and wall.minute in sets.minutes
        and wall.hour in sets.hours
        and wall.month in sets.months
        and sets.match_day(wall.date())
    )


def _difference(case: Case, ours: datetime | None) -> str | None:
    """Which of the differences named in docs/schedules.md this is; None if there is none."""
    rule = case.info["rule"]
    try:
        theirs = _cronsim(case, rule)
        if ours == theirs:
            return None
        if _names_hour(rule) and ours == _cronsim(case, _without_stars_in_minutes(rule)):
            return "a star in the minutes"
    except CronSimError:
        return "impossible" if ours is None else "refused by cronsim alone"
    if ours is None or theirs is None or _names_hour(rule):
        return "unknown"
    if not any(abs(change - min(ours, theirs)) < 24 * HOUR for change in CHANGES[case.zone]):
        return "far from any clock change"
    if theirs < ours and not _is_in(rule, case.local(theirs)):
        return "cronsim runs at a time that the rule does not have"
    if ours < theirs and _is_in(rule, case.local(ours)):
        return "cronsim leaves out a time that the rule has"
    return "unknown"


def test_rules_agree_with_cronsim(connection: psycopg.Connection[Any]) -> None:
    print(f"APP_JOBS_SEED={SEED}")
    dice = random.Random(SEED)
    cases = [_rule(dice) for _ in range(RULES)]
    answers = _answers(connection, cases)
    found: dict[str | None, list[tuple[Case, datetime | None]]] = {}
    for case, ours in zip(cases, answers, strict=True):
        found.setdefault(_difference(case, ours), []).append((case, ours))
    print({difference: len(them) for difference, them in found.items()})
    known = {
        None,
        "a star in the minutes",
        "impossible",
        "cronsim runs at a time that the rule does not have",
        "cronsim leaves out a time that the rule has",
    }
    if sys.version_info < (3, 11):
        # by cronsim 2.7, the last for it: a day that none of the months has, though there are days
        # of the week as well
        known.add("refused by cronsim alone")
    assert {name: them[:3] for name, them in found.items() if name not in known} == {}
    assert len(found[None]) > 0.99 * RULES
    # The cases are worth something: they have times on both sides of clock changes, and nevers.
    kinds = Counter(
        "never"
        if ours is None
        else "over a change"
        if any(case.after < change <= ours for change in CHANGES[case.zone])
        else "plain"
        for case, ours in zip(cases, answers, strict=True)
    )
    assert all(kinds[kind] > 20 for kind in ("never", "over a change", "plain")), kinds


@pytest.mark.parametrize(
    ("rule", "zone", "after", "theirs", "ours"),
    [
        # each minute of an hour that is named runs once, though the hour comes twice
        ("*/59 2 * * *", BERLIN, "2026-10-25 00:59", "2026-10-25 01:00", "2026-10-26 01:00"),
        # and if it is skipped, at its end
        ("*/59 2 * * *", BERLIN, "2026-03-28 12:00", "2026-03-30 00:00", "2026-03-29 01:00"),
        # six fields like five
        ("0 9 2 * * *", BERLIN, "2026-03-28 12:00", "2026-03-30 00:09", "2026-03-29 01:00"),
        # a skipped midnight is none
        ("* */18 * * 0", HAVANA, "2008-03-14 20:57", "2008-03-16 05:00", "2008-03-16 22:00"),
        # hours are not counted from before a change
        (
            "*/25 */10 * * *",
            "Australia/Lord_Howe",
            "2005-03-26 15:18",
            "2005-03-27 00:20",
            "2005-03-26 23:30",
        ),
        # a range of one value is one value
        ("5-5/10 0 * * *", "UTC", "2026-10-25 00:10", "2026-10-25 00:15", "2026-10-26 00:05"),
        # a day that no month has never comes
        ("0 0 30 2 *", "UTC", "2026-10-25 00:00", "refused", "never"),
        # what only one of them reads
        ("0 0 ? * 1", "UTC", "2026-10-25 00:00", "refused", "2026-10-26 00:00"),
        ("0 0 * * FRI-SUN", "UTC", "2026-10-25 00:00", "refused", "2026-10-30 00:00"),
        ("0 0 * * FRIL", "UTC", "2026-10-25 00:00", "refused", "2026-10-30 00:00"),
        ("@weekly", "UTC", "2026-10-25 00:00", "refused", "2026-11-01 00:00"),
        ("0 0 LW * *", "UTC", "2026-10-25 00:00", "2026-10-30 00:00", "refused"),
    ],
)
def test_differences_from_cronsim(
    connection: psycopg.Connection[Any], rule: str, zone: str, after: str, theirs: str, ours: str
) -> None:
    case = Case({"rule": rule}, zone, datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert _named(lambda: _cronsim(case, rule)) == theirs
    assert _named(lambda: _answers(connection, [case])[0]) == ours


def _named(answer: Callable[[], datetime | None]) -> str:
    try:
        moment = answer()
    except (CronSimError, psycopg.errors.InvalidParameterValue):
        return "refused"
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" if moment else "never"


# --- calendars -----------------------------------------------------------------------------------

LIMITS = {
    "second": (0, 59),
    "minute": (0, 59),
    "hour": (0, 23),
    "dayOfWeek": (0, 7),
    "date": (1, 31),
    "month": (0, 11),
    "year": (1995, 2036),
}
GIVEN = {
    "second": 0.3,
    "minute": 0.7,
    "hour": 0.7,
    "dayOfWeek": 0.3,
    "date": 0.4,
    "month": 0.4,
    "year": 0.2,
}


def _calendar(dice: random.Random) -> Case:
    def one(low: int, high: int) -> Any:
        if dice.random() < 0.6:
            return dice.randint(low, high)
        first, last = sorted((dice.randint(low, high), dice.randint(low, high)))
        some_range = {"start": first, "end": last, "step": dice.randint(1, high - low)}
        if dice.random() < 0.5:
            del some_range["step"]
        return some_range

    def some(low: int, high: int) -> Any:
        if dice.random() < 0.7:
            return one(low, high)
        return [one(low, high) for _ in range(dice.randint(1, 4))]

    zone = dice.choice([*ZONES, ONLY_WITHOUT_CRONSIM])
    info = {key: some(*LIMITS[key]) for key in LIMITS if dice.random() < GIVEN[key]}
    return Case(info or {"minute": 0}, zone, _somewhen(dice, zone))


def _values(info: dict[str, Any], key: str) -> list[int]:
    given = info.get(key, 0 if key == "second" else {})
    values: set[int] = set()
    for item in given if isinstance(given, list) else [given]:
        if isinstance(item, int):
            values.add(item)
        else:
            first, last = item.get("start", LIMITS[key][0]), item.get("end", LIMITS[key][1])
            values.update(range(first, last + 1, item.get("step", 1)))
    return sorted(value % 7 for value in values) if key == "dayOfWeek" else sorted(values)


def _walls(case: Case, start: datetime) -> Iterator[datetime]:
    """All times of the calendar from `start` on, on a clock that is never changed."""
    sets = {key: _values(case.info, key) for key in LIMITS}
    times = list(itertools.product(sets["hour"], sets["minute"], sets["second"]))
    end = date(2036, 12, 31) if "year" in case.info else start.date() + timedelta(days=41 * 366)
    day = start.date()
    while day <= end:
        if (
            ("year" not in case.info or day.year in sets["year"])
            and day.month - 1 in sets["month"]
            and day.day in sets["date"]
            and day.isoweekday() % 7 in sets["dayOfWeek"]
        ):
            for hour, minute, second in times:
                wall = datetime.combine(day, time(hour, minute, second))
                if wall >= start:
                    yield wall
        day += timedelta(days=1)


def _instants(case: Case, wall: datetime) -> list[datetime]:
    """When a time of the clock runs: as often as it is shown, but at most once if it is named."""
    early, late = sorted(
        wall.replace(tzinfo=ZoneInfo(case.zone), fold=fold).astimezone(UTC) for fold in (0, 1)
    )
    shown = [instant for instant in (early, late) if case.local(instant) == wall]
    if "hour" not in case.info:
        return shown
    return shown[:1] or [_change(case.zone, early, late)]


def _by_trying(case: Case) -> datetime | None:
    best: datetime | None = None
    last: datetime | None = None
    for wall in _walls(case, case.local(case.after) - 2 * HOUR):
        if last is not None and wall > last:
            break
        for instant in _instants(case, wall):
            if instant > case.after and (best is None or instant < best):
                best = instant
                # A clock that is put back can bring an earlier instant for a later time.
                last = wall + 2 * HOUR
    return best


def test_calendars_agree_with_trying_every_time(connection: psycopg.Connection[Any]) -> None:
    print(f"APP_JOBS_SEED={SEED}")
    dice = random.Random(SEED)
    cases = [_calendar(dice) for _ in range(CALENDARS)]
    wrong = [
        (case, ours, expected)
        for case, ours in zip(cases, _answers(connection, cases), strict=True)
        if ours != (expected := _by_trying(case))
    ]
    assert wrong[:3] == []
