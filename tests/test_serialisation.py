"""Values of a type from bytes: in many threads at once, from the first use on."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from mmpack.serialisation import from_builtins, from_json, from_msgpack

# Structs nobody has used yet, a set for each round; in a process of its own, since what is looked for is its crash.
_RACE = """
import sys, threading
from typing import Annotated, Any, Optional
import msgspec
from mmpack.serialisation import from_builtins, from_json, from_msgpack

read = {"json": from_json, "msgpack": from_msgpack, "builtins": from_builtins}[sys.argv[1]]
write = {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode, "builtins": dict}[sys.argv[1]]
sys.setswitchinterval(1e-6)
Count = Annotated[int, msgspec.Meta(ge=0)]

def kind(number):
    inner = msgspec.defstruct("Inner", [("a", Count), ("b", Optional[list[Count]], None)], tag=number)
    fields = [("x", dict[str, inner]), ("y", Annotated[list[inner], msgspec.Meta(max_length=5)])]
    return msgspec.defstruct("Outer", fields)

def use(start, kind, data, found):
    start.wait()
    found.append(read(data, kind))

for number in range(600):
    kinds, found, start = kind(number), [], threading.Barrier(4)
    data = write({"x": {"k": {"type": number, "a": 1}}, "y": []})
    threads = [threading.Thread(target=use, args=(start, kinds, data, found)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(each == found[0] for each in found), found
"""


@pytest.mark.parametrize("kind", ["json", "msgpack", "builtins"])
def test_threads_may_use_a_type_for_the_first_time_at_once(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RACE, kind], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


class _Kind(msgspec.Struct):
    number: int


def test_every_format_gives_the_type_or_says_why_not() -> None:
    assert from_json(b'{"number": 3}') == {"number": 3}
    assert from_json(b'{"number": 3}', _Kind) == _Kind(3)
    assert from_json(msgspec.Raw(b'{"number": 3}'), _Kind) == _Kind(3)
    assert from_msgpack(msgspec.msgpack.encode({"number": 3}), _Kind) == _Kind(3)
    assert from_builtins({"number": "3"}, _Kind, strict=False) == _Kind(3)
    with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
        from_builtins({"number": "3"}, _Kind)
    with pytest.raises(msgspec.DecodeError):
        from_json(b"{", _Kind)
