"""A run over tars that is stopped and goes on: the same rows, nothing lost, nothing twice."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.errors import ConfigError, DataError, MmpackError
from mmpack.plan.plan_config import ReaderConfig
from tests.stream.tar_files import (
    CAPACITY,
    assert_same_rows,
    broken_jpeg,
    jpeg,
    open_tar_stream,
    read_recorded_reasons,
    read_tar_rows,
    sample_keys,
    text,
    texts,
    write_tar,
)

pytestmark = pytest.mark.timeout(120)


# What a tar may hold, and how a tar may be damaged.
_SAMPLES = st.sampled_from(["text", "text", "text", "picture", "long", "header", "pixels", "empty"])
_TARS = st.lists(
    st.tuples(
        st.lists(st.tuples(_SAMPLES, st.integers(1, CAPACITY - 1)), max_size=14),
        st.sampled_from(["whole", "whole", "gz", "pax", "cut", "missing"]),
        st.floats(0, 1),
    ),
    min_size=1,
    max_size=4,
)
_JPEG, _BROKEN = jpeg(), broken_jpeg()


def _write(folder: Path, tars: list[Any]) -> tuple[list[Path], Counter[str]]:
    """The tars, and how often each key has to be met, as sample or fault, in one epoch; of cut tars none are counted."""
    paths, expected = [], Counter[str]()
    for number, (samples, damage, where) in enumerate(tars):
        members = []
        for count, (kind, length) in enumerate(samples):
            key = f"{damage}-{number}-{count:03d}"
            if kind in ("picture", "header", "pixels"):
                picture = {"picture": _JPEG, "header": b"\xff\xd8\xff", "pixels": _BROKEN}[kind]
                members.append((f"{key}.jpg", picture))
                members.append((f"{key}.txt", text(min(length, CAPACITY - 9))))
            else:
                words = {"text": length, "long": CAPACITY + length, "empty": 0}[kind]
                members.append((f"{key}.txt", text(words)))
            expected[key] += damage in ("whole", "gz", "pax")
        path = folder / (f"{number}.tar.gz" if damage == "gz" else f"{number}.tar")
        form = tarfile.PAX_FORMAT if damage == "pax" else tarfile.GNU_FORMAT
        if damage != "missing":
            write_tar(path, members, form)
        if damage == "cut":
            data = path.read_bytes()
            path.write_bytes(data[: int(where * len(data))])
        paths.append(path)
    return paths, expected


@settings(max_examples=25)
@given(tars=_TARS, epochs=st.integers(1, 3), pool=st.integers(1, 8), stops=st.data())
def test_a_run_stopped_anywhere_goes_on_as_if_it_had_not(
    tars: list[Any], epochs: int, pool: int, stops: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths, expected = _write(folder, tars)
        settings: dict[str, Any] = {"epochs": epochs, "pool": pool}
        # So that there is a row; in front, so that faults may be the last that is met.
        paths.insert(0, write_tar(folder / "first.tar", texts("first-", [7])))
        whole = read_tar_rows(paths, folder / "whole.jsonl", **settings)
        read, state, met = [], None, 0
        while len(read) < len(whole):
            stop = stops.draw(st.integers(len(read) + 1, len(whole)), label="stop at")
            with open_tar_stream(paths, folder / "parts.jsonl", **settings) as stream:
                if state is not None:
                    stream.load_state_dict(json.loads(state))
                read += [next(stream) for _ in range(stop - len(read))]
                state = json.dumps(stream.state_dict())
                if len(read) == len(whole):
                    assert list(stream) == []  # the faults behind the last row
                met += stream.quarantine.count
        assert_same_rows(read, whole)
        told = read_recorded_reasons(folder / "whole.jsonl")
        assert read_recorded_reasons(folder / "parts.jsonl") == told
        assert met == len(told)
        # Nothing lost, nothing twice.
        found = Counter(sample_keys(whole)) + Counter(each.key for each in told)
        for key, count in expected.items():
            assert found[key] == count * epochs or key.startswith(("cut", "missing"))


def test_a_state_is_of_the_rows_handed_out_however_far_it_was_read_ahead(tmp_path: Path) -> None:
    tars = [write_tar(tmp_path / f"{name}.tar", texts(name, [60, 90, 30] * 20)) for name in "abc"]
    reader = ReaderConfig(quarantine=str(tmp_path / "q.jsonl"), prefetch=64, threads=3)
    states, rows = [], []
    with open_tar_stream(tars, tmp_path / "q.jsonl", reader=reader, pool=8) as stream:
        states.append(stream.state_dict())
        for row in stream:
            rows.append(row)
            states.append(stream.state_dict())
    for number in range(0, len(states), 7):
        with open_tar_stream(tars, tmp_path / "q.jsonl", pool=8) as stream:
            stream.load_state_dict(states[number])
            assert stream.state_dict() == states[number]
            assert_same_rows(stream, rows[number:])


def test_going_back_and_closing_do_not_change_the_rows(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", texts("a", range(1, 100)))
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=8) as stream:
        first = [next(stream), next(stream)]
        state = stream.state_dict()
        rest = [next(stream)]
        stream.close()
        rest += stream
        assert list(stream) == []
        stream.load_state_dict(state)
        assert_same_rows(stream, rest)
    assert_same_rows([*first, *rest], read_tar_rows([tar], tmp_path / "q.jsonl", pool=8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": -1}, "no state of a tar stream"),
        ({"place": [1]}, "no state of a tar stream"),
        ({"waiting": "all"}, "no state of a tar stream"),
        ({"more": 1}, "no state of a tar stream"),
        ({"waiting": [[0, 2], [0, 1]]}, "places do not ascend"),
        ({"waiting": [[7, 0]]}, "places do not ascend"),
        ({"version": 2}, "version 2"),
        ({"fingerprint": "0"}, "of other tars"),
    ],
)
def test_damaged_states_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    tar = write_tar(tmp_path / "a.tar", texts("a", [50] * 20))
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=4) as stream:
        next(stream)
        with pytest.raises(MmpackError, match=message):
            stream.load_state_dict(stream.state_dict() | change)


def test_a_state_of_another_share_is_refused(tmp_path: Path) -> None:
    tars = [write_tar(tmp_path / f"{name}.tar", texts(name, [50] * 20)) for name in "ab"]
    state = open_tar_stream(tars, tmp_path / "q.jsonl", rank=0, ranks=2).state_dict()
    for other in ({"rank": 1, "ranks": 2}, {}, {"rank": 0, "ranks": 2, "max_seq_len": 256}):
        with pytest.raises(ConfigError, match="another rank"):
            open_tar_stream(tars, tmp_path / "q.jsonl", **other).load_state_dict(state)


def test_tars_that_changed_under_a_state_are_named(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", texts("a", [50, 100] * 10))
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=8) as stream:
        next(stream)
        state = stream.state_dict()
    assert state["waiting"]
    write_tar(tar, texts("a", [50] * 2))
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=8) as stream:
        stream.load_state_dict(state)
        with pytest.raises(DataError, match=r"a.tar: a sample that waited.*it has no sample"):
            next(stream)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_faults_behind_the_last_sample_are_told_once(tmp_path: Path, stop: int) -> None:
    tar = write_tar(tmp_path / "a.tar", texts("a", [100, 100, 100, 300]))
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=8) as stream:
        rows = [next(stream) for _ in range(stop)]
        state = stream.state_dict()
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=8) as stream:
        stream.load_state_dict(state)
        rows += stream
    assert len(rows) == 3
    assert [told.key for told in read_recorded_reasons(tmp_path / "q.jsonl")] == ["a0003"]
