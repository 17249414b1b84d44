"""TOML tables as typed, validated settings: one class per table; an unknown key raises an error that suggests
the closest valid key.

The range of a number is declared in the type of its field, such as `threads: Annotated[int, Meta(ge=0, le=1024)]`. It is
checked when a table is parsed, where the error names the file, and when an object is made in Python.
"""

from __future__ import annotations

import difflib
import re
import sys
import tomllib
import types
import typing
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from mmpack.errors import ConfigError
from mmpack.serialisation import from_builtins

T = TypeVar("T")

# A configuration is written by hand. The limit avoids reading a large file (a tar, a video) given by mistake.
MAX_CONFIG_BYTES = 4 << 20
_SIZE = re.compile(r"\s*(\d+)\s*([kKMGT]?)(i?)B\s*")
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_MAX_FLOAT = sys.float_info.max

PositiveInt = Annotated[int, Meta(ge=1)]
"""An integer of at least 1."""
NonNegativeInt = Annotated[int, Meta(ge=0)]
"""An integer of at least 0."""
PositiveFloat = Annotated[float, Meta(gt=0, le=_MAX_FLOAT)]
"""A finite number above 0."""
NonNegativeFloat = Annotated[float, Meta(ge=0, le=_MAX_FLOAT)]
"""A finite number of at least 0."""
Share = Annotated[float, Meta(ge=0, le=1)]
"""A share of a whole, 0 to 1."""
RowLength = Annotated[int, Meta(ge=8, le=1 << 24)]
"""A number of positions of a row."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base class of every table of settings: immutable, keyword-only, no unknown keys, ranges checked.

    A subclass with its own `__post_init__` calls `super().__post_init__()` first.

    Raises:
        ConfigError: a number is outside the range that the type of its field declares.
    """

    def __post_init__(self) -> None:
        for field in _ranged_fields(type(self)):
            check_ranges(getattr(self, field.name), field.type, where=self._key(field.name))

    @property
    def _where(self) -> str:
        """The key of this table in its file, for messages; empty for the whole file."""
        return ""

    def _key(self, name: str) -> str:
        """Returns the key of the field `name`, for messages."""
        return f"{self._where}.{name}" if self._where else name


class _RangedField(NamedTuple):
    """A field with a declared range: its name, its key in a table, and its type with the range."""

    name: str
    key: str
    type: Any


@cache
def _ranged_fields(class_: type[msgspec.Struct]) -> tuple[_RangedField, ...]:
    """Returns the fields of `class_` with a declared range.

    The result is computed at the first object of a class. Two threads that compute it at the same time get equal results.
    """
    hints = typing.get_type_hints(class_, include_extras=True)
    pairs = zip(class_.__struct_fields__, class_.__struct_encode_fields__, strict=True)
    return tuple(_RangedField(name, key, hints[name]) for name, key in pairs if _has_range(hints[name]))


def _has_range(type_: Any) -> bool:
    """Returns whether `type_`, or a type inside a tuple, list, dict or union, declares a range."""
    if typing.get_origin(type_) is Annotated:
        return any(_is_range(meta) for meta in type_.__metadata__) or _has_range(type_.__origin__)
    return any(_has_range(inner) for inner in typing.get_args(type_))


def _is_range(meta: Any) -> bool:
    return isinstance(meta, Meta) and any(limit is not None for limit in (meta.ge, meta.gt, meta.le, meta.lt))


def check_ranges(value: Any, type_: Any, *, where: str) -> None:
    """Checks every number of `value` against the range that `type_` declares.

    Values of a wrong type are not checked.

    Args:
        value: number, or tuple, list or dict of numbers.
        type_: type of the field, with `Annotated`.
        where: key of the value, for messages.

    Raises:
        ConfigError: a number is outside its range, or NaN.
    """
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if origin is Annotated:
        if isinstance(value, Real):
            for meta in args[1:]:
                if _is_range(meta) and not _is_in_range(value, meta):
                    raise ConfigError(f"{value} {_format_violation(meta)}", where=where)
        check_ranges(value, args[0], where=where)
    elif origin in (typing.Union, types.UnionType):
        for option in args:
            check_ranges(value, option, where=where)
    elif origin is dict and isinstance(value, dict):
        for key, inner in value.items():
            check_ranges(inner, args[1], where=f"{where}.{key}")
    elif origin in (list, tuple) and isinstance(value, list | tuple):
        for index, (inner, inner_type) in enumerate(zip(value, _item_types(type_, len(value)), strict=False)):
            check_ranges(inner, inner_type, where=f"{where}[{index}]")


def _item_types(type_: Any, count: int) -> tuple[Any, ...]:
    """Returns the declared types of the `count` items of a list or tuple of the type `type_`."""
    args = typing.get_args(type_)
    return args[:1] * count if typing.get_origin(type_) is list or Ellipsis in args else args


def _is_in_range(value: Any, meta: Meta) -> bool:
    # A comparison with NaN is False, so that NaN is in no range.
    return (
        (meta.ge is None or value >= meta.ge)
        and (meta.gt is None or value > meta.gt)
        and (meta.le is None or value <= meta.le)
        and (meta.lt is None or value < meta.lt)
    )


def _format_violation(meta: Meta) -> str:
    """Returns the end of the message about a number outside the range `meta`, such as "is not between 0 and 1024"."""
    low, high = meta.ge if meta.gt is None else meta.gt, meta.le if meta.lt is None else meta.lt
    if low is None:
        return f"is not {'at most' if meta.lt is None else 'below'} {_format_limit(high)}"
    if high is None or high == _MAX_FLOAT:
        relation = f"{'at least' if meta.gt is None else 'above'} {_format_limit(low)}"
        if high is None:
            return f"is not {relation}"
        return f"is not a finite number {'of ' if meta.gt is None else ''}{relation}"
    low_text = _format_limit(low) + ("" if meta.gt is None else " (exclusive)")
    return f"is not between {low_text} and {_format_limit(high)}{'' if meta.lt is None else ' (exclusive)'}"


