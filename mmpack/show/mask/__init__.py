"""Views of a row and its attention mask, as text and as a plot."""
