"""Checks of signed tokens: keys, signatures, claims."""
