"""The database of the application: tables, users, audit trail."""
