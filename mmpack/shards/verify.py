"""The check of finished shards: every digest, every member, index against tar, token counts, and the sync
gate once more.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import soundfile

from mmpack.config import parse
from mmpack.errors import IntegrityError, MmpackError
from mmpack.layout import Facts, ImageTextFacts, Layout, LayoutConfig, SliceFacts, SpeechFacts, TextFacts
from mmpack.shards import tar
from mmpack.shards.manifest import RecordingEntry, ShardEntry
from mmpack.shards.numeric import decode_npz
from mmpack.shards.pictures import picture_size
from mmpack.shards.reader import MAX_SAMPLE_BYTES, Shards, sample_members

_COUNTED = 256  # samples whose texts are tokenized together


@dataclass
class Verdict:
    """What verification found.

    Attributes:
        samples, members, size_bytes: what was checked.
        faults: what is wrong, each with its place; empty if all is well.
        notes: what could not be checked, and why.
    """

    samples: int = 0
    members: int = 0
    size_bytes: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(url: str, *, tell: Callable[[int, int], None] = lambda done, total: None) -> Verdict:
    """Checks the build at `url` from its manifest down to every member of every sample.

    Args:
        url: folder or object store URL.
        tell: told (bytes done, bytes in all).

    Raises:
        IntegrityError: there is no manifest to check against.
    """
    shards, verdict = Shards(url), Verdict()
    manifest = shards.manifest
    for name, digest in manifest.files.items():
        actual = hashlib.sha256()
        try:
            for chunk in shards.store.chunks(name):
                actual.update(chunk)
        except MmpackError as error:
            verdict.faults.append(str(error))
            continue
        if actual.hexdigest() != digest:
            verdict.faults.append(f"{name}: its sha256 is not the manifest's")
    if verdict.faults:
        return verdict  # with a wrong index every further message would be noise
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in shards.index.to_pylist():
        rows[row["shard"]].append(row)
    if sum(len(part) for part in rows.values()) != manifest.samples:
        verdict.faults.append(
            f"the index has {shards.index.num_rows} rows, the manifest {manifest.samples} samples"
        )
    for unknown in rows.keys() - {shard.name for shard in manifest.shards}:
        verdict.faults.append(f"the index names '{unknown}', which is no shard of the manifest")
    checker = _Checker(shards, verdict)
    total = sum(shard.size_bytes for shard in manifest.shards)
    for shard in manifest.shards:
        try:
            checker.shard(shard, sorted(rows[shard.name], key=lambda row: row["offset_bytes"]))
        except MmpackError as error:
            verdict.faults.append(str(error))
        verdict.size_bytes += shard.size_bytes
        tell(verdict.size_bytes, total)
    checker.count_rest()
    return verdict


class _Stream:
    """A shard read once from start to end, hashed on the way."""

    def __init__(self, chunks: Iterator[bytes], where: str) -> None:
        self._chunks, self._where = chunks, where
        self._buffer = bytearray()
        self._hash = hashlib.sha256()
        self.read_bytes = 0

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise IntegrityError(
                    f"ends at byte {self.read_bytes + len(self._buffer)}: truncated", where=self._where
                )
            self._hash.update(chunk)
            self._buffer += chunk
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self.read_bytes += size
        return data

    def rest(self) -> bytes:
        left = bytes(self._buffer)
        for chunk in self._chunks:
            self._hash.update(chunk)
            left += chunk[: max(0, len(tar.END) + 1 - len(left))]
        return left

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _Checker:
    def __init__(self, shards: Shards, verdict: Verdict) -> None:
        self._shards, self._verdict = shards, verdict
        self._recordings = {entry.name: entry for entry in shards.manifest.recordings}
        self._layout = self._open_layout()
        self._uncounted: list[tuple[dict[str, Any], Facts]] = []

    def _open_layout(self) -> Layout | None:
        manifest = self._shards.manifest
        try:
            layout = Layout(parse(manifest.config["layout"], LayoutConfig, where="manifest.json"))
        except MmpackError as error:
            self._verdict.notes.append(f"token counts not checked: {error}")
            return None
        if layout.fingerprint != manifest.layout_fingerprint:
            self._verdict.notes.append(
                "token counts not checked: this version lays out the same settings differently"
            )
            return None
        return layout

    def shard(self, entry: ShardEntry, rows: list[dict[str, Any]]) -> None:
        """One shard from its first byte to its last."""
        store = self._shards.store
        where = f"{store.url}/{entry.name}"
        if store.size(entry.name) != entry.size_bytes:
            raise IntegrityError(
                f"{store.size(entry.name)} bytes, the manifest says {entry.size_bytes}: truncated or replaced",
                where=where,
            )
        if len(rows) != entry.samples:
            self._verdict.faults.append(
                f"{where}: {len(rows)} samples in the index, {entry.samples} in the manifest"
            )
        stream = _Stream(store.chunks(entry.name), where)
        for row in rows:
            if row["offset_bytes"] != stream.read_bytes or not 0 < row["size_bytes"] <= MAX_SAMPLE_BYTES:
                raise IntegrityError(
                    f"sample '{row['key']}' lies at byte {row['offset_bytes']} in the index, "
                    f"and the one before ends at {stream.read_bytes}",
                    where=where,
                )
            data = stream.take(row["size_bytes"])
            try:
                self._sample(row, data)
            except MmpackError as error:
                self._verdict.faults.append(str(error))
        if stream.rest() != tar.END:
            self._verdict.faults.append(f"{where}: bytes behind the last sample that the index does not know")
        if stream.hexdigest() != entry.sha256:
            self._verdict.faults.append(f"{where}: its sha256 is not the manifest's")

    def _sample(self, row: dict[str, Any], data: bytes) -> None:
        where = f"{row['shard']}, sample '{row['key']}'"
        members = sample_members(data, row)
        try:
            description = json.loads(members["json"])
        except (KeyError, ValueError) as error:
            raise IntegrityError(f"its json member is missing or damaged ({error})", where=where) from None
        for name in ("kind", "recording", "ordinal"):
            if description.get(name) != row[name]:
                raise IntegrityError(f"its {name} is not the index's", where=where)
        if row["kind"] == "slice":
            self._gate(row, description, where)
            facts = self._slice_facts(row, description, members, where)
        else:
            facts = self._stand_alone_facts(row, members, where)
        self._verdict.samples += 1
        self._verdict.members += len(members)
        self._uncounted.append((row, facts))
        if len(self._uncounted) >= _COUNTED:
            self.count_rest()

    def _gate(self, row: dict[str, Any], description: dict[str, Any], where: str) -> None:
        """The sync gate from the sample's own figures: residuals add up, keep their tolerance, and match the
        frozen offsets.
        """
        recording: RecordingEntry | None = self._recordings.get(row["recording"])
        if recording is None:
            raise IntegrityError(f"its recording '{row['recording']}' is not in the manifest", where=where)
        if description["t_ns"] != row["t_ns"]:
            raise IntegrityError("its time is not the index's", where=where)
        worst = 0
        for name, facts in description["streams"].items():
            entry = recording.streams.get(name)
            if entry is None:
                raise IntegrityError(f"the stream '{name}' is not in the manifest", where=where)
            if facts["policy"] not in ("exact", "nearest"):
                continue
            residual = facts["t_ns"] - row["t_ns"] - entry.offset_ns
            if residual != facts["residual_ns"] or facts["offset_ns"] != entry.offset_ns:
                raise IntegrityError(f"'{name}': residual and offset do not add up to its stamp", where=where)
            if abs(residual) > entry.tolerance_ns:
                raise IntegrityError(
                    f"'{name}' is {residual} ns off, tolerance {entry.tolerance_ns} ns", where=where
                )
            worst = max(worst, abs(residual))
        exact = [name for name, entry in recording.streams.items() if entry.policy in ("exact", "nearest")]
        if row["residual_ns"] < worst or (
            row["residual_ns"] != worst and set(exact) <= set(description["streams"])
        ):
            raise IntegrityError(
                f"the index says {row['residual_ns']} ns at most, its streams {worst}", where=where
            )
        for name, entry in recording.streams.items():
            if entry.required and name not in description["streams"] and entry.kind not in ("event", "lidar"):
                raise IntegrityError(f"the required stream '{name}' is missing", where=where)

    def _slice_facts(
        self, row: dict[str, Any], description: dict[str, Any], members: dict[str, bytes], where: str
    ) -> SliceFacts:
        """What the media themselves say, against what the sample and the index say."""
        streams = description["streams"]
        named = {facts["member"] for facts in streams.values() if "member" in facts}
        if named | {"json"} != set(members):
            raise IntegrityError(
                f"members {sorted(members)} where {sorted(named)} are described", where=where
            )
        cameras: list[tuple[str, int, int, int]] = []
        audio: list[tuple[str, int, int]] = []
        numeric: list[tuple[str, int]] = []
        texts: list[str] = []
        arrays = decode_npz(members["numeric.npz"], where=where) if "numeric.npz" in members else {}
        for name, facts in streams.items():
            if "height" in facts:
                size = (facts["height"], facts["width"])
                extension = facts["member"].rpartition(".")[2]
                if (
                    extension != "mp4"
                    and picture_size(members[facts["member"]], extension, where=where) != size
                ):
                    raise IntegrityError(
                        f"the picture of '{name}' has another size than described", where=where
                    )
                cameras.append((name, *size, len(facts.get("stamps_ns", [0]))))
            elif "samples" in facts:
                info = _sound_info(members[facts["member"]], where)
                if (info.frames, info.samplerate) != (facts["samples"], facts["rate_hz"]):
                    raise IntegrityError(
                        f"the sound of '{name}' has {info.frames} samples, not as described", where=where
                    )
                audio.append((name, facts["samples"], facts["rate_hz"]))
            elif "array" in facts:
                if len(arrays.get(facts["array"], ())) != facts["rows"]:
                    raise IntegrityError(f"the rows of '{name}' are not as described", where=where)
                numeric.append((name, facts["rows"]))
            elif "texts" in facts:
                texts += [entry["text"] for entry in facts["texts"]]
        found = SliceFacts(tuple(cameras), tuple(audio), tuple(numeric), tuple(texts))
        stated = (
            [
                (camera["name"], camera["height"], camera["width"], camera["frames"])
                for camera in row["cameras"]
            ],
            [(sound["name"], sound["samples"], sound["rate_hz"]) for sound in row["audio"]],
            [(table["name"], table["rows"]) for table in row["numeric"]],
        )
        if stated != (cameras, audio, numeric):
            raise IntegrityError("its media are not what the index says", where=where)
        return found

    def _stand_alone_facts(self, row: dict[str, Any], members: dict[str, bytes], where: str) -> Facts:
        text = members.get("txt", b"").decode("utf-8", errors="strict")
        media = [(name, data) for name, data in members.items() if name not in ("txt", "json")]
        if row["kind"] == "text":
            return TextFacts(text)
        if len(media) != 1:
            raise IntegrityError(f"{len(media)} media members where one belongs", where=where)
        extension, data = media[0]
        if row["kind"] == "image_text":
            return ImageTextFacts(*picture_size(data, extension, where=where), text)
        info = _sound_info(data, where)
        return SpeechFacts(info.frames, info.samplerate, text)

    def count_rest(self) -> None:
        """Token counts of the samples seen since the last time, against the index."""
        if self._layout is not None and self._uncounted:
            counts = self._layout.count_many([facts for _, facts in self._uncounted])
            for (row, _), count in zip(self._uncounted, counts, strict=True):
                if count.total != row["tokens"]:
                    self._verdict.faults.append(
                        f"{row['shard']}, sample '{row['key']}': {count.total} tokens, the index says {row['tokens']}"
                    )
        self._uncounted = []


def _sound_info(data: bytes, where: str) -> Any:
    try:
        return soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise IntegrityError(f"its sound cannot be opened ({error})", where=where) from None


def to_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain JSON values."""
    return msgspec.to_builtins(verdict) | {"ok": not verdict.faults}
