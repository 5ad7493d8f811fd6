"""Logged feedback in files that other programs read: VW's dsjson (text) and Parquet (columns)."""
