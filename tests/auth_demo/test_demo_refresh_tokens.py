"""`litestar sessions refresh-tokens`, run by a scheduler beside the application and the embedded provider."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.app.processes import clean_environment
from tests.auth_demo.demo_process import Demo
from tests.auth_demo.test_demo_flow import log_in
from tests.support.ports import free_ports

COMMAND = [sys.executable, "-m", "litestar", "--app", "app.asgi:create_app", "sessions", "refresh-tokens"]
NOTHING = {"due": 0, "refreshed": 0, "ended": 0, "failed": 0, "skipped": 0, "complete": True}
SECRET = "a-client-secret-for-these-tests-alone"
KEY = "a-key-of-more-than-thirty-two-characters"
PROVIDER = """
import sys
import uvicorn
from auth_demo.op import OpSettings, RegisteredClient, create_op
issuer, app, secret, port = sys.argv[1:]
client = RegisteredClient(
    client_id="reference-app", client_secret=secret, client_name="tests", redirect_uris=(f"{app}/auth/callback",),
    post_logout_redirect_uris=(f"{app}/",), backchannel_logout_uri=f"{app}/auth/backchannel-logout",
)
uvicorn.run(create_op(OpSettings(issuer=issuer, clients=(client,))), port=int(port), log_level="error")
"""


class Site:
    """The application and the provider as processes, and the settings shared with the command."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        port, op_port = free_ports()
        self.app_url, self.issuer = f"http://localhost:{port}", f"http://127.0.0.1:{op_port}"
        self.settings = {
            **clean_environment(),
            "PUBLIC_URL": self.app_url,
            "OIDC_ISSUER": self.issuer,
            "OIDC_CLIENT_ID": "reference-app",
            "OIDC_CLIENT_SECRET": SECRET,
            "OIDC_REFRESH_TOKENS_KEY": KEY,
        }
        self._provider_code = [sys.executable, "-c", PROVIDER, self.issuer, self.app_url, SECRET, str(op_port)]
        serve = ["-m", "uvicorn", "--factory", "app.asgi:create_app", "--host", "localhost", "--port", str(port)]
        self._app_code = [sys.executable, *serve, "--log-level", "error"]

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run both; yield the provider's process."""
        provider, app = self._start(self._provider_code), self._start(self._app_code)
        try:
            _wait_for(f"{self.issuer}/.well-known/openid-configuration")
            _wait_for(f"{self.app_url}/health/live")
            yield provider
        finally:
            for process in (app, provider):
                process.kill()
                process.wait()

    def refresh_tokens(self, *arguments: str) -> tuple[int, dict[str, object]]:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.directory,
            env=self.settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=self.directory, env=self.settings)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            httpx.get(url, trust_env=False, timeout=5)
        except httpx.TransportError:
            assert time.monotonic() < deadline, f"nothing answers at {url}"
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_command_refreshes_due_tokens_and_an_outage_ends_no_session(site: Site) -> None:
    with site.running() as provider, httpx.Client(base_url=site.app_url, trust_env=False, timeout=60) as browser:
        demo = Demo.__new__(Demo)
        demo.issuer = site.issuer
        log_in(browser, demo)
        assert site.refresh_tokens("--horizon", "10") == (0, NOTHING)
        assert site.refresh_tokens("--horizon", "600", "--dry-run") == (0, {**NOTHING, "due": 1})
        assert site.refresh_tokens("--horizon", "600", "--concurrency", "2") == (0, {**NOTHING, "due": 1, "refreshed": 1})
        assert browser.get("/api/userinfo").json()["name"]
        machine = httpx.post(
            f"{site.app_url}/auth/refresh-tokens", headers={"authorization": f"Bearer {KEY}"}, trust_env=False, timeout=60
        )
        assert (machine.status_code, machine.json()["failed"]) == (200, 0)
        provider.kill()
        provider.wait()
        code, result = site.refresh_tokens("--horizon", "600")
        assert (code, result["failed"], result["ended"]) == (1, 1, 0)
        assert browser.get("/api/me").status_code == 200
