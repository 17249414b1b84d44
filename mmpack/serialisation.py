"""Bytes and plain values as values of a type, by msgspec; nothing else here asks it for that.

At a type's first use msgspec looks into its fields. Two threads that do so at once crash the process (msgspec 0.22, when the
interpreter changes threads halfway), so a first use is one thread's alone.
"""

from __future__ import annotations

import threading
from typing import Annotated, Any, TypeVar, overload

import msgspec

from mmpack.errors import IntegrityError

T = TypeVar("T")
_Json = bytes | bytearray | memoryview | msgspec.Raw | str

JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What :func:`from_json` raises."""

_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_decoder_lock = threading.Lock()


@overload
def from_json(data: _Json) -> Any: ...
@overload
def from_json(data: _Json, kind: type[T]) -> T: ...
def from_json(data: Any, kind: Any = Any) -> Any:
    """JSON as `kind`. Raises one of `JSON_ERRORS`."""
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
        with _decoder_lock:
            found = _decoders.setdefault(kind, msgspec.json.Decoder(kind))
    return found


T = TypeVar("T")

#: Every number of the format. JSON has integers of any length, and neither numpy nor Arrow does.
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
#: A number of things.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def decode_untrusted(data: bytes | msgspec.Raw, kind: type[T], *, noun: str, where: str) -> T:
    """`data` as `kind`. Raises IntegrityError that says `what` is damaged: bad JSON, or other types."""
    try:
        return from_json(data, kind)
    except JSON_ERRORS as error:
        raise IntegrityError(f"{noun} is damaged ({error})", where=where) from None


def to_builtins(settings: msgspec.Struct) -> dict[str, Any]:
    """`settings` as plain JSON-ready dicts, every default written out."""
    return msgspec.to_builtins(settings)


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes, so it can be hashed."""
    return msgspec.json.encode(value, order="deterministic")


def pretty_json(value: Any) -> bytes:
    """JSON for files that people look into."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
