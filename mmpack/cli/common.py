"""What the commands share: settings from files and options, output for people and for machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmpack.errors import ConfigError

if TYPE_CHECKING:
    from mmpack.sync import SyncConfig


def require_png_suffix(path: Path | None, *, option: str) -> None:
    """Raises ConfigError if a picture is to be written that is no PNG, before anything is worked out."""
    if path is not None and path.suffix.lower() != ".png":
        raise ConfigError(f"'{path.name}' is no name of a PNG", where=option, hint="Let it end in .png.")


def load_sync_config(config: Path | None, reference: str | None, tolerance: str | None) -> SyncConfig:
    """The [sync] table of a file, with what the command line says in its place. Raises ConfigError."""
    from mmpack.sync import SyncConfig

    settings = SyncConfig()
    if config is not None:
        from mmpack.ingest import BuildConfig
        from mmpack.settings import load_settings

        settings = load_settings(config, BuildConfig).sync
    return override_sync_config(settings, reference, tolerance)


def override_sync_config(settings: SyncConfig, reference: str | None, tolerance: str | None) -> SyncConfig:
    """`settings` with a reference and a tolerance of nearest-matched streams from the command line."""
    import msgspec

    from mmpack.clock import parse_duration
    from mmpack.sync import StreamPolicy

    if reference is not None:
        settings = msgspec.structs.replace(settings, reference=reference)
    if tolerance is not None:
        try:
            parse_duration(tolerance)
        except ConfigError as error:
            raise ConfigError(error.message, where="--tolerance", hint=error.hint) from None
        streams = {
            name: msgspec.structs.replace(policy, tolerance=tolerance)
            for name, policy in settings.streams.items()
        }
        streams.setdefault("*", StreamPolicy(tolerance=tolerance))
        settings = msgspec.structs.replace(settings, streams=streams)
    return settings
