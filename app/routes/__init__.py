"""The routes of the reference application, by subject."""
