"""Everything that is drawn for people: plots, tables and pages."""
