"""Tokenizers: round trips, counts, and files that are not valid."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpack.errors import ConfigError, DataError
from mmpack.layout import Tokenizer
from mmpack.layout.text import MAX_FILE_BYTES

BUILTIN = Tokenizer()
BUILTIN_FILE = files("mmpack.layout").joinpath("data", "tokenizer.json").read_bytes()
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


def write_tokenizer(folder: Path, **changes: object) -> str:
    """Writes the built-in tokenizer, with some of its top-level keys changed, to a file; returns its path."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(BUILTIN_FILE), **changes}))
    return str(path)


@given(UNICODE)
def test_every_text_survives_the_round_trip(text: str) -> None:
    ids = BUILTIN.encode(text)
    assert BUILTIN.decode(ids) == text
    assert ids.dtype == np.int32
    assert len(ids) <= len(text.encode())
    assert ((ids >= 0) & (ids < BUILTIN.size)).all()


@given(st.lists(UNICODE, max_size=10))
def test_batch_counts_equal_the_lengths_of_encoded_texts(texts: list[str]) -> None:
    counts = BUILTIN.count_batch(texts)
    assert counts.dtype == np.int64
    assert counts.tolist() == [len(BUILTIN.encode(text)) for text in texts]


def test_a_batch_of_several_calls_is_counted_in_order() -> None:
    texts = ["a b " * n for n in (300_000, 1, 0, 200_000, 2)]
    assert BUILTIN.count_batch(texts).tolist() == [len(BUILTIN.encode(text)) for text in texts]


def test_the_builtin_tokenizer_is_small_and_knows_all_ascii_characters() -> None:
    assert BUILTIN.size <= 8192
    assert {BUILTIN.decode([i]) for i in range(BUILTIN.size)} >= {chr(c) for c in range(128)}
    assert BUILTIN.digest == hashlib.sha256(BUILTIN_FILE).hexdigest()


def test_english_text_takes_few_tokens() -> None:
    text = "The car is turning left at the next crossing, while the one behind it waits for the light."
    assert len(BUILTIN.encode(text)) * 3 < len(text)
    assert len(BUILTIN.encode("1024")) == 4


def test_token_texts_are_readable() -> None:
    assert [BUILTIN.token_text(int(i)) for i in BUILTIN.encode(" the car")] == [" the", " car"]
    assert all("\ufffd" not in BUILTIN.token_text(int(i)) for i in BUILTIN.encode("日"))


def test_a_text_that_spells_a_special_token_stays_text(tmp_path: Path) -> None:
    token = {"id": 8192, "content": "<|bos|>", "special": True, "normalized": False}
    token |= {"single_word": False, "lstrip": False, "rstrip": False}
    tokenizer = Tokenizer(write_tokenizer(tmp_path, added_tokens=[token]))
    assert tokenizer.size == 8193
    ids = tokenizer.encode("a <|bos|> b")
    assert 8192 not in ids
    assert tokenizer.decode(ids) == "a <|bos|> b"


def test_truncation_padding_and_templates_of_the_file_are_ignored(tmp_path: Path) -> None:
    truncation = {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    padding = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
    begin, text = {"SpecialToken": {"id": "!", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [begin, text], "pair": [text, text]}
    template |= {"special_tokens": {"!": {"id": "!", "ids": [0], "tokens": ["!"]}}}
    path = write_tokenizer(tmp_path, truncation=truncation, padding=padding, post_processor=template)
    tokenizer = Tokenizer(path)
    sentence = "one two three four"
    assert tokenizer.encode(sentence).tolist() == BUILTIN.encode(sentence).tolist()


@pytest.mark.parametrize("bad", ["\ud800", "fine \udfff"])
def test_half_a_surrogate_pair_is_an_error_that_names_the_index(bad: str) -> None:
    with pytest.raises(DataError, match="text 1 of 2"):
        BUILTIN.count_batch(["fine", bad])


def _change_model(**changes: object) -> bytes:
    """Returns the content of the built-in tokenizer file with some keys of its model changed."""
    data = json.loads(BUILTIN_FILE)
    return json.dumps({**data, "model": {**data["model"], **changes}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b"\xff\xfe",
        BUILTIN_FILE[:-100],
        _change_model(vocab={}, merges=[]),
        _change_model(vocab={"a": 2**32 - 1}, merges=[]),
        _change_model(vocab={"a": 0, "b": 1}, merges=[["a", "b"]]),  # panics in Rust
        _change_model(continuing_subword_prefix="##", vocab={"a": 0}, merges=[["a", "a"]]),
    ],
    ids=[
        "empty",
        "no model",
        "nested",
        "not utf-8",
        "truncated",
        "no ids",
        "large id",
        "unknown merge",
        "prefix",
    ],
)
def test_a_file_that_is_not_a_tokenizer_is_an_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.json"):
        Tokenizer(str(path))


def test_a_text_on_which_the_pattern_does_not_end_is_an_error(tmp_path: Path) -> None:
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    tokenizer = Tokenizer(write_tokenizer(tmp_path, pre_tokenizer=pattern))
    with pytest.raises(DataError, match="the tokenizer failed"):
        tokenizer.encode("a" * 40 + "b")


def test_a_missing_or_large_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json"):
        Tokenizer(str(tmp_path / "nowhere.json"))
    with pytest.raises(ConfigError, match="cannot be read"):
        Tokenizer(str(tmp_path))
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ConfigError, match="larger than"):
        Tokenizer(str(large))
