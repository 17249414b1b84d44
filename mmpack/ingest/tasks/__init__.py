"""Tasks of a build: each turns one recording or stand-alone source into shards."""
