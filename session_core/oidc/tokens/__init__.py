"""The OAuth tokens of a session, sealed, and the lease under which they are refreshed."""
