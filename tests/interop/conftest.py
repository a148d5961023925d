"""The provider, once for all tests, and an application for each test."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from typing import Any

import pytest

from tests.interop.application import KEY, SECRET, Application, serve
from tests.interop.provider_process import Provider, running_provider

ALGORITHMS = ("PS256", "ES256", "EdDSA", "Ed25519")
# Their packages are in a separate group: uv run --group dev --group interop pytest tests/interop
_PACKAGES = {"oauth2_provider": "test_django_oauth_toolkit.py", "idpyoidc": "test_idpyoidc.py"}
collect_ignore = [test for package, test in _PACKAGES.items() if not find_spec(package)]
StartApplication = Callable[..., AbstractAsyncContextManager[Application]]


@pytest.fixture(scope="session")
def address() -> Iterator[socket.socket]:
    """The application's address, which the provider must know before anything starts."""
    # The protocol is named: otherwise asyncio leaves Nagle's algorithm on, and every second response waits for an ACK.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        yield listening


def url_of(address: socket.socket) -> str:
    return f"http://localhost:{address.getsockname()[1]}"


@pytest.fixture(scope="session")
def provider(address: socket.socket) -> Iterator[Provider]:
    url = url_of(address)
    common: dict[str, Any] = {
        "redirect_uris": [f"{url}/auth/callback"],
        "post_logout_redirect_uris": [f"{url}/public"],
        "backchannel_logout_uri": f"{url}/auth/backchannel-logout",
        "backchannel_logout_session_required": True,
        "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token"],
    }
    secret = {**common, "client_secret": SECRET, "token_endpoint_auth_method": "client_secret_basic"}
    clients = [
        {**secret, "client_id": "by-secret"},
        {**secret, "client_id": "logouts-by-user", "backchannel_logout_session_required": False},
        {**secret, "client_id": "says-when", "require_auth_time": True},
        {**secret, "client_id": "by-post", "token_endpoint_auth_method": "client_secret_post"},
        {
            **common,
            "client_id": "by-key",
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": {"keys": [KEY.as_dict(private=False)]},
            "require_pushed_authorization_requests": True,
        },
        {**common, "client_id": "public", "token_endpoint_auth_method": "none"},
        *({**secret, "client_id": f"signs-{name}", "id_token_signed_response_alg": name} for name in ALGORITHMS),
    ]
    with running_provider(clients) as running:
        yield running


@pytest.fixture
def start(provider: Provider, address: socket.socket) -> StartApplication:
    """Start an application that is this client: `async with start("by-secret") as application`."""

    def started(client_id: str = "by-secret", **options: Any) -> AbstractAsyncContextManager[Application]:
        return serve(Application(url_of(address), provider, client_id, **options), address)

    return started
