"""What `litestar check --online` asks: whether what the application stands on answers. Plugins and the application say what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litestar import Litestar

__all__ = ("ChecksOnline", "OnlineCheck", "check_online")


class OnlineCheck(msgspec.Struct, frozen=True):
    """One thing that was asked. `detail` says what was found, or what is wrong where it is not `good`."""

    what: str
    good: bool
    detail: str = ""

    def __str__(self) -> str:
        """Return the line that an operator reads."""
        found = "ok" if self.good else "FAILED"
        return f"{self.what}: {found}{f' ({self.detail})' if self.detail else ''}"


@runtime_checkable
class ChecksOnline(Protocol):
    """A plugin that can ask."""

    async def check_online(self) -> Sequence[OnlineCheck]:
        """Ask, outside of a running application; an outage is a result, no error."""
        ...


async def check_online(app: Litestar) -> list[OnlineCheck]:
    """Ask everything: each plugin, then `app.opt["online_check"]`."""
    results: list[OnlineCheck] = []
    for plugin in app.plugins:
        if isinstance(plugin, ChecksOnline):
            results.extend(await plugin.check_online())
    own: Any = app.opt.get("online_check")
    if own is not None:
        results.extend(await own())
    return results
