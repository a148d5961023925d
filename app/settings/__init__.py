"""The settings of the application: declared, read, checked, explained."""

from app.settings.settings import Settings, load_settings

__all__ = ("Settings", "load_settings")
