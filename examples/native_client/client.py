"""A native client that logs its user in through the browser: `python examples/native_client/client.py http://localhost:8000`.

The application must know it: `NATIVE_CLIENTS="example http://127.0.0.1/callback"` in the reference application, or
`NativeClient("example", ["http://127.0.0.1/callback"])` in yours. Needs only Python.
"""

import base64
import hashlib
import json
import secrets
import sys
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

CLIENT_ID = "example"


class NoRedirects(HTTPRedirectHandler):
    """A token must not be sent to another address."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""
        return


class Api:
    """The application, seen by its native client. A real one keeps the token in the system's key chain."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.token = ""
        self._opener = build_opener(NoRedirects)

    def log_in(self) -> None:
        """Open the browser, wait for its answer on loopback, and redeem the code."""
        verifier, state = secrets.token_urlsafe(32), secrets.token_urlsafe(16)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        with Callback() as callback:
            redirect_uri = f"http://127.0.0.1:{callback.server_port}/callback"
            asked = {
                "response_type": "code",
                "client_id": CLIENT_ID,
                "redirect_uri": redirect_uri,
                "state": state,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
            address = f"{self.url}/auth/authorize?{urlencode(asked)}"
            print(f"Log in at {address}", flush=True)
            webbrowser.open(address)
            answer = callback.wait()
        if answer.get("state") != state or "code" not in answer:
            sys.exit(f"The login failed: {answer.get('error', 'an answer to another login')}")
        form = {"grant_type": "authorization_code", "code": answer["code"], "client_id": CLIENT_ID}
        redeemed = self.send("POST", "/auth/token", {**form, "redirect_uri": redirect_uri, "code_verifier": verifier})
        self.token = redeemed["access_token"]

    def send(self, method: str, path: str, form: dict[str, str] | None = None) -> dict[str, Any]:
        """Send a request with the token. If the response has a new one, use that from then on."""
        request = Request(f"{self.url}{path}", method=method, headers={"Accept": "application/json"})
        if form is not None:
            request.data = urlencode(form).encode()
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with self._opener.open(request) as response:
            self.token = response.headers.get("Session-Token", self.token)
            answer: dict[str, Any] = json.loads(response.read())
            return answer


class Callback(HTTPServer):
    """Receives the browser's redirect, on a port that the system chooses."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answered)
        self.answer: dict[str, str] | None = None

    def wait(self) -> dict[str, str]:
        """Return the parameters of the redirect."""
        while self.answer is None:
            self.handle_request()
        return self.answer


class Answered(BaseHTTPRequestHandler):
    """Shows a page, and stores the parameters of the redirect."""

    server: Callback

    def do_GET(self) -> None:
        """Store the parameters. The browser may also request an icon, which is 404."""
        parts = urlsplit(self.path)
        if parts.path != "/callback":
            self.send_error(404)
            return
        self.server.answer = {name: values[0] for name, values in parse_qs(parts.query).items()}
        page = b"<!doctype html><title>Done</title><p>You may close this page."
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Log nothing: the address has the code."""


def main() -> None:
    """Log in, use the session, get a new token, log out."""
    api = Api(sys.argv[1].rstrip("/"))
    api.log_in()
    print("logged in as", api.send("GET", "/auth/session")["subject"])
    print("logged out at", api.send("POST", "/auth/logout")["logout_url"])
    try:
        api.send("GET", "/auth/session")
    except HTTPError as error:
        print("and then", error.code, error.headers["WWW-Authenticate"])


if __name__ == "__main__":
    main()
