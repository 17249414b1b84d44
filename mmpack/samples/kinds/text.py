"""The sample kind `text`: one text."""

from mmpack.samples.kinds.kind import StandAloneKind

TEXT = StandAloneKind(name="text")
