"""The sample kind `speech`: speech with its transcript."""

from __future__ import annotations

from mmpack.layout import StandAloneMetadata
from mmpack.samples.audio import read_audio_info
from mmpack.samples.kinds.kind import StandAloneKind


def _measure(extension: str, data: bytes, where: str) -> StandAloneMetadata:
    info = read_audio_info(data, where=where)
    return StandAloneMetadata(audio=((info.frames, info.samplerate),))


SPEECH = StandAloneKind(
    name="speech", noun="the audio", extensions={"wav": "wav", "flac": "flac", "ogg": "ogg"}, measure=_measure
)
