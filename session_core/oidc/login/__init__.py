"""One login attempt: from the redirect to the provider to the checked response."""
