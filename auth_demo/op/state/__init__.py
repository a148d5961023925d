"""The state of the demo provider."""
