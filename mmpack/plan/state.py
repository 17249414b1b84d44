"""Where a run is: a few integers, the same on every rank and worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from mmpack.errors import ConfigError, DataError
from mmpack.serialisation import from_builtins
from mmpack.settings import Settings

STATE_VERSION = 1
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_MAX_DATASETS = 4096


@dataclass(frozen=True, slots=True)
class WindowCursor:
    """Where a window starts.

    Attributes:
        documents: drawn of each data set, over all epochs.
        tokens: of these documents, by data set.
    """

    documents: tuple[int, ...]
    tokens: tuple[int, ...]

    @classmethod
    def initial(cls, datasets: int) -> WindowCursor:
        """Before the first document."""
        return cls((0,) * datasets, (0,) * datasets)

    @property
    def total_tokens(self) -> int:
        """Drawn of all data sets together."""
        return sum(self.tokens)


class StreamState(Settings, frozen=True, kw_only=True):
    """What a checkpoint holds of the data.

    Fields:
        version: of this table.
        row: rows that were handed out, over all ranks.
        ranks: that shared them; needed where `row` lies within a step.
        window: the window of `row`.
        documents, tokens: its start, see :class:`WindowCursor`.
        parts: what the plan follows from, by name, in short.
    """

    version: int
    row: _Count
    ranks: _Count
    window: _Count
    documents: tuple[_Count, ...]
    tokens: tuple[_Count, ...]
    parts: dict[str, str]

    @property
    def cursors(self) -> WindowCursor:
        """The start of `window`."""
        return WindowCursor(self.documents, self.tokens)


def read_state(state: Mapping[str, Any]) -> StreamState:
    """A state as it was saved, checked.

    Raises:
        DataError: it is no such state, or of another version.
    """
    try:
        found = from_builtins(dict(state), StreamState, strict=False)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise DataError(f"is no state of a row stream ({error})", where="state") from None
    if found.version != STATE_VERSION:
        raise DataError(f"version {found.version}, and this one reads {STATE_VERSION}", where="state")
    if len(found.documents) != len(found.tokens) or len(found.tokens) > _MAX_DATASETS:
        raise DataError("its cursors do not fit together", where="state")
    return found


def require_equal_parts(saved: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Refuses a state of another plan.

    Raises:
        ConfigError: names each part that differs, with both values.
    """
    differs = [
        f"{name} was {saved.get(name, 'absent')}, is {own.get(name, 'absent')}"
        for name in sorted(saved.keys() | own.keys())
        if saved.get(name) != own.get(name)
    ]
    if differs:
        raise ConfigError(
            f"the state belongs to another plan: {'; '.join(differs)}",
            where="state",
            hint="Resume with what the run was started with, or start a new run.",
        )
