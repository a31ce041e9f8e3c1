"""Payloads of a declared type: made into JSON values and back, with every field checked.

A type is read once and becomes a Codec. What JSON says exactly is not converted: 7 is no "7", true
no 1. What it has no form for is text: ISO 8601, a UUID, a decimal; a timedelta is a number of
seconds. A pydantic model does its own work, and is the only reason for pydantic to be there.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

Convert = Callable[[Any], Any]


class Misfit(Exception):
    """A value does not fit the declared type; the text says where, and what was expected."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.problem = problem
        self.path = path

    def inside(self, step: str | int) -> Misfit:
        """Return the misfit of the value whose member or element this one is about."""
        here = f"[{step}]" if isinstance(step, int) else step
        joint = "." if self.path and self.path[0] != "[" else ""
        return Misfit(self.problem, f"{here}{joint}{self.path}")


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of a type become JSON values (`encode`) and are made from them (`decode`)."""

    name: str
    encode: Convert
    decode: Convert


def codec_for(
    annotation: Any, function: Callable[..., Any], *, in_list: bool = False
) -> Codec | None:
    """Return the codec of a payload by its annotation in the signature of a handler.

    With `in_list` the handler gets a list of payloads, and its annotation is a list, too. None for
    no annotation, Any and a dict of whatever there is. TypeError for a type without codec.
    """
    if annotation is inspect.Parameter.empty:
        return None
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not hasattr(function, "__globals__"):  # an object with __call__
        function = type(function).__call__
    holder = types.SimpleNamespace(__annotations__={"payload": annotation})
    hint = _hints(holder, getattr(function, "__globals__", {}))["payload"]
    if in_list:
        if (typing.get_origin(hint) or hint) is not list:
            raise TypeError("it gets a list of payloads: annotate them as list[…]")
        hint = (*typing.get_args(hint), Any)[0]
    arguments = typing.get_args(hint)
    is_dict = (typing.get_origin(hint) or hint) in _DICTS
    if hint in _ANYTHING or (is_dict and (not arguments or arguments[1] in _ANYTHING)):
        return None
    return _codec(hint, {})


def _hints(owner: Any, names: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner, names, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{error}: the type of a payload, and what it is made of, must be known to its module"
            " when the program runs"
        ) from None


def _codec(hint: Any, known: dict[Any, Codec]) -> Codec:
    """Return the codec of a type; `known` are those of records, so that one may contain itself."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _codec(arguments[0], known)
    if stands_for := getattr(hint, "__supertype__", getattr(hint, "__value__", None)):
        return _codec(stands_for, known)  # a NewType, or what `type Name = …` makes
    if hint in known:
        return known[hint]
    if hint in _SCALARS:
        return _SCALARS[hint]
    if origin is typing.Literal:
        return _choice(arguments)
    if origin in (typing.Union, types.UnionType):
        others = [argument for argument in arguments if argument is not type(None)]
        if len(others) == 1:
            return _optional(_codec(others[0], known))
    container = origin or hint
    if container in _ARRAYS and (container is tuple) == (arguments[1:] == (...,)):
        return _array(container, _codec(arguments[0] if arguments else Any, known))
    if container in _DICTS and (not arguments or arguments[0] is str):
        return _dict(_codec(arguments[1] if arguments else Any, known))
    if isinstance(hint, type):
        pydantic = sys.modules.get("pydantic")
        if pydantic is not None and issubclass(hint, pydantic.BaseModel):
            return _model(hint, pydantic.ValidationError)
        if issubclass(hint, Enum):
            return _choice(list(hint))
        if _is_typed_dict(hint) or is_dataclass(hint):
            return _record(hint, known)
    raise TypeError(
        f"a payload cannot be or contain {hint}: it may be a dataclass, a TypedDict or a pydantic"
        " model, of simple values, lists, dicts with text as keys, Literal, Enum, datetime, date,"
        " time, timedelta, UUID, Decimal, each `| None`, or Any"
    )


# --- simple values -------------------------------------------------------------------------------

_NUMBER = (int, float)
# What is an instance of a type, but not meant by its name.
_NOT_MEANT: dict[Any, Any] = {
    int: bool,
    _NUMBER: bool,
    date: datetime,
    Sequence: (str, bytes),
}


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, _NOT_MEANT.get(kind, ()))


