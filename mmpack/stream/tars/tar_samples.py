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
from mmpack.quarantine import Fault
from mmpack.samples.description import JSON_MEMBER
from mmpack.samples.kinds import stand_alone_facts
from mmpack.serialisation import BAD_JSON, from_json
from mmpack.storage import open_store
from mmpack.storage.store import Store
from mmpack.stream.tars.byte_source import Forward, open_source
from mmpack.stream.tars.members import members

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
_MAX_TOLD = 32


Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
"""Of rows, tars or samples."""


class Place(NamedTuple):
    """Which tar, counted on through the epochs, and which sample of it."""

    turn: Count
    sample: Count


@dataclass(frozen=True, slots=True)
class TarItem:
    """A sample that a row can hold: where it is, and its members by extension."""

    place: Place
    planned: PlannedSample
    members: dict[str, bytes]

    @property
    def size_bytes(self) -> int:
        """Of its members."""
        return sum(map(len, self.members.values()))


@dataclass(slots=True)
class _Found:
    """Adjacent members of one key; `error` is why they make no sample."""

    key: str
    offset_bytes: int
    size_bytes: int = 0
    members: dict[str, bytes] = field(default_factory=dict)
    error: MmpackError | None = None


class _Described(msgspec.Struct):
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
        self._told: set[str] = set()
        for url in self._urls:
            self._store(url)

    def after(self, place: Place, turns: int | None) -> Iterator[tuple[TarItem | Fault, Place]]:
        """What follows from `place` on: samples and faults, each with the place behind it.

        It ends after `turns` tars, or when a whole round gave no sample. The rest of a tar that cannot be read is one
        fault. Raises ConfigError for slices of mmpack.
        """
        turn, barren = place.turn, 0
        while (turns is None or turn < turns) and barren < len(self._urls):
            url = self._urls[turn % len(self._urls)]
            first = place.sample if turn == place.turn else 0
            barren += not first  # of one that is begun in its midst nothing is known
            behind, next_tar = Place(turn, first), Place(turn + 1, 0)
            try:
                for number, found in self._read(url, range(first, 1 << 62)):
                    at, behind = Place(turn, number), Place(turn, number + 1)
                    try:
                        item = self._item(at, url, found)
                    except (DataError, IntegrityError) as error:
                        yield _fault(url, found.key, error, found), behind
                    else:
                        barren = 0
                        yield item, behind
            except MmpackError as error:
                if isinstance(error, ConfigError):
                    raise
                yield _fault(url, f"from sample {behind.sample} on", error), next_tar
            turn += 1

    def again(self, places: Sequence[Place]) -> list[TarItem]:
        """The samples at `places`, which ascend.

        Raises:
            DataError: one is not there any more.
            StorageError: a tar cannot be read.
        """
        items: list[TarItem] = []
        for turn, group in groupby(places, key=lambda place: place.turn):
            url = self._urls[turn % len(self._urls)]
            wanted = {place.sample for place in group}
            try:
                for number, found in self._read(url, wanted):
                    items.append(self._item(Place(turn, number), url, found))
                    wanted.discard(number)
                    if not wanted:
                        break
            except (DataError, IntegrityError) as error:
                raise _changed(url, str(error)) from None
            if wanted:
                raise _changed(url, f"it has no sample {min(wanted)}")
        return items

    def close(self) -> None:
        """Ends waiting for storage."""
        self._stop.set()

    def _store(self, url: str) -> Store:
        folder = url.rpartition("/")[0] or ("/" if url.startswith("/") else ".")
        if folder not in self._stores:
            self._stores[folder] = open_store(folder, client_retries=0)  # `retries` are tried here
        return self._stores[folder]

    def _read(self, url: str, wanted: Container[int]) -> Iterator[tuple[int, _Found]]:
        """The samples of a tar whose numbers are `wanted`; the content of others is left out."""
        name = url.rpartition("/")[2]
        source = open_source(self._store(url), name, retries=self._retries, stop=self._stop)
        number, found, keys = -1, None, set[bytes]()
        for member in members(source):
            key, extension = _split(member.name)
            if not key:
                self._tell(f"the member '{member.name}' of {url}", "without an extension")
                continue
            if found is None or key != found.key:
                if found is not None and number in wanted:
                    yield number, found
                number, found = number + 1, _Found(key, member.offset_bytes)
                self._refuse_second(found, keys)
            found.size_bytes = source.offset + member.size_bytes - found.offset_bytes
            name = _NAMES.get(extension)
            if name is None:
                self._tell(f"that of '{key}' in {url}", f"'.{extension}'")
            elif number in wanted and found.error is None:
                _take(found, name, member.size_bytes, source)
        if found is not None and number in wanted:
            yield number, found

    def _refuse_second(self, found: _Found, keys: set[bytes]) -> None:
        digest = hashlib.blake2b(found.key.encode(), digest_size=16).digest()
        if digest in keys:
            found.error = DataError(
                "its members are not next to each other in the tar, and were taken for several samples",
                mend="Write the tar with all members of a key together, as 'tar --sort=name' does.",
            )
        elif len(keys) < MAX_KEYS:
            keys.add(digest)

    def _item(self, place: Place, url: str, found: _Found) -> TarItem:
        if found.error is not None:
            raise found.error
        held = found.members
        if JSON_MEMBER in held:
            self._look_at_json(held.pop(JSON_MEMBER), found.key, url)
        kind = next((_KINDS[name] for name in held if name in _KINDS), "text")
        if kind == "text" and not held.get("txt"):
            raise DataError("holds no text, picture or clip")
        [count] = self._layout.count_many([stand_alone_facts(kind, held)])
        if count.total > self._capacity:
            raise DataError(
                f"{count.total} tokens do not fit a row of {self._capacity}",
                mend="Raise max_seq_len, or lower layout.vision.max_tokens.",
            )
        planned = PlannedSample(
            source=0,
            number=place.turn << 32 | place.sample,
            key=found.key,
            kind=kind,
            shard=url,
            offset_bytes=found.offset_bytes,
            size_bytes=found.size_bytes,
            crc32=0,
            tokens=count.total,
            tokens_text=count.text,
        )
        return TarItem(place, planned, held)

    def _look_at_json(self, data: bytes, key: str, url: str) -> None:
        try:
            described = from_json(data, _Described)
        except BAD_JSON:
            self._tell(f"that of '{key}' in {url}", f"'.{JSON_MEMBER}'")
            return
        if described.kind == "slice":
            raise ConfigError(
                f"'{key}' is a time slice that mmpack wrote; without its index it is no document",
                where=url,
                mend="Stream the build by its index: RowStream.open with a plan that names its folder.",
            )

    def _tell(self, first: str, kind: str) -> None:
        if kind not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add(kind)
            logger.warning("members %s are left aside; the first is %s", kind, first)


