"""What a session is and what can happen to it; knows no ASGI, no cookie and no framework."""
