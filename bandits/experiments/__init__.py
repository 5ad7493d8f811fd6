"""Experiments: who sees what, whether the shares are as planned, and what the difference is, looked at at any time."""
