"""A text."""
