"""The store in a directory of files."""

from session_core.stores.file.store import FileStore

__all__ = ("FileStore",)
