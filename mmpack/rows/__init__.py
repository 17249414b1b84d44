"""Rows: planned rows and the bytes of their samples to arrays."""
