"""JSON that others may have written, into typed structs: whatever it holds, it is read or refused by name."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from mmpack.errors import IntegrityError
from mmpack.typed import BAD_JSON, from_json

T = TypeVar("T")

#: Every number of the format. JSON has integers of any length, and neither numpy nor Arrow does.
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
#: A number of things.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def decode(data: bytes | msgspec.Raw, kind: type[T], *, what: str, where: str) -> T:
    """`data` as `kind`. Raises IntegrityError that says `what` is damaged: bad JSON, or other types."""
    try:
        return from_json(data, kind)
    except BAD_JSON as error:
        raise IntegrityError(f"{what} is damaged ({error})", where=where) from None
