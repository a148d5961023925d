"""Sessions in Cloudflare Workers KV, over the REST API; for applications that tolerate its limits.

    cloudflare-kv://[:token@]account_id/namespace_id?token_env=CLOUDFLARE_API_TOKEN&prefix=sc:&timeout=5

KV is eventually consistent: other locations may see a write, also a logout, only after a minute or more, and may cache that a
value is absent. The API also limits how often one key is written (once a second) and how many calls an account makes. A process
sees its own writes at once; between processes nothing is promised.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx2
import msgspec

from session_core.clock import Clock
from session_core.errors import StoreUnavailableError
from session_core.stores.base import StoreCapabilities
from session_core.stores.document.http import DocumentHttp, HttpAnswer, HttpDocuments
from session_core.stores.document.store import DocumentStore
from session_core.stores.document.url import DocumentUrl

__all__ = ("CloudflareKvStore",)

_API: Final = "https://api.cloudflare.com/client/v4"
_FORM: Final = re.compile(
    r"cloudflare-kv://(?:(?P<user>[^@/?#]*)@)?(?P<account>[A-Za-z0-9_-]{1,64})/(?P<namespace>[A-Za-z0-9_-]{1,64})"
    r"(?:\?(?P<query>[^#]*))?\Z",
    re.ASCII,
)
_URL: Final = DocumentUrl(
    "the Cloudflare KV session store",
    _FORM,
    frozenset({"timeout", "prefix", "token_env"}),
    example="cloudflare-kv://account_id/namespace_id?token_env=CLOUDFLARE_API_TOKEN",
)
_OK: Final = 200
_NOT_FOUND: Final = 404
_NO_SUCH_KEY: Final = 10009
_MIN_TTL: Final = 60
_PAGE: Final = 1000
_OWN_WRITES_SECONDS: Final = 90.0
"""How long a process uses its own last write instead of the service's answer."""


class CloudflareKvStore(DocumentStore):
    """Sessions in the KV namespace that `url` names, under keys that begin with its `prefix`.

    The API token needs Workers KV Storage: Edit. It is given as `token`, as the password of the URL, or in the variable that
    `token_env` names. `timeout` is in seconds, for each call to the API; a method makes a few. `transport` is for tests.

    Raises `ConfigurationError` for a URL it cannot use.
    """

    capabilities = StoreCapabilities(
        atomic=False,
        indexed=True,
        shared=True,
        durable=True,
        native_expiry=True,
        consistent=False,
        keeps_deadlines=False,
    )

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        token: str | None = None,
        timeout: float = 5.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        match, options = _URL.read(url)
        token = _URL.token(match["user"], options, token)
        if token is None:
            _URL.refuse("there is no API token")
        http = DocumentHttp(
            f"{_API}/accounts/{match['account']}/storage/kv/namespaces/{match['namespace']}",
            token=token,
            timeout=_URL.seconds(options, timeout),
            transport=transport,
        )
        super().__init__(_KvDocuments(http, _URL.prefix(options, "sc:")), type(self).capabilities, clock=clock)


class _KvDocuments(HttpDocuments):
    """The REST API."""

    at_once = 6

    def __init__(self, http: DocumentHttp, prefix: str) -> None:
        super().__init__(http)
        self._prefix = prefix
        self._own: dict[str, tuple[bytes | None, float]] = {}

    async def put(self, name: str, value: bytes, *, seconds: int) -> None:
        query = urlencode({"expiration_ttl": max(seconds, _MIN_TTL)})
        headers = {"content-type": "application/octet-stream"}
        _success(await self._http.call("PUT", f"{self._path(name)}?{query}", headers=headers, body=value))
        self._remember(name, value)

    async def delete(self, name: str) -> None:
        answer = await self._http.call("DELETE", self._path(name))
        if not _is_absent(answer):
            _success(answer)
        self._remember(name, None)

    async def names(self, kind: str) -> AsyncIterator[str]:
        prefix = f"{self._prefix}{kind}:"
        cursor = ""
        while True:
            query = urlencode({"limit": _PAGE, "prefix": prefix, **({"cursor": cursor} if cursor else {})})
            answer = _success(await self._http.call("GET", f"/keys?{query}"))
            try:
                names = [str(each["name"]) for each in answer["result"]]
                cursor = str((answer.get("result_info") or {}).get("cursor") or "")
            except (KeyError, TypeError, AttributeError):
                msg = "the KV API returned a list in an unknown format"
                raise StoreUnavailableError(msg) from None
            for name in names:
                if name.startswith(prefix):
                    yield name.removeprefix(prefix)
            if not cursor:
                return

    async def _get(self, name: str) -> bytes | None:
        value, until = self._own.get(name, (None, 0.0))
        if until > time.monotonic():
            return value
        answer = await self._http.call("GET", self._path(name))
        if answer.status == _OK and answer.media_type != "text/html":
            return answer.body
        if _is_absent(answer):
            return None
        raise _failure(answer)

    def _path(self, name: str) -> str:
        return f"/values/{quote(self._prefix + name, safe='')}"

    def _remember(self, name: str, value: bytes | None) -> None:
        now = time.monotonic()
        self._own.pop(name, None)
        self._own[name] = value, now + _OWN_WRITES_SECONDS
        while self._own and next(iter(self._own.values()))[1] <= now:  # the oldest is the first
            del self._own[next(iter(self._own))]


def _is_absent(answer: HttpAnswer) -> bool:
    """Whether the API says that there is no such key; a missing namespace, or a proxy's page, must not look like a logout."""
    if answer.status != _NOT_FOUND:
        return False
    errors = _json(answer).get("errors")
    return isinstance(errors, list) and any(isinstance(each, dict) and each.get("code") == _NO_SUCH_KEY for each in errors)


def _success(answer: HttpAnswer) -> dict[str, Any]:
    body = _json(answer)
    if answer.status != _OK or body.get("success") is not True:
        raise _failure(answer)
    return body


def _json(answer: HttpAnswer) -> dict[str, Any]:
    try:
        return msgspec.json.decode(answer.body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def _failure(answer: HttpAnswer) -> StoreUnavailableError:
    return StoreUnavailableError(f"the KV API answered {answer.status}")
