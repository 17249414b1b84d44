"""An audio clip with its transcript."""
