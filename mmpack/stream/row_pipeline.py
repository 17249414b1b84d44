"""The row pipeline: fetches the bytes of a planned row and assembles it. Threads and worker processes run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmpack.fetch.fetcher import Fetcher
from mmpack.layout import Layout, LayoutConfig
from mmpack.plan import Plan, PlannedRow
from mmpack.plan.plan_config import ReaderConfig, RowsConfig
from mmpack.prefetch import Closeable
from mmpack.quarantine import UnreadableSample
from mmpack.rows.assemble import RowAssembler
from mmpack.rows.row import Row
from mmpack.storage import open_store


@dataclass(frozen=True, kw_only=True)
class RowPipelineSpec:
    """The settings of a row pipeline as plain data that can be sent to worker processes; calling it opens the pipeline.

    Attributes:
        urls: URLs of the shard sets, by `PlannedSample.shard_set`.
        statistics: statistics of the numeric streams of each shard set, from its manifest.
        layout: token layout settings.
        rows: `[rows]` settings.
        reader: `[reader]` settings.
        max_seq_len: positions of a row.
    """

    urls: tuple[str, ...]
    statistics: tuple[dict[str, dict[str, Any]], ...]
    layout: LayoutConfig
    rows: RowsConfig
    reader: ReaderConfig
    max_seq_len: int

    @classmethod
    def from_plan(cls, plan: Plan, reader: ReaderConfig) -> RowPipelineSpec:
        """Returns the spec for the rows of `plan`, read with the settings `reader`."""
        return cls(
            urls=tuple(catalog.store.url for catalog in plan.catalogs),
            statistics=tuple(catalog.manifest.numeric for catalog in plan.catalogs),
            layout=plan.layout.config,
            rows=plan.config.rows,
            reader=reader,
            max_seq_len=plan.config.max_seq_len,
        )

    def __call__(self) -> RowPipeline:
        return RowPipeline(self)


class RowPipeline(Closeable):
    """A function from a planned row to its row and unreadable samples; several threads may call it at once.

    Args:
        spec: settings of the pipeline.

    Raises:
        ConfigError, MissingDependencyError: the codec or tokenizer cannot be opened.
    """

    def __init__(self, spec: RowPipelineSpec) -> None:
        # Only the fetcher retries, `reader.retries` times. Retries of the store's client would multiply them and
        # could take minutes.
        stores = [open_store(url, client_retries=0) for url in spec.urls]
        self.fetcher = Fetcher(stores, spec.reader)
        self.assembler = RowAssembler(Layout(spec.layout), spec.max_seq_len, list(spec.statistics), spec.rows)

    def __call__(self, planned: PlannedRow) -> tuple[Row, list[UnreadableSample]]:
        return self.assembler.assemble(planned, self.fetcher.fetch(planned))

    def close(self) -> None:
        """Closes open files and ends waits between retries."""
        self.fetcher.close()
