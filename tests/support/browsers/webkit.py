"""WebKitGTK's MiniBrowser, driven by WebDriver, under a virtual X server."""

from __future__ import annotations

import os
import tempfile
import time
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx2

from tests.support.browsers.programs import find_program, start_program, stop_program
from tests.support.browsers.window import Browser, PageIsLoadingError, Window
from tests.support.ports import free_port

__all__ = ("WebKit",)

_LOADING: Final = frozenset({"no such frame", "no such window", "stale element reference", "unexpected alert open"})
_START_SECONDS: Final = 60.0


class WebKit(Browser):
    """A driver process; each window is a separate MiniBrowser, one at a time."""

    name = "WebKit"

    def __init__(self) -> None:
        driver = find_program(["WebKitWebDriver"], label="WebKitGTK", package="webkit2gtk-driver")
        xvfb = find_program(["Xvfb"], label="Xvfb (for WebKitGTK)", package="xvfb")
        self._directory = tempfile.TemporaryDirectory(prefix="webkit-", ignore_cleanup_errors=True)
        display, server_end = os.pipe()
        self._screen = start_program(
            [xvfb, "-displayfd", str(server_end), "-screen", "0", "1280x900x24", "-nolisten", "tcp"], pass_fds=[server_end]
        )
        os.close(server_end)
        with os.fdopen(display) as line:  # read the whole line: Xvfb dies when the pipe closes while it writes
            number = line.readline().strip()
        port = free_port()
        home = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), self._directory.name)
        self._driver = start_program(
            [driver, f"--port={port}"], {**home, "DISPLAY": f":{number}", "LIBGL_ALWAYS_SOFTWARE": "1", "NO_AT_BRIDGE": "1"}
        )
        self._http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=2 * Window.timeout)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._http.get("/status")
                break
            except httpx2.TransportError:
                assert self._driver.poll() is None, "WebKitWebDriver ended"
                assert time.monotonic() < deadline, "WebKitWebDriver did not start"
                time.sleep(0.02)

    def command(self, method: str, path: str, **body: Any) -> Any:
        """Return the value of a command's response."""
        response = self._http.request(method, path, json=body if method == "POST" else None)
        value = response.json()["value"]
        if response.is_success:
            return value
        said = f"{value['error']}: {value['message']}"
        if value["error"] in _LOADING:
            raise PageIsLoadingError(said)
        raise RuntimeError(said)

    def _open_window(self) -> WebKitWindow:
        return WebKitWindow(self)

    def _close_window(self, window: WebKitWindow) -> None:
        self.command("DELETE", window.session)

    def close(self) -> None:
        self._http.close()
        for process in (self._driver, self._screen):
            stop_program(process)
        with suppress(OSError):
            self._directory.cleanup()


class WebKitWindow(Window):
    """A WebDriver session."""

    def __init__(self, browser: WebKit) -> None:
        self._browser = browser
        wanted = {"browserName": "MiniBrowser", "acceptInsecureCerts": True, "timeouts": {"script": int(self.timeout * 1000)}}
        session = browser.command("POST", "/session", capabilities={"alwaysMatch": wanted})
        self.session = f"/session/{session['sessionId']}"

    def _command(self, method: str, path: str, **body: Any) -> Any:
        return self._browser.command(method, self.session + path, **body)

    def open(self, url: str) -> None:
        self._command("POST", "/url", url=url)

    def run(self, script: str) -> Any:
        settled = "value => done([value ?? null, '']), error => done([null, `${error}`])"
        body = f"const done = arguments[0]; (async () => {{ {script} }})().then({settled})"
        value, error = self._command("POST", "/execute/async", script=body, args=[])
        if error:
            raise RuntimeError(error)
        return value

    def press(self, selector: str) -> None:
        element = self._command("POST", "/element", using="css selector", value=selector)
        self._command("POST", f"/element/{next(iter(element.values()))}/click")

    def back(self) -> None:
        self._command("POST", "/back")

    def cookies(self) -> dict[str, dict[str, Any]]:
        return {cookie["name"]: cookie for cookie in self._command("GET", "/cookie")}

    def screenshot(self, path: Path) -> None:
        path.write_bytes(b64decode(self._command("GET", "/screenshot")))
