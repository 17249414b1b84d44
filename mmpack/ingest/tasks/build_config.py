"""Settings of a build: its inputs, and how they are synchronised, laid out and written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from mmpack.errors import ConfigError
from mmpack.layout import LayoutConfig
from mmpack.samples.kinds import KINDS
from mmpack.settings import Settings, Share, parse_size, suggest
from mmpack.sync import SyncConfig


class ShardsConfig(Settings, frozen=True, kw_only=True):
    """`[shards]`: size of the shards and encoding of the media.

    Fields:
        size: size, with a unit, from which on a shard is closed.
        jpeg_quality: JPEG quality of video frames, 1 to 100. JPEG and PNG files are copied unchanged.
        audio: audio format, flac (lossless, smaller) or wav.
        tubelet_crf: x264 quality (CRF) of tubelets, 0 (best) to 51.
    """

    size: str = "512MB"
    jpeg_quality: Annotated[int, Meta(ge=1, le=100)] = 90
    audio: Literal["flac", "wav"] = "flac"
    tubelet_crf: Annotated[int, Meta(ge=0, le=51)] = 23

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_size(self.size, where="shards.size")

    @property
    def _where(self) -> str:
        return "shards"

    @property
    def size_bytes(self) -> int:
        """The value of `size` in bytes."""
        return parse_size(self.size, where="shards.size")


class SourceConfig(Settings, frozen=True, kw_only=True):
    """`[[samples]]`: a source of stand-alone samples.

    Fields:
        name: name of the source, with which its keys and shard names begin.
        kind: kind of the samples: text, image_text or speech.
        path: jsonl or parquet file with one table row per sample.
        text: column of the text, caption or transcript.
        media: column of the path of the image or audio file, relative to the folder of `path`; not used for text.
    """

    name: str
    kind: str
    path: str
    text: str = "text"
    media: str = "path"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS:
            raise ConfigError(
                f"'{self.kind}' is not a kind of stand-alone sample",
                where=self._key("kind"),
                hint=suggest(self.kind, KINDS),
            )

    @property
    def _where(self) -> str:
        return f"samples.{self.name}"


class BuildConfig(Settings, frozen=True, kw_only=True):
    """The settings of a build, as written in its TOML file.

    Fields:
        recordings: paths of the recordings, relative to the TOML file.
        samples: stand-alone sources.
        sync: synchronisation of the recordings into slices.
        layout: token layout of the samples. Cameras and numeric streams that it does not list are taken from the
            recordings.
        shards: size of the shards and encoding of the media.
        max_quarantine: largest share of a recording's slices that may be quarantined, 0 to 1.
    """

    recordings: tuple[str, ...] = ()
    samples: tuple[SourceConfig, ...] = ()
    sync: SyncConfig = SyncConfig()
    layout: LayoutConfig = LayoutConfig()
    shards: ShardsConfig = ShardsConfig()
    max_quarantine: Share = 0.1

    def resolve_paths(self, base: Path) -> BuildConfig:
        """Returns these settings with all paths joined to `base`, the folder of the TOML file."""
        from msgspec.structs import replace

        samples = tuple(replace(source, path=str(base / source.path)) for source in self.samples)
        return replace(self, recordings=tuple(str(base / path) for path in self.recordings), samples=samples)

    def validate(self, *, where: str = "") -> BuildConfig:
        """Returns these settings after checking that there is something to build.

        Args:
            where: file of the settings, for the message.

        Raises:
            ConfigError: there are neither recordings nor stand-alone sources.
        """
        if not self.recordings and not self.samples:
            raise ConfigError(
                "there is nothing to build", where=where, hint="List recordings, or add a [[samples]] table."
            )
        return self
