"""Logs, metrics and how the server listens."""
