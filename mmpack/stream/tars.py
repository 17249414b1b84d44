"""Rows from WebDataset tars that have no index of ours: read in order, packed as they come, resumable.

Without an index nothing can be planned: there is no shuffle, no mixture and no balance, and a rank reads its own
tars. What remains is the packing, the masks and the exact resume.
"""

from __future__ import annotations

import hashlib
import io
import logging
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self, TypeAlias

import msgspec

from mmpack.config import Settings
from mmpack.errors import ConfigError, DataError, IntegrityError, MmpackError
from mmpack.layout import Layout, LayoutConfig
from mmpack.packing import pack_stream
from mmpack.shards.content import stand_alone_facts
from mmpack.shards.store import Store, open_store
from mmpack.shards.tar import MAX_MEMBER_BYTES
from mmpack.stream.assemble import RowMaker
from mmpack.stream.config import ReaderConfig, RowsConfig
from mmpack.stream.plan import PlannedDocument, PlannedRow, PlannedSample
from mmpack.stream.read.ahead import Ahead
from mmpack.stream.read.faults import Fault, Quarantine
from mmpack.stream.row import Row

logger = logging.getLogger(__name__)

_EXTENSIONS = {
    "txt": "txt",
    "jpg": "jpg",
    "jpeg": "jpg",
    "png": "png",
    "wav": "wav",
    "flac": "flac",
    "ogg": "ogg",
}
_KINDS = {"jpg": "image_text", "png": "image_text", "wav": "speech", "flac": "speech", "ogg": "speech"}
#: Samples that wait to be packed: several rows of them.
_POOL = 256


Place: TypeAlias = tuple[int, int]
"""Which tar, counted on through the epochs, and which sample of it."""


