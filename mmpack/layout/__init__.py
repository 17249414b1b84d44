"""Token layout: the order, number and ids of the tokens of a sample, without decoding media.

`Layout(LayoutConfig(...))` gives the segments of a sample in order (`sample_segments`), the number of its tokens by
modality (`count_tokens`), all ids (`vocabulary`) and a hash of the settings (`fingerprint`). Rows are assembled from the
same segments that are counted.
"""

from mmpack.layout.audio import AudioLayout
from mmpack.layout.images import PatchGrid, VisionLayout
from mmpack.layout.layout import LAYOUT_VERSION, Layout, LayoutConfig
from mmpack.layout.metadata import (
    SampleMetadata,
    SliceMetadata,
    StandAloneMetadata,
)
from mmpack.layout.numeric import NumericLayout
from mmpack.layout.segments import Modality, Segment, TokenCounts
from mmpack.layout.text import TextLayout, Tokenizer
from mmpack.layout.time_tokens import TimeLayout
from mmpack.layout.vocabulary import IdRange, Vocabulary
from mmpack.lazy import make_dir

__all__ = [
    "LAYOUT_VERSION",
    "AudioLayout",
    "IdRange",
    "Layout",
    "LayoutConfig",
    "Modality",
    "NumericLayout",
    "PatchGrid",
    "SampleMetadata",
    "Segment",
    "SliceMetadata",
    "StandAloneMetadata",
    "TextLayout",
    "TimeLayout",
    "TokenCounts",
    "Tokenizer",
    "VisionLayout",
    "Vocabulary",
]

__dir__ = make_dir(__all__)
