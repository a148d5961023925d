"""Keeps Python's garbage collector from walking, while requests wait, what never becomes garbage. Independent of applications."""

from __future__ import annotations

import gc
from typing import Final

__all__ = ("settle_collector",)

_YOUNG_OBJECTS: Final = 10_000
"""How many more container objects than were freed start a collection of the young. Each request under way holds a few dozen: at
the default of 700, twenty of them at once were looked through again and again."""


def settle_collector() -> None:
    """Take everything that exists now out of later collections, and collect less often. For a server that has just started.

    A full collection of a process that has imported the framework takes 20 to 50 ms, in which no request is answered. Memory that
    only a collection can free is freed a little later; there is little of it.
    """
    gc.collect()
    gc.freeze()
    _, *older = gc.get_threshold()
    gc.set_threshold(_YOUNG_OBJECTS, *older)
