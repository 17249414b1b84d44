"""The member format: what a sample consists of, and how its members are read."""
