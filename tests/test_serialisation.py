"""Typed values from JSON, MessagePack and plain values, also if several threads use a type for the first time."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from mmpack.serialisation import from_builtins, from_json, from_msgpack

# Each round uses new structs. The script runs in a separate process, because the error is a crash of the process.
_RACE = """
import sys, threading
from typing import Annotated, Any, Optional
import msgspec
from mmpack.serialisation import from_builtins, from_json, from_msgpack

read = {"json": from_json, "msgpack": from_msgpack, "builtins": from_builtins}[sys.argv[1]]
write = {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode, "builtins": dict}[sys.argv[1]]
sys.setswitchinterval(1e-6)
Count = Annotated[int, msgspec.Meta(ge=0)]

def make_type(number):
    inner = msgspec.defstruct("Inner", [("a", Count), ("b", Optional[list[Count]], None)], tag=number)
    fields = [("x", dict[str, inner]), ("y", Annotated[list[inner], msgspec.Meta(max_length=5)])]
    return msgspec.defstruct("Outer", fields)

def use(barrier, type_, data, values):
    barrier.wait()
    values.append(read(data, type_))

for number in range(600):
    type_, values, barrier = make_type(number), [], threading.Barrier(4)
    data = write({"x": {"k": {"type": number, "a": 1}}, "y": []})
    threads = [threading.Thread(target=use, args=(barrier, type_, data, values)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(values) == 4 and all(value == values[0] for value in values), values
"""


@pytest.mark.parametrize("format_", ["json", "msgpack", "builtins"])
def test_several_threads_may_use_a_type_for_the_first_time(format_: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RACE, format_], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


class _Example(msgspec.Struct):
    number: int


def test_every_format_gives_a_typed_value_or_an_error() -> None:
    assert from_json(b'{"number": 3}') == {"number": 3}
    assert from_json(b'{"number": 3}', _Example) == _Example(3)
    assert from_json(msgspec.Raw(b'{"number": 3}'), _Example) == _Example(3)
    assert from_msgpack(msgspec.msgpack.encode({"number": 3}), _Example) == _Example(3)
    assert from_builtins({"number": "3"}, _Example, strict=False) == _Example(3)
    with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
        from_builtins({"number": "3"}, _Example)
    with pytest.raises(msgspec.DecodeError):
        from_json(b"{", _Example)
