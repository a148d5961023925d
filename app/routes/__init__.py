"""The routes of the reference application, by what they are about."""
