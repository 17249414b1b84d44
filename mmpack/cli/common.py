"""Options and settings that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpack.errors import ConfigError

if TYPE_CHECKING:
    from mmpack.sync import SyncConfig

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")
]
"""The option `--json` of a command."""


def load_sync_config(config: Path | None, reference: str | None, tolerance: str | None) -> SyncConfig:
    """Loads the [sync] table of a file, or its defaults, and applies the options of the command line.

    Raises:
        ConfigError: the file or an option is invalid.
    """
    from mmpack.sync import SyncConfig

    settings = SyncConfig()
    if config is not None:
        from mmpack.ingest import BuildConfig
        from mmpack.settings import load_settings

        settings = load_settings(config, BuildConfig).sync
    return override_sync_config(settings, reference, tolerance)


def override_sync_config(settings: SyncConfig, reference: str | None, tolerance: str | None) -> SyncConfig:
    """Returns `settings` with the reference and the tolerance of the command line, where they are not None.

    Raises:
        ConfigError: `tolerance` is not a duration.
    """
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
