"""Alignment: timestamps on one clock, reference ticks, and nominal offsets learned from them."""
