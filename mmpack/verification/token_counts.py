"""Token counts of samples once more, under the layout that the manifest names."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from mmpack.errors import IntegrityError, MmpackError
from mmpack.layout import Layout, LayoutConfig, SampleMetadata, TokenCounts
from mmpack.settings import parse_settings
from mmpack.shards.index import MODALITY_COLUMNS
from mmpack.shards.manifest import Manifest

_TOGETHER = 256  # samples whose texts are tokenized in one batch


class TokenCountCheck:
    """Counts samples and tells where the index has another number.

    Args:
        manifest: of the build.
        faults: gets what is wrong, with its place.
        notes: gets why nothing can be counted, if so.

    Attributes:
        numeric: names of the numeric streams in the layout.
    """

    def __init__(self, manifest: Manifest, problems: list[str], notes: list[str]) -> None:
        self._problems = problems
        self._waiting: list[tuple[dict[str, Any], SampleMetadata]] = []
        self._layout: Layout | None = None
        self.numeric: frozenset[str] = frozenset()
        try:
            table: Any = manifest.config.get("layout")
            settings = parse_settings(table, LayoutConfig, where="manifest.json, layout")
        except MmpackError as error:
            problems.append(str(error))
            return
        self.numeric = frozenset(stream.name for stream in settings.numeric)
        try:
            layout = Layout(settings)
        except MmpackError as error:
            notes.append(f"token counts not checked: {error}")
            return
        if layout.fingerprint != manifest.layout_fingerprint:
            # One version differs from itself only where a tokenizer's file does, which lies outside of the build.
            is_ours = manifest.mmpack == version("mmpack") and settings.text.tokenizer == "builtin"
            (problems if is_ours else notes).append(
                "token counts not checked: the manifest's layout_fingerprint is not what this version gives its settings"
            )
            return
        if layout.vocabulary.size != manifest.vocabulary_size:
            stated, found = manifest.vocabulary_size, layout.vocabulary.size
            problems.append(f"vocabulary_size: the manifest says {stated}, the layout {found}")
        self._layout = layout

    def add(self, row: dict[str, Any], metadata: SampleMetadata) -> None:
        """Takes a sample: its index row, and what was measured on it."""
        self._waiting.append((row, metadata))
        if len(self._waiting) >= _TOGETHER:
            self.count()

    def count(self) -> None:
        """Counts the samples taken since the last time."""
        waiting, self._waiting = self._waiting, []
        if self._layout is None or not waiting:
            return
        try:
            counts = self._layout.count_tokens_many([facts for _, facts in waiting])
        except MmpackError:
            for row, facts in waiting:
                self._count_one(self._layout, row, facts)
            return
        for (row, _), count in zip(waiting, counts, strict=True):
            self._compare(row, count)

    def _count_one(self, layout: Layout, row: dict[str, Any], metadata: SampleMetadata) -> None:
        try:
            [count] = layout.count_tokens_many([metadata])
        except MmpackError as error:
            self._problems.append(format_problem(row, error))
        else:
            self._compare(row, count)

    def _compare(self, row: dict[str, Any], count: TokenCounts) -> None:
        found = {"tokens": count.total} | {
            f"tokens_{name}": getattr(count, name) for name in MODALITY_COLUMNS
        }
        differs = [
            f"{name} {found[name]}, the index says {row[name]}" for name in found if found[name] != row[name]
        ]
        if differs:
            self._problems.append(format_problem(row, IntegrityError("; ".join(differs))))


def format_problem(row: dict[str, Any], error: MmpackError) -> str:
    """What is wrong with a sample, with its place."""
    place = f"{row['shard']}, sample '{row['key']}'"
    return str(error) if error.where.startswith(place) else f"{place}: {error}"
