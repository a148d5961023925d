"""Fills Litestar's `request.user`, `request.auth` and `request.session` from the session."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Empty, Receive, Scope, Send

from session_core.asgi.exchange import Framework
from session_core.asgi.middleware import SCOPE_KEY
from session_core.config import SessionConfig
from session_core.errors import SessionDataError
from session_core.litestar.routes import PUBLIC
from session_core.sessions.handle import SessionHandle

__all__ = ("ConnectionIdioms",)

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session_core")
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode


class ConnectionIdioms(ASGIMiddleware):
    """Sets `user`, `auth` and `session` in the scope, as configured. Runs inside the session middleware."""

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET, ScopeType.ASGI)

    def __init__(self, config: SessionConfig[Any], framework: Framework) -> None:
        self._config = config
        self._framework = framework

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """Return the application behind this middleware."""
        return partial(self.handle, next_app=app)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Load the session, fill the scope, and save the handler's changes to `request.session`."""
        session: SessionHandle[Any] = await scope[SCOPE_KEY].load()  # type: ignore[typeddict-item]
        if self._config.load_user is not None:
            session.identity_changed = partial(self._set_user, scope, session)
            await self._set_user(scope, session)
        if self._config.request_session is None:
            await next_app(scope, receive, send)
            return
        mapping = SessionMapping(session, self._config.request_session)
        scope["session"] = mapping.content()

        started = False

        async def save() -> None:
            nonlocal started
            await mapping.save(scope["session"])
            started = True

        session.save_first = save
        await next_app(scope, receive, send)
        if started:  # of a stream, a background task or a WebSocket
            await mapping.save(scope["session"])

    async def _set_user(self, scope: Any, session: SessionHandle[Any]) -> None:  # noqa: ANN401 - a scope that is written to
        """Set the logged-in user; called again after a login or logout in the handler.

        Public routes work when the loader fails, unless they use `request.user`.
        """
        identity = session.identity
        scope["auth"] = identity
        scope["user"] = None
        if identity is not None and self._config.load_user is not None:
            try:
                user = self._config.load_user(identity, self._framework.connection_of(scope))
                scope["user"] = await user if inspect.isawaitable(user) else user
            except Exception as error:
                # Users must be able to log out while the user table is out. `request.user` raises there: None means no user.
                if not scope["route_handler"].opt.get(PUBLIC):
                    raise
                del scope["user"]
                _log.error("user not loaded", path=scope["path"], error=type(error).__name__)


class SessionMapping:
    """Session data as the dict `request.session`: fields that were set, by name, and all other keys.

    Other keys are in the field `rest`. A changed key is written to the newest data; other keys keep the values that concurrent
    requests wrote.
    """

    def __init__(self, session: SessionHandle[Any], rest: str) -> None:
        self._session = session
        self._rest = rest
        self._before: dict[str, bytes] = {}

    def content(self) -> dict[str, Any]:
        """Return the dict for the handler, and keep it to find changes."""
        data = self._session.data
        fresh = self._session.fresh_data()
        content: dict[str, Any] = {
            name: value
            for name in data.__struct_fields__
            if name != self._rest and (value := getattr(data, name)) != getattr(fresh, name)
        }
        content |= getattr(data, self._rest)
        self._before = {key: _encoded(key, value) for key, value in content.items()}
        # Copies: a list that the handler changes here is no assignment to `session.data`.
        return {key: msgspec.msgpack.decode(raw) for key, raw in self._before.items()}

    async def save(self, content: Any) -> None:  # noqa: ANN401 - what the application has put into the scope
        """Write the keys that have changed. `clear_session` ends the session. Raises what `session.update` raises."""
        if content is Empty or content is None:
            await self._session.destroy()
            self._before = {}
            return
        current = content if isinstance(content, dict) else _as_dict(content)
        now = {key: _encoded(key, value) for key, value in current.items()}
        changed = {key: raw for key, raw in now.items() if self._before.get(key) != raw}
        removed = self._before.keys() - now.keys()
        if changed or removed:
            await self._session.update(partial(self._apply, changed, removed))
            self._before = now

    def _apply(self, changed: dict[str, bytes], removed: set[str], data: msgspec.Struct) -> None:
        fields = {field.name: field.type for field in msgspec.structs.fields(data)}
        rest: dict[str, Any] = getattr(data, self._rest)
        fresh = self._session.fresh_data()
        for key in removed:
            if key in fields and key != self._rest:
                setattr(data, key, getattr(fresh, key))
            else:
                rest.pop(key, None)
        for key, raw in changed.items():
            if key in fields and key != self._rest:
                try:
                    setattr(data, key, msgspec.msgpack.decode(raw, type=fields[key]))
                except msgspec.ValidationError as error:
                    msg = f"request.session[{key!r}] does not have the type of the field of that name: {error}"
                    raise SessionDataError(msg) from error
            else:
                rest[key] = msgspec.msgpack.decode(raw)


def _encoded(key: object, value: object) -> bytes:
    if not isinstance(key, str):
        msg = f"keys of request.session are text, not {type(key).__name__}"
        raise SessionDataError(msg)
    try:
        return _encode(value)
    except Exception as error:
        msg = f"request.session[{key!r}] contains a value that cannot be stored: {type(value).__name__}"
        raise SessionDataError(msg) from error


def _as_dict(content: Any) -> dict[str, Any]:  # noqa: ANN401 - a struct, dataclass or Pydantic model
    dump: Any = getattr(content, "model_dump", None)
    found: Any = msgspec.to_builtins(content) if dump is None else dump()
    return dict(found)
