"""Snapshots: a frozen policy as a signed folder, published, loaded and believed only when every byte verifies."""
