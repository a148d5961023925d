"""idpyoidc as a provider process: `python idpyoidc_provider.py CLIENTS` prints `ready PORT`."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterable
from html import escape
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from cryptojwt.key_jar import build_keyjar
from idpyoidc.message.oauth2 import ResponseMessage
from idpyoidc.server import Server
from idpyoidc.server.cookie_handler import CookieHandler
from idpyoidc.server.oidc.authorization import Authorization
from idpyoidc.server.oidc.provider_config import ProviderConfiguration
from idpyoidc.server.oidc.session import Session
from idpyoidc.server.oidc.token import Token
from idpyoidc.server.oidc.userinfo import UserInfo

_KEYS = [{"type": "RSA", "use": ["sig"]}, {"type": "EC", "crv": "P-256", "use": ["sig"]}]
_MINTS = {"supports_minting": ["access_token", "refresh_token", "id_token"]}


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Log nothing: URLs contain codes."""


class _EndSession(Session):
    """A logout endpoint without client authentication (RP-Initiated Logout 2); the package's own fails at such a request."""

    def client_authentication(self, request: Any, http_info: Any = None, **_: Any) -> dict[str, Any]:
        return {}


def _server(issuer: str, clients: list[dict[str, Any]]) -> Server:
    token = {"client_authn_method": ["client_secret_basic", "client_secret_post"], "revoke_refresh_on_issue": True}
    conf = {
        "issuer": issuer,
        "httpc_params": {"timeout": 10},
        "key_conf": {"key_defs": _KEYS, "uri_path": "jwks"},
        "add_on": {"pkce": {"function": "idpyoidc.server.oauth2.add_on.pkce.add_support", "kwargs": {"essential": True}}},
        "authentication": {
            "user": {"acr": "pwd", "class": "idpyoidc.server.user_authn.user.NoAuthn", "kwargs": {"user": "alice"}}
        },
        "authz": {
            "class": "idpyoidc.server.authz.AuthzHandling",
            "kwargs": {
                "grant_config": {
                    "usage_rules": {
                        "authorization_code": {**_MINTS, "max_usage": 1, "expires_in": 600},
                        "access_token": {"expires_in": 60},
                        "refresh_token": {**_MINTS, "expires_in": 3600},
                    },
                    "expires_in": 3600,
                }
            },
        },
        "userinfo": {"class": "idpyoidc.server.user_info.UserInfo", "kwargs": {"db": {"alice": {"email": "alice@example.org"}}}},
        "endpoint": {
            "provider_config": {"path": ".well-known/openid-configuration", "class": ProviderConfiguration, "kwargs": {}},
            "authorization": {"path": "authorization", "class": Authorization, "kwargs": {"response_types_supported": ["code"]}},
            "token": {
                "path": "token",
                "class": Token,
                "kwargs": token,
            },
            "userinfo": {"path": "userinfo", "class": UserInfo, "kwargs": {}},
            "session": {
                "path": "session",
                "class": _EndSession,
                "kwargs": {"logout_verify_url": "verify_logout", "post_logout_uri_path": "done", "signing_alg": "ES256"},
            },
        },
        "token_handler_args": {
            "key_conf": {"key_defs": [{"type": "OCT", "bytes": 24, "use": ["enc"], "kid": "code"}]},
            "code": {"lifetime": 600},
            "token": {"class": "idpyoidc.server.token.jwt_token.JWTToken", "kwargs": {"lifetime": 60}},
            "refresh": {"class": "idpyoidc.server.token.jwt_token.JWTToken", "kwargs": {"lifetime": 3600}},
            "id_token": {"class": "idpyoidc.server.token.id_token.IDToken", "kwargs": {}},
        },
    }
    keys = build_keyjar(_KEYS)
    keys.import_jwks(keys.export_jwks(private=True), issuer)  # it looks up its own tokens by issuer
    cookies = CookieHandler(sign_key=secrets.token_urlsafe(32), enc_key=secrets.token_urlsafe(24))
    server = Server(conf, keyjar=keys, cookie_handler=cookies)
    for client in clients:
        server.context.cdb[client["client_id"]] = client
        server.keyjar.add_symmetric(client["client_id"], client["client_secret"])
    return server