def _unexpected(expected: str, value: Any) -> Misfit:
    # Its type, not itself: payloads belong into no log.
    kind = "None" if value is None else type(value).__name__
    return Misfit(f"expected {expected}, got {kind}")


def _itself(value: Any) -> Any:
    return value


def _scalar(
    name: str,
    kind: Any,
    *forms: type,
    encode: Convert | None = None,
    decode: Convert | None = None,
) -> Codec:
    """Instances of `kind`, which in JSON are `forms`; a conversion may raise ValueError."""

    def encode_checked(value: Any) -> Any:
        if not _is(value, kind):
            raise _unexpected(name, value)
        return value if encode is None else attempt(encode, value)

    def decode_checked(value: Any) -> Any:
        if type(value) not in forms:
            raise _unexpected(name, value)
        return value if decode is None else attempt(decode, value)

    def attempt(convert: Convert, value: Any) -> Any:
        try:
            return convert(value)
        except (ValueError, ArithmeticError):
            raise _unexpected(name, value) from None

    return Codec(name, encode_checked, decode_checked)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return float(value)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        # Python 3.10 knows neither Z nor a fraction that PostgreSQL has shortened.
        text = re.sub(r"\.\d+", lambda match: match[0].ljust(7, "0"), text)
        return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _iso(kind: Any, decode: Convert) -> Codec:
    name = f"{kind.__name__} (ISO 8601)"
    return _scalar(name, kind, str, encode=kind.isoformat, decode=decode)


_ANYTHING = (Any, object)
_SCALARS: dict[Any, Codec] = {
    **dict.fromkeys(_ANYTHING, Codec("anything", _itself, _itself)),
    **{kind: _scalar(kind.__name__, kind, kind) for kind in (bool, int, str)},
    type(None): _scalar("None", type(None), type(None)),
    float: _scalar("float", _NUMBER, *_NUMBER, encode=_finite, decode=_finite),
    datetime: _iso(datetime, _moment),
    date: _iso(date, date.fromisoformat),
    time: _iso(time, time.fromisoformat),
    UUID: _scalar("UUID", UUID, str, encode=str, decode=UUID),
    # A number, too: that is what a trigger makes of a column of type numeric.
    Decimal: _scalar(
        "Decimal", Decimal, str, *_NUMBER, encode=str, decode=lambda value: Decimal(str(value))
    ),
    timedelta: _scalar(
        "timedelta (seconds)",
        timedelta,
        *_NUMBER,
        encode=timedelta.total_seconds,
        decode=lambda seconds: timedelta(seconds=seconds),
    ),
}


def _choice(options: Sequence[Any]) -> Codec:
    """A Literal or an Enum, by value."""
    values = [option.value if isinstance(option, Enum) else option for option in options]
    if not {type(value) for value in values} <= {str, int, bool, type(None)}:
        raise TypeError(f"a payload cannot be one of {list(options)}: the values are not simple")
    name = " or ".join(map(repr, values))

    def finder(keys: Sequence[Any], found: Sequence[Any]) -> Convert:
        # With the type, since True equals 1.
        table = {(type(key), key): value for key, value in zip(keys, found, strict=True)}

        def find(value: Any) -> Any:
            try:
                return table[type(value), value]
            except (KeyError, TypeError):  # the latter: it has no hash
                raise _unexpected(name, value) from None

        return find

    return Codec(name, finder(options, values), finder(values, options))


def _optional(codec: Codec) -> Codec:
    return Codec(
        f"{codec.name} or None",
        lambda value: None if value is None else codec.encode(value),
        lambda value: None if value is None else codec.decode(value),
    )


# --- values made of others -----------------------------------------------------------------------

_DICTS = (dict, Mapping, MutableMapping)
_QUALIFIERS = ("Required", "NotRequired", "ReadOnly")  # of a TypedDict's member
_ARRAYS: dict[Any, Convert] = {
    list: list,
    Sequence: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
}


def _each(values: Iterable[tuple[Any, Any]], convert: Convert) -> dict[Any, Any]:
    """Convert the values of (step, value)."""
    converted = {}
    for step, value in values:
        try:
            converted[step] = convert(value)
        except Misfit as misfit:
            raise misfit.inside(step) from None
    return converted


