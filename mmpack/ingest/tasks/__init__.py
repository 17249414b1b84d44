"""Tasks of a build: one recording or stand-alone source to shards."""
