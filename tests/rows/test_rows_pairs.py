"""Pairs: every place of the document goes to one place of the pair, and four are added."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmpack.layout import Layout, LayoutConfig, Modality
from mmpack.plan.planned import PAIR_OVERHEAD
from mmpack.rows.pairs import is_text_position, make_pair_ids, split_pair

LAYOUT = Layout(LayoutConfig(cameras=("front",)))
ID = LAYOUT.vocabulary.id


@given(st.lists(st.sampled_from(["<|patch|>", "<|front|>", "<|text_start|>", "word", "<|t_0.1s|>"])))
def test_a_pair_takes_the_document_and_four_places(names: list[str]) -> None:
    inner = [7 if name == "word" else ID(name) for name in names]
    ids = np.array([ID("<|bos|>"), *inner, ID("<|eos|>")], np.int32)
    is_text = is_text_position(LAYOUT, ids)
    assert is_text.tolist() == [token in (7, ID("<|text_start|>")) for token in ids.tolist()]
    dealt = split_pair(is_text)
    both = make_pair_ids(LAYOUT, ids, dealt)
    assert len(both) == len(ids) + PAIR_OVERHEAD
    assert both[dealt.positions].tolist() == ids.tolist()
    added = set(range(len(both))) - set(dealt.positions.tolist())
    assert added == {*dealt.cls, dealt.bos, dealt.eos}
    media, texts = both[: dealt.bos].tolist(), both[dealt.bos :].tolist()
    kept = [token for token, text in zip(ids.tolist(), is_text, strict=True) if not text]
    assert media == [*kept[:-1], ID("<|cls|>"), ID("<|eos|>")]
    said = [token for token, text in zip(ids.tolist(), is_text, strict=True) if text]
    assert texts == [ID("<|bos|>"), *said, ID("<|cls|>"), ID("<|eos|>")]


def test_only_texts_are_text() -> None:
    names = LAYOUT.vocabulary
    every = np.arange(names.size, dtype=np.int32)
    found = every[is_text_position(LAYOUT, every)]
    texts = np.flatnonzero(names.modality(every) == Modality.TEXT)
    assert found.tolist() == sorted([*texts.tolist(), ID("<|text_start|>")])
