"""Sources: one file per medium, each reads the timestamps and the content of one stream."""
