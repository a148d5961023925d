"""A stand-in for the KV part of the Cloudflare API, written from its published description.

It has locations: a write is visible at its location at once and at the others a minute later, by the test's clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

ACCOUNT, NAMESPACE, TOKEN = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210", "kv-token"
URL = f"cloudflare-kv://:{TOKEN}@{ACCOUNT}/{NAMESPACE}"
_ROOT = f"/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces/"
_PROPAGATION_SECONDS = 60
_MAX_KEY_BYTES = 512
_MAX_VALUE_BYTES = 25 * 1024 * 1024

Answer = tuple[int, bytes, str]


@dataclass
class Written:
    value: bytes | None
    at: float
    place: str
    expires_at: float


@dataclass
class KvStandIn:
    """All locations together."""

    now: float = 0.0
    history: dict[str, list[Written]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    refuse: Answer | None = None

    def place(self, name: str = "here") -> Callable[..., Any]:
        """The API as an ASGI application at one location."""

        async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[dict[str, Any]], Any]) -> None:
            body = b""
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            status, content, media_type = self.answer(name, scope, body)
            headers = [(b"content-type", media_type.encode())]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": content})

        return app

    def answer(self, place: str, scope: dict[str, Any], body: bytes) -> Answer:  # noqa: PLR0911 - an answer for each case
        path: str = scope["raw_path"].decode().partition("?")[0]
        query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
        method = scope["method"]
        self.calls.append((method, path))
        if self.refuse is not None:
            return self.refuse
        if dict(scope["headers"]).get(b"authorization") != f"Bearer {TOKEN}".encode():
            return _error(403, 10000, "Authentication error")
        if not path.startswith(_ROOT):
            return _error(404, 7003, "Could not route to this path")
        namespace, _, rest = path.removeprefix(_ROOT).partition("/")
        if namespace != NAMESPACE:
            return _error(404, 10013, "namespace not found")
        if rest == "keys" and method == "GET":
            return self._list(place, query)
        kind, _, quoted = rest.partition("/")
        key = unquote(quoted)
        if kind != "values" or not key or "/" in quoted or len(key.encode()) > _MAX_KEY_BYTES:
            return _error(400, 10014, "key name is malformed")
        if method == "GET":
            value = self.seen(place, key)
            return _error(404, 10009, "get: 'key not found'") if value is None else (200, value, "application/octet-stream")
        if method == "PUT":
            return self._put(place, key, body, query)
        if method == "DELETE":
            self.history.setdefault(key, []).append(Written(None, self.now, place, float("inf")))
            return _success(None)
        return _error(405, 10000, "Method not allowed")

    def seen(self, place: str, key: str) -> bytes | None:
        """The value of a key as seen at a location."""
        for written in reversed(self.history.get(key, [])):
            if written.place == place or written.at + _PROPAGATION_SECONDS <= self.now:
                return written.value if written.expires_at > self.now else None
        return None

    def _put(self, place: str, key: str, body: bytes, query: dict[str, str]) -> Answer:
        ttl = float(query.get("expiration_ttl", "inf"))
        if ttl < 60:
            return _error(400, 10033, "Invalid expiration_ttl. Expiration TTL must be at least 60")
        if len(body) > _MAX_VALUE_BYTES:
            return _error(413, 10034, "value too large")
        self.history.setdefault(key, []).append(Written(body, self.now, place, self.now + ttl))
        return _success(None)

    def _list(self, place: str, query: dict[str, str]) -> Answer:
        limit = int(query.get("limit", "1000"))
        if not 10 <= limit <= 1000:
            return _error(400, 10029, "limit must be between 10 and 1000")
        after = bytes.fromhex(query.get("cursor", "")).decode()
        names = sorted(
            key for key in self.history if key.startswith(query.get("prefix", "")) and self.seen(place, key) is not None
        )
        page = [name for name in names if name > after][:limit]
        cursor = page[-1].encode().hex() if page and page[-1] != names[-1] else ""
        return _success([{"name": name} for name in page], result_info={"count": len(page), "cursor": cursor})


def _success(result: object, **more: object) -> Answer:
    return 200, json.dumps({"success": True, "errors": [], "messages": [], "result": result, **more}).encode(), "application/json"


def _error(status: int, code: int, message: str) -> Answer:
    body = {"success": False, "errors": [{"code": code, "message": message}], "messages": [], "result": None}
    return status, json.dumps(body).encode(), "application/json"
