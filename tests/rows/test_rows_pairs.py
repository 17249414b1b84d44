"""Tests of contrastive pairs: a pair has all tokens of its document and four more."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmpack.layout import Layout, LayoutConfig, Modality
from mmpack.plan.planned_rows import PAIR_OVERHEAD
from mmpack.rows.pairs import is_text_position, make_pair_ids, split_pair

LAYOUT = Layout(LayoutConfig(cameras=("front",)))
ID = LAYOUT.vocabulary.id


@given(st.lists(st.sampled_from(["<|patch|>", "<|front|>", "<|text_start|>", "word", "<|t_0.1s|>"])))
def test_a_pair_has_the_tokens_of_the_document_and_four_more(names: list[str]) -> None:
    inner_ids = [7 if name == "word" else ID(name) for name in names]
    ids = np.array([ID("<|bos|>"), *inner_ids, ID("<|eos|>")], np.int32)
    is_text = is_text_position(LAYOUT, ids)
    assert is_text.tolist() == [token in (7, ID("<|text_start|>")) for token in ids.tolist()]
    pair = split_pair(is_text)
    pair_ids = make_pair_ids(LAYOUT, ids, pair)
    assert len(pair_ids) == len(ids) + PAIR_OVERHEAD
    assert pair_ids[pair.positions].tolist() == ids.tolist()
    added = set(range(len(pair_ids))) - set(pair.positions.tolist())
    assert added == {*pair.cls, pair.bos, pair.eos}
    media_ids, text_ids = pair_ids[: pair.bos].tolist(), pair_ids[pair.bos :].tolist()
    media_tokens = [token for token, text in zip(ids.tolist(), is_text, strict=True) if not text]
    assert media_ids == [*media_tokens[:-1], ID("<|cls|>"), ID("<|eos|>")]
    text_tokens = [token for token, text in zip(ids.tolist(), is_text, strict=True) if text]
    assert text_ids == [ID("<|bos|>"), *text_tokens, ID("<|cls|>"), ID("<|eos|>")]


def test_only_text_ids_and_text_start_are_text_positions() -> None:
    vocabulary = LAYOUT.vocabulary
    all_ids = np.arange(vocabulary.size, dtype=np.int32)
    selected = all_ids[is_text_position(LAYOUT, all_ids)]
    texts = np.flatnonzero(vocabulary.modality(all_ids) == Modality.TEXT)
    assert selected.tolist() == sorted([*texts.tolist(), ID("<|text_start|>")])
