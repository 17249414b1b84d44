"""Scripts for developers of mmpack; run them from the repository root as ``python -m tools.NAME``."""
