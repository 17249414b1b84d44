"""Views of a row and its attention mask."""
