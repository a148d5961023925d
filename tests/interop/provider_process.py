"""Real OpenID providers from npm and PyPI on loopback, which end with their parent process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx

from tests.support.child_process import end_with_parent
from tests.support.node_packages import node_command

API = "https://api.example.org"
"""The one API for which it issues separate access tokens (RFC 8707)."""
_SOURCE = Path(__file__).parent / "oidc_provider"


class Provider:
    """A running provider and its event log."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer

    async def events(self, name: str, **members: Any) -> list[dict[str, Any]]:
        """The provider's events, by its own names."""
        async with _client() as client:
            events = (await client.get(f"{self.issuer}/test/events")).json()
        return [event for event in events if {"name": name, **members}.items() <= event.items()]

    async def post(self, path: str, form: dict[str, str], client_id: str, secret: str) -> httpx.Response:
        """Send a request authenticated by the client's secret, as an attacker with all secrets can."""
        # The credentials are form-encoded first (RFC 6749 2.3.1).
        async with _client() as client:
            return await client.post(f"{self.issuer}{path}", data=form, auth=(quote_plus(client_id), quote_plus(secret)))


def _client() -> httpx.AsyncClient:
    # Plain http to loopback only: loading all CA certificates would take longer than the tests.
    return httpx.AsyncClient(trust_env=False, verify=False)


def running_provider(clients: list[dict[str, Any]]) -> AbstractContextManager[Provider]:
    """Run `oidc-provider` from npm for these clients (OpenID Connect Dynamic Client Registration 2)."""
    return _running([*node_command(_SOURCE), json.dumps(clients)])


def running_program(name: str, clients: list[dict[str, Any]], path: str = "") -> AbstractContextManager[Provider]:
    """Run a program of this folder that prints `ready PORT`; its issuer has this path."""
    return _running([sys.executable, str(Path(__file__).with_name(name)), json.dumps(clients)], path)


@contextmanager
def _running(command: list[str], path: str = "") -> Iterator[Provider]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        # Without environment variables of this machine, such as a proxy for the provider's logout requests.
        env={**{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}, "OAUTHLIB_INSECURE_TRANSPORT": "1"},
        preexec_fn=end_with_parent,  # noqa: PLW1509
    )
    try:
        assert process.stdout is not None
        with process.stdout as output:
            ready = output.readline().split()
        assert ready[:1] == [b"ready"], "the provider did not start"
        yield Provider(f"http://127.0.0.1:{int(ready[1])}{path}")
    finally:
        process.kill()
        process.wait()
