"""Sample kinds: one file per kind, the metadata of a sample measured on its members. The registry lists them."""

from mmpack.lazy import make_dir
from mmpack.samples.kinds.registry import KINDS, TEXT_MEMBER, find_kind, measure_stand_alone, media_members

__all__ = ["KINDS", "TEXT_MEMBER", "find_kind", "measure_stand_alone", "media_members"]

__dir__ = make_dir(__all__)
