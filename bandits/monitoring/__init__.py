"""Monitoring: has a stream of figures dropped, and which way does it tend."""
