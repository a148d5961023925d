"""The HTTP routes of the relying party."""
