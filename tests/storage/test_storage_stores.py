"""The registry of stores by URL scheme."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpack.errors import ConfigError
from mmpack.storage import STORES, open_store
from mmpack.storage.local import LocalStore
from mmpack.storage.objects import ObjectStore


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_path_opens_a_local_store(tmp_path: Path, prefix: str) -> None:
    store = open_store(f"{prefix}{tmp_path}", client_retries=0)
    assert isinstance(store, LocalStore)
    assert store.root == tmp_path


@pytest.mark.parametrize("scheme", ["s3", "gs", "gcs", "az", "azure", "abfs"])
def test_an_object_store_url_opens_an_object_store(scheme: str) -> None:
    store = open_store(f"{scheme}://bucket/prefix/")
    assert isinstance(store, ObjectStore)
    assert store.url == f"{scheme}://bucket/prefix"


@pytest.mark.parametrize("url", ["ftp://host/folder", "S3://bucket", "://folder"])
def test_an_unknown_scheme_raises_an_error_that_lists_the_known_ones(url: str) -> None:
    with pytest.raises(ConfigError, match="s3://, gs://"):
        open_store(url)


def test_a_new_store_is_one_entry_of_the_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(
        STORES, "test", lambda url, client_retries: LocalStore(tmp_path / url.removeprefix("test://"))
    )
    assert open_store("test://name").url == str(tmp_path / "name")
