"""Sessions behind an unstorage HTTP server: the JavaScript storage layer, whatever driver it has.

    http://[:token@]host[:port]/base?timeout=2&durable=true&ttl=true
    https://...

The protocol is that of `createStorageServer` of unstorage 1.x: raw bytes by GET, PUT and DELETE of a key, and a GET of a base,
ending in a slash, for the keys below it. It has no compare-and-swap. `durable` and `ttl` say what is known of the driver behind
it, which the protocol does not tell: whether values survive a restart, and whether `x-ttl` removes them in time.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

import httpx2
import msgspec

from session_core.clock import Clock
from session_core.errors import StoreUnavailableError
from session_core.stores.base import StoreCapabilities
from session_core.stores.document.http import DocumentHttp, HttpAnswer, HttpDocuments
from session_core.stores.document.store import DocumentStore
from session_core.stores.document.url import DocumentUrl
from session_core.urls import normalised_origin

__all__ = ("UnstorageStore",)

_FORM: Final = re.compile(
    r"(?P<scheme>https?)://(?:(?P<user>[^@/?#]*)@)?(?P<host>(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?)"
    r"(?P<path>/[A-Za-z0-9_.~/-]*)?(?:\?(?P<query>[^#]*))?\Z",
    re.ASCII,
)
_URL: Final = DocumentUrl(
    "the unstorage session store",
    _FORM,
    frozenset({"timeout", "durable", "ttl", "token_env"}),
    example="https://:token@storage.example.org/sessions",
)
_RAW: Final = "application/octet-stream"
_OK: Final = 200
_NOT_FOUND: Final = 404
_ABSENT: Final = b"KV value not found"
_MAX_LIST_BYTES: Final = 64 * 1024 * 1024


class UnstorageStore(DocumentStore):
    """Sessions on the unstorage server at `url`.

    `token` is sent as `Authorization: Bearer`, which the server's `authorize` can check; it may also be the password of the URL,
    or the variable that the option `token_env` names. `timeout` is in seconds, for each call to the server; a method makes a
    few. `transport` replaces the network: for your own certificate authority, and for tests.

    Raises `ConfigurationError` for a URL it cannot use.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        token: str | None = None,
        timeout: float = 2.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        match, options = _URL.read(url)
        capabilities = StoreCapabilities(
            atomic=False,
            indexed=True,
            shared=True,
            durable=_URL.choice(options, "durable"),
            native_expiry=_URL.choice(options, "ttl"),
            keeps_deadlines=False,
        )
        if normalised_origin(f"{match['scheme']}://{match['host']}") is None:
            _URL.refuse("there is no such host and port")
        path = (match["path"] or "").rstrip("/")
        if any(part in {"", ".", ".."} for part in path.split("/")[1:]):
            _URL.refuse("its path has an empty part, or one of dots")
        http = DocumentHttp(
            f"{match['scheme']}://{match['host']}{path}",
            token=_URL.token(match["user"], options, token),
            timeout=_URL.seconds(options, timeout),
            transport=transport,
        )
        super().__init__(_UnstorageDocuments(http), capabilities, clock=clock)


class _UnstorageDocuments(HttpDocuments):
    """The protocol."""

    at_once = 16

    async def put(self, name: str, value: bytes, *, seconds: int) -> None:
        headers = {"content-type": _RAW, "x-ttl": str(seconds)}
        _expect(await self._http.call("PUT", _path(name), headers=headers, body=value))

    async def delete(self, name: str) -> None:
        _expect(await self._http.call("DELETE", _path(name)))

    async def names(self, kind: str) -> AsyncIterator[str]:
        answer = await self._http.call("GET", f"/{kind}/", headers={"accept": "application/json"}, max_bytes=_MAX_LIST_BYTES)
        try:
            if answer.status != _OK or answer.media_type != "application/json":
                raise _UnusableAnswerError(answer)
            keys = msgspec.json.decode(answer.body, type=list[str])
        except msgspec.MsgspecError:
            raise _UnusableAnswerError(answer) from None
        for key in keys:
            # Whatever base the server puts before it: a name is one word.
            yield key.rpartition("/")[2]

    async def _get(self, name: str) -> bytes | None:
        answer = await self._http.call("GET", _path(name), headers={"accept": _RAW})
        # Only the server's own error body counts: a 404 of a proxy, or of a wrong address, must not look like a logout.
        if answer.status == _NOT_FOUND and answer.media_type == "application/json" and _ABSENT in answer.body:
            return None
        # A raw value has no type, or the one that was asked for. A page is no value, whatever its status.
        if answer.status == _OK and answer.media_type in {"", _RAW}:
            return answer.body
        raise _UnusableAnswerError(answer)


class _UnusableAnswerError(StoreUnavailableError):
    """The response is not of a working unstorage server; the message has status and type, never content."""

    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__(f"the unstorage server answered {answer.status} {_plain(answer.media_type)}")


def _path(name: str) -> str:
    return "/" + name.replace(":", "/")


def _expect(answer: HttpAnswer) -> None:
    if answer.status != _OK or answer.body.strip() != b"OK":
        raise _UnusableAnswerError(answer)


def _plain(media_type: str) -> str:
    return media_type if re.fullmatch(r"[a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,40}", media_type) else "of unknown type"
