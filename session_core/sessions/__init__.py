"""What a session is and what can happen to it; independent of ASGI, cookies and frameworks."""
