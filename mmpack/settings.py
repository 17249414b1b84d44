"""TOML tables to typed, validated settings: one dataclass per table, unknown keys refused with the nearest
valid one.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mmpack.errors import ConfigError
from mmpack.serialisation import from_builtins

T = TypeVar("T")

# A configuration is written by hand. The bound keeps a wrong path (a tar, a video) from being read whole.
MAX_CONFIG_BYTES = 4 << 20
_SIZE = re.compile(r"\s*(\d+)\s*([kKMGT]?)(i?)B\s*")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of settings: immutable, keyword-only, no unknown keys."""


def suggest(word: str, allowed: typing.Iterable[str]) -> str:
    """A phrase naming the known word closest to `word`, or all of them if none is close."""
    names = sorted(allowed)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(names)}." if names else "Nothing is known here."


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML file at `path` as plain dicts.

    Raises:
        ConfigError: missing, unreadable, too large, or not TOML; names the file and, for a syntax error, the
            line.
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


def parse_settings(table: dict[str, Any], kind: type[T], *, where: str) -> T:
    """`table` checked against the settings class `kind`.

    Args:
        table: plain dicts, lists and scalars, as TOML gives them.
        kind: a :class:`Settings` class.
        where: file name for messages.

    Raises:
        ConfigError: an unknown key (with the nearest valid one), a word that is none of those allowed (with
            them), a wrong type or an invalid value, with its place.
    """
    _check_unknown_keys(table, kind, where=where, path="")
    try:
        return from_builtins(table, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        spot = f"{where} [{place.rstrip('`')}]" if place else where
        raise ConfigError(message.replace("`", "'"), where=spot) from None


def load_settings(path: Path, kind: type[T]) -> T:
    """The settings file at `path` as `kind`. Raises ConfigError."""
    return parse_settings(read_toml(path), kind, where=str(path))


def parse_size(text: str, *, where: str) -> int:
    """`"64kB"` as bytes: units of 1,000, or of 1,024 with an i. Raises ConfigError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"'{text}' is no size", where=where, hint="Write a number with a unit, as in '512MB'."
        )
    return int(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " ")


def _check_unknown_keys(value: Any, kind: Any, *, where: str, path: str) -> None:
    """Walks `value` beside its declared type for unknown keys and words.

    msgspec would refuse them too, but cannot say which key or word was meant.
    """
    for candidate in _struct_types(kind):
        if isinstance(value, dict):
            hints = typing.get_type_hints(candidate)
            names = {field.encode_name: field.name for field in msgspec.structs.fields(candidate)}
            for key, inner in value.items():
                spot = f"{path}.{key}" if path else key
                if key not in names:
                    raise ConfigError(f"unknown key '{spot}'", where=where, hint=suggest(key, names))
                _check_unknown_keys(inner, hints[names[key]], where=where, path=spot)
        return
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        if isinstance(value, str) and value not in args:
            raise ConfigError(
                f"'{value}' is no value of '{path}'", where=where, hint=_suggest_choice(value, args)
            )
    elif origin is dict and isinstance(value, dict):
        for key, inner in value.items():
            _check_unknown_keys(inner, args[1], where=where, path=f"{path}.{key}")
    elif origin in (list, tuple) and isinstance(value, list) and args:
        for number, inner in enumerate(value):
            _check_unknown_keys(inner, args[0], where=where, path=f"{path}[{number}]")
    elif origin in (typing.Union, types.UnionType):
        for option in args:
            is_open = typing.get_origin(option) is typing.Literal and str in args
            if typing.get_origin(option) in (dict, list, tuple, typing.Literal) and not is_open:
                _check_unknown_keys(value, option, where=where, path=path)


def _suggest_choice(word: str, allowed: tuple[str, ...]) -> str:
    listed = f"One of: {', '.join(allowed)}."
    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'? {listed}" if close else listed


def _struct_types(kind: Any) -> list[type[msgspec.Struct]]:
    options = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    return [option for option in options if isinstance(option, type) and issubclass(option, msgspec.Struct)]
