"""Logout at the provider, logout by the provider, revocation of tokens."""
