"""Scripts for people who work on mmpack; run them from the repository root as ``python -m tools.NAME``."""
