"""Storage: named files in a folder or an object store, each visible only when whole."""

from __future__ import annotations

from pathlib import Path

from mmpack.errors import ConfigError
from mmpack.storage.local import LocalStore
from mmpack.storage.objects import ObjectStore
from mmpack.storage.store import Store

_REMOTE = ("s3://", "gs://", "gcs://", "az://", "azure://", "abfs://")


def open_store(url: str, *, client_retries: int | None = None) -> Store:
    """The store at `url`: a local path, or s3://, gs://, az:// with credentials and endpoint from the
    environment.

    Args:
        url: where.
        client_retries: times that an object store's client itself tries a request again; None: its default.

    Raises:
        ConfigError: a URL of no known kind.
    """
    if url.startswith(_REMOTE):
        return ObjectStore(url, client_retries=client_retries)
    if "://" in url and not url.startswith("file://"):
        raise ConfigError("not a path or object store URL", where=url, hint=f"Known: {', '.join(_REMOTE)}.")
    return LocalStore(Path(url.removeprefix("file://")))
