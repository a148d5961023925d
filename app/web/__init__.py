"""What every page and error response of the application has in common."""
