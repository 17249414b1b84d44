"""The plan: row g of a run as a pure function of index, seed and mixture."""

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

from mmpack.errors import ConfigError, DataError
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
from mmpack.plan.planned import PAIR_OVERHEAD, PlannedDocument, PlannedRow, PlannedSample
from mmpack.plan.state import STATE_VERSION, StreamState, WindowCursor, require_equal_parts
from mmpack.plan.window_starts import WindowStarts
from mmpack.serialisation import canonical_json, to_builtins
from mmpack.settings import parse_settings
from mmpack.storage.array_tables import cache_folder

logger = logging.getLogger(__name__)

PLAN_VERSION = 1
"""Raised with every change of this package that gives some row other documents under the same settings."""

#: Windows kept at hand: the reader is at the end of one while the next is begun.
_MAX_CACHED_WINDOWS = 4
#: Windows that are planned to reach one further on; it takes an hour or more, and a wrong number would for ever.
_MAX_WINDOWS_TO_PLAN = 1 << 20


class PlanEndError(DataError):
    """The run ends before what was asked for."""


class Plan:
    """Which documents go to which row. Made by :func:`open_plan`.

    Nothing here reads media, and nothing depends on how many ranks or workers there are.

    Attributes:
        config: its settings.
        catalogs: one for each build, by `PlannedSample.source`.
        datasets: in the order of the settings.
        layout: that all builds share.
        schedule: the phases, cut to stages of constant shares.
        course: what comes of them where data sets run out at their repeat caps.
        parts: what the rows follow from, by name, in short: equal parts, equal rows.
        fingerprint: sha256 of it all, in hex.
    """

    def __init__(
        self,
        config: PlanConfig,
        catalogs: list[IndexCatalog],
        datasets: list[Dataset],
        layout: Layout,
        ledger: bool = True,
    ) -> None:
        self.config = config
        self.catalogs = catalogs
        self.datasets = datasets
        self.layout = layout
        self.schedule: MixtureSchedule = mixture_schedule(
            config.phases, {each.name: each.tokens for each in datasets}
        )
        self.quota_curve: QuotaCurve = quota_curve(self.schedule, [each.max_tokens for each in datasets])
        self.fingerprint_parts = self._parts()
        self.fingerprint = hashlib.sha256(canonical_json(self.fingerprint_parts)).hexdigest()
        path: Path | None = cache_folder() / f"ledger-{self.fingerprint[:32]}" if ledger else None
        self._ledger = WindowStarts(path, len(datasets))
        self._windows: OrderedDict[int, Window] = OrderedDict()
        self._key = derive_dataset_key(config.seed, "")
        self._last: Window | None = None
        # Rows are asked for by whoever reads ahead, states by whoever trains.
        self._lock = threading.RLock()

    @property
    def window_rows(self) -> int:
        """Rows of a window."""
        return self.config.window_steps * self.config.global_batch

    def window(self, number: int) -> Window:
        """A window's rows; those before it are planned too where it is not known where this one starts.

        Raises:
            DataError: the run ends before it, the number is negative, or too many windows would have to be planned.
        """
        if number < 0:
            raise DataError(f"there is no window {number}", where="plan", hint="Windows count from 0.")
        with self._lock:
            if number in self._windows:
                self._windows.move_to_end(number)
                return self._windows[number]
            at, start = self._ledger.nearest(number)
            if self._first_unreachable(number) - at > _MAX_WINDOWS_TO_PLAN:
                raise DataError(
                    f"window {number} lies {number - at} windows behind the last that is known",
                    where="plan",
                    hint="Check the number, or load a state near it.",
                )
            while True:
                if self._last is not None and at > self._last.number:
                    raise self._end_error(at)
                window = self._plan_window(at, start)
                if at == number:
                    return window
                if window.end is None:
                    raise self._end_error(number)
                at, start = at + 1, window.end

    def row(self, number: int) -> PlannedRow:
        """A row by its number in the run.

        Raises:
            DataError: as :meth:`window`.
        """
        if number < 0:
            raise DataError(f"there is no row {number}", where="plan", hint="Rows count from 0.")
        window = self.window(number // self.window_rows)
        slot = number % self.window_rows
        if slot >= window.rows:
            raise self._end_error(window.number)
        places = slice(int(window.offsets[slot]), int(window.offsets[slot + 1]))
        owners = [self.datasets[each] for each in window.dataset[places].tolist()]
        ranges = list(zip(window.first[places].tolist(), window.stop[places].tolist(), strict=True))
        # Samples of one build are looked up together: a lookup costs more than what it finds.
        found: list[Iterator[PlannedSample]] = []
        for source, catalog in enumerate(self.catalogs):
            mine = [
                sample
                for owner, (first, stop) in zip(owners, ranges, strict=True)
                if owner.source == source
                for sample in range(first, stop)
            ]
            found.append(iter(catalog.samples(mine, source) if mine else ()))
        return PlannedRow(
            number,
            tuple(
                _planned_document(owner, tuple(islice(found[owner.source], stop - first)), tokens)
                for owner, (first, stop), tokens in zip(
                    owners, ranges, window.tokens[places].tolist(), strict=True
                )
            ),
        )

    def step_rows(self, step: int, rank: int, ranks: int) -> list[int]:
        """Numbers of a rank's rows in a step, in the order it does them: ascending.

        Which rows form a step does not depend on `ranks`; who does which of them does.

        Raises:
            ConfigError: the ranks cannot share a step's rows.
            DataError: the run ends before that step.
        """
        batch = self.config.global_batch
        self.check_ranks(rank, ranks)
        first = step * batch
        window = self.window(first // self.window_rows)
        slot = first % self.window_rows
        if slot >= window.rows:
            raise self._end_error(window.number)
        if self.config.balance != "rank" or ranks == batch:
            return list(range(first + rank, first + batch, ranks))
        dealt = balance_rows(
            window.cost[slot : slot + batch], global_batch=batch, ranks=ranks, steps="given"
        ).rows
        return sorted((first + dealt[0, rank]).tolist())

    def steps(self, first: int = 0) -> Iterator[int]:
        """Numbers of the run's steps from `first` on, until it ends.

        Raises:
            DataError: the run has not a single step, or as :meth:`window`.
        """
        step = first
        per_window = self.config.window_steps
        while True:
            try:
                window = self.window(step // per_window)
            except PlanEndError:
                return
            count = window.rows // self.config.global_batch
            if not count and not window.number:
                raise self._end_error(0)
            if step % per_window >= count:
                return
            yield from range(step, step - step % per_window + count)
            if window.end is None:
                return
            step += count - step % per_window

    def check_ranks(self, rank: int, ranks: int) -> None:
        """Raises ConfigError unless `ranks` can share a step's rows and `rank` is one of them."""
        batch = self.config.global_batch
        if not 0 <= rank < ranks:
            raise ConfigError(f"rank {rank} of {ranks} ranks", hint="Ranks count from 0.")
        if batch % ranks:
            raise ConfigError(
                f"{ranks} ranks cannot share {batch} rows a step",
                where="global_batch",
                hint="Make global_batch a multiple of the data-parallel ranks.",
            )

    def state(self, row: int, ranks: int) -> StreamState:
        """The state after `row` rows.

        Raises:
            DataError: as :meth:`window`.
        """
        number = row // self.window_rows
        start = self._start(number)
        if start is None and row == number * self.window_rows:
            # The last window is full, and none starts behind it.
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
            parts=self.fingerprint_parts,
        )

    def load_state(self, state: StreamState) -> None:
        """Takes a saved state in: rows from there on are found at once.

        Raises:
            ConfigError: it is of another plan; says what differs.
            DataError: its numbers contradict each other or this plan.
        """
        require_equal_parts(state.parts, self.fingerprint_parts)
        within = state.row - state.window * self.window_rows
        if (
            len(state.documents) != len(self.datasets)
            or not 0 <= within <= self.window_rows
            or not self._is_reachable(state.cursors, state.window)
        ):
            raise DataError("its row and cursors do not fit together", where="state")
        known = self._ledger.get(state.window)
        if known is not None and known != state.cursors:
            raise DataError(
                "its cursors are not where this plan puts them",
                where="state",
                hint="The checkpoint is damaged, or was edited.",
            )
        self._ledger.trust(state.window, state.cursors)

    def _is_reachable(self, start: WindowCursor, window: int) -> bool:
        """Whether a window may start there, as far as epochs and places tell."""
        epochs = all(
            drawn // each.documents * each.tokens <= tokens <= -(-drawn // each.documents) * each.tokens
            for each, drawn, tokens in zip(self.datasets, start.documents, start.tokens, strict=True)
        )
        places = window * self.window_rows * self.config.max_seq_len
        return epochs and start.total_tokens <= min(places, MAX_TOKENS)

    def _first_unreachable(self, number: int) -> int:
        """At most the window `number`, and not far beyond the last one of a run that ends."""
        if self.quota_curve.end_tokens is None:
            return number
        # Windows but the last are more than half full.
        return min(
            number, 2 * self.quota_curve.end_tokens // (self.window_rows * self.config.max_seq_len) + 1
        )

    def _start(self, number: int) -> WindowCursor | None:
        """Where a window starts; None if the one before it is the last."""
        known = self._ledger.get(number)
        return self.window(number - 1).end if known is None else known

    def _plan_window(self, number: int, start: WindowCursor) -> Window:
        draws = draw_window_documents(
            self.datasets, self.quota_curve, start, self.window_rows * self.config.max_seq_len
        )
        window = plan_window(number, draws, self.config, np.uint64(derive_key(self._key, number)))
        self._windows[number] = window
        if len(self._windows) > _MAX_CACHED_WINDOWS:
            self._windows.popitem(last=False)
        if window.end is not None:
            self._ledger.record(number + 1, window.end)
        else:
            self._last = window
            logger.info(
                "the plan ends in window %d; %d documents fill no whole step", number, window.num_unplanned
            )
        return window

    def _end_error(self, window: int) -> PlanEndError:
        if self._last is not None and not self._last.rows and not self._last.number:
            return PlanEndError(
                f"its {self._last.num_unplanned} documents fill no whole step of {self.config.global_batch} rows",
                where="plan",
                hint="Lower global_batch or max_seq_len, lengthen the phases, or raise max_epochs.",
            )
        if self._last is None:
            what = f"the run ends before window {window}"
        else:
            rows = self._last.number * self.window_rows + self._last.rows
            what = f"the run ends after {rows} rows, {rows // self.config.global_batch} steps"
        return PlanEndError(
            what,
            where="plan",
            hint="Lengthen the last phase, or raise max_epochs.",
        )

    def _parts(self) -> dict[str, str]:
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
        parts["rows"] = _digest([config.rows.audio_frames, _codec_identity(config.rows.codec)])
        parts["mixture"] = _digest(self.schedule.canonical())
        for each in self.datasets:
            settings = to_builtins(each.config)
            del settings["shards"]  # the same build may lie elsewhere
            # Of the manifest, statistics alone change what a row holds.
            numeric = each.catalog.manifest.numeric
            parts[f"dataset {each.name}"] = _digest([each.number, each.catalog.digest, numeric, settings])
        return parts

    @cached_property
    def num_excluded_slices(self) -> dict[str, int]:
        """Slices of each data set that the plan's tolerance bars."""
        return {each.name: each.document_table.num_excluded_slices for each in self.datasets}


def open_plan(config: PlanConfig, *, ledger: bool = True) -> Plan:
    """The plan of `config`, whose paths can be opened from here.

    Args:
        config: settings, see :meth:`PlanConfig.located`.
        ledger: keep the starts of windows in the cache folder.

    Raises:
        ConfigError: settings contradict each other or the builds: names, layouts.
        IntegrityError, StorageError: a build cannot be read.
        DataError: a sample does not fit a row, or a data set is empty.
    """
    urls: dict[str, int] = {}
    for each in config.datasets:
        urls.setdefault(each.shards.rstrip("/"), len(urls))
    catalogs = [IndexCatalog(url) for url in urls]
    layout = _layout(catalogs)
    datasets = []
    for number, each in enumerate(config.datasets):
        source = urls[each.shards.rstrip("/")]
        units = load_documents(
            catalogs[source],
            each,
            overhead=layout.document_overhead,
            capacity=config.max_seq_len,
            tolerance_ns=config.tolerance_ns,
        )
        if units.num_excluded_slices:
            logger.warning(
                "data set %s: %d slices exceed the tolerance of %s and are not planned",
                each.name,
                units.num_excluded_slices,
                config.tolerance,
            )
        key = derive_dataset_key(config.seed, each.name)
        datasets.append(Dataset(each, number, source, catalogs[source], units, key))
    return Plan(config, catalogs, datasets, layout, ledger)


def _layout(catalogs: list[IndexCatalog]) -> Layout:
    manifest = catalogs[0].manifest
    for other in catalogs[1:]:
        if other.manifest.layout_fingerprint != manifest.layout_fingerprint:
            raise ConfigError(
                f"was built with another layout than {catalogs[0].store.url}",
                where=other.store.url,
                hint="Build both with the same [layout] table, cameras and numeric streams listed.",
            )
    layout = Layout(parse_settings(manifest.config.get("layout", {}), LayoutConfig, where="manifest.json"))
    if layout.fingerprint != manifest.layout_fingerprint:
        raise ConfigError(
            "its tokens were counted with another layout or version than this one",
            where=catalogs[0].store.url,
            hint="Build the shards again, or use the version and tokenizer that built them.",
        )
    return layout


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()[:8]


def _codec_identity(folder: str) -> list[object]:
    """What tells one codec's folder from another without reading its weights: names, sizes, and the settings."""
    if not folder:
        return []
    try:
        files = sorted((path.name, path.stat().st_size) for path in Path(folder).iterdir() if path.is_file())
        return [files, hashlib.sha256((Path(folder) / "config.json").read_bytes()).hexdigest()]
    except OSError:
        return []  # whoever opens the codec says what is wrong with it


def _planned_document(dataset: Dataset, samples: tuple[PlannedSample, ...], tokens: int) -> PlannedDocument:
    pair = (
        dataset.config.contrastive
        and samples[0].kind != "text"
        and any(sample.tokens_text for sample in samples)
    )
    return PlannedDocument(dataset.number, samples, tokens - (PAIR_OVERHEAD if pair else 0), pair)
