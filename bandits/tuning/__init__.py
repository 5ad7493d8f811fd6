"""Tuning: the search over the fold for settings that the log shows to be worth more."""
