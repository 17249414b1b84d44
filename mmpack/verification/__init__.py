"""Verification of a shard set."""

from mmpack.lazy import make_dir
from mmpack.verification.verify import VerificationReport, verify

__all__ = ["VerificationReport", "verify"]

__dir__ = make_dir(__all__)
