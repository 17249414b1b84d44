"""The plan: every row as a pure function of index, seed and mixture."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from mmpack.errors import ConfigError, DataError, IntegrityError, StorageError
from mmpack.layout import Layout, LayoutConfig
from mmpack.mixture.quota import QuotaCurve, quota_curve
from mmpack.mixture.schedule import MAX_TOKENS, MixtureSchedule, mixture_schedule
from mmpack.packing import balance_rows
from mmpack.plan.catalog import IndexCatalog
from mmpack.plan.dataset import Dataset, derive_dataset_key
from mmpack.plan.documents import DOCUMENTS_VERSION, load_documents
from mmpack.plan.draws import draw_window_documents
from mmpack.plan.epoch_order import derive_key
from mmpack.plan.plan_config import PlanConfig
from mmpack.plan.plan_window import Window, plan_window
from mmpack.plan.planned_rows import (
    PAIR_OVERHEAD,
    STAND_ALONE_OVERHEAD,
    PlannedDocument,
    PlannedRow,
    PlannedSample,
)
from mmpack.plan.state import STATE_VERSION, StreamState, WindowCursor, require_equal_parts
from mmpack.plan.window_starts import WindowStarts
from mmpack.serialisation import canonical_json, to_builtins
from mmpack.settings import parse_settings
from mmpack.shards.manifest import NO_SHARD_SET
from mmpack.storage.array_tables import cache_folder

logger = logging.getLogger(__name__)

PLAN_VERSION = 1
"""Version of the rows; increase it with every change that gives a row other documents under the same settings."""

#: Windows in memory; more than one, because the reader finishes a window while the next one is planned.
_MAX_CACHED_WINDOWS = 4
#: Largest number of windows that are planned to reach a requested one. Planning this many takes an hour or more; a larger
#: gap is almost certainly a wrong number.
_MAX_WINDOWS_TO_PLAN = 1 << 20


class PlanEndError(DataError):
    """The error that the plan ends before the requested row or window."""


class Plan:
    """The assignment of documents to rows. :func:`open_plan` creates it.

    Planning reads no media, and rows do not depend on the number of ranks or workers.

    Attributes:
        config: settings of the plan.
        catalogs: catalog of each shard set; `PlannedSample.shard_set` is an index in this list.
        datasets: data sets, in the order of the settings.
        layout: token layout that all shard sets share.
        schedule: phases, divided into stages of constant shares.
        quota_curve: tokens due to each data set, with repeat caps taken into account.
        fingerprint_parts: short digests or values of the settings on which rows depend, by name. Plans with equal parts
            have equal rows.
        fingerprint: sha256 of `fingerprint_parts`, in hexadecimal.
    """

    def __init__(
        self,
        config: PlanConfig,
        catalogs: list[IndexCatalog],
        datasets: list[Dataset],
        layout: Layout,
        window_starts: bool = True,
    ) -> None:
        self.config = config
        self.catalogs = catalogs
        self.datasets = datasets
        self.layout = layout
        self.schedule: MixtureSchedule = mixture_schedule(
            config.phases, {dataset.name: dataset.tokens for dataset in datasets}
        )
        self.quota_curve: QuotaCurve = quota_curve(
            self.schedule, [dataset.max_tokens for dataset in datasets]
        )
        self.fingerprint_parts = self._collect_fingerprint_parts()
        self.fingerprint = hashlib.sha256(canonical_json(self.fingerprint_parts)).hexdigest()
        path: Path | None = (
            cache_folder() / f"window-starts-{self.fingerprint[:32]}" if window_starts else None
        )
        self._window_starts = WindowStarts(path, len(datasets))
        self._windows: OrderedDict[int, Window] = OrderedDict()
        self._key = derive_dataset_key(config.seed, "")
        self._last_window: Window | None = None
        # Prefetch threads request rows while the training thread requests states.
        self._lock = threading.RLock()

    @property
    def rows_per_window(self) -> int:
        """The number of rows of a complete window."""
        return self.config.window_steps * self.config.global_batch

    def window(self, number: int) -> Window:
        """Returns a window. If its start is not known, the windows before it are planned as well.

        Raises:
            DataError: the plan ends before the window, the number is negative, or too many windows would have to be planned.
        """
        if number < 0:
            raise DataError(f"there is no window {number}", where="plan", hint="Count windows from 0.")
        with self._lock:
            if number in self._windows:
                self._windows.move_to_end(number)
                return self._windows[number]
            current, start = self._window_starts.nearest(number)
            if self._first_unreachable(number) - current > _MAX_WINDOWS_TO_PLAN:
                raise DataError(
                    f"window {number} is {number - current} windows after the last known window",
                    where="plan",
                    hint="Check the number, or load a state near it.",
                )
            while True:
                if self._last_window is not None and current > self._last_window.number:
                    raise self._end_error(current)
                window = self._plan_window(current, start)
                if current == number:
                    return window
                if window.end is None:
                    raise self._end_error(number)
                current, start = current + 1, window.end

    def row(self, number: int) -> PlannedRow:
        """Returns a row by its number in the plan.

        Raises:
            DataError: see :meth:`window`.
        """
        if number < 0:
            raise DataError(f"there is no row {number}", where="plan", hint="Count rows from 0.")
        window = self.window(number // self.rows_per_window)
        row = number % self.rows_per_window
        if row >= window.rows:
            raise self._end_error(window.number)
        documents = slice(int(window.offsets[row]), int(window.offsets[row + 1]))
        datasets = [self.datasets[index] for index in window.dataset[documents].tolist()]
        ranges = list(zip(window.first[documents].tolist(), window.stop[documents].tolist(), strict=True))
        # The samples of each shard set are looked up with one call, because every call has a high fixed cost.
        samples: list[Iterator[PlannedSample]] = []
        for shard_set, catalog in enumerate(self.catalogs):
            numbers = [
                sample
                for dataset, (first, stop) in zip(datasets, ranges, strict=True)
                if dataset.shard_set == shard_set
                for sample in range(first, stop)
            ]
            samples.append(iter(catalog.samples(numbers, shard_set) if numbers else ()))
        return PlannedRow(
            number,
            tuple(
                _planned_document(dataset, tuple(islice(samples[dataset.shard_set], stop - first)), tokens)
                for dataset, (first, stop), tokens in zip(
                    datasets, ranges, window.tokens[documents].tolist(), strict=True
                )
            ),
        )

    def step_rows(self, step: int, rank: int, ranks: int) -> list[int]:
        """Returns the numbers of the rows that a rank computes in a step, ascending, which is the order of computation.

        The rows of a step do not depend on `ranks`; their assignment to ranks does.

        Raises:
            ConfigError: the ranks cannot share the rows of a step.
            DataError: the plan ends before the step.
        """
        batch = self.config.global_batch
        self.check_ranks(rank, ranks)
        first = step * batch
        window = self.window(first // self.rows_per_window)
        row = first % self.rows_per_window
        if row >= window.rows:
            raise self._end_error(window.number)
        if self.config.balance != "rank" or ranks == batch:
            return list(range(first + rank, first + batch, ranks))
        assigned = balance_rows(
            window.cost[row : row + batch], global_batch=batch, ranks=ranks, steps="given"
        ).rows
        return sorted((first + assigned[0, rank]).tolist())

    def steps(self, first: int = 0) -> Iterator[int]:
        """Yields the numbers of the steps from `first` until the plan ends.

        Raises:
            DataError: the plan has no step, or see :meth:`window`.
        """
        step = first
        steps_per_window = self.config.window_steps
        while True:
            try:
                window = self.window(step // steps_per_window)
            except PlanEndError:
                return
            num_steps = window.rows // self.config.global_batch
            if not num_steps and not window.number:
                raise self._end_error(0)
            if step % steps_per_window >= num_steps:
                return
            yield from range(step, step - step % steps_per_window + num_steps)
            if window.end is None:
                return
            step += num_steps - step % steps_per_window

    def check_ranks(self, rank: int, ranks: int) -> None:
        """Checks that `ranks` ranks can share the rows of a step, and that `rank` is one of them.

        Raises:
            ConfigError: the rank is not below `ranks`, or `ranks` does not divide the rows of a step.
        """
        batch = self.config.global_batch
        if not 0 <= rank < ranks:
            raise ConfigError(f"there is no rank {rank} among {ranks} ranks", hint="Count ranks from 0.")
        if batch % ranks:
            raise ConfigError(
                f"{ranks} ranks cannot share {batch} rows per step",
                where="global_batch",
                hint="Set global_batch to a multiple of the number of data-parallel ranks.",
            )

    def state(self, row: int, ranks: int) -> StreamState:
        """Returns the state after `row` rows, shared by `ranks` ranks.

        Raises:
            DataError: see :meth:`window`.
        """
        number = row // self.rows_per_window
        start = self._start(number)
        if start is None and row == number * self.rows_per_window:
            # The last window is complete, and no window starts after it.
            number -= 1
            start = self._start(number)
        if start is None:
            raise self._end_error(number)
        return StreamState(
            version=STATE_VERSION,
            row=row,
            ranks=ranks,
            window=number,
            documents=start.documents,
            tokens=start.tokens,
            fingerprint_parts=self.fingerprint_parts,
        )

    def load_state(self, state: StreamState) -> None:
        """Loads a saved state, so that rows from there on can be planned without the windows before them.

        Raises:
            ConfigError: the state belongs to another plan; the message has the differences.
            DataError: the numbers of the state contradict each other or this plan.
        """
        require_equal_parts(state.fingerprint_parts, self.fingerprint_parts)
        row_in_window = state.row - state.window * self.rows_per_window
        if (
            len(state.documents) != len(self.datasets)
            or not 0 <= row_in_window <= self.rows_per_window
            or not self._is_reachable(state.window_start, state.window)
        ):
            raise DataError("the row and the cursors of the state contradict each other", where="state")
        start = self._window_starts.get(state.window)
        if start is not None and start != state.window_start:
            raise DataError(
                "the cursors of the state differ from the window start in this plan",
                where="state",
                hint="Load another checkpoint; this one is damaged or was edited.",
            )
        self._window_starts.trust(state.window, state.window_start)

    def _is_reachable(self, start: WindowCursor, window: int) -> bool:
        """Returns whether the window may start at `start`, judged by the limits of epochs and positions."""
        within_epochs = all(
            drawn // dataset.num_documents * dataset.tokens
            <= tokens
            <= -(-drawn // dataset.num_documents) * dataset.tokens
            for dataset, drawn, tokens in zip(self.datasets, start.documents, start.tokens, strict=True)
        )
        positions = window * self.rows_per_window * self.config.max_seq_len
        return within_epochs and start.total_tokens <= min(positions, MAX_TOKENS)

    def _first_unreachable(self, number: int) -> int:
        """Returns `number`, or a smaller number of a window that is certainly after the end of the plan."""
        if self.quota_curve.end_tokens is None:
            return number
        # All windows except the last are more than half full.
        return min(
            number, 2 * self.quota_curve.end_tokens // (self.rows_per_window * self.config.max_seq_len) + 1
        )

    def _start(self, number: int) -> WindowCursor | None:
        """Returns the start of a window; None if the window before it is the last."""
        start = self._window_starts.get(number)
        return self.window(number - 1).end if start is None else start

    def _plan_window(self, number: int, start: WindowCursor) -> Window:
        draws = draw_window_documents(
            self.datasets, self.quota_curve, start, self.rows_per_window * self.config.max_seq_len
        )
        window = plan_window(number, draws, self.config, np.uint64(derive_key(self._key, number)))
        self._windows[number] = window
        if len(self._windows) > _MAX_CACHED_WINDOWS:
            self._windows.popitem(last=False)
        if window.end is not None:
            self._window_starts.record(number + 1, window.end)
        else:
            self._last_window = window
            logger.info(
                "the plan ends in window %d; %d documents are left out because they do not fill a step",
                number,
                window.num_unplanned,
            )
        return window

    def _end_error(self, window: int) -> PlanEndError:
        """Returns the error that the plan ends before `window`."""
        last = self._last_window
        if last is not None and not last.rows and not last.number:
            return PlanEndError(
                f"the {last.num_unplanned} documents do not fill one step of {self.config.global_batch} rows",
                where="plan",
                hint="Lower global_batch or max_seq_len, lengthen the phases, or raise max_epochs.",
            )
        if last is None:
            message = f"the plan ends before window {window}"
        else:
            rows = last.number * self.rows_per_window + last.rows
            message = f"the plan ends after {rows} rows, {rows // self.config.global_batch} steps"
        return PlanEndError(
            message,
            where="plan",
            hint="Lengthen the last phase, or raise max_epochs.",
        )

    def _collect_fingerprint_parts(self) -> dict[str, str]:
        """Returns short digests or values of all settings and inputs on which rows depend, by name."""
        config = self.config
        parts = {
            name: str(getattr(config, name))
            for name in ("max_seq_len", "global_batch", "seed", "window_steps", "balance")
        }
        parts["tolerance"] = "none" if config.tolerance_ns is None else f"{config.tolerance_ns} ns"
        parts["version"] = f"{PLAN_VERSION}.{DOCUMENTS_VERSION}"
        if config.balance != "off":
            parts["cost"] = f"{config.cost.quadratic!r} {config.cost.linear!r}"
        parts["layout"] = self.layout.fingerprint[:8]
        parts["rows"] = _short_digest([config.rows.audio_frames, _codec_identity(config.rows.codec)])
        parts["mixture"] = _short_digest(self.schedule.canonical())
        for dataset in self.datasets:
            settings = to_builtins(dataset.config)
            # The same shard set may be stored elsewhere.
            del settings["shards"]
            # Only the statistics of the manifest change the content of a row.
            numeric = dataset.catalog.manifest.numeric
            parts[f"dataset {dataset.name}"] = _short_digest(
                [dataset.index, dataset.catalog.digest, numeric, settings]
            )
        return parts

    @cached_property
    def num_excluded_slices(self) -> dict[str, int]:
        """The number of slices of each data set, by name, that the tolerance of the plan excludes."""
        return {dataset.name: dataset.document_table.num_excluded_slices for dataset in self.datasets}


def open_plan(config: PlanConfig, *, window_starts: bool = True) -> Plan:
    """Opens the plan of `config`.

    Args:
        config: settings, with paths that :meth:`PlanConfig.resolve_paths` resolved.
        window_starts: whether to record window starts in the cache folder.

    Raises:
        ConfigError: settings contradict each other or the shard sets: names or token layouts.
        IntegrityError, StorageError: a shard set cannot be read.
        DataError: a sample does not fit a row, or a data set is empty.
    """
    shard_sets: dict[str, int] = {}
    catalogs: list[IndexCatalog] = []
    for dataset_config in config.datasets:
        url = dataset_config.shards.rstrip("/")
        if url not in shard_sets:
            shard_sets[url] = len(shard_sets)
            catalogs.append(_open_catalog(dataset_config.name, url))
    layout = _open_common_layout(catalogs)
    datasets = []
    for index, dataset_config in enumerate(config.datasets):
        shard_set = shard_sets[dataset_config.shards.rstrip("/")]
        document_table = load_documents(
            catalogs[shard_set],
            dataset_config,
            overhead=layout.document_overhead,
            capacity=config.max_seq_len,
            tolerance_ns=config.tolerance_ns,
        )
        if document_table.num_excluded_slices:
            logger.warning(
                "data set %s: %d slices exceed the tolerance of %s and are not planned",
                dataset_config.name,
                document_table.num_excluded_slices,
                config.tolerance,
            )
        key = derive_dataset_key(config.seed, dataset_config.name)
        datasets.append(
            Dataset(
                config=dataset_config,
                index=index,
                shard_set=shard_set,
                catalog=catalogs[shard_set],
                document_table=document_table,
                key=key,
            )
        )
    return Plan(config, catalogs, datasets, layout, window_starts)


def _open_catalog(name: str, url: str) -> IndexCatalog:
    """Opens the index of the shard set `url` of the data set `name`.

    Raises:
        IntegrityError, StorageError: the shard set is missing, unfinished or damaged; the error names the data set and
            the path.
    """
    try:
        return IndexCatalog(url)
    except (IntegrityError, StorageError) as error:
        hint = error.hint
        if error.message == NO_SHARD_SET:
            hint = "Check the path; a relative path starts at the folder of the plan file."
        message = f"shard set {error.where}: {error.message}"
        raise type(error)(message, where=f"datasets.{name}.shards", hint=hint) from None


def _open_common_layout(catalogs: list[IndexCatalog]) -> Layout:
    """Opens the token layout of the shard sets.

    Raises:
        ConfigError: the shard sets have different token layouts, or this version of mmpack counts tokens differently.
    """
    manifest = catalogs[0].manifest
    for other in catalogs[1:]:
        if other.manifest.layout_fingerprint != manifest.layout_fingerprint:
            raise ConfigError(
                f"the shard set was built with another layout than {catalogs[0].store.url}",
                where=other.store.url,
                hint="Build both shard sets with the same [layout] table that lists cameras and numeric streams.",
            )
    layout = Layout(parse_settings(manifest.config.get("layout", {}), LayoutConfig, where="manifest.json"))
    if layout.fingerprint != manifest.layout_fingerprint:
        raise ConfigError(
            "the tokens were counted with another layout, tokenizer or version of mmpack",
            where=catalogs[0].store.url,
            hint="Build the shards again, or use the version and tokenizer that built them.",
        )
    return layout


def _short_digest(value: object) -> str:
    """Returns the first 8 hexadecimal digits of the sha256 of `value` as canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:8]


