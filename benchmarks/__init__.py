"""Measures the sessions beside their peers: `uv run just bench`."""
