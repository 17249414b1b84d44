"""Verification of a finished shard set."""

from mmpack.verification.verify import Verdict, verify

__all__ = ["Verdict", "verify"]
