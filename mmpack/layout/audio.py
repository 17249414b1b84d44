"""`[layout.audio]`: the number of audio tokens, computed from the number of audio samples and their rate."""

from __future__ import annotations

from mmpack.errors import ConfigError, DataError
from mmpack.serialisation import to_builtins
from mmpack.settings import PositiveInt, Settings


class AudioLayout(Settings, frozen=True, kw_only=True):
    """The `[layout.audio]` table: the codec, and the numbers that determine its token count.

    Audio is resampled to `sample_rate_hz` and cut into codec frames of `hop` audio samples; the last frame is padded.
    Each frame becomes `codebooks` tokens, in the order (frame 0, codebook 0), (frame 0, codebook 1), ...,
    (frame 1, codebook 0), ...

    Raises:
        ConfigError: a number is less than 1, or the codec has no name.
    """

    codec: str = "pcm-frames"
    """Name of the codec. `pcm-frames` is built in and needs no weights. For any other, set the numbers below."""
    sample_rate_hz: PositiveInt = 16_000
    """Sample rate of the codec, in Hz."""
    hop: PositiveInt = 320
    """Audio samples per codec frame, at `sample_rate_hz`."""
    codebooks: PositiveInt = 1
    """Tokens per codec frame, one from each codebook."""
    codebook_size: PositiveInt = 1024
    """Codes per codebook; the vocabulary has codebooks x codebook_size audio ids."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.codec:
            raise ConfigError("the codec has no name", where="layout.audio.codec")

    @property
    def _where(self) -> str:
        return "layout.audio"

    def num_frames(self, samples: int, rate_hz: int) -> int:
        """Returns the number of codec frames of `samples` audio samples recorded at `rate_hz`.

        The number is ceil(ceil(samples * sample_rate_hz / rate_hz) / hop), in integer arithmetic.

        Raises:
            DataError: `samples` is negative or `rate_hz` is not positive.
        """
        if samples < 0 or rate_hz < 1:
            raise DataError(f"{samples} audio samples at {rate_hz} Hz are impossible", where="audio")
        resampled = -(-samples * self.sample_rate_hz // rate_hz)
        return -(-resampled // self.hop)

    def num_tokens(self, samples: int, rate_hz: int) -> int:
        """Returns the number of tokens of `samples` audio samples recorded at `rate_hz`: frames x codebooks.

        Raises:
            DataError: `samples` is negative or `rate_hz` is not positive.
        """
        return self.num_frames(samples, rate_hz) * self.codebooks

    def to_canonical(self) -> dict[str, object]:
        """Returns the settings that change tokens, for the fingerprint."""
        return to_builtins(self)
