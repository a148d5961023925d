"""One provider: registration, metadata, endpoints, client authentication."""
