"""How many tokens a stretch of sound becomes: from its samples and rate alone."""

from __future__ import annotations

from mmpack.errors import ConfigError, DataError
from mmpack.serialisation import to_builtins
from mmpack.settings import Settings


class AudioLayout(Settings, frozen=True, kw_only=True):
    """The `[layout.audio]` table: the codec, and the numbers that fix its token count.

    Sound is resampled to `sample_rate_hz` and cut into frames of `hop` samples, the last one padded. Each
    frame becomes `codebooks` tokens, frame by frame: (frame 0, codebook 0), (frame 0, codebook 1), ...,
    (frame 1, codebook 0), ...

    Raises:
        ConfigError: a number is less than 1, or the codec has no name.
    """

    codec: str = "pcm-frames"
    """Name of the codec. `pcm-frames` is built in and needs no weights. Any other has its numbers below."""
    sample_rate_hz: int = 16_000
    """Rate the codec works at, in Hz."""
    hop: int = 320
    """Samples per frame, at `sample_rate_hz`."""
    codebooks: int = 1
    """Tokens per frame, one from each codebook."""
    codebook_size: int = 1024
    """Codes in each codebook; the vocabulary holds codebooks x codebook_size ids for audio."""

    def __post_init__(self) -> None:
        if not self.codec:
            raise ConfigError("the codec has no name", where="layout.audio.codec")
        for key in ("sample_rate_hz", "hop", "codebooks", "codebook_size"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{getattr(self, key)} is less than 1", where=f"layout.audio.{key}")

    def num_frames(self, samples: int, rate_hz: int) -> int:
        """Codec frames of `samples` samples recorded at `rate_hz`.

        ceil(ceil(samples * sample_rate_hz / rate_hz) / hop), in integers.

        Raises:
            DataError: `samples` is negative or `rate_hz` is not positive.
        """
        if samples < 0 or rate_hz < 1:
            raise DataError(f"{samples} samples at {rate_hz} Hz are no sound", where="audio")
        resampled = -(-samples * self.sample_rate_hz // rate_hz)
        return -(-resampled // self.hop)

    def num_tokens(self, samples: int, rate_hz: int) -> int:
        """Tokens of `samples` samples recorded at `rate_hz`: frames x codebooks; 0 for no samples.

        Raises:
            DataError: `samples` is negative or `rate_hz` is not positive.
        """
        return self.num_frames(samples, rate_hz) * self.codebooks

    def to_canonical(self) -> dict[str, object]:
        """What changes tokens, for the fingerprint."""
        return to_builtins(self)
