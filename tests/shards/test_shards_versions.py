"""The versions of the manifest and of the `json` member: another version is rejected in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mmpack.errors import IntegrityError
from mmpack.samples.description import (
    DESCRIPTION_VERSION,
    ImageDescription,
    StandAloneDescription,
    encode_description,
    read_description,
)
from mmpack.serialisation import canonical_json
from mmpack.shards.manifest import FORMAT_VERSION, Manifest, read_manifest, write_manifest
from mmpack.storage import open_store

DESCRIPTION = StandAloneDescription(
    version=DESCRIPTION_VERSION, kind="text", recording="notes", ordinal=7, source={"b": 1.5, "a": None}
)


def empty_manifest() -> Manifest:
    return Manifest(
        format=FORMAT_VERSION,
        mmpack="0",
        config={},
        layout_fingerprint="",
        vocabulary_size=0,
        samples=0,
        tokens=0,
        slices=0,
        quarantined=0,
        tokens_by_modality={},
        shards=[],
        recordings=[],
        numeric={},
        files={},
    )


@pytest.mark.parametrize("fields", [{}, {"files_of_old": 1}, {"samples": "many"}])
@pytest.mark.parametrize("version", [FORMAT_VERSION - 1, FORMAT_VERSION + 1])
def test_a_shard_set_of_another_version_is_rejected_in_one_line(
    tmp_path: Path, version: int, fields: dict[str, Any]
) -> None:
    store = open_store(str(tmp_path))
    write_manifest(store, empty_manifest())
    assert read_manifest(store) == empty_manifest()
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields | {"format": version}))
    with pytest.raises(IntegrityError) as caught:
        read_manifest(store)
    assert re.fullmatch(
        rf"\S*manifest\.json: the shard set has format version {version}, but this version of mmpack reads "
        rf"version {FORMAT_VERSION}\. Build it again\.",
        str(caught.value),
    )


@pytest.mark.parametrize("fields", [{}, {"unknown": 1}, {"source": "x"}])
@pytest.mark.parametrize("version", [DESCRIPTION_VERSION - 1, DESCRIPTION_VERSION + 1])
def test_a_description_of_another_version_is_rejected_in_one_line(
    version: int, fields: dict[str, Any]
) -> None:
    data = canonical_json(json.loads(encode_description(DESCRIPTION)) | fields | {"version": version})
    with pytest.raises(IntegrityError) as caught:
        read_description(data, StandAloneDescription, where="x")
    assert str(caught.value) == (
        f"x: the json member has format version {version}, but this version of mmpack reads version "
        f"{DESCRIPTION_VERSION}. Build the shard set again."
    )


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"version": "x"}', b'{"version": 1e30}', b"\xff"])
def test_a_description_without_a_version_is_damaged(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="the json member is damaged"):
        read_description(data, StandAloneDescription, where="x")


def test_a_description_is_encoded_as_canonical_json_and_read_back() -> None:
    data = encode_description(DESCRIPTION)
    assert data == canonical_json(json.loads(data))
    assert read_description(data, StandAloneDescription, where="x") == DESCRIPTION
    image = ImageDescription(
        policy="nearest",
        t_ns=5,
        offset_ns=0,
        residual_ns=0,
        tolerance_ns=1,
        member="cam.jpg",
        item=3,
        height=2,
        width=2,
    )
    # An image has no list of timestamps at all; a tubelet has one.
    assert "timestamps_ns" not in json.loads(encode_description(image))
