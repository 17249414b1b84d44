"""A contrastive pair: one document's places dealt to two documents, its media and its texts.

    media  ... all that is not text ... <|cls|> <|eos|>
    texts  <|bos|> every text, in slices each behind its <|text_start|> <|cls|> <|eos|>

The media document is the document without its texts; `<|cls|>` goes before its last place. So whatever the
texts are, a pair takes `PAIR_OVERHEAD` places more than the document.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmpack.layout import Layout, Modality
from mmpack.layout.special_tokens import BOS, CLS, EOS, TEXT_START


@dataclass(frozen=True, slots=True)
class PairPositions:
    """Where the places of a document of n go, counted from the pair's first place.

    Attributes:
        places: int32 (n,), of each place of the document.
        cls: `<|cls|>` of the media and of the texts.
        bos: `<|bos|>` of the texts, which is also where the media document ends.
        eos: `<|eos|>` of the texts, the pair's last place.
    """

    positions: NDArray[np.int32]
    cls: tuple[int, int]
    bos: int
    eos: int


def split_pair(is_text: NDArray[np.bool_]) -> PairPositions:
    """Deals the places of a document.

    Args:
        is_text: bool (n,), True for the places of texts; the last place is `<|eos|>`.
    """
    media = len(is_text) - int(is_text.sum())
    bos = media + 1
    places = np.empty(len(is_text), np.int32)
    places[~is_text] = np.arange(media)
    places[is_text] = np.arange(bos + 1, bos + 1 + len(is_text) - media)
    places[-1] = media
    cls = len(is_text) + 2
    return PairPositions(places, (media - 1, cls), bos, cls + 1)


def is_text_position(layout: Layout, ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which of a document's places `ids` (n,) are text or introduce one: bool (n,)."""
    names = layout.vocabulary
    return (names.modality(ids) == Modality.TEXT) | (ids == names.id(TEXT_START))


def make_pair_ids(layout: Layout, ids: NDArray[np.int32], dealt: PairPositions) -> NDArray[np.int32]:
    """The ids of both documents, int32 (n + PAIR_OVERHEAD,), from those of the one, `ids` (n,)."""
    names = layout.vocabulary
    both = np.empty(dealt.eos + 1, np.int32)
    both[dealt.positions] = ids
    both[list(dealt.cls)] = names.id(CLS)
    both[dealt.bos], both[dealt.eos] = names.id(BOS), names.id(EOS)
    return both
