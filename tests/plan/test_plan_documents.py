"""The order and the documents of a data set."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.errors import ConfigError, DataError, IntegrityError, StorageError
from mmpack.plan.catalog import IndexCatalog
from mmpack.plan.documents import load_documents
from mmpack.plan.epoch_order import epoch_order, permute_index
from mmpack.plan.plan_config import DatasetConfig
from mmpack.plan.planned_rows import PAIR_OVERHEAD
from tests.examples import examples
from tools.make_index import IndexSource, make_index

keys = st.integers(0, 2**64 - 1).map(np.uint64)


@given(st.integers(1, 2000), keys)
def test_permute_index_is_a_bijection(n: int, key: np.uint64) -> None:
    assert sorted(permute_index(index, n, key) for index in range(n)) == list(range(n))


@given(st.integers(1, 700), st.integers(1, 50), keys, st.integers(0, 1500))
def test_each_epoch_holds_every_item_once_and_does_not_depend_on_the_calls(
    n: int, block: int, key: np.uint64, cut: int
) -> None:
    items = epoch_order(0, 3 * n, n, min(block, n), key)
    for epoch in range(3):
        assert np.array_equal(np.sort(items[epoch * n : (epoch + 1) * n]), np.arange(n))
    cut = min(cut, 3 * n)
    parts = [
        epoch_order(0, cut, n, min(block, n), key),
        epoch_order(cut, 3 * n - cut, n, min(block, n), key),
    ]
    assert np.array_equal(items, np.concatenate(parts))


@given(keys)
def test_neighbours_of_a_block_stay_together(key: np.uint64) -> None:
    n, block = 1003, 16
    blocks = epoch_order(0, n, n, block, key) // block
    num_changes = int(np.count_nonzero(np.diff(blocks)))
    assert num_changes == -(-n // block) - 1


def test_epochs_and_keys_have_different_orders() -> None:
    n = 500
    first = epoch_order(0, 2 * n, n, 4, np.uint64(1))
    assert not np.array_equal(first[:n], first[n:])
    assert not np.array_equal(first[:n], epoch_order(0, n, n, 4, np.uint64(2)))
    # Indices and items are not correlated, as in a random shuffle.
    assert abs(np.corrcoef(np.arange(n), epoch_order(0, n, n, 1, np.uint64(3)))[0, 1]) < 0.15


@st.composite
def _sources(draw: st.DrawFn) -> list[IndexSource]:
    sources = []
    for index in range(draw(st.integers(1, 3))):
        count = draw(st.integers(1, 25))
        tokens = np.array(draw(st.lists(st.integers(1, 60), min_size=count, max_size=count)))
        if draw(st.booleans()):
            runs = np.cumsum(np.array(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))))
            residual = np.array(draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)))
            text = np.array([draw(st.integers(0, value - 1)) for value in tokens.tolist()])
            sources.append(
                IndexSource(
                    name=f"r{index}",
                    kind="slice",
                    tokens=tokens,
                    runs=runs,
                    residual_ns=residual,
                    tokens_text=text,
                )
            )
        else:
            sources.append(IndexSource(name=f"r{index}", kind="text", tokens=tokens))
    return sources


@settings(max_examples=examples(60))
@given(_sources(), st.integers(70, 200), st.one_of(st.none(), st.integers(0, 5)), st.booleans())
def test_documents_are_the_longest_runs_that_fit(
    tmp_path_factory: pytest.TempPathFactory,
    sources: list[IndexSource],
    capacity: int,
    tolerance_ns: int | None,
    contrastive: bool,
) -> None:
    catalog = IndexCatalog(str(make_index(tmp_path_factory.mktemp("documents"), sources)))
    config = DatasetConfig(name="d", shards="", select=(sources[0].name, "none"), contrastive=contrastive)
    expected = _expected_documents(sources[0], capacity, tolerance_ns, contrastive)
    if not expected:
        with pytest.raises(DataError, match="no sample is left to plan"):
            load_documents(catalog, config, overhead=4, capacity=capacity, tolerance_ns=tolerance_ns)
        return
    table = load_documents(catalog, config, overhead=4, capacity=capacity, tolerance_ns=tolerance_ns)
    documents = list(zip(table.start.tolist(), table.stop.tolist(), table.tokens.tolist(), strict=True))
    assert documents == expected
    assert table.total_tokens == sum(tokens for _, _, tokens in expected)
    assert table.num_samples == sum(stop - start for start, stop, _ in expected)
    assert table.num_samples + table.num_excluded_slices == len(sources[0].tokens)
    assert len(catalog) == sum(len(source.tokens) for source in sources)


def _expected_documents(
    source: IndexSource, capacity: int, tolerance_ns: int | None, contrastive: bool
) -> list[tuple[int, int, int]]:
    """Returns (start, stop, tokens) of each document, from a slow reference implementation."""
    max_tokens = capacity - (4 if contrastive else 0)
    documents: list[list[int]] = []
    for i, tokens in enumerate(source.tokens.tolist()):
        is_slice = source.kind == "slice"
        residual_ns = 0 if source.residual_ns is None else source.residual_ns[i]
        if is_slice and tolerance_ns is not None and residual_ns > tolerance_ns:
            continue
        continues = (
            is_slice
            and documents
            and documents[-1][-1] == i - 1
            and (source.runs is None or source.runs[i] == source.runs[i - 1])
            and 4 + sum(int(source.tokens[j]) for j in documents[-1]) + tokens <= max_tokens
        )
        documents[-1].append(i) if continues else documents.append([i])
    result = []
    for samples in documents:
        tokens = sum(int(source.tokens[i]) for i in samples)
        if source.kind == "slice":
            tokens += 4
            if contrastive and source.tokens_text is not None and any(source.tokens_text[i] for i in samples):
                tokens += 4
        result.append((samples[0], samples[-1] + 1, tokens))
    return result


def test_the_error_about_a_sample_longer_than_a_row_names_the_sample(tmp_path: Path) -> None:
    catalog = IndexCatalog(
        str(make_index(tmp_path, [IndexSource(name="long", kind="text", tokens=np.array([5, 900, 7]))]))
    )
    config = DatasetConfig(name="d", shards="")
    message = (
        r"long-00000001.*900 tokens do not fit a row of 512 positions together with 0 tokens of overhead\. "
        "Set max_seq_len to 900 or more"
    )
    with pytest.raises(DataError, match=message):
        load_documents(catalog, config, overhead=4, capacity=512, tolerance_ns=None)


@pytest.mark.parametrize(("kind", "overhead"), [("text", 4), ("slice", 8)])
def test_the_error_about_a_long_sample_names_the_row_length_in_a_contrastive_data_set(
    tmp_path: Path, kind: str, overhead: int
) -> None:
    catalog = IndexCatalog(
        str(make_index(tmp_path, [IndexSource(name="long", kind=kind, tokens=np.array([5, 510]))]))
    )
    config = DatasetConfig(name="d", shards="", contrastive=True)
    message = (
        f"510 tokens do not fit a row of 512 positions together with {overhead} tokens of overhead\\. "
        f"Set max_seq_len to {510 + overhead} or more"
    )
    with pytest.raises(DataError, match=message):
        load_documents(catalog, config, overhead=4, capacity=512, tolerance_ns=None)


@pytest.mark.parametrize("kind", ["text", "image_text", "speech", "a new kind"])
def test_a_stand_alone_sample_with_text_and_other_content_is_a_pair_whatever_its_kind(
    tmp_path: Path, kind: str
) -> None:
    tokens, tokens_text = np.array([2, 9, 9, 9]), np.array([0, 7, 6, 0])
    source = IndexSource(name="s", kind=kind, tokens=tokens, tokens_text=tokens_text)
    catalog = IndexCatalog(str(make_index(tmp_path, [source])))
    config = DatasetConfig(name="d", shards="", contrastive=True)
    table = load_documents(catalog, config, overhead=4, capacity=64, tolerance_ns=None)
    assert table.tokens.tolist() == [2, 9, 9 + PAIR_OVERHEAD, 9]


def test_a_pattern_that_matches_no_name_is_an_error(tmp_path: Path) -> None:
    catalog = IndexCatalog(
        str(make_index(tmp_path, [IndexSource(name="texts", kind="text", tokens=np.array([5]))]))
    )
    with pytest.raises(ConfigError, match="Did you mean 'texts'"):
        load_documents(
            catalog,
            DatasetConfig(name="d", shards="", select=("text",)),
            overhead=4,
            capacity=512,
            tolerance_ns=None,
        )


def test_an_index_with_another_digest_is_an_error(tmp_path: Path) -> None:
    folder = make_index(tmp_path, [IndexSource(name="texts", kind="text", tokens=np.arange(1, 50))])
    content = bytearray((folder / "index.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "index.parquet").write_bytes(content)
    with pytest.raises(IntegrityError, match="sha256"):
        IndexCatalog(str(folder))


def test_a_catalog_is_read_from_the_cache_and_a_damaged_cache_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMPACK_CACHE", str(tmp_path / "cache"))
    folder = make_index(tmp_path / "out", [IndexSource(name="texts", kind="text", tokens=np.arange(1, 50))])
    first = IndexCatalog(str(folder))
    assert isinstance(first.columns["tokens"].base, np.memmap)
    (first.folder / "tokens").write_bytes(b"short")
    again = IndexCatalog(str(folder))
    assert np.array_equal(again.columns["tokens"], np.arange(1, 50))
    assert again.key(7) == "texts-00000007"


def test_a_manifest_with_another_count_is_an_error_with_and_without_cache(tmp_path: Path) -> None:
    folder = make_index(tmp_path, [IndexSource(name="texts", kind="text", tokens=np.arange(1, 50))])
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"samples": 50}))
    for _ in range(2):
        with pytest.raises(IntegrityError, match="49 samples, the manifest says 50"):
            IndexCatalog(str(folder))


def test_more_text_tokens_than_tokens_is_an_error(tmp_path: Path) -> None:
    for text in (-1, 6):
        source = IndexSource(
            name="drive", kind="slice", tokens=np.full(3, 5), tokens_text=np.array([1, text, 1])
        )
        with pytest.raises(IntegrityError, match="drive-00000001"):
            IndexCatalog(str(make_index(tmp_path / str(text), [source])))


def test_a_file_in_place_of_the_cache_folder_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MMPACK_CACHE", str(tmp_path / "cache"))
    folder = make_index(tmp_path / "out", [IndexSource(name="texts", kind="text", tokens=np.arange(1, 50))])
    first = IndexCatalog(str(folder)).folder
    shutil.rmtree(first)
    first.write_bytes(b"in the way")
    assert len(IndexCatalog(str(folder))) == 49
    assert "cannot be replaced" in caplog.text
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMPACK_CACHE", str(tmp_path / "cache"))
    folder = make_index(tmp_path / "out", [IndexSource(name="texts", kind="text", tokens=np.full(20_000, 7))])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"tables cannot be written.*MMPACK_CACHE"):
            IndexCatalog(str(folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list((tmp_path / "cache").iterdir())
    assert len(IndexCatalog(str(folder))) == 20_000


def test_a_catalog_works_without_a_writable_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MMPACK_CACHE", str(tmp_path / "file" / "below"))
    folder = make_index(tmp_path / "out", [IndexSource(name="texts", kind="text", tokens=np.arange(1, 50))])
    catalog = IndexCatalog(str(folder))
    table = load_documents(
        catalog, DatasetConfig(name="d", shards=""), overhead=4, capacity=512, tolerance_ns=None
    )
    assert len(table) == 49
    assert "cannot be written" in caplog.text
