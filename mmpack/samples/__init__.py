"""The format of a sample: its members, and the functions that read and measure them."""
