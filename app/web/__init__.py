"""Code shared by all pages and error responses of the application."""
