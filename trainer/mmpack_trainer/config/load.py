"""A recipe's TOML file and what the command line says in its place, as one typed TrainConfig."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpack.errors import ConfigError
from mmpack.settings import parse_settings, read_toml
from mmpack_trainer.config.schema import TrainConfig

#: Settings that are paths. In the file they start at the file; on the command line, where people write it.
_PATHS = (("out",), ("data", "plan"))


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The settings of a run, every path absolute.

    Args:
        path: of the file.
        overrides: `--section.key=value`, each in place of the file's; values are TOML, and what is no TOML is text, so
            that `--schedule.kind=wsd` needs no quotes. The last one of a key counts.

    Raises:
        ConfigError: the file cannot be read; an override is no `--key=value`; a key is unknown (names the nearest);
            a value has the wrong type.
    """
    path = Path(path)
    table = read_toml(path)
    _make_absolute(table, path.absolute().parent)
    for override in overrides:
        keys, value = _split(override)
        if keys in _PATHS and isinstance(value, str):
            value = _absolute(Path.cwd(), value)
        _put(table, keys, value)
    return parse_settings(table, TrainConfig, where=str(path))


def _make_absolute(table: dict[str, Any], base: Path) -> None:
    for *sections, key in _PATHS:
        inner: Any = table
        for section in sections:
            inner = inner.get(section) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get(key), str):
            inner[key] = _absolute(base, inner[key])


def _absolute(base: Path, path: str) -> str:
    try:
        # Shells leave the ~ of --out=~/run as it is.
        return str(base / Path(path).expanduser())
    except RuntimeError:
        raise ConfigError("there is no such user's folder", where=path) from None


def _split(override: str) -> tuple[tuple[str, ...], Any]:
    name, equals, text = override.removeprefix("--").partition("=")
    keys = tuple(name.split("."))
    if not override.startswith("--") or not equals or not all(keys):
        raise ConfigError(
            "is no setting", where=override, hint="Write --section.key=value, as in --optimizer.lr=3e-4."
        )
    return keys, _value(text)


def _value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # A line break in the text would start further keys.
    return table["value"] if len(table) == 1 else text


def _put(table: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    *sections, key = keys
    for depth, section in enumerate(sections):
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(
                f"'{'.'.join(sections[: depth + 1])}' is a value, not a table", where=f"--{'.'.join(keys)}"
            )
    table[key] = value
