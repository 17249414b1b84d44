"""The order in which documents are drawn: every data set stays within one document of its quota.

*Rule.* The quota curve says how many tokens of each data set are due after t tokens of all data sets, whatever was
drawn. The next document of a data set is *released* once all documents of the data set before it are due, and its
*deadline* is the token count at which it is due itself. Of the released documents, the one with the earliest deadline
is drawn. This is chairman assignment (Tijdeman, Discrete Mathematics 32, 1980) with documents of any length, or
worst-case fair queueing (WF²Q: Bennett and Zhang, INFOCOM 1996) with shares that change.

*Bound.* Let D_i be the tokens due and d_i the tokens drawn of data set i, and L the length of the longest document.
Then |D_i − d_i| ≤ L for every data set after every draw, for any number of data sets, any shares, any changes of
shares and any lengths.

*At most L ahead.* A document is drawn only once all documents before it are due. So d_i ≤ D_i before the draw, and
d_i − D_i is at most the length of the document after the draw.

*A document is always released.* The sum of D_i − d_i over all data sets is 0. If one difference is positive, the next
document of its data set is released. If all are 0, the next document of any data set with a positive share now is
released.

*At most L late.* Take a document J of length l with deadline T. Let t be the last time before J is complete at which
a document with a later deadline was drawn, and l' the length of that document. All documents released at t had later
deadlines, so a data set whose next document had an earlier deadline had drawn at least its due tokens at t. The
documents drawn from t + l' until J is complete have deadlines up to T, so all their tokens became due between t and T:
at most T − t tokens. Hence J is complete by T + l' ≤ T + L. (If there is no such t, J is complete by T.) So J is
started by T + L − l, when at most l + (L − l) = L tokens of its data set are due beyond those drawn before J.

Deadlines are compared as whole tokens, rounded down. This does not change the bound. Of the documents that become due
before T + 1, either at least one becomes due a fraction of a token early, or all become due at T. Token counts are
integers, so these documents have at most T − t tokens together.

*Phases.* The tokens due are continuous at a phase boundary. So a data set that the new phase lacks may still be drawn
once, if it is late and no other document is released. A data set is never drawn before its first phase begins.

*Repeat caps.* A data set is exhausted once its drawn tokens reach its available tokens. The document that crosses the
cap is drawn completely; its tokens beyond the cap belong to no share, and the quota curve does not count them. Caps of
whole epochs have no such tokens. L is then the longest counted part of a document, and D_i stops at the cap.

*State.* The tokens drawn of each data set are the whole state: releases and deadlines follow from them and from the
quota curve. So drawing can stop after any document, and draws can be undone by subtracting their tokens.
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
_STOP_REASONS: tuple[Literal["enough", "exhausted", "end"], ...] = ("enough", "exhausted", "end")
"""Names of the stop codes of :mod:`mmpack.mixture.draw_kernel`, by code."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawResult:
    """The result of one call of `draw_documents`.

    Attributes:
        chosen: int16 (draws,), data set index of each draw, in order. The n-th draw of a data set is the n-th document
            of its buffer.
        tokens: int64 (datasets,), tokens drawn of each data set, including those drawn before the call: the state from
            which the next call resumes.
        stop: why drawing stopped. "enough": the requested number of tokens is reached. "exhausted": a buffer has no
            next document; the next call needs a buffer with more documents. "end": the quota curve has ended, because
            the last phase is over or all data sets of the phase are exhausted.
        exhausted_dataset: index of the data set whose buffer has no next document; -1 unless `stop` is "exhausted".
    """

    chosen: NDArray[np.int16]
    tokens: NDArray[np.int64]
    stop: Literal["enough", "exhausted", "end"]
    exhausted_dataset: int


def draw_documents(
    curve: QuotaCurve,
    drawn: NDArray[np.int64],
    lengths: NDArray[np.int32],
    offsets: NDArray[np.int64],
    *,
    until_tokens: int,
) -> DrawResult:
    """Draws documents until a total number of tokens is reached.

    The order depends neither on the number of documents in the buffers nor on where earlier calls stopped.

    Args:
        curve: quota of each data set.
        drawn: int64 (datasets,), tokens of each data set drawn so far; zeros at the start. Not changed.
        lengths: int32 (documents,), tokens of the next documents of each data set, data set after data set, in the
            order in which they are to be drawn.
        offsets: int64 (datasets + 1,), index in `lengths` at which each data set begins.
        until_tokens: number of tokens of all data sets together, counted from the start of the plan; the document that
            reaches it is the last.

    Raises:
        DataError: a length is not 1 to 16,777,216, or the shapes of the arrays do not match.
    """
    from mmpack.mixture.draw_kernel import draw_earliest_deadline

    num_datasets = len(curve.available)
    if drawn.shape != (num_datasets,) or offsets.shape != (num_datasets + 1,) or offsets[-1] != lengths.size:
        raise DataError(f"tokens, lengths and offsets do not match {num_datasets} data sets", where="draw")
    if lengths.size and not (lengths.min() >= 1 and lengths.max() <= _MAX_LENGTH):
        wrong = int(np.flatnonzero((lengths < 1) | (lengths > _MAX_LENGTH))[0])
        raise DataError(
            f"a document has {lengths[wrong]} tokens, not 1 to {_MAX_LENGTH:,}",
            where=f"data set '{curve.schedule.datasets[int(np.searchsorted(offsets, wrong, 'right')) - 1]}'",
        )
    tokens = np.array(drawn, np.int64)
    quota_points = np.array(
        [
            curve.inverse(i, int(min(drawn_i, cap)))
            for i, (drawn_i, cap) in enumerate(zip(drawn, curve.available, strict=True))
        ],
        np.int64,
    )
    chosen, stop, exhausted_dataset = draw_earliest_deadline(
        curve.segment_edges,
        curve.weights,
        curve.available,
        quota_points,
        tokens,
        lengths,
        offsets,
        int(until_tokens),
    )
    return DrawResult(chosen, tokens, _STOP_REASONS[stop], int(exhausted_dataset))


def tokens_after(
    curve: QuotaCurve,
    drawn: NDArray[np.int64],
    chosen: NDArray[np.int16],
    lengths: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Computes the state after the first k draws of a call of `draw_documents`, which undoes the other draws.

    Args:
        curve, drawn, lengths, offsets: the arguments of the call.
        chosen: int16 (k,), the first k entries of `DrawResult.chosen`.

    Returns:
        int64 (datasets,), tokens drawn of each data set.
    """
    counts = np.bincount(chosen, minlength=len(curve.available))
    ends = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return drawn + ends[offsets[:-1] + counts] - ends[offsets[:-1]]


def quota_lag(curve: QuotaCurve, drawn: NDArray[np.int64]) -> list[int]:
    """Computes tokens due minus tokens drawn of each data set, in parts of 1 / `SCALE` of a token.

    The absolute value is at most the longest document, after every draw.

    Args:
        curve: quota of each data set.
        drawn: int64 (datasets,), tokens drawn so far; tokens beyond a cap are not counted.
    """
    counted = [int(min(tokens, cap)) for tokens, cap in zip(drawn, curve.available, strict=True)]
    return [due - tokens * SCALE for due, tokens in zip(curve.tokens_at(sum(counted)), counted, strict=True)]