def _codec_identity(folder: str) -> list[object]:
    """Returns the file names, file sizes and settings digest of a codec folder, which identify it without its weights."""
    if not folder:
        return []
    try:
        files = sorted((path.name, path.stat().st_size) for path in Path(folder).iterdir() if path.is_file())
        return [files, hashlib.sha256((Path(folder) / "config.json").read_bytes()).hexdigest()]
    except OSError:
        # Opening the codec will report the problem with a better message.
        return []


def _planned_document(dataset: Dataset, samples: tuple[PlannedSample, ...], tokens: int) -> PlannedDocument:
    """Builds a planned document; `tokens` is its length, which includes `PAIR_OVERHEAD` if it is a pair."""
    if dataset.config.contrastive and _is_pair(samples):
        return PlannedDocument(dataset.index, samples, tokens - PAIR_OVERHEAD, is_pair=True)
    return PlannedDocument(dataset.index, samples, tokens)


def _is_pair(samples: tuple[PlannedSample, ...]) -> bool:
    """Returns True if a document has texts and media; the same rule as in `mmpack.plan.documents`."""
    first = samples[0]
    has_media = first.kind == "slice" or first.tokens > first.tokens_text + STAND_ALONE_OVERHEAD
    return has_media and any(sample.tokens_text for sample in samples)
