"""The samples of tars: groups members by key, finds their kind, and counts their tokens."""

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
from mmpack.prefetch import Closeable
from mmpack.quarantine import UnreadableSample
from mmpack.samples.description import JSON_MEMBER
from mmpack.samples.kinds import TEXT_MEMBER, find_kind, measure_stand_alone
from mmpack.samples.kinds.text import TEXT
from mmpack.serialisation import JSON_ERRORS, from_json
from mmpack.storage import open_store
from mmpack.storage.store import Store
from mmpack.stream.tars.byte_source import ForwardReader, open_source
from mmpack.stream.tars.members import iter_tar_members

logger = logging.getLogger(__name__)

MAX_SAMPLE_BYTES = 64 << 20
"""Largest size of a sample that is read. Members wait in memory, and samples that fit a row are far smaller: 64 MiB are
a PNG of 20 megapixels of noise, 6 minutes of stereo audio at 48 kHz, or some 15 million tokens of text."""
MAX_KEYS = 1 << 18
"""Number of keys of one tar that are remembered to detect repeated keys. Shards usually have some thousands."""

#: Largest number of warnings about ignored members, for tars in which every member has an extension of its own.
_MAX_LOGGED = 32


Count32 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
"""A count of rows, tars or samples."""


class TarCursor(NamedTuple):
    """The position of a sample in the sequence of all tars and epochs.

    Fields:
        tar: index of the tar, counted on through the epochs: index t reads tar t modulo the number of tars.
        sample: index of the sample in the tar.
    """

    tar: Count32
    sample: Count32


@dataclass(frozen=True, slots=True)
class TarSample:
    """A sample that fits a row.

    Attributes:
        cursor: position of the sample.
        planned: location and token counts of the sample.
        members: content by extension.
    """

    cursor: TarCursor
    planned: PlannedSample
    members: dict[str, bytes]

    @property
    def size_bytes(self) -> int:
        """Size of the members."""
        return sum(map(len, self.members.values()))


@dataclass(slots=True)
class _TarGroup:
    """Adjacent members of one key; `error` is the reason why they cannot be a sample."""

    key: str
    offset_bytes: int
    size_bytes: int = 0
    members: dict[str, bytes] = field(default_factory=dict)
    error: MmpackError | None = None


class _SampleHeader(msgspec.Struct):
    """The fields that every `json` member of mmpack has; `json` members of other programs hardly ever have all of them."""

    version: int
    kind: str
    recording: str
    ordinal: int


