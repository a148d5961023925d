"""The sessions of one application, and one request with its response: cookie in, session loaded, saved, cookie out."""
