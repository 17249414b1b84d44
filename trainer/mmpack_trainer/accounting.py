"""The batch, counted: micro-batch × places × accumulation × data-parallel ranks = tokens of a step."""

from __future__ import annotations

from dataclasses import dataclass

from mmpack.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BatchSize:
    """How a step's rows are shared out."""

    micro_batch: int
    """Rows of a rank in one forward pass."""
    seq_len: int
    """Token places of a row."""
    accumulation: int
    """Forward passes of a rank in a step."""
    ranks: int
    """Data-parallel ranks."""

    @property
    def rows(self) -> int:
        """Rows of a step over all ranks."""
        return self.micro_batch * self.accumulation * self.ranks

    @property
    def tokens(self) -> int:
        """Token places of a step over all ranks."""
        return self.rows * self.seq_len

    def __str__(self) -> str:
        return (
            f"{self.micro_batch:,} rows × {self.seq_len:,} places × {self.accumulation:,} accumulated "
            f"× {self.ranks:,} data-parallel ranks = {self.tokens:,} tokens a step"
        )


def batch_of(global_batch: int, *, seq_len: int, micro_batch: int, ranks: int) -> BatchSize:
    """The batch whose accumulation makes the product be `global_batch` rows, exactly.

    Raises:
        ConfigError: no whole number does; says what to change.
    """
    accumulation, rest = divmod(global_batch, micro_batch * ranks)
    if not rest:
        return BatchSize(micro_batch, seq_len, accumulation, ranks)
    unit = micro_batch * ranks
    below = global_batch - rest
    sizes = f"{below} or {below + unit}" if below else f"{unit}"
    mend = f"Set the plan's global_batch to {sizes}"
    if global_batch % ranks:
        mend += f", or use {largest_divisor(global_batch, ranks)} data-parallel ranks."
    else:
        mend += f", or micro_batch to {largest_divisor(global_batch // ranks, micro_batch)}."
    raise ConfigError(
        f"{global_batch} rows a step are no multiple of {ranks} data-parallel ranks × micro_batch {micro_batch}",
        where="global_batch",
        hint=mend,
    )


def solved(target_tokens: int, *, seq_len: int, micro_batch: int, ranks: int) -> BatchSize:
    """The batch nearest to `target_tokens` a step: its accumulation is rounded, ties up, and is at least 1."""
    unit = micro_batch * seq_len * ranks
    return BatchSize(micro_batch, seq_len, max(1, (2 * target_tokens + unit) // (2 * unit)), ranks)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`, both 1 or more."""
    return next(each for each in range(min(most, number), 0, -1) if number % each == 0)