class TarSamples(Closeable):
    """The samples of a list of tars, epoch after epoch.

    Args:
        urls: URLs of the tars.
        layout: token layout, which counts the tokens of a sample.
        capacity: positions of a row.
        retries: number of times that a failed read is repeated.

    Raises:
        ConfigError: a URL has an unknown scheme.
    """

    def __init__(self, urls: Sequence[str], layout: Layout, capacity: int, *, retries: int) -> None:
        self._urls = list(urls)
        self._layout = layout
        self._capacity = capacity
        self._retries = retries
        self._stores: dict[str, Store] = {}
        self._stop = threading.Event()
        self._logged: set[str] = set()
        # Unknown URL schemes raise here rather than during the iteration.
        for url in self._urls:
            self._get_store(url)

    def iter_from(
        self, cursor: TarCursor, epochs: int | None
    ) -> Iterator[tuple[TarSample | UnreadableSample, TarCursor]]:
        """Yields the samples and unreadable samples from `cursor` on, each with the cursor after it.

        The iteration ends after `epochs` epochs (None: without end), or after as many tars without any sample as there
        are tars. The unreadable rest of a tar is one unreadable sample.

        Raises:
            ConfigError: a sample is a time slice of mmpack.
        """
        tar, num_empty = cursor.tar, 0
        while (epochs is None or tar < epochs * len(self._urls)) and num_empty < len(self._urls):
            url = self._urls[tar % len(self._urls)]
            first = cursor.sample if tar == cursor.tar else 0
            # A tar that is read from its middle on may have samples before.
            num_empty += not first
            after, next_tar = TarCursor(tar, first), TarCursor(tar + 1, 0)
            try:
                for index, group in self._read(url, range(first, 1 << 62)):
                    after = TarCursor(tar, index + 1)
                    try:
                        sample = self._make_sample(TarCursor(tar, index), url, group)
                    except (DataError, IntegrityError) as error:
                        yield _unreadable_sample(url, group.key, error, group), after
                    else:
                        num_empty = 0
                        yield sample, after
            except MmpackError as error:
                if isinstance(error, ConfigError):
                    raise
                yield _unreadable_sample(url, f"from sample {after.sample} on", error), next_tar
            tar += 1

    def reread(self, cursors: Sequence[TarCursor]) -> list[TarSample]:
        """Reads the samples at `cursors` again, which must ascend.

        Raises:
            DataError: a sample is missing or unreadable, because its tar has changed.
            StorageError: a tar cannot be read.
        """
        samples: list[TarSample] = []
        for tar, cursors_of_tar in groupby(cursors, key=lambda cursor: cursor.tar):
            url = self._urls[tar % len(self._urls)]
            missing = {cursor.sample for cursor in cursors_of_tar}
            try:
                for index, group in self._read(url, missing):
                    samples.append(self._make_sample(TarCursor(tar, index), url, group))
                    missing.discard(index)
                    if not missing:
                        break
            except (DataError, IntegrityError) as error:
                raise _changed_error(url, str(error)) from None
            if missing:
                raise _changed_error(url, f"the tar has no sample {min(missing)}")
        return samples

    def close(self) -> None:
        """Ends waits between retries."""
        self._stop.set()

    def _get_store(self, url: str) -> Store:
        folder = url.rpartition("/")[0] or ("/" if url.startswith("/") else ".")
        if folder not in self._stores:
            # The reader retries `retries` times, so the store's client must not.
            self._stores[folder] = open_store(folder, client_retries=0)
        return self._stores[folder]

    def _read(self, url: str, selected: Container[int]) -> Iterator[tuple[int, _TarGroup]]:
        """Yields the index and members of the samples of a tar whose index is in `selected`; skips all other content."""
        name = url.rpartition("/")[2]
        source = open_source(self._get_store(url), name, retries=self._retries, stop=self._stop)
        index, group, keys = -1, None, set[bytes]()
        for member in iter_tar_members(source):
            key, extension = _split_name(member.name)
            if not key:
                self._log_skipped(f"the member '{member.name}' of {url}", "without an extension")
                continue
            if group is None or key != group.key:
                if group is not None and index in selected:
                    yield index, group
                index, group = index + 1, _TarGroup(key, member.offset_bytes)
                self._check_unique_key(group, keys)
            group.size_bytes = source.offset + member.size_bytes - group.offset_bytes
            member_extension = _member_extension(extension)
            if member_extension is None:
                self._log_skipped(f"that of '{key}' in {url}", f"'.{extension}'")
            elif index in selected and group.error is None:
                _read_member(group, member_extension, member.size_bytes, source)
        if group is not None and index in selected:
            yield index, group

    def _check_unique_key(self, group: _TarGroup, keys: set[bytes]) -> None:
        """Adds the key of `group` to `keys`, or marks the group as invalid if `keys` contains the key already."""
        digest = hashlib.blake2b(group.key.encode(), digest_size=16).digest()
        if digest in keys:
            group.error = DataError(
                "the members of this key are not adjacent in the tar, so they were read as several samples",
                hint="Write the tar with all members of a key together, as 'tar --sort=name' does.",
            )
        elif len(keys) < MAX_KEYS:
            keys.add(digest)

    def _make_sample(self, cursor: TarCursor, url: str, group: _TarGroup) -> TarSample:
        """Makes a sample of the members of one key.

        Raises:
            DataError, IntegrityError: the members are not a valid sample, or do not fit a row.
            ConfigError: the sample is a time slice of mmpack.
        """
        if group.error is not None:
            raise group.error
        members = group.members
        if JSON_MEMBER in members:
            self._check_json(members.pop(JSON_MEMBER), group.key, url)
        kinds = [match[0].name for match in map(find_kind, members) if match is not None]
        kind = kinds[0] if kinds else TEXT.name
        if not kinds and not members.get(TEXT_MEMBER):
            raise DataError("the sample contains no text, image or audio")
        [count] = self._layout.count_tokens_many([measure_stand_alone(kind, members)])
        if count.total > self._capacity:
            raise DataError(
                f"{count.total} tokens do not fit a row of {self._capacity}",
                hint="Raise max_seq_len, or lower layout.vision.max_tokens.",
            )
        planned = PlannedSample(
            shard_set=0,
            number=cursor.tar << 32 | cursor.sample,
            key=group.key,
            kind=kind,
            shard=url,
            offset_bytes=group.offset_bytes,
            size_bytes=group.size_bytes,
            crc32=0,
            tokens=count.total,
            tokens_text=count.text,
        )
        return TarSample(cursor, planned, members)

    def _check_json(self, data: bytes, key: str, url: str) -> None:
        try:
            header = from_json(data, _SampleHeader)
        except JSON_ERRORS:
            self._log_skipped(f"that of '{key}' in {url}", f"'.{JSON_MEMBER}'")
            return
        if header.kind == "slice":
            raise ConfigError(
                f"'{key}' is a time slice of mmpack, which cannot be used without its index",
                where=url,
                hint="Stream the shard set through its index: call RowStream.open with a plan that names its folder.",
            )

    def _log_skipped(self, first: str, kind: str) -> None:
        if kind not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add(kind)
            logger.warning("members %s are ignored; the first one is %s", kind, first)


