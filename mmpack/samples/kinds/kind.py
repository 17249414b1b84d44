"""A kind of stand-alone sample: a text with at most one media member."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mmpack.layout import StandAloneMetadata


@dataclass(frozen=True, kw_only=True)
class StandAloneKind:
    """Everything that mmpack has to know about a kind of stand-alone sample.

    Attributes:
        name: name of the kind in build configs, index and `json` member.
        noun: name of its media member in messages, as in "the image".
        extensions: extension of its media member in shards, by the extensions that files may have, in lower case and
            without the dot; empty for a kind without media.
        measure: function (extension in shards, encoded bytes, where) that returns the metadata of the media member,
            without a text. It reads sizes and does not decode. It raises DataError with `where` for damaged bytes.
    """

    name: str
    noun: str = ""
    extensions: Mapping[str, str] = field(default_factory=dict)
    measure: Callable[[str, bytes, str], StandAloneMetadata] | None = None
