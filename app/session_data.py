"""The session data of this application: the first struct to edit in a clone.

Every field needs a default, which older stored sessions get.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

__all__ = ("AppSession", "Language", "Note", "Theme")

Theme = Literal["light", "dark"]
Language = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}$")]
"""A language tag (BCP 47), such as `en` or `de-AT`."""
Note = Annotated[str, msgspec.Meta(max_length=500)]
Item = Annotated[str, msgspec.Meta(min_length=1, max_length=60)]


class AppSession(msgspec.Struct):
    """The typed data of one session."""

    theme: Theme = "light"
    language: Language = "en"
    note: Note = ""
    visits: int = 0
    cart: Annotated[list[Item], msgspec.Meta(max_length=20)] = []
    theme_chosen: bool = False
    """Until the user chooses, pages follow the browser's own preference."""
