"""TOML tables as typed, validated settings: one class per table; an unknown key raises an error that suggests
the closest valid key.
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

# A configuration is written by hand. The limit avoids reading a large file (a tar, a video) given by mistake.
MAX_CONFIG_BYTES = 4 << 20
_SIZE = re.compile(r"\s*(\d+)\s*([kKMGT]?)(i?)B\s*")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base class of every table of settings: immutable, keyword-only, no unknown keys."""


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
            lists the allowed words), a wrong type or an invalid value; the error names the key.
    """
    _check_unknown_keys(table, type_, where=where, path="")
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


def _check_unknown_keys(value: Any, type_: Any, *, where: str, path: str) -> None:
    """Walks through `value` and its declared type. Raises ConfigError for an unknown key or word.

    msgspec rejects them too, but without a suggestion of the closest valid key or word.
    """
    for candidate in _struct_types(type_):
        if isinstance(value, dict):
            hints = typing.get_type_hints(candidate)
            names = {field.encode_name: field.name for field in msgspec.structs.fields(candidate)}
            for key, inner in value.items():
                inner_path = f"{path}.{key}" if path else key
                if key not in names:
                    raise ConfigError(f"unknown key '{inner_path}'", where=where, hint=suggest(key, names))
                _check_unknown_keys(inner, hints[names[key]], where=where, path=inner_path)
        return
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Literal:
        if isinstance(value, str) and value not in args:
            raise ConfigError(
                f"'{value}' is not a valid value of '{path}'", where=where, hint=suggest_choice(value, args)
            )
    elif origin is dict and isinstance(value, dict):
        for key, inner in value.items():
            _check_unknown_keys(inner, args[1], where=where, path=f"{path}.{key}")
    elif origin in (list, tuple) and isinstance(value, list) and args:
        for index, inner in enumerate(value):
            _check_unknown_keys(inner, args[0], where=where, path=f"{path}[{index}]")
    elif origin in (typing.Union, types.UnionType):
        for option in args:
            is_open = typing.get_origin(option) is typing.Literal and str in args
            if typing.get_origin(option) in (dict, list, tuple, typing.Literal) and not is_open:
                _check_unknown_keys(value, option, where=where, path=path)


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
