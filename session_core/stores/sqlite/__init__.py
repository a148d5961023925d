"""The embedded store: sessions in one SQLite file."""
