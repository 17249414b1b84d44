"""Typed values from and to JSON, MessagePack and plain Python values, by msgspec.

All of mmpack converts to types through this module. At the first use of a type, msgspec inspects its fields. Two threads
that do so at the same time crash the process (msgspec 0.22, if the interpreter switches threads in between), so the
first use of a type is under a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, overload

import msgspec

from mmpack.errors import DataError, IntegrityError

T = TypeVar("T")
_Json = bytes | bytearray | memoryview | msgspec.Raw | str

JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors that :func:`from_json` raises."""

#: An integer of the format. JSON has integers of any length; numpy and Arrow have 64 bits.
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
#: A number of things, 0 to 2^63 - 1.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base class of values that mmpack writes to files, states and messages: immutable, keyword-only, no unknown keys.

    msgspec checks their types and ranges when they are decoded. Construction in Python checks nothing, because some are
    made for every sample.
    """


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_decoder_lock = threading.Lock()


@overload
def from_json(data: _Json) -> Any: ...
@overload
def from_json(data: _Json, type_: type[T]) -> T: ...
def from_json(data: Any, type_: Any = Any) -> Any:
    """Decodes JSON to a value of `type_`. Raises one of `JSON_ERRORS`."""
    return _get_decoder(type_).decode(data)


def from_msgpack(data: bytes | bytearray | memoryview, type_: type[T]) -> T:
    """Decodes MessagePack to a value of `type_`. Raises msgspec.DecodeError."""
    _get_decoder(type_)
    return msgspec.msgpack.decode(data, type=type_)


def from_builtins(value: Any, type_: type[T], *, strict: bool = True) -> T:
    """Converts dicts, lists and scalars to a value of `type_`.

    Args:
        value: plain Python values.
        type_: type of the result.
        strict: if False, numbers are also read from text.

    Raises:
        msgspec.ValidationError: the value does not match the type.
    """
    _get_decoder(type_)
    return msgspec.convert(value, type_, strict=strict)


def _get_decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    decoder = _decoders.get(type_)
    if decoder is None:
        with _decoder_lock:
            decoder = _decoders.setdefault(type_, msgspec.json.Decoder(type_))
    return decoder


def decode_untrusted(data: bytes | msgspec.Raw, type_: type[T], *, noun: str, where: str) -> T:
    """Decodes JSON to a value of `type_`.

    Args:
        data: JSON text.
        type_: type of the result.
        noun: name of the data, for the message.
        where: file or URL of the data, for the message.

    Raises:
        IntegrityError: the data is not valid JSON or has other types.
    """
    try:
        return from_json(data, type_)
    except JSON_ERRORS as error:
        raise IntegrityError(f"{noun} is damaged ({error})", where=where) from None


class _StateVersion(msgspec.Struct):
    """The key that the states of all versions have."""

    version: int


def decode_state(state: Mapping[str, Any], type_: type[T], *, version: int, noun: str) -> T:
    """Converts a saved state to `type_`. The keys of another version may differ, so the version is checked first.

    Args:
        state: state as a checkpoint stores it. Numbers are also read from text.
        type_: type of the state.
        version: the version of the keys of `type_`.
        noun: what the state belongs to, for the message.

    Raises:
        DataError: the state is damaged, belongs to something else, or has another version.
    """
    try:
        saved_version = from_builtins(dict(state), _StateVersion, strict=False).version
        if saved_version == version:
            return from_builtins(dict(state), type_, strict=False)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise DataError(f"this is not a state of a {noun} ({error})", where="state") from None
    raise DataError(
        f"the state has version {saved_version}, but this version of mmpack reads version {version}",
        where="state",
        hint="Resume with the version of mmpack that saved the state, or start a new training run.",
    )


def to_builtins(settings: msgspec.Struct) -> dict[str, Any]:
    """Converts `settings` to plain values for JSON, with every default written out."""
    return msgspec.to_builtins(settings)


def canonical_json(value: Any) -> bytes:
    """Encodes `value` as JSON with sorted keys and no spaces: equal values give equal bytes, so they can be hashed."""
    return msgspec.json.encode(value, order="deterministic")


def pretty_json(value: Any) -> bytes:
    """Encodes `value` as indented JSON, for files that people read."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
