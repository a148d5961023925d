"""The operations of browser tests, the same for every browser."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

__all__ = ("ARRIVED", "PATIENCE_MS", "Browser", "PageIsLoadingError", "Window")


PATIENCE_MS: Final = 60_000
"""That a page, an element or a condition may take, on a machine that is busy."""
ARRIVED: Final = "return !window.isLeft && document.readyState === 'complete' && location.href !== 'about:blank'"
"""Whether the marked page was replaced by another page than the empty one of a new process."""


class PageIsLoadingError(Exception):
    """A script or click hit a page that is being replaced; it may be retried."""


class Window(ABC):
    """A window with its own cookie jar.

    Scripts are the bodies of asynchronous functions: `return await fetch(...)`; what they return must be JSON.
    """

    timeout: ClassVar[float] = PATIENCE_MS / 1000
    """Timeout in seconds for a page, an element or a condition."""

    @abstractmethod
    def open(self, url: str) -> None:
        """Navigate to a URL as if typed, and wait for the page."""

    @abstractmethod
    def run(self, script: str) -> Any:
        """Return the result of a script."""

    @abstractmethod
    def press(self, selector: str) -> None:
        """Click on the only matching element, as a user does; see `click`."""

    @abstractmethod
    def back(self) -> None:
        """Go back in the history."""

    @abstractmethod
    def cookies(self) -> dict[str, dict[str, Any]]:
        """The cookies of the current page by name, with `value`, `httpOnly`, `secure`, `sameSite`, `domain` and `path`."""

    @abstractmethod
    def screenshot(self, path: Path) -> None:
        """Save a PNG screenshot of the window."""

    def wait_for(self, script: str) -> Any:
        """Return the first true value that a script returns."""
        return self.wait_until(lambda: self.run(script), script)

    def wait_until(self, condition: Callable[[], Any], what: str = "the condition") -> Any:
        """Return the first true value of a condition; retries when a page is being replaced."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                if found := condition():
                    return found
            except PageIsLoadingError:
                pass
            if time.monotonic() > deadline:
                message = f"not within {self.timeout} s: {what}\non {self.url}:\n{self.text}"
                raise AssertionError(message)
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Wait for an element and click on it as a user does."""
        element = f"document.querySelector({selector!r})"
        self.wait_for(f"return document.readyState === 'complete' && {element} !== null")
        self.run(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        self.press(selector)

    def follow(self, selector: str) -> None:
        """Click on a link or button that leads to another page, and wait for that page."""
        self.wait_for(f"return document.readyState === 'complete' && document.querySelector({selector!r}) !== null")
        self.run("window.isLeft = true")
        self.click(selector)
        self.wait_for(ARRIVED)

    def fill(self, selector: str, value: str) -> None:
        """Set the value of a field."""
        self.wait_for(f"return document.querySelector({selector!r}) !== null")
        self.run(f"document.querySelector({selector!r}).value = {value!r}")

    @property
    def url(self) -> str:
        """The current URL."""
        return str(self.run("return location.href"))

    @property
    def text(self) -> str:
        """The visible text of the page."""
        return str(self.run("return document.body === null ? '' : document.body.innerText"))


class Browser(ABC):
    """A running browser; `window` opens isolated windows."""

    name: ClassVar[str]

    @contextmanager
    def window(self) -> Iterator[Window]:
        """A window that is open during the block."""
        window = self._open_window()
        try:
            yield window
        finally:
            self._close_window(window)

    @abstractmethod
    def _open_window(self) -> Any: ...

    @abstractmethod
    def _close_window(self, window: Any) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """End the browser."""
