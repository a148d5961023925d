"""`serve`: the application on Granian, as in production."""

# ruff: noqa: T201 - a command prints to its terminal

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.data.database import DatabaseUnavailableError, migrate
from app.ops.collector import settle_collector
from app.ops.listening import address_problem, end_with_parent
from app.ops.log import configure_logging
from app.ops.metrics_server import MetricsServer
from app.ops.open_files import FEW_CONNECTIONS, connections_per_worker, raise_open_files
from app.ops.stopping import KILL_SECONDS, SILENT_SECONDS
from app.settings.production import refuse_unfit
from app.settings.report import Problem, SettingsError
from app.settings.settings import Settings, load_settings

if TYPE_CHECKING:
    from app.application import Application

__all__ = ("serve", "worker")

_MAX_PORT = 65535


def serve(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return the exit code. An error at start is one line."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings()
        refuse_unfit(settings)
        _refuse_unshared(settings, options.workers)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    connections = connections_per_worker(raise_open_files())
    if connections <= 0:
        print("error: the limit of open files is too low to serve; raise it, for example: ulimit -n 4096", file=sys.stderr)
        return 1
    if problem := address_problem(options.host, options.port, "uv run serve --port"):
        print(f"error: {problem}", file=sys.stderr)
        return 1
    if not settings.is_production:
        # Here and not in the workers: one process migrates for all.
        try:
            migrate(settings.database_url)
        except DatabaseUnavailableError as error:
            print(f"error: DATABASE_URL: {error}", file=sys.stderr)
            return 1
    with ExitStack() as resources:
        if options.workers > 1 or settings.app_metrics_address is not None:
            # Workers share their metrics through files there; without it /metrics would show those of a random worker.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = resources.enter_context(tempfile.TemporaryDirectory())
        if problem := _serve_metrics(settings):
            print(f"error: {problem}", file=sys.stderr)
            return 1
        configure_logging(level=settings.app_log_level, as_json=settings.is_production)
        _announce(settings, options, connections)
        _run(options, connections)
    return 0


def worker() -> Application:
    """Return the application for one worker process, which ends with the server that started it."""
    from app.asgi import create_app  # noqa: PLC0415 - the parent process needs no application

    end_with_parent()
    app = create_app()
    app.graceful_stop.take_signals(asyncio.get_event_loop())
    settle_collector()
    return app


def _run(options: argparse.Namespace, connections: int) -> None:
    from granian import Granian  # noqa: PLC0415 - `--help` and refusals need no server
    from granian.constants import HTTPModes, Interfaces  # noqa: PLC0415
    from granian.http import HTTP1Settings  # noqa: PLC0415

    server = Granian(
        "app.cli:worker",
        factory=True,
        address=options.host,
        port=options.port,
        workers=options.workers,
        interface=Interfaces.ASGI,
        # No automatic protocol detection: it has no time limit, so a silent connection would stay open forever.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=SILENT_SECONDS * 1000),
        # Each open connection holds one. The default is 1024 for all workers; then no more connections are accepted.
        backpressure=connections,
        respawn_failed_workers=True,
        workers_kill_timeout=KILL_SECONDS,
        # Granian's access log would contain query strings with authorization codes; the application writes its own.
        log_access=False,
        # Its other messages go through our redaction, as JSON in production.
        log_dictconfig={"loggers": {"_granian": {"handlers": [], "propagate": True}}},
    )
    interrupt, first = server.signal_handler_interrupt, threading.Lock()

    def interrupt_once(number: int, frame: FrameType | None) -> None:
        # Signals arrive while this function handles another one: taking a lock is one step.
        if first.acquire(blocking=False):
            # Granian's handler takes a lock that the interrupted code may hold: in a thread it cannot deadlock.
            threading.Thread(target=interrupt, args=(number, frame)).start()

    server.signal_handler_interrupt = interrupt_once  # type: ignore[method-assign]
    try:
        server.serve()
    except SystemExit:
        # Ctrl-C and systemd signal the workers, too. A worker that ends first is not a failure.
        if not server.interrupt_signal:
            raise


def _refuse_unshared(settings: Settings, workers: int) -> None:
    kind = urlsplit(settings.session_store).scheme
    if workers > 1 and kind == "memory":
        message = f"sessions in memory are visible to one process only, not to {workers} workers"
        raise SettingsError([Problem("SESSION_STORE", message, "use --workers 1, or another store")])


def _serve_metrics(settings: Settings) -> str | None:
    """Serve /metrics on its own address, if configured; return an error message."""
    if settings.app_metrics_address is None:
        return None
    from app.ops.metrics import CONTENT_TYPE, render_all  # noqa: PLC0415 - reads PROMETHEUS_MULTIPROC_DIR when it is imported

    address = urlsplit(f"//{settings.app_metrics_address}")
    host, port = address.hostname or "", address.port or 0
    if problem := address_problem(host, port, f"APP_METRICS_ADDRESS={host}:"):
        return problem
    key = settings.app_metrics_key.get_secret_value() if settings.app_metrics_key is not None else None
    MetricsServer(render_all, content_type=CONTENT_TYPE, key=key).start(host, port)
    return None


def _announce(settings: Settings, options: argparse.Namespace, connections: int) -> None:
    print(f"serving {settings.public_url} on {options.host}:{options.port} with {options.workers} worker(s)", flush=True)
    if connections < FEW_CONNECTIONS:
        print(f"note: a worker holds at most {connections} connections; for more, raise the limit of open files", flush=True)
    public = urlsplit(settings.public_url)
    if public.scheme == "https":
        print("note: PUBLIC_URL is https and this server speaks http: open it through the proxy that ends TLS", flush=True)
    elif (public.port or 80) != options.port:
        print(f"note: logins return to PUBLIC_URL, {settings.public_url}, not to port {options.port}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="serve", description="Serve the reference application on Granian.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on (default: %(default)s)")
    parser.add_argument("--workers", type=_workers, default=1, help="number of processes (default: %(default)s)")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= _MAX_PORT:
        message = f"{text!r} is no port; a good example: 8000"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _workers(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        message = f"{text!r} is no number of processes; a good example: 4"
        raise argparse.ArgumentTypeError(message)
    return int(text)