class TarState(Settings, frozen=True, kw_only=True):
    """Where a tar stream is.

    Fields:
        rows: handed out.
        place: of the next sample to be read.
        waiting: places of the samples read before it that are in no row yet.
        fingerprint: of the tars' names and the layout.
    """

    rows: Annotated[int, msgspec.Meta(ge=0)]
    place: Place
    waiting: tuple[Place, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Item:
    """A sample: its place, and its bytes."""

    place: Place
    sample: PlannedSample
    members: dict[str, bytes]


_Packed: TypeAlias = tuple[list[_Item], list[Fault], TarState]
"""A row's samples, what could not be read on the way to it, and where the stream is behind it."""


class TarStream:
    """An iterator over rows of stand-alone samples in tars.

    A sample is the adjacent members of one key: a `txt`, a picture (`jpg`, `png`) or clip (`wav`, `flac`, `ogg`) with
    or without one. Other members are left aside, and a warning names each kind of them once. A sample that cannot be
    read, or that does not fit a row, is recorded and passed over; so is the rest of a tar that is cut short.

    Args:
        urls: of the tars, in order; a rank reads every `ranks`-th.
        layout: settings of the tokens.
        max_seq_len: token places of a row.
        rank, ranks: this process's share.
        epochs: how often all is read; None: for ever.
        rows, reader: settings; `threads`, `prefetch`, `max_corrupt` and `quarantine` of `reader` are used.

    Raises:
        ConfigError: there are fewer tars than ranks, or a setting is wrong.
    """

    def __init__(
        self,
        urls: Sequence[str],
        layout: LayoutConfig | None = None,
        *,
        max_seq_len: int,
        rank: int = 0,
        ranks: int = 1,
        epochs: int | None = 1,
        rows: RowsConfig | None = None,
        reader: ReaderConfig | None = None,
    ) -> None:
        if not 0 <= rank < ranks <= len(urls):
            raise ConfigError(
                f"rank {rank} of {ranks} ranks on {len(urls)} tars",
                where="urls",
                mend="Every rank reads tars of its own: use at least as many tars as ranks.",
            )
        self._urls = list(urls[rank::ranks])
        self._epochs = epochs
        self._layout = Layout(layout or LayoutConfig())
        self._capacity = max_seq_len
        self._reader = reader or ReaderConfig()
        self._maker = RowMaker(self._layout, max_seq_len, [{}], rows or RowsConfig())
        self._told: set[str] = set()
        told = "\n".join([*self._urls, self._layout.fingerprint, str(max_seq_len)])
        fingerprint = hashlib.sha256(told.encode()).hexdigest()[:16]
        self._state = TarState(rows=0, place=(0, 0), waiting=(), fingerprint=fingerprint)
        self._made: Ahead[_Packed, tuple[Row, list[Fault], TarState]] | None = None
        self.quarantine = Quarantine(Path(self._reader.quarantine), rank, self._reader.max_corrupt)

    def __iter__(self) -> Iterator[Row]:
        return self

    def __next__(self) -> Row:
        if self._made is None:
            packed = self._packed(self._state)
            self._made = Ahead(self._make, packed, threads=self._reader.threads, depth=self._reader.prefetch)
        row, faults, self._state = next(self._made)
        for fault in faults:
            self.quarantine.add(fault)
        return row

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is: numbers of the samples that wait, and of the next one."""
        return msgspec.to_builtins(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state; the samples that waited are read once more.

        Raises:
            DataError: it is no such state.
            ConfigError: it is of other tars or another layout.
        """
        try:
            found = msgspec.convert(dict(state), TarState, strict=False)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise DataError(f"is no state of a tar stream ({error})", where="state") from None
        if found.fingerprint != self._state.fingerprint:
            raise ConfigError(
                "the state is of other tars, another layout or another max_seq_len",
                where="state",
                mend="Resume with what the run was started with.",
            )
        self.close()
        self._state = found

    def close(self) -> None:
        """Ends reading ahead."""
        if self._made is not None:
            self._made.close()
            self._made = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make(self, packed: _Packed) -> tuple[Row, list[Fault], TarState]:
        items, faults, state = packed
        documents = tuple(PlannedDocument(0, (item.sample,), item.sample.tokens) for item in items)
        planned = PlannedRow(state.rows - 1, documents)
        found = {(0, item.sample.number): item.members for item in items}
        row, more = self._maker.make(planned, found)
        return row, [*faults, *more], state

    def _packed(self, state: TarState) -> Iterator[_Packed]:
        faults: list[Fault] = []
        rows, place = state.rows, state.place
        waits = set(state.waiting)
        # A tar is read from its start on: from the first that holds a sample that waits.
        source = self._items(min(turn for turn, _ in (place, *waits)), faults)
        waiting: list[_Item] = []
        while len(waiting) < len(waits):
            item = next(source, None)
            if item is None or item.place >= place:
                raise DataError(
                    "samples that waited to be packed are not there any more",
                    where=self._urls[place[0] % len(self._urls)],
                    mend="The tars were changed: start anew.",
                )
            if item.place in waits:
                waiting.append(item)
        faults.clear()  # of a second reading: they were recorded the first time
        held = {item.place for item in waiting}

        def fresh() -> Iterator[_Item]:
            nonlocal place
            for item in source:
                if item.place >= state.place:
                    held.add(item.place)
                    place = (item.place[0], item.place[1] + 1)
                    yield item

        packer = pack_stream(fresh(), self._capacity, pool=_POOL, length=lambda item: item.sample.tokens)
        packer.load_state_dict(
            {"capacity": self._capacity, "pool": _POOL, "taken": len(waiting), "waiting": waiting}
        )
        for items in packer:
            rows += 1
            held -= {item.place for item in items}
            met = [msgspec.structs.replace(fault, row=rows - 1) for fault in faults]
            faults.clear()
            yield (
                items,
                met,
                TarState(
                    rows=rows,
                    place=place,
                    waiting=tuple(sorted(held)),
                    fingerprint=state.fingerprint,
                ),
            )

    def _items(self, turn: int, faults: list[Fault]) -> Iterator[_Item]:
        """Every sample from tar `turn` on; what cannot be read is added to `faults`."""
        while self._epochs is None or turn < self._epochs * len(self._urls):
            url = self._urls[turn % len(self._urls)]
            ordinal, samples = 0, _samples(url)
            while True:
                key = f"sample {ordinal} of the tar"
                try:
                    found = next(samples, None)
                    if found is None:
                        break
                    key = found[0]
                    yield self._item((turn, ordinal), url, *found)
                except MmpackError as error:
                    reason = f"{error.what}. {error.mend}" if error.mend else error.what
                    faults.append(
                        Fault(row=0, key=key, shard=url, offset_bytes=0, size_bytes=0, reason=reason)
                    )
                ordinal += 1
            turn += 1

    def _item(self, place: Place, url: str, key: str, members: dict[str, bytes]) -> _Item:
        known: dict[str, bytes] = {}
        for extension, data in members.items():
            name = _EXTENSIONS.get(extension.lower())
            if name is None:
                if extension not in self._told:
                    self._told.add(extension)
                    logger.warning("members '.%s' are left aside (first: '%s' of %s)", extension, key, url)
            elif name in known:
                raise DataError(f"two members '.{name}'", where=key)
            else:
                known[name] = data
        kind = next((_KINDS[name] for name in known if name in _KINDS), "text")
        facts = stand_alone_facts(kind, known)
        [count] = self._layout.count_many([facts])
        if count.total > self._capacity:
            raise DataError(
                f"{count.total} tokens do not fit a row of {self._capacity}",
                where=key,
                mend="Raise max_seq_len, or lower layout.vision.max_tokens.",
            )
        number = place[0] << 32 | place[1]
        sample = PlannedSample(0, number, key, kind, url, 0, 0, 0, count.total, count.text)
        return _Item(place, sample, known)


def _samples(url: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, members by extension) of each sample of a tar, in order.

    Raises:
        IntegrityError: it is no tar, or cut short.
        StorageError: it cannot be read.
    """
    folder, _, name = url.rpartition("/")
    store = open_store(folder or ".")
    key: str | None = None
    members: dict[str, bytes] = {}
    try:
        # As a stream: any tar that webdataset reads, in one pass.
        with tarfile.open(fileobj=_Chunks(store, name), mode="r|*") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.size > MAX_MEMBER_BYTES:
                    raise IntegrityError(f"the member '{member.name}' claims {member.size} bytes", where=url)
                path, _, base = member.name.rpartition("/")
                stem, _, extension = base.partition(".")
                found = f"{path}/{stem}" if path else stem
                if found != key:
                    if key is not None:
                        yield key, members
                    key, members = found, {}
                content = archive.extractfile(member)
                members[extension] = content.read() if content is not None else b""
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise IntegrityError(f"is no whole tar ({error})", where=url, mend="Copy it again.") from None
    if key is not None:
        yield key, members


class _Chunks(io.RawIOBase):
    """A store's file as a stream of bytes."""

    def __init__(self, store: Store, name: str) -> None:
        self._pieces = store.chunks(name, 1 << 20)
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._left) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._left += piece
        size = len(self._left) if size < 0 else size
        data, self._left = self._left[:size], self._left[size:]
        return data
