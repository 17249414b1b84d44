"""Assembles the arrays of rows from planned rows and the bytes of their samples."""