def _array(container: Any, element: Codec) -> Codec:
    def converter(kind: Any, convert: Convert, make: Convert) -> Convert:
        def convert_all(values: Any) -> Any:
            if not _is(values, kind):
                raise _unexpected(name, values)
            return make(_each(enumerate(values), convert).values())

        return convert_all

    name = f"a list of {element.name}"
    return Codec(
        name,
        converter(container, element.encode, list),
        converter(list, element.decode, _ARRAYS[container]),
    )


def _dict(element: Codec) -> Codec:
    def converter(convert: Convert) -> Convert:
        def convert_all(values: Any) -> Any:
            if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
                raise _unexpected(name, values)
            return _each(values.items(), convert)

        return convert_all

    name = f"a dict of {element.name}"
    return Codec(name, converter(element.encode), converter(element.decode))


def _record(kind: Any, known: dict[Any, Codec]) -> Codec:
    """A dataclass or a TypedDict.

    Members that it does not have are passed over on receipt, so that producers can be upgraded
    before workers. A TypedDict with one is not sent, though.
    """
    name = kind.__name__
    is_dict = _is_typed_dict(kind)
    encoders: dict[str, Convert] = {}  # by member
    decoders: dict[str, Convert] = {}
    required: set[str] = set()

    def encode(value: Any) -> Any:
        if not isinstance(value, dict if is_dict else kind):
            raise _unexpected(name, value)
        if not is_dict:
            value = {member: getattr(value, member) for member in encoders}
        for member in value.keys() - encoders.keys():
            raise Misfit(f"{name} has no such member", str(member))
        return converted(value, encoders)

    def decode(value: Any) -> Any:
        if type(value) is not dict:
            raise _unexpected(name, value)
        arguments = converted(value, decoders)
        try:
            return kind(**arguments)
        except (TypeError, ValueError) as error:  # what __post_init__ has to say
            raise Misfit(f"{name} refuses it: {error}") from None

    def converted(values: dict[str, Any], converters: dict[str, Convert]) -> dict[str, Any]:
        result = {}
        for member, convert in converters.items():
            if member in values:
                try:
                    result[member] = convert(values[member])
                except Misfit as misfit:
                    raise misfit.inside(member) from None
            elif member in required:
                raise Misfit("is missing", member)
        return result

    known[kind] = Codec(name, encode, decode)
    for member, must_be_there, hint in (_keys if is_dict else _fields)(kind):
        codec = _codec(hint, known)
        encoders[member], decoders[member] = codec.encode, codec.decode
        if must_be_there:
            required.add(member)
    return known[kind]


def _is_typed_dict(kind: type) -> bool:
    # typing.is_typeddict() does not know those of typing_extensions.
    return issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def _fields(kind: Any) -> Iterator[tuple[str, bool, Any]]:
    """The fields of a dataclass: name, whether it must be there, type."""
    hints = _hints(kind)
    for field in fields(kind):
        if field.init:
            required = field.default is MISSING and field.default_factory is MISSING
            yield field.name, required, hints[field.name]


def _keys(kind: Any) -> Iterator[tuple[str, bool, Any]]:
    """The same of a TypedDict."""
    for key, annotation in _hints(kind).items():
        # The class itself has not looked into annotations that are text.
        hint, required = annotation, key in kind.__required_keys__
        while (word := getattr(typing.get_origin(hint), "_name", "")) in _QUALIFIERS:
            required = required if word == "ReadOnly" else word == "Required"
            hint = typing.get_args(hint)[0]
        yield key, required, hint


def _model(kind: Any, invalid: type[Any]) -> Codec:
    """A pydantic model. What it would not take back is not sent."""
    name = kind.__name__

    def encode(value: Any) -> Any:
        if not isinstance(value, kind):
            raise _unexpected(name, value)
        try:
            sent = value.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
        except ValueError as error:
            raise Misfit(str(error)) from None
        decode(sent)
        return sent

    def decode(value: Any) -> Any:
        try:
            return kind.model_validate_json(json.dumps(value))
        except invalid as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            misfit = Misfit(first["msg"])
            for step in reversed(first["loc"]):
                misfit = misfit.inside(step)
            raise misfit from None

    return Codec(name, encode, decode)