class _Application:
    """Its endpoints by WSGI, and the page that confirms a logout."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._endpoints = {each.endpoint_path: each for each in server.endpoint.values()}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"].lstrip("/")
        length = int(environ.get("CONTENT_LENGTH") or 0)
        raw = environ["wsgi.input"].read(length).decode() if length else environ.get("QUERY_STRING", "")
        status, headers, body = self._answer(path, dict(parse_qsl(raw)), environ)
        start_response(f"{status} -", headers)
        return [body.encode()]

    def _answer(self, path: str, form: dict[str, str], environ: WSGIEnvironment) -> tuple[int, list[tuple[str, str]], str]:
        match path:
            case "jwks":
                return 200, [("content-type", "application/json")], json.dumps(self._server.keyjar.export_jwks())
            case "verify_logout":
                page = f'<form action="/rp_logout" method="post"><input name="sjwt" value="{escape(form["sjwt"])}"></form>'
                return 200, [("content-type", "text/html")], page
            case "rp_logout":
                return self._log_out(form["sjwt"])
            case _ if path in self._endpoints:
                return self._at(self._endpoints[path], form, environ)
            case _:
                return 404, [], ""

    def _log_out(self, jwt: str) -> tuple[int, list[tuple[str, str]], str]:
        endpoint = self._server.get_endpoint("session")
        asked = endpoint.unpack_signed_jwt(jwt)
        frames = endpoint.do_verified_logout(sid=asked["sid"])
        headers = [("content-type", "text/html"), *map(_set_cookie, endpoint.kill_cookies())]
        if frames:
            return 200, headers, "".join(frames)
        return 303, [*headers, ("location", asked["redirect_uri"])], ""

    def _at(self, endpoint: Any, form: dict[str, str], environ: WSGIEnvironment) -> tuple[int, list[tuple[str, str]], str]:
        cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
        http = {
            "method": environ["REQUEST_METHOD"],
            "url": f"{self._server.issuer}/{endpoint.endpoint_path}",
            "headers": {"authorization": environ["HTTP_AUTHORIZATION"]} if "HTTP_AUTHORIZATION" in environ else {},
            "cookie": [{"name": name, "value": morsel.value} for name, morsel in cookies.items()],
        }
        parsed = endpoint.parse_request(form, http_info=http)
        if isinstance(parsed, ResponseMessage) and "error" in parsed:
            return 400, [("content-type", "application/json")], parsed.to_json()
        found = endpoint.process_request(parsed, http_info=http)
        if "redirect_location" in found:
            return 303, [("location", f"{self._server.issuer}/{found['redirect_location']}")], ""
        if "http_response" in found:
            return 200, [("content-type", "text/html")], found["http_response"]
        response = endpoint.do_response(request=parsed, **found)
        headers = [*response["http_headers"], *map(_set_cookie, response.get("cookie", []))]
        if response.get("response_placement", endpoint.response_placement) == "url":
            return 303, [*headers, ("location", response["response"])], ""
        return (400 if "error" in found else 200), headers, response["response"]


def _set_cookie(cookie: dict[str, Any]) -> tuple[str, str]:
    age = f"; Max-Age={cookie['max-age']}" if "max-age" in cookie else ""
    return "set-cookie", f"{cookie['name']}={cookie['value']}; Path=/; HttpOnly; SameSite=Lax{age}"


def main() -> None:
    """Serve until killed."""
    import logging

    logging.basicConfig(level=logging.INFO)
    server = make_server("127.0.0.1", 0, None, handler_class=_Quiet)
    issuer = f"http://127.0.0.1:{server.server_port}"
    server.set_app(_Application(_server(issuer, json.loads(sys.argv[1]))))
    sys.stdout.write(f"ready {server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
