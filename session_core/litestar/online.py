"""The checks of `litestar check --online`: whether its services answer. Plugins and the application define them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec
from litestar import Litestar

__all__ = ("ChecksOnline", "OnlineCheck", "check_online")


class OnlineCheck(msgspec.Struct, frozen=True):
    """The result of one check. `detail` describes the result, or the fault if not `good`."""

    what: str
    good: bool
    detail: str = ""

    def __str__(self) -> str:
        """Return the line for the operator."""
        found = "ok" if self.good else "FAILED"
        return f"{self.what}: {found}{f' ({self.detail})' if self.detail else ''}"


@runtime_checkable
class ChecksOnline(Protocol):
    """A plugin with online checks."""

    async def check_online(self) -> Sequence[OnlineCheck]:
        """Run the checks outside of a running application; an outage is a result, not an error."""
        ...


async def check_online(app: Litestar) -> list[OnlineCheck]:
    """Run the checks of each plugin, then `app.opt["online_check"]`."""
    results: list[OnlineCheck] = []
    asked = [plugin for plugin in app.plugins if isinstance(plugin, ChecksOnline)]
    # Litestar keeps plugins in a set: sorted, the output is the same in each run, with the session store first.
    for plugin in sorted(asked, key=lambda plugin: f"{type(plugin).__module__}.{type(plugin).__qualname__}"):
        results.extend(await plugin.check_online())
    own: Any = app.opt.get("online_check")
    if own is not None:
        results.extend(await own())
    return results
