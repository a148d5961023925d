"""Benchmarks of the sessions and comparable libraries: `uv run just bench`."""
