"""The program that Granian starts for every Python stack, with the garbage collector settings of production."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from app.ops.collector import settle_collector

__all__ = ("create",)


def create() -> Any:  # noqa: ANN401 - an ASGI or a WSGI application
    """The application named by `BENCH_PROGRAM`, a `module:factory`."""
    module, _, factory = os.environ["BENCH_PROGRAM"].partition(":")
    application = getattr(import_module(module), factory)()
    settle_collector()
    return application
