"""Lazy import of the public names of a package: each is imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def make_lazy_getattr(namespace: dict[str, Any], modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns the `__getattr__` of a package.

    Args:
        namespace: `globals()` of the package; a name is stored there after its import.
        modules: public name to the module that defines it. A name that maps to the submodule of the same name stands
            for the submodule itself. No other name may equal the name of a submodule, because importing the
            submodule would replace the entry.
    """

    def load(name: str) -> Any:
        try:
            module = modules[name]
        except KeyError:
            raise AttributeError(f"module '{namespace['__name__']}' has no attribute '{name}'") from None
        loaded = import_module(module)
        value = loaded if module == f"{namespace['__name__']}.{name}" else getattr(loaded, name)
        namespace[name] = value
        return value

    return load


def make_dir(public: Iterable[str]) -> Callable[[], list[str]]:
    """Returns the `__dir__` of a package, which lists the public names, imported or not."""
    names = sorted(public)
    return lambda: list(names)
