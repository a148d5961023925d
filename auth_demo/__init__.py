"""The demo: an embedded identity provider, and the command that runs it beside the reference application."""
