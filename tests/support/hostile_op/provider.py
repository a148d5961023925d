"""An OpenID provider over real HTTP that follows the specifications except for a login's configured misbehaviour.

It shares no code with the relying party or with another provider of this repository, including the signing of tokens.
"""

from __future__ import annotations

import html
import json
import secrets
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from tests.support.hostile_op.grants import CLIENT_ID, CLIENT_SECRET, Grant, Grants
from tests.support.hostile_op.http_server import Answer, Call, Fault, HttpServer, json_answer
from tests.support.hostile_op.misbehaviour import HONEST, Misbehaviour
from tests.support.hostile_op.signing import SigningKey, changed, signing_key

CONFIGURATION = "/.well-known/openid-configuration"


class HostileOp:
    """The provider, which consents for its users. A changed attribute applies from the next request."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._http = HttpServer(self._handle)
        self.calls: list[Call] = []
        """Every request in order, including the browser's."""
        self.secrets: set[str] = {CLIENT_SECRET}
        """All values exchanged that must stay between provider and client."""
        self.key: SigningKey = signing_key()
        self.jwks: list[Any] = [self.key.jwk()]
        self.metadata: dict[str, Any] = {}
        """Changes of the discovery document; `/par` works, but is listed only when a test adds it here."""
        self.faults: dict[str, Fault] = {}
        """By path: responds to every request there, for any login."""
        self.user: str | None = "alice"
        """The user logged in at the provider, who consents at once; None: a page asks for one."""
        self.sid = "op-session-1"
        self.auth_time: int | None = None
        """The user's login time at the provider; None: the time of each login here."""
        self.expires_in = 300
        self.pushed: dict[str, dict[str, str]] = {}
        self.backchannel_uri = ""
        self.frontchannel_uri = ""
        self.client_key: Any = None
        """The public key that the client registered for `private_key_jwt`."""
        self.grants = Grants(self)
        self._next: deque[Misbehaviour] = deque()

    async def __aenter__(self) -> Self:
        await self._http.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._http.stop()

    @property
    def issuer(self) -> str:
        return self._http.origin

    def next_login(self, misbehaviour: Misbehaviour) -> None:
        """Misbehave like this in the next login only."""
        self._next.append(misbehaviour)

    def count(self, path: str) -> int:
        return sum(call.path == path for call in self.calls)

    def last(self, path: str) -> Call:
        return next(call for call in reversed(self.calls) if call.path == path)

    def rotate(self, key: SigningKey, *also: SigningKey) -> None:
        """Sign with another key from now on, published together with `also`."""
        self.key, self.jwks = key, [key.jwk(), *(other.jwk() for other in also)]

    async def _handle(self, call: Call) -> Answer | Fault:
        self.calls.append(call)
        self.secrets |= {call.query[name] for name in ("state", "nonce") if call.query.get(name)}
        self.secrets |= {call.form[name] for name in ("code_verifier", "client_assertion") if call.form.get(name)}
        if call.path in self.faults:
            return self.faults[call.path]
        routes: dict[str, Callable[[Call], Answer | Fault]] = {
            CONFIGURATION: lambda _: json_answer(self.configuration()),
            "/jwks": lambda _: json_answer({"keys": self.jwks}),
            "/authorize": self._authorize,
            "/par": self._push,
            "/token": self.grants.token,
            "/userinfo": self.grants.userinfo,
            "/revoke": self.grants.revoke,
            "/end_session": self._end_session,
        }
        return routes[call.path](call) if call.path in routes else Answer(404, [("content-type", "text/plain")], b"not here")

    def configuration(self) -> dict[str, Any]:
        endpoints = {
            "authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks", "userinfo_endpoint": "userinfo",
            "end_session_endpoint": "end_session", "revocation_endpoint": "revoke",
        }  # fmt: skip
        known: dict[str, Any] = {name: f"{self.issuer}/{path}" for name, path in endpoints.items()}
        known |= {
            "issuer": self.issuer,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query", "form_post"],
            "subject_types_supported": ["public"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            # A provider that lists unsafe values.
            "id_token_signing_alg_values_supported": ["RS256", "PS256", "ES256", "EdDSA", "none", "HS256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
            "authorization_response_iss_parameter_supported": True,
            "backchannel_logout_supported": True,
            "frontchannel_logout_supported": True,
            "mtls_endpoint_aliases": {"token_endpoint": f"{self.issuer}/mtls", "userinfo_endpoint": f"{self.issuer}/mtls"},
        }
        return changed(known, self.metadata)

    def _push(self, call: Call) -> Answer:
        if call.repeated or not self.grants.is_client(call):
            return json_answer({"error": "invalid_client"}, 401)
        uri = f"urn:ietf:params:oauth:request_uri:{secrets.token_urlsafe(16)}"
        self.pushed[uri] = {name: value for name, value in call.form.items() if not name.startswith("client_assertion")}
        self.secrets |= {call.form[name] for name in ("state", "nonce") if call.form.get(name)}
        return json_answer({"request_uri": uri, "expires_in": 60}, 201)

    def _authorize(self, call: Call) -> Answer:
        """Consent at once (OpenID Connect Core 3.1.2), or respond with the error of the request."""
        asked = call.query
        if "request_uri" in asked:
            asked = self.pushed.pop(asked["request_uri"], {})
        problem = _problem(asked, repeated=call.repeated)
        if problem is not None:
            return Answer(400, [("content-type", "text/plain")], problem.encode())
        if self.user is None and asked.get("prompt") != "none":
            return Answer(200, [("content-type", "text/html"), ("cache-control", "no-store")], b"<h1>Sign in</h1>")
        misbehaviour = self._next.popleft() if self._next else HONEST
        params: dict[str, Any] = {"state": asked["state"], "iss": self.issuer}
        if self.user is None:
            params["error"] = "login_required"
        else:
            auth_time = int(self.now()) if self.auth_time is None else self.auth_time
            params["code"] = self.grants.add(Grant(asked, self.user, self.sid, misbehaviour, auth_time))
        return self._respond(asked, changed(params, misbehaviour.response))

    @staticmethod
    def _respond(asked: dict[str, str], params: dict[str, Any]) -> Answer:
        pairs = [(name, one) for name, value in params.items() for one in (value if isinstance(value, list) else [value])]
        if asked.get("response_mode") == "form_post":
            fields = "".join(f'<input type="hidden" name="{name}" value="{html.escape(str(one))}">' for name, one in pairs)
            page = f'<form method="post" action="{html.escape(asked["redirect_uri"])}">{fields}</form>'
            return Answer(200, [("content-type", "text/html"), ("cache-control", "no-store")], page.encode())
        return Answer(303, [("location", f"{asked['redirect_uri']}?{urlencode(pairs)}")])

    def _end_session(self, call: Call) -> Answer:
        """End the session at the provider (RP-Initiated Logout 1.0) with the clients' front-channel frames on the page."""
        given = {**call.query, **call.form}
        if given.get("id_token_hint"):
            self.secrets.add(given["id_token_hint"])
        self.user = None
        if "post_logout_redirect_uri" in given and not self.frontchannel_uri:
            state = f"?{urlencode({'state': given['state']})}" if given.get("state") else ""
            return Answer(303, [("location", given["post_logout_redirect_uri"] + state)])
        page = f'<iframe src="{html.escape(self.frontchannel_url())}"></iframe>' if self.frontchannel_uri else ""
        return Answer(200, [("content-type", "text/html")], page.encode())

    def frontchannel_url(self, **changes: Any) -> str:
        """The URL of the client's frame (Front-Channel Logout 1.0)."""
        return f"{self.frontchannel_uri}?{urlencode(changed({'iss': self.issuer, 'sid': self.sid}, changes))}"


def _problem(asked: dict[str, str], *, repeated: bool) -> str | None:
    """The error of an authorization request that no careful client would send."""
    if repeated:
        return "a parameter comes twice"
    needed = {"response_type": "code", "client_id": CLIENT_ID, "code_challenge_method": "S256"}
    if wrong := [name for name, value in needed.items() if asked.get(name) != value]:
        return f"wrong: {json.dumps(wrong)}"
    missing = [name for name in ("redirect_uri", "state", "nonce", "code_challenge") if not asked.get(name)]
    return f"missing: {json.dumps(missing)}" if missing or "openid" not in asked.get("scope", "") else None
