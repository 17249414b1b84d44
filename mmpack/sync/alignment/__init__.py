"""Alignment: timestamps on one clock, and the ticks and offsets found in them."""
