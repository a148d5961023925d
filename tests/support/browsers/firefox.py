"""Firefox, driven by WebDriver BiDi: commands in JSON over one WebSocket."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from base64 import b64decode
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from websockets.sync.client import connect

from tests.support.browsers.programs import find_program, start_program, stop_program
from tests.support.browsers.window import ARRIVED, Browser, PageIsLoadingError, Window

__all__ = ("Firefox",)

_PREFERENCES: Final[dict[str, object]] = {
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.confirm_repost.testing.always_accept": True,  # BiDi cannot answer the prompt to resend a form
    "dom.disable_open_during_load": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    # Stand for hosts that are not loopback: browsers send these no Sec-Fetch headers over plain http.
    "network.dns.localDomains": "app.example.test,sibling.example.test,other.test",
    "toolkit.telemetry.enabled": False,
}
_READY: Final = re.compile(r"WebDriver BiDi listening on (ws://\S+)")
_LOADING: Final = frozenset({"no such frame", "no such node"})
_INTERRUPTED: Final = re.compile(r"NS_BINDING_ABORTED|actor .* destroyed|Browsing [Cc]ontext|context was destroyed|AbortError")


class Firefox(Browser):
    """A Firefox process; each window is a tab in its own user context."""

    name = "Firefox"

    def __init__(self) -> None:
        program = find_program(["firefox-esr", "firefox"], label="Firefox", package="firefox-esr")
        self._directory = tempfile.TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True)
        home = Path(self._directory.name)
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in _PREFERENCES.items()]
        (home / "user.js").write_text("\n".join(lines))
        self._process = start_program(
            [program, "--headless", "--no-remote", "--profile", str(home), "--remote-debugging-port", "0", "about:blank"],
            {"HOME": str(home)},
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        ready = next(filter(None, map(_READY.search, self._process.stderr)), None)
        assert ready is not None, "Firefox did not start"
        self._stack = ExitStack()
        self._socket = self._stack.enter_context(connect(f"{ready[1]}/session", max_size=None, compression=None))
        self._sent = 0
        self.command("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})

    def command(self, method: str, **params: Any) -> Any:
        """Return the result of a command; events are skipped."""
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=2 * Window.timeout))
            if message.get("id") == self._sent:
                break
        if message["type"] == "error":
            said = f"{message['error']}: {message['message']}"
            if message["error"] in _LOADING or _INTERRUPTED.search(said):
                raise PageIsLoadingError(said)
            raise RuntimeError(said)
        return message["result"]

    def _open_window(self) -> FirefoxWindow:
        return FirefoxWindow(self)

    def _close_window(self, window: FirefoxWindow) -> None:
        self.command("browser.removeUserContext", userContext=window.user_context)

    def close(self) -> None:
        self._stack.close()
        self._process.stderr.close() if self._process.stderr else None
        stop_program(self._process)
        self._directory.cleanup()


class FirefoxWindow(Window):
    """A tab."""

    def __init__(self, browser: Firefox) -> None:
        self._command = browser.command
        self.user_context: str = self._command("browser.createUserContext")["userContext"]
        self._tab: str = self._command("browsingContext.create", type="tab", userContext=self.user_context)["context"]

    def open(self, url: str) -> None:
        # Not `wait="complete"`: when a script of the page navigates at once, the response may never come.
        self.run("window.isLeft = true")
        self._command("browsingContext.navigate", context=self._tab, url=url, wait="none")
        self.wait_for(ARRIVED)

    def run(self, script: str) -> Any:
        answer = self._command(
            "script.callFunction",
            functionDeclaration=f"async () => JSON.stringify((await (async () => {{ {script} }})()) ?? null)",
            awaitPromise=True,
            target={"context": self._tab},
        )
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    def press(self, selector: str) -> None:
        locator = {"type": "css", "value": selector}
        node = self._command("browsingContext.locateNodes", context=self._tab, locator=locator)["nodes"][0]
        element = {"type": "element", "element": {"sharedId": node["sharedId"]}}
        move = {"type": "pointerMove", "x": 0, "y": 0, "origin": element}
        buttons = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": "mouse", "actions": [move, *buttons]}
        self._command("input.performActions", context=self._tab, actions=[pointer])

    def back(self) -> None:
        self._command("browsingContext.traverseHistory", context=self._tab, delta=-1)

    def cookies(self) -> dict[str, dict[str, Any]]:
        partition = {"type": "context", "context": self._tab}
        found = self._command("storage.getCookies", partition=partition)["cookies"]
        host = self.run("return location.hostname")
        cookies = {cookie["name"]: cookie for cookie in found if cookie["domain"].lstrip(".") == host}
        return {name: {**cookie, "value": cookie["value"]["value"]} for name, cookie in cookies.items()}

    def screenshot(self, path: Path) -> None:
        path.write_bytes(b64decode(self._command("browsingContext.captureScreenshot", context=self._tab)["data"]))
