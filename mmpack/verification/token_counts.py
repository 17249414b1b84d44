"""Repeats the token counts of samples under the layout in the manifest and compares them with the index."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from mmpack.errors import IntegrityError, MmpackError
from mmpack.layout import Layout, LayoutConfig, SampleMetadata, TokenCounts
from mmpack.settings import parse_settings
from mmpack.shards.index import MODALITY_COLUMNS
from mmpack.shards.manifest import Manifest

_BATCH_SAMPLES = 256  # number of samples whose texts are tokenized in one batch


class TokenCountCheck:
    """A batched comparison of the token counts of samples with the index.

    Args:
        manifest: manifest of the shard set.
        problems: list to which problems are appended, each with its sample.
        notes: list to which the reason is appended if token counts cannot be checked.

    Attributes:
        numeric_streams: names of the numeric streams in the layout.
    """

    def __init__(self, manifest: Manifest, problems: list[str], notes: list[str]) -> None:
        self._problems = problems
        self._pending: list[tuple[dict[str, Any], SampleMetadata]] = []
        self._layout: Layout | None = None
        self.numeric_streams: frozenset[str] = frozenset()
        try:
            table: Any = manifest.config.get("layout")
            settings = parse_settings(table, LayoutConfig, where="manifest.json, layout")
        except MmpackError as error:
            problems.append(str(error))
            return
        self.numeric_streams = frozenset(stream.name for stream in settings.numeric)
        try:
            layout = Layout(settings)
        except MmpackError as error:
            notes.append(f"token counts not checked: {error}")
            return
        if layout.fingerprint != manifest.layout_fingerprint:
            # With the same mmpack version, the fingerprint can only differ because of a tokenizer file, which is not part
            # of the shard set.
            is_problem = manifest.mmpack == version("mmpack") and settings.text.tokenizer == "builtin"
            (problems if is_problem else notes).append(
                "token counts not checked: this mmpack version computes another layout_fingerprint from the layout settings"
            )
            return
        if layout.vocabulary.size != manifest.vocabulary_size:
            problems.append(
                f"vocabulary_size is {manifest.vocabulary_size} in the manifest, but {layout.vocabulary.size} in the layout"
            )
        self._layout = layout

    def add(self, row: dict[str, Any], metadata: SampleMetadata) -> None:
        """Adds a sample: its index row and the metadata that was measured on its members."""
        self._pending.append((row, metadata))
        if len(self._pending) >= _BATCH_SAMPLES:
            self.count_pending()

    def count_pending(self) -> None:
        """Counts and compares the samples that were added since the last call."""
        pending, self._pending = self._pending, []
        if self._layout is None or not pending:
            return
        try:
            counts = self._layout.count_tokens_many([metadata for _, metadata in pending])
        except MmpackError:
            # Count the samples one by one to find those that cannot be counted.
            for row, metadata in pending:
                self._count_one(self._layout, row, metadata)
            return
        for (row, _), count in zip(pending, counts, strict=True):
            self._compare(row, count)

    def _count_one(self, layout: Layout, row: dict[str, Any], metadata: SampleMetadata) -> None:
        try:
            [count] = layout.count_tokens_many([metadata])
        except MmpackError as error:
            self._problems.append(format_problem(row, error))
        else:
            self._compare(row, count)

    def _compare(self, row: dict[str, Any], count: TokenCounts) -> None:
        actual = {"tokens": count.total} | {
            f"tokens_{name}": getattr(count, name) for name in MODALITY_COLUMNS
        }
        differences = [
            f"{name} is {value}, but {row[name]} in the index"
            for name, value in actual.items()
            if value != row[name]
        ]
        if differences:
            self._problems.append(format_problem(row, IntegrityError("; ".join(differences))))


def format_problem(row: dict[str, Any], error: MmpackError) -> str:
    """Formats the problem of a sample, with its shard and key."""
    where = f"{row['shard']}, sample '{row['key']}'"
    return str(error) if error.where.startswith(where) else f"{where}: {error}"
