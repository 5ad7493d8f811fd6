"""Backups: everything that does not follow from something else, kept whole, and brought back whole."""