def _split(name: str) -> tuple[str, str]:
    """Key and extension as webdataset has them: the name up to its first dot, in lower case what comes behind. Without
    either there is no key.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    return (folder + slash + stem, extension.lower()) if stem and dot else ("", "")


def _take(found: _Found, name: str, size: int, source: Forward) -> None:
    """Reads a member, unless it is one too many or too much."""
    if name in found.members:
        found.error = DataError(f"has two members '.{name}'")
    elif size + sum(map(len, found.members.values())) > MAX_SAMPLE_BYTES:
        found.error = DataError(f"is larger than {MAX_SAMPLE_BYTES} bytes")
    else:
        found.members[name] = source.read(size)
    if found.error is not None:
        found.members.clear()


def _fault(url: str, key: str, error: MmpackError, found: _Found | None = None) -> Fault:
    # A sample's own errors name places within it; those of a tar name the tar, as the fault does.
    what = f"{error.where}: {error.what}" if found is not None and error.where else error.what
    return Fault(
        row=0,
        key=key,
        shard=url,
        offset_bytes=found.offset_bytes if found else 0,
        size_bytes=found.size_bytes if found else 0,
        reason=f"{what}. {error.mend}" if error.mend else what,
    )


def _changed(url: str, reason: str) -> DataError:
    return DataError(
        f"a sample that waited to be packed cannot be read again ({reason})",
        where=url,
        mend="Bring back the tar as it was, or start a new run.",
    )
