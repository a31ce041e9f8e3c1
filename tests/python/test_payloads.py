"""Typed tasks: what a payload's type admits, what is sent, what a handler gets."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NewType, TypedDict
from uuid import UUID

import psycopg
import pydantic
import pytest
import typing_extensions

from app_jobs import AsyncClient, BadArgument, Client, JobContext, JobSpec, Tasks, Worker

pytestmark = pytest.mark.once

Running = Callable[..., AbstractContextManager[Worker]]
Until = Callable[[str], None]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


UserId = NewType("UserId", int)


@dataclass(frozen=True)
class Address:
    street: str
    zip: str | None = None


@dataclass
class Everything:
    text: str
    number: int
    ratio: float
    flag: bool
    nothing: None
    anything: Any
    moment: datetime
    day: date
    clock: time
    span: timedelta
    ident: UUID
    amount: Decimal
    colour: Colour
    level: Level
    mode: Literal["fast", 1, True]
    user: UserId
    label: Annotated[str, "seen by people"]
    address: Address
    maybe: Address | None
    addresses: list[Address]
    by_name: dict[str, Address]
    names: Sequence[str]
    points: tuple[int, ...]
    tags: set[str]
    options: Mapping[str, int]
    children: list[Everything] = field(default_factory=list)
    derived: int = field(init=False, default=7)


@dataclass(kw_only=True, slots=True)
class Range:
    low: int
    high: int = 10

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class Note(typing_extensions.TypedDict):
    text: str
    about: typing_extensions.NotRequired[Address]


class Patch(TypedDict, total=False):
    id: typing_extensions.Required[int]
    note: Note | None


class Model(pydantic.BaseModel):
    to: str
    at: datetime = datetime(2026, 1, 2, tzinfo=timezone.utc)
    size: int = pydantic.Field(default=1, gt=0, alias="how-big")
    notes: list[Note] = []


@dataclass
class WithModel:
    model: Model


EVERYTHING = Everything(
    text="ä\ud800",
    number=2**70,
    ratio=0.1,
    flag=True,
    nothing=None,
    anything={"a": [1, None]},
    moment=datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=2))),
    day=date(2026, 2, 3),
    clock=time(4, 5),
    span=timedelta(days=3, microseconds=1),
    ident=UUID(int=5),
    amount=Decimal("0.10"),
    colour=Colour.BLUE,
    level=Level.HIGH,
    mode=1,
    user=UserId(7),
    label="x",
    address=Address("here", "1"),
    maybe=None,
    addresses=[Address("a"), Address("b")],
    by_name={"home": Address("h")},
    names=["x"],
    points=(1, 2),
    tags={"t"},
    options={"o": 1},
)


def task_of(payload_type: Any) -> Any:
    """A task with payloads of that type."""

    def handler(payload): ...  # type: ignore[no-untyped-def]

    handler.__annotations__["payload"] = payload_type
    return Tasks().task("t")(handler)


@pytest.mark.parametrize(
    ("payload_type", "value", "sent"),
    [
        (Everything, EVERYTHING, None),
        (Everything, EVERYTHING.__class__(**{
            name: [EVERYTHING] if name == "children" else value
            for name, value in vars(EVERYTHING).items() if name != "derived"
        }), None),
        (Range, Range(low=1), {"low": 1, "high": 10}),
        (Note, {"text": "x"}, {"text": "x"}),
        (Note, {"text": "x", "about": Address("s")},
         {"text": "x", "about": {"street": "s", "zip": None}}),
        (Patch, {"id": 1, "note": None}, {"id": 1, "note": None}),
        (Patch, {"id": 1, "note": {"text": "x"}}, {"id": 1, "note": {"text": "x"}}),
        (Model, Model(to="x", **{"how-big": 3}, notes=[{"text": "y"}]),
         {"to": "x", "at": "2026-01-02T00:00:00Z", "how-big": 3, "notes": [{"text": "y"}]}),
        (WithModel, WithModel(Model(to="x")), None),
        (list[Address], [Address("a")], [{"street": "a", "zip": None}]),
        (Address | None, None, None),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (int, 7, 7),
    ],
)  # fmt: skip
def test_values_come_back_as_they_were_sent(payload_type: Any, value: Any, sent: Any) -> None:
    task = task_of(payload_type)
    payload = task.to_payload(value)
    if sent is not None:
        assert payload == sent
    assert task.from_payload(json.loads(json.dumps(payload))) == value


@dataclass
class Row:
    at: datetime
    short: datetime
    zulu: datetime
    amount: Decimal
    whole: Decimal
    ratio: float


def test_what_sql_says_is_understood(connection: psycopg.Connection[Any]) -> None:
    record = connection.execute(
        """
        select row_to_json(r)
        from (
            select
                timestamptz '2026-02-03 04:05:06Z' as at,
                timestamptz '2026-02-03 04:05:06.12Z' as short,
                '2026-02-03T04:05:06Z' as zulu,
                0.10::numeric as amount,
                3 as whole,
                2 as ratio,
                'passed over' as unknown
        ) as r
        """
    ).fetchone()
    assert record
    row = task_of(Row).from_payload(record[0])
    assert (row.at, row.zulu) == (datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone.utc),) * 2
    assert row.short == row.at + timedelta(milliseconds=120)
    assert (row.amount, row.whole, row.ratio) == (Decimal("0.1"), Decimal(3), 2.0)
    assert type(row.ratio) is float


GOOD = task_of(Everything).to_payload(EVERYTHING)


@pytest.mark.parametrize(
    ("payload_type", "payload", "said"),
    [
        (Address, {"street": 7}, "street: expected str, got int"),
        (Address, {"street": None}, "street: expected str, got None"),
        (Address, {}, "street: is missing"),
        (Address, [], "expected Address, got list"),
        (Address, None, "expected Address, got None"),
        (Everything, {**GOOD, "number": True}, "number: expected int, got bool"),
        (Everything, {**GOOD, "number": 7.0}, "number: expected int, got float"),
        (Everything, {**GOOD, "ratio": "1"}, "ratio: expected float, got str"),
        (Everything, {**GOOD, "flag": 1}, "flag: expected bool, got int"),
        (Everything, {**GOOD, "nothing": 0}, "nothing: expected None, got int"),
        (Everything, {**GOOD, "moment": "yesterday"}, "moment: expected datetime (ISO 8601), got"),
        (Everything, {**GOOD, "day": "2026-02-03T00:00:00"}, "day: expected date (ISO 8601), got"),
        (Everything, {**GOOD, "span": "1 day"}, "span: expected timedelta (seconds), got"),
        (Everything, {**GOOD, "span": 1e300}, "span: expected timedelta (seconds), got"),
        (Everything, {**GOOD, "ident": "x"}, "ident: expected UUID, got str"),
        (Everything, {**GOOD, "amount": "x"}, "amount: expected Decimal, got str"),
        (Everything, {**GOOD, "colour": "green"}, "colour: expected 'red' or 'blue', got"),
        (Everything, {**GOOD, "colour": []}, "colour: expected 'red' or 'blue', got list"),
        (Everything, {**GOOD, "level": True}, "level: expected 1 or 2, got bool"),
        (Everything, {**GOOD, "mode": 1.0}, "mode: expected 'fast' or 1 or True, got float"),
        (Everything, {**GOOD, "address": {"zip": 1}}, "address.street: is missing"),
        (Everything, {**GOOD, "maybe": {"street": "s", "zip": 1}}, "maybe.zip: expected str, got"),
        (Everything, {**GOOD, "addresses": [{"street": "s"}, {"street": 1}]},
         "addresses[1].street: expected str, got int"),
        (Everything, {**GOOD, "addresses": {}}, "addresses: expected a list of Address, got dict"),
        (Everything, {**GOOD, "by_name": {"a": 1}}, "by_name.a: expected Address, got int"),
        (Everything, {**GOOD, "names": "x"}, "names: expected a list of str, got str"),
        (Everything, {**GOOD, "children": [{}]}, "children[0].text: is missing"),
        (list[list[int]], [[1], [2, "3"]], "[1][1]: expected int, got str"),
        (Range, {"low": 11}, "Range refuses it: low is above high"),
        (Note, {"about": {}}, "text: is missing"),
        (Patch, {"id": 1, "note": {}}, "note.text: is missing"),
        (Patch, {}, "id: is missing"),
        (Model, {"to": 7}, "to: Input should be a valid string"),
        (Model, {}, "to: Field required"),
        (Model, {"to": "x", "how-big": 0}, "how-big: Input should be greater than 0"),
        (Model, {"to": "x", "notes": [{"text": 1}]},
         "notes[0].text: Input should be a valid string"),
        (WithModel, {"model": {"to": 1}}, "model.to: Input should be a valid string"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(payload_type: Any, payload: Any, said: str) -> None:
    with pytest.raises(BadArgument) as caught:
        task_of(payload_type).from_payload(payload)
    assert caught.value.message.startswith("payload does not fit ")
    assert f": {said}" in caught.value.message
    assert caught.value.sqlstate == "22023"


@pytest.mark.parametrize(
    ("payload_type", "value", "said"),
    [
        (Address, Address(7), "street: expected str, got int"),  # type: ignore[arg-type]
        (Address, {"street": "s"}, "expected Address, got dict"),
        (Note, {"text": "x", "abuot": 1}, "abuot: Note has no such member"),
        (Note, {"text": "x", "about": None}, "about: expected Address, got None"),
        (int, True, "expected int, got bool"),
        (float, True, "expected float, got bool"),
        (float, math.nan, "expected float, got float"),
        (date, datetime(2026, 1, 2), "expected date (ISO 8601), got datetime"),  # noqa: DTZ001
        (Sequence[str], "abc", "expected a list of str, got str"),
        (dict[str, int], {1: 1}, "expected a dict of int, got dict"),
        (Model, Model.model_construct(to=7), "to: Input should be a valid string"),
        (Model, Address("x"), "expected Model, got Address"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_not_sent(payload_type: Any, value: Any, said: str) -> None:
    task = task_of(payload_type)
    for send in (
        lambda: task.to_payload(value),
        lambda: task.enqueue(Client("dbname=none"), value),
        lambda: task.enqueue_many(Client("dbname=none"), [value]),
    ):
        with pytest.raises(BadArgument) as caught:
            send()
        assert f": {said}" in caught.value.message
        assert "task 't'" in caught.value.message


@pytest.mark.parametrize(
    "payload_type",
    [bytes, complex, int | str, Address | Note, tuple[int, str], dict[int, str], Client, "Missing",
     "list[Missing]", Literal[b"x"], type],
)  # fmt: skip
def test_types_that_json_does_not_tell_are_refused_at_once(payload_type: Any) -> None:
    with pytest.raises(TypeError, match="the handler of task 't': "):
        task_of(payload_type)


@pytest.mark.parametrize(
    "payload_type", [Any, object, dict, dict[str, Any], "Mapping[str, object]", dict[Any, Any]]
)
def test_no_type_no_check(payload_type: Any) -> None:
    task = task_of(payload_type)
    value = object()
    assert task.to_payload(value) is value
    assert task.from_payload(value) is value


def test_annotations_are_found_wherever_the_handler_is() -> None:
    def handler(service: str, payload: Address) -> tuple[str, Address]:
        return service, payload

    class Callee:
        def __call__(self, payload: Address) -> Address:
            return payload

    tasks = Tasks()
    tasks.task("partial")(functools.partial(handler, "mail"))
    tasks.task("object")(Callee())
    context: Any = types.SimpleNamespace(payload={"street": "s"})
    assert tasks["partial"].invoke(context) == ("mail", Address("s"))
    assert tasks["object"].invoke(context) == Address("s")


def test_a_task_is_still_its_function() -> None:
    tasks, others = Tasks(), Tasks()

    @tasks.task("a")
    def double(payload: int) -> int:
        """Twice as much."""
        return 2 * payload

    @others.task()
    @tasks.task("b")
    async def halve(payload: int) -> float:
        return payload / 2

    assert double(4) == 8
    assert (double.name, double.__name__, double.__doc__) == ("a", "double", "Twice as much.")
    assert asyncio.run(halve(4)) == 2.0
    assert (others["halve"].is_async, tasks["b"].is_async) == (True, True)


def test_enqueue(client: Client, database: str, tasks: Tasks) -> None:
    @tasks.task("mail")
    def mail(payload: Address | None) -> None: ...

    @tasks.task("tidy")
    def tidy() -> None: ...

    job = mail.enqueue(client, Address("s"), job_key="k", priority=3)
    assert (job.task_identifier, job.key, job.priority) == ("mail", "k", 3)
    assert job.payload == {"street": "s", "zip": None}
    assert mail.from_payload(job.payload) == Address("s")
    once = [mail.enqueue(client, Address("s"), idempotency_key="once").id for _ in range(2)]
    assert once[0] == once[1]
    assert mail.enqueue(client, None).payload is None
    tidied = tidy.enqueue(client)
    assert tidied.payload == {}
    with psycopg.connect(database) as connection:
        mail.enqueue_many(client, [Address("a"), None], connection=connection, queue_name="q")
        spec: JobSpec = {"identifier": mail.name, "payload": mail.to_payload(Address("b"))}
        client.add_jobs([spec], connection=connection)
        rows = connection.execute(
            "select payload->>'street', queue_name from app_jobs.jobs where id > %s order by id",
            [tidied.id],
        ).fetchall()
        assert rows == [("a", "q"), (None, "q"), ("b", None)]
        connection.rollback()

    async def enqueue() -> None:
        async with AsyncClient(database) as async_client:
            job = await mail.enqueue(async_client, Address("s"))
            assert job.payload == {"street": "s", "zip": None}
            assert len(await mail.enqueue_many(async_client, [Address("s")] * 3)) == 3
            assert (await tidy.enqueue(async_client, job_key="t")).key == "t"

    asyncio.run(enqueue())


def test_handlers_get_the_type_and_misfits_fail_for_good(
    client: Client,
    connection: psycopg.Connection[Any],
    tasks: Tasks,
    running: Running,
    until: Until,
) -> None:
    got: list[Any] = []

    @tasks.task("async")
    async def in_the_loop(payload: Address, ctx: JobContext) -> None:
        got.append((payload, ctx.payload))

    @tasks.task("sync")
    def in_a_thread(ctx: JobContext, payload: Model) -> None:
        got.append((payload, ctx.payload))

    for name in ("async", "sync"):
        client.add_job(identifier=name, payload={"street": 7, "to": 7})
    in_the_loop.enqueue(client, Address("s"))
    in_a_thread.enqueue(client, Model(to="x"))
    with running():
        until("(select count(*) from app_jobs.finished_jobs) = 2")
        until("not exists (select from app_jobs.jobs)")
    assert len(got) == 2
    assert (Address("s"), {"street": "s", "zip": None}) in got
    assert (
        Model(to="x"),
        {"to": "x", "at": "2026-01-02T00:00:00Z", "how-big": 1, "notes": []},
    ) in got
    rows = connection.execute(
        "select task_identifier, state, attempts, last_error from app_jobs.finished_jobs order by 1"
    ).fetchall()
    assert rows == [
        ("async", "failed", 1, "the payload does not fit Address: street: expected str, got int"),
        ("sync", "failed", 1,
         "the payload does not fit Model: to: Input should be a valid string"),
    ]  # fmt: skip
