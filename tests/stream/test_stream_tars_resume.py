"""Resuming a stream of tars: the same rows, with no sample missing and none read twice."""

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
from tests.examples import examples
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


# The kinds of samples in a tar, and the formats and damages of tars.
_SAMPLES = st.sampled_from(["text", "text", "text", "image", "long", "header", "pixels", "empty"])
_TARS = st.lists(
    st.tuples(
        st.lists(st.tuples(_SAMPLES, st.integers(1, CAPACITY - 1)), max_size=14),
        st.sampled_from(["intact", "intact", "gz", "pax", "cut", "missing"]),
        st.floats(0, 1),
    ),
    min_size=1,
    max_size=4,
)
_JPEG, _BROKEN = jpeg(), broken_jpeg()


def _write(folder: Path, tars: list[Any]) -> tuple[list[Path], Counter[str]]:
    """Writes the tars.

    Returns:
        The paths, and how often each key must occur in one epoch, as a sample or as an unreadable one: once, or 0 if the
        tar is cut or missing.
    """
    paths, expected = [], Counter[str]()
    for tar, (samples, damage, cut_at) in enumerate(tars):
        members = []
        for index, (kind, length) in enumerate(samples):
            key = f"{damage}-{tar}-{index:03d}"
            if kind in ("image", "header", "pixels"):
                image = {"image": _JPEG, "header": b"\xff\xd8\xff", "pixels": _BROKEN}[kind]
                members.append((f"{key}.jpg", image))
                members.append((f"{key}.txt", text(min(length, CAPACITY - 9))))
            else:
                words = {"text": length, "long": CAPACITY + length, "empty": 0}[kind]
                members.append((f"{key}.txt", text(words)))
            expected[key] += damage in ("intact", "gz", "pax")
        path = folder / (f"{tar}.tar.gz" if damage == "gz" else f"{tar}.tar")
        format_ = tarfile.PAX_FORMAT if damage == "pax" else tarfile.GNU_FORMAT
        if damage != "missing":
            write_tar(path, members, format_)
        if damage == "cut":
            data = path.read_bytes()
            path.write_bytes(data[: int(cut_at * len(data))])
        paths.append(path)
    return paths, expected


@settings(max_examples=examples(25))
@given(tars=_TARS, epochs=st.integers(1, 3), pool=st.integers(1, 8), stops=st.data())
def test_resume_after_any_row_gives_the_same_rows(
    tars: list[Any], epochs: int, pool: int, stops: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths, expected = _write(folder, tars)
        settings: dict[str, Any] = {"epochs": epochs, "pool": pool}
        # This tar ensures that there is a row. It is the first, so that unreadable samples may be the last of the stream.
        paths.insert(0, write_tar(folder / "first.tar", texts("first-", [7])))
        expected_rows = read_tar_rows(paths, folder / "uninterrupted.jsonl", **settings)
        rows, state, num_unreadable = [], None, 0
        while len(rows) < len(expected_rows):
            stop = stops.draw(st.integers(len(rows) + 1, len(expected_rows)), label="stop at")
            with open_tar_stream(paths, folder / "parts.jsonl", **settings) as stream:
                if state is not None:
                    stream.load_state_dict(json.loads(state))
                rows += [next(stream) for _ in range(stop - len(rows))]
                state = json.dumps(stream.state_dict())
                if len(rows) == len(expected_rows):
                    assert list(stream) == []  # records the unreadable samples after the last row
                num_unreadable += stream.quarantine.count
        assert_same_rows(rows, expected_rows)
        records = read_recorded_reasons(folder / "uninterrupted.jsonl")
        assert read_recorded_reasons(folder / "parts.jsonl") == records
        assert num_unreadable == len(records)
        # No sample is missing, and none occurs twice.
        counts = Counter(sample_keys(expected_rows)) + Counter(record.key for record in records)
        for key, count in expected.items():
            assert counts[key] == count * epochs or key.startswith(("cut", "missing"))


def test_the_state_covers_the_rows_handed_out_and_not_the_prefetched_ones(tmp_path: Path) -> None:
    tars = [write_tar(tmp_path / f"{name}.tar", texts(name, [60, 90, 30] * 20)) for name in "abc"]
    reader = ReaderConfig(quarantine=str(tmp_path / "q.jsonl"), prefetch=64, threads=3)
    states, rows = [], []
    with open_tar_stream(tars, tmp_path / "q.jsonl", reader=reader, pool=8) as stream:
        states.append(stream.state_dict())
        for row in stream:
            rows.append(row)
            states.append(stream.state_dict())
    for index in range(0, len(states), 7):
        with open_tar_stream(tars, tmp_path / "q.jsonl", pool=8) as stream:
            stream.load_state_dict(states[index])
            assert stream.state_dict() == states[index]
            assert_same_rows(stream, rows[index:])


def test_loading_an_earlier_state_and_closing_do_not_change_the_rows(tmp_path: Path) -> None:
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
        ({"rows": -1}, "not a state of a tar stream"),
        ({"cursor": [1]}, "not a state of a tar stream"),
        ({"waiting": "all"}, "not a state of a tar stream"),
        ({"more": 1}, "not a state of a tar stream"),
        ({"waiting": [[0, 2], [0, 1]]}, "cursors are not in ascending order"),
        ({"waiting": [[7, 0]]}, "cursors are not in ascending order"),
        ({"version": 3}, "has version 3, but this version of mmpack reads version 2"),
        # States of version 1 have other keys.
        ({"version": 1, "place": [0, 0]}, "has version 1, but this version of mmpack reads version 2"),
        ({"fingerprint": "0"}, "belongs to other tars"),
    ],
)
def test_a_damaged_state_is_an_error(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    tar = write_tar(tmp_path / "a.tar", texts("a", [50] * 20))
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=4) as stream:
        next(stream)
        with pytest.raises(MmpackError, match=message):
            stream.load_state_dict(stream.state_dict() | change)


def test_a_state_of_another_rank_is_an_error(tmp_path: Path) -> None:
    tars = [write_tar(tmp_path / f"{name}.tar", texts(name, [50] * 20)) for name in "ab"]
    state = open_tar_stream(tars, tmp_path / "q.jsonl", rank=0, ranks=2).state_dict()
    for other in ({"rank": 1, "ranks": 2}, {}, {"rank": 0, "ranks": 2, "max_seq_len": 256}):
        with pytest.raises(ConfigError, match="another rank"):
            open_tar_stream(tars, tmp_path / "q.jsonl", **other).load_state_dict(state)


def test_a_tar_that_changed_since_the_state_is_named_in_the_error(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", texts("a", [50, 100] * 10))
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=8) as stream:
        next(stream)
        state = stream.state_dict()
    assert state["waiting"]
    write_tar(tar, texts("a", [50] * 2))
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=8) as stream:
        stream.load_state_dict(state)
        with pytest.raises(DataError, match=r"a.tar: a sample that was waiting.*the tar has no sample"):
            next(stream)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_unreadable_sample_after_the_last_row_is_recorded_once(tmp_path: Path, stop: int) -> None:
    tar = write_tar(tmp_path / "a.tar", texts("a", [100, 100, 100, 300]))
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=8) as stream:
        rows = [next(stream) for _ in range(stop)]
        state = stream.state_dict()
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=8) as stream:
        stream.load_state_dict(state)
        rows += stream
    assert len(rows) == 3
    assert [record.key for record in read_recorded_reasons(tmp_path / "q.jsonl")] == ["a0003"]
