"""Trains multimodal models on mmpack's packed rows."""

from importlib.metadata import version

__version__ = version("mmpack-trainer")
