"""What the page says of each promise: one sentence, and the code that keeps it."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ("CLUSTER_CODE", "GUARANTEES", "Guarantee")


class Guarantee(msgspec.Struct, frozen=True):
    """One promise. `name` is that of its demonstration in `demonstrations.RUNS`."""

    name: str
    title: str
    sentence: str
    button: str
    code: tuple[str, ...]
    """Path and function, as `path.py::Class.method`."""


GUARANTEES: Final = (
    Guarantee(
        "increments",
        "200 parallel increments",
        "Each of 200 requests reads, works for two milliseconds and counts one more: once in a session, once in a record of the "
        "same engine that is written back as a whole, so that the last write wins.",
        "Count 200 times at once",
        ("session_core/sessions/writer.py::SessionWriter.write", "session_core/stores/guarded.py::GuardedStore.replace"),
    ),
    Guarantee(
        "tabs",
        "Two tabs",
        "Two requests have read the same session before either writes: on one field the later gets 409, on two fields both are "
        "merged.",
        "Write from two tabs",
        ("session_core/sessions/draft.py::Draft.merged", "session_core/sessions/writer.py::SessionWriter.write"),
    ),
    Guarantee(
        "logout",
        "Logout during a slow request",
        "A write needs its record, so the request that is still running when its user logs out cannot bring the session back.",
        "Log out while a request runs",
        (
            "session_core/sessions/lifecycle.py::SessionLifecycle.destroy",
            "session_core/stores/guarded.py::GuardedStore.replace",
        ),
    ),
    Guarantee(
        "regeneration",
        "A new id, and the dead old one",
        "The record moves to the new id in one atomic step, and from that moment the old id opens nothing.",
        "Give a session a new id",
        (
            "session_core/sessions/lifecycle.py::SessionLifecycle.regenerate",
            "session_core/stores/guarded.py::GuardedStore.rotate",
        ),
    ),
    Guarantee(
        "sign-out",
        "Sign-out elsewhere closes a WebSocket",
        "Ending a session also closes the connections that were opened with it, within a second on every node.",
        "Sign out elsewhere",
        (
            "session_core/sessions/manager.py::SessionManager.revoke_all",
            "session_core/connections/live.py::LiveConnection.end",
        ),
    ),
    Guarantee(
        "outage",
        "The store is out",
        "A request that needs the store gets 503 with the cookie untouched, pages without a session go on, and when the store is "
        "back the session is as it was.",
        "Take the store away and give it back",
        (
            "session_core/stores/guarded.py::GuardedStore.load",
            "session_core/asgi/exchange.py::Exchange.send_durable",
        ),
    ),
)

CLUSTER_CODE: Final = ("session_core/stores/redis/cluster.py::ClusterLink.run",)
"""What waits out the failover of a cluster."""
