"""Serves an ASGI application from a thread of this process, so that a test can inspect the application's state."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

__all__ = ("listen", "served")


def listen() -> tuple[socket.socket, int]:
    """A listening loopback socket and its port, available before the application exists."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening, listening.getsockname()[1]


@contextmanager
def served(app: Any, *listening: socket.socket) -> Iterator[None]:
    """Serve on these sockets during the block."""
    config = uvicorn.Config(app, log_level="warning", ws="websockets-sansio", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": list(listening)}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=60)
