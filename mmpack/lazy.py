"""Public names of a package that are loaded when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def loader(namespace: dict[str, Any], homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`.

    Args:
        namespace: its `globals()`, where a name is kept once it was loaded.
        homes: module of each name. No module may be called like a name beside it: importing it would take its place.
    """

    def load(name: str) -> Any:
        try:
            home = homes[name]
        except KeyError:
            raise AttributeError(f"module '{namespace['__name__']}' has no attribute '{name}'") from None
        value = namespace[name] = getattr(import_module(home), name)
        return value

    return load
