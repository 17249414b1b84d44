"""Members of tars to samples: which belong together, what they are, and how many places they take."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated, NamedTuple

import msgspec

from mmpack.errors import ConfigError, DataError, IntegrityError, MmpackError
from mmpack.layout import Layout
from mmpack.plan import PlannedSample
from mmpack.quarantine import UnreadableSample
from mmpack.samples.description import JSON_MEMBER
from mmpack.samples.kinds import measure_stand_alone
from mmpack.serialisation import JSON_ERRORS, from_json
from mmpack.storage import open_store
from mmpack.storage.store import Store
from mmpack.stream.tars.byte_source import ForwardReader, open_source
from mmpack.stream.tars.members import iter_tar_members

logger = logging.getLogger(__name__)

MAX_SAMPLE_BYTES = 64 << 20
"""A sample of more is not read. Its members wait in memory, and what fits a row is far smaller: 64 MiB are a PNG of 20
megapixels of noise, 6 minutes of stereo at 48 kHz, or some 15 million tokens of text."""
MAX_KEYS = 1 << 18
"""Keys of one tar that are remembered to notice one that comes again; shards have some thousands."""

_NAMES = {
    "txt": "txt",
    "jpg": "jpg",
    "jpeg": "jpg",
    "png": "png",
    "wav": "wav",
    "flac": "flac",
    "ogg": "ogg",
    JSON_MEMBER: JSON_MEMBER,
}
_KINDS = {"jpg": "image_text", "png": "image_text", "wav": "speech", "flac": "speech", "ogg": "speech"}
#: Kinds of members that warnings name; in a tar where every member is of a kind of its own they say enough.
_MAX_LOGGED = 32


Count32 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
"""Of rows, tars or samples."""


class TarCursor(NamedTuple):
    """Which tar, counted on through the epochs, and which sample of it."""

    turn: Count32
    sample: Count32


@dataclass(frozen=True, slots=True)
class TarSample:
    """A sample that a row can hold: where it is, and its members by extension."""

    cursor: TarCursor
    planned: PlannedSample
    members: dict[str, bytes]

    @property
    def size_bytes(self) -> int:
        """Of its members."""
        return sum(map(len, self.members.values()))


@dataclass(slots=True)
class _TarGroup:
    """Adjacent members of one key; `error` is why they make no sample."""

    key: str
    offset_bytes: int
    size_bytes: int = 0
    members: dict[str, bytes] = field(default_factory=dict)
    error: MmpackError | None = None


class _SampleHeader(msgspec.Struct):
    """What the `json` of all samples of mmpack says, and of hardly any others."""

    version: int
    kind: str
    recording: str
    ordinal: int


class TarSamples:
    """The samples of a list of tars, round after round.

    Args:
        urls: of the tars.
        layout: counts places.
        capacity: places of a row.
        retries: times that a failed read is tried again.

    Raises:
        ConfigError: a URL is of no known kind.
    """

    def __init__(self, urls: Sequence[str], layout: Layout, capacity: int, *, retries: int) -> None:
        self._urls = list(urls)
        self._layout = layout
        self._capacity = capacity
        self._retries = retries
        self._stores: dict[str, Store] = {}
        self._stop = threading.Event()
        self._logged: set[str] = set()
        for url in self._urls:
            self._store(url)

    def iter_from(
        self, cursor: TarCursor, turns: int | None
    ) -> Iterator[tuple[TarSample | UnreadableSample, TarCursor]]:
        """What follows from `place` on: samples and faults, each with the place behind it.

        It ends after `turns` tars, or when a whole round gave no sample. The rest of a tar that cannot be read is one
        fault. Raises ConfigError for slices of mmpack.
        """
        turn, barren = cursor.turn, 0
        while (turns is None or turn < turns) and barren < len(self._urls):
            url = self._urls[turn % len(self._urls)]
            first = cursor.sample if turn == cursor.turn else 0
            barren += not first  # of one that is begun in its midst nothing is known
            behind, next_tar = TarCursor(turn, first), TarCursor(turn + 1, 0)
            try:
                for number, found in self._read(url, range(first, 1 << 62)):
                    at, behind = TarCursor(turn, number), TarCursor(turn, number + 1)
                    try:
                        item = self._item(at, url, found)
                    except (DataError, IntegrityError) as error:
                        yield _unreadable_sample(url, found.key, error, found), behind
                    else:
                        barren = 0
                        yield item, behind
            except MmpackError as error:
                if isinstance(error, ConfigError):
                    raise
                yield _unreadable_sample(url, f"from sample {behind.sample} on", error), next_tar
            turn += 1

    def reread(self, cursors: Sequence[TarCursor]) -> list[TarSample]:
        """The samples at `places`, which ascend.

        Raises:
            DataError: one is not there any more.
            StorageError: a tar cannot be read.
        """
        items: list[TarSample] = []
        for turn, group in groupby(cursors, key=lambda place: place.turn):
            url = self._urls[turn % len(self._urls)]
            wanted = {place.sample for place in group}
            try:
                for number, found in self._read(url, wanted):
                    items.append(self._item(TarCursor(turn, number), url, found))
                    wanted.discard(number)
                    if not wanted:
                        break
            except (DataError, IntegrityError) as error:
                raise _changed_error(url, str(error)) from None
            if wanted:
                raise _changed_error(url, f"it has no sample {min(wanted)}")
        return items

    def close(self) -> None:
        """Ends waiting for storage."""
        self._stop.set()

    def _store(self, url: str) -> Store:
        folder = url.rpartition("/")[0] or ("/" if url.startswith("/") else ".")
        if folder not in self._stores:
            self._stores[folder] = open_store(folder, client_retries=0)  # `retries` are tried here
        return self._stores[folder]

    def _read(self, url: str, wanted_keys: Container[int]) -> Iterator[tuple[int, _TarGroup]]:
        """The samples of a tar whose numbers are `wanted`; the content of others is left out."""
        name = url.rpartition("/")[2]
        source = open_source(self._store(url), name, retries=self._retries, stop=self._stop)
        number, found, keys = -1, None, set[bytes]()
        for member in iter_tar_members(source):
            key, extension = _split_name(member.name)
            if not key:
                self._log_skipped(f"the member '{member.name}' of {url}", "without an extension")
                continue
            if found is None or key != found.key:
                if found is not None and number in wanted_keys:
                    yield number, found
                number, found = number + 1, _TarGroup(key, member.offset_bytes)
                self._check_unique_key(found, keys)
            found.size_bytes = source.offset + member.size_bytes - found.offset_bytes
            name = _NAMES.get(extension)
            if name is None:
                self._log_skipped(f"that of '{key}' in {url}", f"'.{extension}'")
            elif number in wanted_keys and found.error is None:
                _read_member(found, name, member.size_bytes, source)
        if found is not None and number in wanted_keys:
            yield number, found

    def _check_unique_key(self, group: _TarGroup, keys: set[bytes]) -> None:
        digest = hashlib.blake2b(group.key.encode(), digest_size=16).digest()
        if digest in keys:
            group.error = DataError(
                "its members are not next to each other in the tar, and were taken for several samples",
                hint="Write the tar with all members of a key together, as 'tar --sort=name' does.",
            )
        elif len(keys) < MAX_KEYS:
            keys.add(digest)

    def _item(self, cursor: TarCursor, url: str, group: _TarGroup) -> TarSample:
        if group.error is not None:
            raise group.error
        held = group.members
        if JSON_MEMBER in held:
            self._check_json(held.pop(JSON_MEMBER), group.key, url)
        kind = next((_KINDS[name] for name in held if name in _KINDS), "text")
        if kind == "text" and not held.get("txt"):
            raise DataError("holds no text, picture or clip")
        [count] = self._layout.count_tokens_many([measure_stand_alone(kind, held)])
        if count.total > self._capacity:
            raise DataError(
                f"{count.total} tokens do not fit a row of {self._capacity}",
                hint="Raise max_seq_len, or lower layout.vision.max_tokens.",
            )
        planned = PlannedSample(
            shard_set=0,
            number=cursor.turn << 32 | cursor.sample,
            key=group.key,
            kind=kind,
            shard=url,
            offset_bytes=group.offset_bytes,
            size_bytes=group.size_bytes,
            crc32=0,
            tokens=count.total,
            tokens_text=count.text,
        )
        return TarSample(cursor, planned, held)

    def _check_json(self, data: bytes, key: str, url: str) -> None:
        try:
            described = from_json(data, _SampleHeader)
        except JSON_ERRORS:
            self._log_skipped(f"that of '{key}' in {url}", f"'.{JSON_MEMBER}'")
            return
        if described.kind == "slice":
            raise ConfigError(
                f"'{key}' is a time slice that mmpack wrote; without its index it is no document",
                where=url,
                hint="Stream the build by its index: RowStream.open with a plan that names its folder.",
            )

    def _log_skipped(self, first: str, kind: str) -> None:
        if kind not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add(kind)
            logger.warning("members %s are left aside; the first is %s", kind, first)


def _split_name(name: str) -> tuple[str, str]:
    """Key and extension as webdataset has them: the name up to its first dot, in lower case what comes behind. Without
    either there is no key.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    return (folder + slash + stem, extension.lower()) if stem and dot else ("", "")


def _read_member(group: _TarGroup, name: str, size: int, source: ForwardReader) -> None:
    """Reads a member, unless it is one too many or too much."""
    if name in group.members:
        group.error = DataError(f"has two members '.{name}'")
    elif size + sum(map(len, group.members.values())) > MAX_SAMPLE_BYTES:
        group.error = DataError(f"is larger than {MAX_SAMPLE_BYTES} bytes")
    else:
        group.members[name] = source.read(size)
    if group.error is not None:
        group.members.clear()


def _unreadable_sample(
    url: str, key: str, error: MmpackError, group: _TarGroup | None = None
) -> UnreadableSample:
    # A sample's own errors name places within it; those of a tar name the tar, as the fault does.
    what = f"{error.where}: {error.message}" if group is not None and error.where else error.message
    return UnreadableSample(
        row=0,
        key=key,
        shard=url,
        offset_bytes=group.offset_bytes if group else 0,
        size_bytes=group.size_bytes if group else 0,
        reason=f"{what}. {error.hint}" if error.hint else what,
    )


def _changed_error(url: str, reason: str) -> DataError:
    return DataError(
        f"a sample that waited to be packed cannot be read again ({reason})",
        where=url,
        hint="Bring back the tar as it was, or start a new run.",
    )
