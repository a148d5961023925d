"""The session data of every stack: the same fields with the same values, 300 bytes in MessagePack."""

from __future__ import annotations

import json
from typing import Any, Final

FIELDS: Final[dict[str, Any]] = {
    "name": "Alice Example",
    "email": "alice.example@example.org",
    "theme": "dark",
    "language": "en",
    "roles": ["user", "editor"],
    "cart": ["article-000117", "article-004711", "article-031337"],
    "note": "Leave the parcel with the neighbour on the second floor, "
    "and please ring twice: the bell is old and hard to hear from the kitchen, at night.",
    "visits": 0,
}
"""The session data of a login."""
MESSAGEPACK_BYTES: Final = 300
JSON_BYTES: Final = len(json.dumps(FIELDS, separators=(",", ":")))

SECRET: Final = "benchmarks-sign-cookies-with-this-and-nothing-else"
ISSUER: Final = "https://op.example.org"
COOKIE: Final = "session"
LIFETIME_SECONDS: Final = 3600

DARK: Final = b'{"theme":"dark"}'
"""The response of `/read` to a logged-in user, and of `/public` to every visitor."""
LIGHT: Final = b'{"theme":"light"}'
"""The response of `/read` to a visitor."""
