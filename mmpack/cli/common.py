"""What the commands share: settings from files and options, output for people and for machines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpack.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from rich.console import Console

    from mmpack.sync import SyncConfig

#: Width of reports that go to a file or pipe.
_PLAIN_WIDTH = 160


def console() -> Console:
    """stdout for people: coloured and wrapped on a terminal, plain and wide elsewhere."""
    from rich.console import Console

    return Console(
        width=None if sys.stdout.isatty() else _PLAIN_WIDTH,
        highlight=False,
        soft_wrap=not sys.stdout.isatty(),
    )


def pretty_json(value: Any) -> bytes:
    """JSON for files that people look into."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a refused write into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot be written ({error.strerror or error})", where=str(path)) from None


def check_png(path: Path | None, *, option: str) -> None:
    """Raises ConfigError if a picture is to be written that is no PNG, before anything is worked out."""
    if path is not None and path.suffix.lower() != ".png":
        raise ConfigError(f"'{path.name}' is no name of a PNG", where=option, mend="Let it end in .png.")


def sync_config(config: Path | None, reference: str | None, tolerance: str | None) -> SyncConfig:
    """The [sync] table of a file, with what the command line says in its place. Raises ConfigError."""
    from mmpack.sync import SyncConfig

    settings = SyncConfig()
    if config is not None:
        from mmpack.build import BuildConfig
        from mmpack.config import load

        settings = load(config, BuildConfig).sync
    return with_options(settings, reference, tolerance)


def with_options(settings: SyncConfig, reference: str | None, tolerance: str | None) -> SyncConfig:
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
            raise ConfigError(error.what, where="--tolerance", mend=error.mend) from None
        streams = {
            name: msgspec.structs.replace(policy, tolerance=tolerance)
            for name, policy in settings.streams.items()
        }
        streams.setdefault("*", StreamPolicy(tolerance=tolerance))
        settings = msgspec.structs.replace(settings, streams=streams)
    return settings
