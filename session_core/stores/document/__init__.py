"""Stores on engines that keep documents by key."""
