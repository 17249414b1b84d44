"""Contrastive pairs: one document split into two documents, its media and its texts.

    media document  ... all tokens that are not text ... <|cls|> <|eos|>
    text document   <|bos|> all texts, in slices each after its <|text_start|>, <|cls|> <|eos|>

The media document is the document without its texts, with `<|cls|>` inserted before its last token. A pair
therefore has `PAIR_OVERHEAD` tokens more than the document, whatever the texts are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmpack.layout import Layout, Modality
from mmpack.layout.special_tokens import BOS, CLS, EOS, TEXT_START


@dataclass(frozen=True, slots=True)
class PairPositions:
    """The positions that the n tokens of a document get in its pair, counted from the start of the pair.

    Attributes:
        positions: int32 (n,), position in the pair of each token of the document.
        cls: positions of `<|cls|>` in the media document and in the text document.
        bos: position of `<|bos|>` of the text document, which is also the end of the media document.
        eos: position of `<|eos|>` of the text document, the last position of the pair.
    """

    positions: NDArray[np.int32]
    cls: tuple[int, int]
    bos: int
    eos: int


def split_pair(is_text: NDArray[np.bool_]) -> PairPositions:
    """Splits the positions of a document into those of a media and a text document.

    Args:
        is_text: bool (n,), True for tokens of texts; the last token of the document is `<|eos|>`.
    """
    num_media = len(is_text) - int(is_text.sum())
    bos = num_media + 1
    positions = np.empty(len(is_text), np.int32)
    positions[~is_text] = np.arange(num_media)
    positions[is_text] = np.arange(bos + 1, bos + 1 + len(is_text) - num_media)
    positions[-1] = num_media
    cls = len(is_text) + 2
    return PairPositions(positions, (num_media - 1, cls), bos, cls + 1)


def is_text_position(layout: Layout, ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Returns bool (n,): True where an id of a document, `ids` (n,), is text or `<|text_start|>`."""
    vocabulary = layout.vocabulary
    return (vocabulary.modality(ids) == Modality.TEXT) | (ids == vocabulary.id(TEXT_START))


def make_pair_ids(layout: Layout, ids: NDArray[np.int32], pair: PairPositions) -> NDArray[np.int32]:
    """Returns the ids of both documents of a pair, int32 (n + PAIR_OVERHEAD,), from the document's `ids` (n,)."""
    vocabulary = layout.vocabulary
    pair_ids = np.empty(pair.eos + 1, np.int32)
    pair_ids[pair.positions] = ids
    pair_ids[list(pair.cls)] = vocabulary.id(CLS)
    pair_ids[pair.bos], pair_ids[pair.eos] = vocabulary.id(BOS), vocabulary.id(EOS)
    return pair_ids
