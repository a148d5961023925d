"""One HTTP request and its response around a session: cookie in, session loaded, saved, cookie out."""
