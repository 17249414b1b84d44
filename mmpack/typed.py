"""Bytes and plain values as values of a type, by msgspec; nothing else here asks it for that.

At a type's first use msgspec looks into its fields. Two threads that do so at once crash the process (msgspec 0.22, when the
interpreter changes threads halfway), so a first use is one thread's alone.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")
_Json = bytes | bytearray | memoryview | msgspec.Raw | str

BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What :func:`from_json` raises."""

_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_looking = threading.Lock()


@overload
def from_json(data: _Json) -> Any: ...
@overload
def from_json(data: _Json, kind: type[T]) -> T: ...
def from_json(data: Any, kind: Any = Any) -> Any:
    """JSON as `kind`. Raises one of `BAD_JSON`."""
    return _decoder(kind).decode(data)


def from_msgpack(data: bytes | bytearray | memoryview, kind: type[T]) -> T:
    """MessagePack as `kind`. Raises msgspec.DecodeError."""
    _decoder(kind)
    return msgspec.msgpack.decode(data, type=kind)


def from_builtins(value: Any, kind: type[T], *, strict: bool = True) -> T:
    """Dicts, lists and scalars as `kind`; not strict: also numbers from text. Raises msgspec.ValidationError."""
    _decoder(kind)
    return msgspec.convert(value, kind, strict=strict)


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    found = _decoders.get(kind)
    if found is None:
        with _looking:
            found = _decoders.setdefault(kind, msgspec.json.Decoder(kind))
    return found
