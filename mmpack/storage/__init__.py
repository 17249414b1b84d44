"""Storage: named files in a folder or an object store, each visible only when it is complete."""

from __future__ import annotations

from pathlib import Path

from mmpack.errors import ConfigError
from mmpack.storage.local import LocalStore
from mmpack.storage.objects import ObjectStore
from mmpack.storage.store import Store

_REMOTE = ("s3://", "gs://", "gcs://", "az://", "azure://", "abfs://")


def open_store(url: str, *, client_retries: int | None = None) -> Store:
    """Opens the store at `url`.

    Args:
        url: a local path, or an s3://, gs:// or az:// URL with credentials and endpoint from the environment.
        client_retries: number of times that the client of an object store repeats a failed request; None for the
            client's default.

    Raises:
        ConfigError: the URL has an unknown scheme.
    """
    if url.startswith(_REMOTE):
        return ObjectStore(url, client_retries=client_retries)
    if "://" in url and not url.startswith("file://"):
        raise ConfigError("not a path or object store URL", where=url, hint=f"Known: {', '.join(_REMOTE)}.")
    return LocalStore(Path(url.removeprefix("file://")))