def _format_limit(limit: Any) -> str:
    return str(int(limit)) if limit == int(limit) else str(limit)


def suggest(word: str, allowed: typing.Iterable[str]) -> str:
    """Returns a sentence that names the allowed word closest to `word`, or all allowed words if none is close."""
    names = sorted(allowed)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(names)}." if names else "No name is allowed here."


def read_toml(path: Path) -> dict[str, Any]:
    """Reads the TOML file at `path` to plain dicts.

    Raises:
        ConfigError: the file is missing, unreadable, too large or not TOML; the error names the file and, for a
            syntax error, the line.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(
                f"larger than {MAX_CONFIG_BYTES} bytes, so not a settings file", where=str(path)
            )
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), hint="Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read as text ({error})", where=str(path)) from None
    except RecursionError:
        raise ConfigError("is not valid TOML: nested too deeply", where=str(path)) from None
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        raise ConfigError(f"is not valid TOML: {error}", where=str(path)) from None


def parse_settings(table: dict[str, Any], type_: type[T], *, where: str) -> T:
    """Converts `table` to the settings class `type_`.

    Args:
        table: plain dicts, lists and scalars, as TOML gives them.
        type_: a :class:`Settings` class.
        where: file name for messages.

    Raises:
        ConfigError: an unknown key (the hint suggests the closest valid key), a word that is not allowed (the hint
            lists the allowed words), a wrong type or an invalid value; the error names the file and the key.
    """
    _check_table(table, type_, where=where, path="")
    try:
        return from_builtins(table, type_)
    except ConfigError as error:  # raised by the check of a table, which does not know the file
        location = f"{where} [{error.where}]" if error.where else where
        raise ConfigError(error.message, where=location, hint=error.hint) from None
    except msgspec.ValidationError as error:
        message, _, key = str(error).partition(" - at `$.")
        location = f"{where} [{key.rstrip('`')}]" if key else where
        raise ConfigError(message.replace("`", "'"), where=location) from None


def load_settings(path: Path, type_: type[T]) -> T:
    """Reads the settings file at `path` to the settings class `type_`. Raises ConfigError."""
    return parse_settings(read_toml(path), type_, where=str(path))


def parse_size(text: str, *, where: str) -> int:
    """Converts a size such as `"64kB"` to bytes: units of 1,000, or of 1,024 with an i. Raises ConfigError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"'{text}' is not a size", where=where, hint="Write a number with a unit, as in '512MB'."
        )
    return int(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " ")


def _check_table(value: Any, type_: Any, *, where: str, path: str) -> None:
    """Walks through `value` and its declared type.

    msgspec rejects the same values, but its errors have no suggestion of the closest valid key or word, and do not quote
    the value that is out of range.

    Raises:
        ConfigError: a key or word is unknown, or a number is outside its range.
    """
    for candidate in _struct_types(type_):
        if isinstance(value, dict):
            hints = typing.get_type_hints(candidate)
            names = {field.encode_name: field.name for field in msgspec.structs.fields(candidate)}
            for key, inner in value.items():
                inner_path = f"{path}.{key}" if path else key
                if key not in names:
                    raise ConfigError(f"unknown key '{inner_path}'", where=where, hint=suggest(key, names))
                _check_table(inner, hints[names[key]], where=where, path=inner_path)
            for field in _ranged_fields(candidate):
                if field.key in value:
                    inner_path = f"{path}.{field.key}" if path else field.key
                    try:
                        check_ranges(value[field.key], field.type, where=inner_path)
                    except ConfigError as error:
                        raise ConfigError(error.message, where=f"{where} [{error.where}]") from None
        return
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Literal:
        if isinstance(value, str) and value not in args:
            raise ConfigError(
                f"'{value}' is not a valid value of '{path}'", where=where, hint=suggest_choice(value, args)
            )
    elif origin is dict and isinstance(value, dict):
        for key, inner in value.items():
            _check_table(inner, args[1], where=where, path=f"{path}.{key}")
    elif origin in (list, tuple) and isinstance(value, list) and args:
        for index, (inner, inner_type) in enumerate(zip(value, _item_types(type_, len(value)), strict=False)):
            _check_table(inner, inner_type, where=where, path=_item_path(inner, path, index))
    elif origin in (typing.Union, types.UnionType):
        for option in args:
            is_open = typing.get_origin(option) is typing.Literal and str in args
            if typing.get_origin(option) in (dict, list, tuple, typing.Literal) and not is_open:
                _check_table(value, option, where=where, path=path)


def _item_path(item: Any, path: str, index: int) -> str:
    """Returns the path of an item of an array: `path.NAME` for a table with a name, else `path[index]`."""
    name = item.get("name") if isinstance(item, dict) else None
    return f"{path}.{name}" if isinstance(name, str) and _NAME.fullmatch(name) else f"{path}[{index}]"


def suggest_choice(word: str, allowed: tuple[str, ...]) -> str:
    """Returns a sentence that names the allowed word closest to `word`, if one is close, and all allowed words."""
    choices = f"One of: {', '.join(allowed)}."
    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'? {choices}" if close else choices


def _struct_types(type_: Any) -> list[type[msgspec.Struct]]:
    options = (
        typing.get_args(type_) if typing.get_origin(type_) in (typing.Union, types.UnionType) else (type_,)
    )
    return [option for option in options if isinstance(option, type) and issubclass(option, msgspec.Struct)]
