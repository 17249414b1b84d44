"""From a planned row to a row: read, then decode. What threads and worker processes run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmpack.fetch.fetcher import Fetcher
from mmpack.layout import Layout, LayoutConfig
from mmpack.plan import Plan, PlannedRow
from mmpack.plan.plan_config import ReaderConfig, RowsConfig
from mmpack.quarantine import UnreadableSample
from mmpack.rows.assemble import RowAssembler
from mmpack.rows.row import Row
from mmpack.storage import open_store


@dataclass(frozen=True)
class RowPipelineSpec:
    """All that making rows needs, as plain data: it travels to worker processes, and calling it gives what makes them.

    Attributes:
        urls: of the builds, by `PlannedSample.source`.
        statistics: of their numeric streams, from their manifests.
        layout, rows, reader: settings.
        max_seq_len: token places of a row.
    """

    urls: tuple[str, ...]
    statistics: tuple[dict[str, dict[str, Any]], ...]
    layout: LayoutConfig
    rows: RowsConfig
    reader: ReaderConfig
    max_seq_len: int

    @classmethod
    def from_plan(cls, plan: Plan, reader: ReaderConfig) -> RowPipelineSpec:
        """For the rows of a plan."""
        return cls(
            tuple(catalog.store.url for catalog in plan.catalogs),
            tuple(catalog.manifest.numeric for catalog in plan.catalogs),
            plan.layout.config,
            plan.config.rows,
            reader,
            plan.config.max_seq_len,
        )

    def __call__(self) -> RowPipeline:
        return RowPipeline(self)


class RowPipeline:
    """Makes rows; may be used by several threads at once.

    Args:
        spec: what is needed.

    Raises:
        ConfigError, MissingDependencyError: the codec or tokenizer cannot be opened.
    """

    def __init__(self, spec: RowPipelineSpec) -> None:
        # `reader.retries` is all there is: a client that tries again by itself would multiply it, and take minutes.
        stores = [open_store(url, client_retries=0) for url in spec.urls]
        self.fetcher = Fetcher(stores, spec.reader)
        self.maker = RowAssembler(Layout(spec.layout), spec.max_seq_len, list(spec.statistics), spec.rows)

    def __call__(self, planned: PlannedRow) -> tuple[Row, list[UnreadableSample]]:
        return self.maker.assemble(planned, self.fetcher.fetch(planned))

    def close(self) -> None:
        """Frees what reading holds open."""
        self.fetcher.close()
