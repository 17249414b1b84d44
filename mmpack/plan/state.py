"""The state of a row stream: a few integers, the same on every rank and worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmpack.errors import ConfigError, DataError
from mmpack.serialisation import Count, Record, decode_state

STATE_VERSION = 2
"""Version of the keys of `StreamState`."""
_MAX_DATASETS = 4096


@dataclass(frozen=True, slots=True)
class WindowCursor:
    """The number of documents and tokens drawn of each data set, for example at the start of a window.

    Attributes:
        documents: number of documents drawn of each data set, over all epochs.
        tokens: number of tokens of these documents, for each data set.
    """

    documents: tuple[int, ...]
    tokens: tuple[int, ...]

    @classmethod
    def initial(cls, datasets: int) -> WindowCursor:
        """Returns the cursor before the first document."""
        return cls((0,) * datasets, (0,) * datasets)

    @property
    def total_tokens(self) -> int:
        """The number of tokens drawn of all data sets together."""
        return sum(self.tokens)


class StreamState(Record, frozen=True, kw_only=True):
    """The state that a checkpoint stores to resume a row stream.

    Fields:
        version: version of these fields.
        row: number of rows that were delivered, over all ranks.
        ranks: number of ranks that shared the rows; needed if `row` is within a step.
        window: number of the window of `row`.
        documents, tokens: cursor at the start of the window, see :class:`WindowCursor`.
        fingerprint_parts: short digests or values of the settings on which the rows of the plan depend, by name.
    """

    version: int
    row: Count
    ranks: Count
    window: Count
    documents: tuple[Count, ...]
    tokens: tuple[Count, ...]
    fingerprint_parts: dict[str, str]

    @property
    def window_start(self) -> WindowCursor:
        """The cursor at the start of `window`."""
        return WindowCursor(self.documents, self.tokens)


def read_state(state: Mapping[str, Any]) -> StreamState:
    """Reads and checks a saved state.

    Raises:
        DataError: the mapping is not the state of a row stream, or has another version.
    """
    result = decode_state(state, StreamState, version=STATE_VERSION, noun="row stream")
    if len(result.documents) != len(result.tokens) or len(result.tokens) > _MAX_DATASETS:
        raise DataError("the cursors of documents and tokens do not match", where="state")
    return result


def require_equal_parts(saved: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Raises an error unless a saved state belongs to this plan.

    Args:
        saved: `StreamState.fingerprint_parts` of the state.
        own: `Plan.fingerprint_parts` of this plan.

    Raises:
        ConfigError: some parts differ; the message has each of them with both values.
    """
    differences = [
        f"{name} was {saved.get(name, 'absent')}, is {own.get(name, 'absent')}"
        for name in sorted(saved.keys() | own.keys())
        if saved.get(name) != own.get(name)
    ]
    if differences:
        raise ConfigError(
            f"the state belongs to another plan: {'; '.join(differences)}",
            where="state",
            hint="Resume with the settings and shards with which the state was saved, or start without a state.",
        )
