"""What a sample becomes as tokens, and its length without decoding media.

`Layout(LayoutConfig(...))` knows the order of a sample's pieces (`segments`), its tokens by modality
(`count`), all ids (`vocabulary`) and what identifies it (`fingerprint`). Rows are assembled from the same
segments that are counted.
"""

from mmpack.layout.audio import AudioLayout
from mmpack.layout.images import Grid, VisionLayout
from mmpack.layout.layout import LAYOUT_VERSION, Layout, LayoutConfig
from mmpack.layout.metadata import Facts, ImageTextFacts, SliceFacts, SpeechFacts, TextFacts
from mmpack.layout.numeric import NumericLayout
from mmpack.layout.segments import Modality, Segment, TokenCounts
from mmpack.layout.text import TextLayout, Tokenizer
from mmpack.layout.time_tokens import TimeLayout
from mmpack.layout.vocabulary import IdRange, Vocabulary

__all__ = [
    "LAYOUT_VERSION",
    "AudioLayout",
    "Facts",
    "Grid",
    "IdRange",
    "ImageTextFacts",
    "Layout",
    "LayoutConfig",
    "Modality",
    "NumericLayout",
    "Segment",
    "SliceFacts",
    "SpeechFacts",
    "TextFacts",
    "TextLayout",
    "TimeLayout",
    "TokenCounts",
    "Tokenizer",
    "VisionLayout",
    "Vocabulary",
]
