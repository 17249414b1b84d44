"""Fetching: the bytes of planned samples."""
