"""The build's TOML file: what to build from, how to match, lay out and write it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mmpack.errors import ConfigError
from mmpack.layout import LayoutConfig
from mmpack.settings import Settings, parse_size
from mmpack.sync import SyncConfig


class ShardsConfig(Settings, frozen=True, kw_only=True):
    """`[shards]`: how media are written.

    Fields:
        size: a shard is closed once it is at least this large.
        jpeg_quality: of video frames that become JPEG, 1 to 100. Pictures that are JPEG or PNG already pass
            through.
        audio: flac (lossless, smaller) or wav.
        tubelet_crf: x264 quality of tubelets, 0 (best) to 51.
    """

    size: str = "512MB"
    jpeg_quality: int = 90
    audio: Literal["flac", "wav"] = "flac"
    tubelet_crf: int = 23

    def __post_init__(self) -> None:
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError("jpeg_quality is 1 to 100")
        if not 0 <= self.tubelet_crf <= 51:
            raise ValueError("tubelet_crf is 0 to 51")
        parse_size(self.size, where="shards.size")

    @property
    def size_bytes(self) -> int:
        """`size` in bytes."""
        return parse_size(self.size, where="shards.size")


class SourceConfig(Settings, frozen=True, kw_only=True):
    """`[[samples]]`: stand-alone samples, one source.

    Fields:
        name: of the source; begins its keys and shards.
        kind: text, image_text or speech.
        path: a jsonl or parquet file with a row per sample.
        text: column of the text, caption or transcript.
        media: column of the picture's or clip's path, relative to the file; not for text.
    """

    name: str
    kind: Literal["text", "image_text", "speech"]
    path: str
    text: str = "text"
    media: str = "path"


class BuildConfig(Settings, frozen=True, kw_only=True):
    """The whole file.

    Fields:
        recordings: paths of recordings, relative to the file.
        samples: stand-alone sources.
        sync: how recordings become slices.
        layout: what samples become as tokens. Cameras and numeric streams that are not listed are taken from
            the recordings.
        shards: how media are written.
        max_quarantine: largest share of a recording's slices that may be set aside.
    """

    recordings: tuple[str, ...] = ()
    samples: tuple[SourceConfig, ...] = ()
    sync: SyncConfig = SyncConfig()
    layout: LayoutConfig = LayoutConfig()
    shards: ShardsConfig = ShardsConfig()
    max_quarantine: float = 0.1

    def resolve_paths(self, base: Path) -> BuildConfig:
        """The same with paths made relative to `base`, the folder of the file."""
        from msgspec.structs import replace

        samples = tuple(replace(source, path=str(base / source.path)) for source in self.samples)
        return replace(self, recordings=tuple(str(base / path) for path in self.recordings), samples=samples)

    def validate(self) -> BuildConfig:
        """Itself. Raises ConfigError if there is nothing to build."""
        if not self.recordings and not self.samples:
            raise ConfigError("nothing to build", hint="Name recordings, or add a [[samples]] table.")
        if not 0 <= self.max_quarantine <= 1:
            raise ConfigError(f"max_quarantine {self.max_quarantine} is not a share between 0 and 1")
        return self
