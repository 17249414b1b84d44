"""In what order documents are drawn, so that every data set keeps to its due tokens within one document.

The rule. The course says how many tokens of each data set are due after t tokens, whatever was drawn. The next
document of a data set is *released* once all before it are due, and its *deadline* is when it is due itself. Of the
released documents the one with the earliest deadline is drawn: chairman assignment (Tijdeman, Discrete Mathematics
32, 1980) with documents of any length, or worst-case fair queueing (WF²Q: Bennett and Zhang, INFOCOM 1996) with
shares that change.

What holds. Let D_i be due, d_i drawn, L the longest document: |D_i − d_i| ≤ L for every data set after every draw,
for any number of data sets, shares, changes of shares and lengths.

*Never more than L ahead.* A document is drawn only once all before it are due, so d_i ≤ D_i before it and
d_i − D_i is at most its length after it.

*One is always released*: the sum of D_i − d_i is 0. If one is positive, that data set's next document is released;
if all are 0, so is that of any data set whose share is positive now.

*Never more than L behind.* Take a document J of length l with deadline T. Let t be the last time before J is done
at which a document with a later deadline was drawn, and l' its length. All released then had later deadlines, so a
data set with an earlier one had at least its due at t. What is drawn from t + l' until J is done has deadlines up
to T: it was all due between t and T, which is T − t tokens at most, and J is done by T + l' ≤ T + L. (If there is no
such t, it is done by T.) So J is begun by T + L − l, when no more than l + (L − l) = L of its data set is due beyond
what was drawn before it.

Deadlines are compared as whole tokens, rounded down. That changes nothing above: of the documents that fall due
before T + 1 at least one does so with a part of a token to spare, or all do at T; token counts are integers, so
together they have T − t at most.

*Phases.* What is due does not jump at a boundary, so a data set that the new phase lacks may still come once, if it is
behind and no other document is released. It never comes before its first phase begins.

*Repeat caps.* A data set has run out once its tokens have reached what is available. The document that crosses the
cap is drawn whole, and what is beyond the cap is in no share: for the course it is not counted. With caps of whole
epochs there is none. L is then the longest part that counts, and D_i stops at the cap.

What the order depends on. The tokens drawn of each data set are the whole state: releases and deadlines follow from
them and the course. So a draw can be broken off anywhere, and draws can be taken back, by their numbers of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import DataError
from mmpack.mixture.quota import QuotaCurve
from mmpack.mixture.weights import SCALE

_MAX_LENGTH = 1 << 24
_STOP_REASONS: tuple[Literal["enough", "dry", "end"], ...] = ("enough", "dry", "end")


@dataclass(frozen=True, slots=True, eq=False)
class DrawResult:
    """What one call of `draw` has drawn.

    Attributes:
        chosen: int16 (draws,), the data set of each draw, in order. The n-th draw of a data set in it is the n-th
            document of its buffer.
        tokens: int64 (datasets,), drawn by now, with what was drawn before: the state to go on from.
        stop: "enough", as many tokens as wanted; "dry", a buffer has no next document, go on with a fuller one;
            "end", the course has ended: the last phase is over, or all data sets of the phase have run out.
        dry: the data set whose buffer ran dry; -1 if none did.
    """

    chosen: NDArray[np.int16]
    tokens: NDArray[np.int64]
    stop: Literal["enough", "dry", "end"]
    exhausted_dataset: int


def draw_documents(
    curve: QuotaCurve,
    drawn: NDArray[np.int64],
    lengths: NDArray[np.int32],
    offsets: NDArray[np.int64],
    *,
    until_tokens: int,
) -> DrawResult:
    """Draw documents until a token count of the run is reached.

    The order does not depend on how much the buffers hold, nor on where a draw was broken off.

    Args:
        course: what is due.
        drawn: int64 (datasets,), tokens of each data set drawn so far; zeros at the start. Not changed.
        lengths: int32, tokens of the next documents, data set by data set, each in the order they are to be drawn.
        offsets: int64 (datasets + 1,), where each data set's begin.
        until_tokens: of all data sets together, counted from the start of the run; the document that reaches it is
            the last.

    Raises:
        DataError: a length is not 1 to 16,777,216, or the arrays do not fit each other.
    """
    from mmpack.mixture.draw_kernel import draw_earliest_deadline

    count = len(curve.available)
    if drawn.shape != (count,) or offsets.shape != (count + 1,) or offsets[-1] != lengths.size:
        raise DataError(f"tokens, buffers and offsets are not those of {count} data sets", where="draw")
    if lengths.size and not (lengths.min() >= 1 and lengths.max() <= _MAX_LENGTH):
        wrong = int(np.flatnonzero((lengths < 1) | (lengths > _MAX_LENGTH))[0])
        raise DataError(
            f"a document has {lengths[wrong]} tokens, not 1 to {_MAX_LENGTH:,}",
            where=f"data set '{curve.schedule.datasets[int(np.searchsorted(offsets, wrong, 'right')) - 1]}'",
        )
    tokens = np.array(drawn, np.int64)
    places = np.array(
        [
            curve.inverse(i, int(min(drawn_i, cap)))
            for i, (drawn_i, cap) in enumerate(zip(drawn, curve.available, strict=True))
        ],
        np.int64,
    )
    chosen, stop, dry = draw_earliest_deadline(
        curve.segment_edges,
        curve.weights,
        curve.available,
        places,
        tokens,
        lengths,
        offsets,
        int(until_tokens),
    )
    return DrawResult(chosen, tokens, _STOP_REASONS[stop], int(dry))


def tokens_after(
    curve: QuotaCurve,
    drawn: NDArray[np.int64],
    chosen: NDArray[np.int16],
    lengths: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The state after some of a draw's documents, for taking back the others: pass the first k of `chosen`.

    Args:
        course, drawn, lengths, offsets: as they were given to `draw`.
        chosen: int16 (k,).

    Returns:
        int64 (datasets,).
    """
    counts = np.bincount(chosen, minlength=len(curve.available))
    ends = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return drawn + ends[offsets[:-1] + counts] - ends[offsets[:-1]]


def quota_lag(curve: QuotaCurve, drawn: NDArray[np.int64]) -> list[int]:
    """Due less drawn of each data set, in parts of `SCALE` of a token: within one document of 0, always.

    Args:
        course: what is due.
        drawn: int64 (datasets,), tokens drawn so far; beyond a cap they are not counted.
    """
    counted = [int(min(tokens, cap)) for tokens, cap in zip(drawn, curve.available, strict=True)]
    return [due - tokens * SCALE for due, tokens in zip(curve.tokens_at(sum(counted)), counted, strict=True)]
