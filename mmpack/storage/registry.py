"""Storage: named files in a folder or an object store, each visible only when it is complete.

A new store is one file with a class that implements :class:`mmpack.storage.store.Store`, `SCHEMES` and `from_url`, and
one line in `STORES`.
"""

from __future__ import annotations

from collections.abc import Callable

from mmpack.errors import ConfigError
from mmpack.storage.local import LocalStore
from mmpack.storage.objects import ObjectStore
from mmpack.storage.store import Store

#: By URL scheme, the function that opens a store from its URL and the number of client retries.
STORES: dict[str, Callable[[str, int | None], Store]] = {
    **dict.fromkeys(LocalStore.SCHEMES, LocalStore.from_url),
    **dict.fromkeys(ObjectStore.SCHEMES, ObjectStore.from_url),
}


def open_store(url: str, *, client_retries: int | None = None) -> Store:
    """Opens the store at `url`.

    Args:
        url: a local path, or an s3://, gs:// or az:// URL with credentials and endpoint from the environment.
        client_retries: number of times that the client of an object store repeats a failed request; None for the
            client's default.

    Raises:
        ConfigError: the URL has an unknown scheme.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    open_url = None if url.startswith("://") else STORES.get(scheme)
    if open_url is None:
        known = ", ".join(f"{name}://" for name in STORES if name)
        raise ConfigError("not a path or object store URL", where=url, hint=f"Known: {known}.")
    return open_url(url, client_retries)