def _member_extension(extension: str) -> str | None:
    """Returns the extension in shards of a file extension; None if samples have no such member."""
    if extension in (TEXT_MEMBER, JSON_MEMBER):
        return extension
    match = find_kind(extension)
    return match[1] if match is not None else None


def _split_name(name: str) -> tuple[str, str]:
    """Splits a member name into key and extension as webdataset does, at the first dot of the file name.

    The extension is returned in lower case. If either is empty, both are returned as empty strings.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    return (folder + slash + stem, extension.lower()) if stem and dot else ("", "")


def _read_member(group: _TarGroup, extension: str, size: int, source: ForwardReader) -> None:
    """Reads a member into `group`, or marks the group as invalid if the extension is repeated or the sample too large."""
    if extension in group.members:
        group.error = DataError(f"the sample has two members '.{extension}'")
    elif size + sum(map(len, group.members.values())) > MAX_SAMPLE_BYTES:
        group.error = DataError(f"the sample is larger than {MAX_SAMPLE_BYTES} bytes")
    else:
        group.members[extension] = source.read(size)
    if group.error is not None:
        group.members.clear()


def _unreadable_sample(
    url: str, key: str, error: MmpackError, group: _TarGroup | None = None
) -> UnreadableSample:
    # An error of a sample says where in the sample it is. An error of a tar says which tar, which `shard` says already.
    message = f"{error.where}: {error.message}" if group is not None and error.where else error.message
    return UnreadableSample(
        row=0,
        key=key,
        shard=url,
        offset_bytes=group.offset_bytes if group else 0,
        size_bytes=group.size_bytes if group else 0,
        reason=f"{message}. {error.hint}" if error.hint else message,
    )


def _changed_error(url: str, reason: str) -> DataError:
    return DataError(
        f"a sample that was waiting to be packed cannot be read again ({reason})",
        where=url,
        hint="Restore the original tar, or start a new training run.",
    )
