"""Float8 in the products that every token goes through."""

from __future__ import annotations

from mmpack_trainer.model.decoder import MultimodalDecoder
from mmpack_trainer.titan import in_float8


def use_float8(config: MultimodalDecoder.Config, *, emulate: bool) -> None:
    """Makes the dense products of a decoder's blocks float8 ones, in place: attention, feed-forward, shared experts.

    As they were stay the embeddings and heads, which few bits would serve badly; the gate, whose choices must not hang on
    rounding; attention within documents; and the routed experts, whose grouped products would need their tokens padded.

    Args:
        config: see :func:`mmpack_trainer.model.build.decoder_config`.
        emulate: see :func:`mmpack_trainer.titan.in_float8`.

    Raises:
        ImportError: torchao is not installed.
    """
    for block in config.layers:
        parts = (block.attention, block.feed_forward, block.moe and block.moe.shared_experts)
        for part in parts:
            if part is not None:
                in_float8(part, emulate=emulate)
