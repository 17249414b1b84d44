"""Reads the bytes of planned samples from local folders and object stores."""
