"""Sync policies: how the items of a stream are chosen for each tick, one file per policy."""
