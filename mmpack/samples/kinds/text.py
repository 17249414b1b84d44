"""The sample kind `text`: one text."""
