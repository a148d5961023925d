"""Starts and stops the two servers of the demo, in this process and its one event loop."""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from auth_demo.op import DEMO_ACCOUNTS, Account, OpSettings, RegisteredClient, UnsafeProviderError, create_op

if TYPE_CHECKING:
    from litestar import Litestar
    from litestar.types import Receive, Scope, Send

__all__ = ("Addresses", "DemoServers", "StartError", "end_with_launcher")

_CLIENT_ID: Final = "reference-app"
_IPV4, _IPV6 = "127.0.0.1", "::1"
_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 2.0
_CONNECTIONS: Final = 1024
"""Held at once, silent ones included: a browser keeps some open, and the guarantees page opens two hundred."""
_PR_SET_PDEATHSIG: Final = 1


class StartError(Exception):
    """The demo cannot start; the message is the one line that says why."""


class Addresses:
    """The addresses of the two servers.

    The provider is at 127.0.0.1 and the application at localhost: two hosts to a browser, which keeps cookies by host and not by
    port. Browsers may try `localhost` as ::1 first, so the application listens there as well.
    """

    def __init__(self, port: int, op_port: int) -> None:
        self.port = port
        self.op_port = op_port
        self.app_url = f"http://localhost:{port}"
        self.issuer = f"http://{_IPV4}:{op_port}"
        self.app_hosts = (_IPV4, _IPV6) if _has_ipv6() else (_IPV4,)

    def refuse_busy(self) -> None:
        """Raise `StartError` when something else listens on one of the ports."""
        if self.port == self.op_port:
            message = f"the application and the provider cannot both listen on port {self.port}"
            raise StartError(message)
        for host, port, option in [*((host, self.port, "--port") for host in self.app_hosts), (_IPV4, self.op_port, "--op-port")]:
            if _is_busy(host, port):
                again = f"uv run demo {option} {port + 1}"
                message = f"port {port} on {host} is in use; stop the other program, or choose another port: {again}"
                raise StartError(message)


class DemoServers:
    """The provider and the application, configured for each other. `pages` add to it what only the demo has."""

    def __init__(self, addresses: Addresses, *, store: str | None, pages: Sequence[Callable[[Litestar], None]]) -> None:
        self.accounts: tuple[Account, ...] = DEMO_ACCOUNTS
        self._addresses = addresses
        # The same file that the application's commands use.
        generated = _module_of_app("settings.generated_secrets")
        try:
            secret: str = generated.read_or_create(generated.CLIENT_SECRET_FILE)
        except OSError as error:
            message = f"{generated.CLIENT_SECRET_FILE} cannot be kept here: {error.strerror or error}"
            raise StartError(message) from None
        self._op = self._make_op(secret)
        self._app = self._make_app(secret, store)
        for add_page in pages:
            add_page(self._app)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve both inside the block. Raises `StartError` when the application cannot start."""
        refusal: StartError | None = None
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._op.lifespan())
            await stack.enter_async_context(_serving(self._op, _IPV4, self._addresses.op_port))
            try:
                await stack.enter_async_context(self._app.lifespan())
            except SystemExit as end:
                # Raised outside, because the provider's lifespan would wrap it in an exception group.
                refusal = StartError(str(end).removeprefix("error: "))
            else:
                for host in self._addresses.app_hosts:
                    await stack.enter_async_context(_serving(self._app, host, self._addresses.port))
                yield
        if refusal is not None:
            raise refusal

    def _make_op(self, secret: str) -> Litestar:
        url = self._addresses.app_url
        client = RegisteredClient(
            client_id=_CLIENT_ID,
            client_secret=secret,
            client_name="session_core demo",
            redirect_uris=(f"{url}/auth/callback",),
            post_logout_redirect_uris=(f"{url}/",),
            backchannel_logout_uri=f"{url}/auth/backchannel-logout",
        )
        try:
            return create_op(OpSettings(issuer=self._addresses.issuer, clients=(client,), accounts=self.accounts))
        except UnsafeProviderError as error:
            raise StartError(str(error)) from None

    def _make_app(self, secret: str, store: str | None) -> Litestar:
        # The application is configured by its settings like any deployment, and is independent of the demo.
        os.environ |= {
            "PUBLIC_URL": self._addresses.app_url,
            "OIDC_ISSUER": self._addresses.issuer,
            "OIDC_CLIENT_ID": _CLIENT_ID,
            "OIDC_CLIENT_SECRET": secret,
        }
        if store is not None:
            os.environ["SESSION_STORE"] = store
        app: Litestar = _module_of_app("asgi").create_app()
        return app


def _module_of_app(name: str) -> Any:  # noqa: ANN401 - a module
    # By name, as a server starts it: `auth_demo` may not import `app`, which builds on it. A clone is run from its own
    # directory, which an installed command does not look into by itself.
    if Path("app/asgi.py").is_file() and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(f"app.{name}")


def end_with_launcher() -> None:
    """End with `uv run`, also when that is killed (Linux; elsewhere nothing).

    Only for uv, which waits for the demo: a shell that started the demo in the background may end.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    with suppress(OSError):
        if Path(f"/proc/{parent}/comm").read_text().strip() == "uv":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)


@asynccontextmanager
async def _serving(app: Litestar, host: str, port: int) -> AsyncIterator[None]:
    """Listen while inside the block; the application's lifespan is the caller's."""
    from granian.constants import Interfaces  # noqa: PLC0415 - a refusal needs no server
    from granian.server.embed import Server  # noqa: PLC0415

    under_way = 0

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal under_way
        under_way += 1
        try:
            await app(scope, receive, send)
        finally:
            under_way -= 1

    server = Server(counted, address=host, port=port, interface=Interfaces.ASGINL, log_enabled=False, backpressure=_CONNECTIONS)
    task = asyncio.create_task(server.serve())
    try:
        await _answering(task, host, port)
        yield
    finally:
        server.stop()  # type: ignore[no-untyped-call]
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await task
                # Wait for requests that the server no longer tracks, before the event loop ends.
                while under_way:  # noqa: ASYNC110 - the end of several, not an event
                    await asyncio.sleep(0.01)


async def _answering(task: asyncio.Task[None], host: str, port: int) -> None:
    """Return when the port takes connections."""
    for _ in range(int(_READY_SECONDS / 0.02)):
        if task.done():
            break
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        await asyncio.sleep(0.02)
    message = f"the server on {host}:{port} did not start"
    raise StartError(message)


def _has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((_IPV6, 0))
    except OSError:
        return False
    return True


def _is_busy(host: str, port: int) -> bool:
    family = socket.AF_INET6 if host == _IPV6 else socket.AF_INET
    with socket.socket(family) as probe:
        # Not SO_REUSEPORT, which the server itself uses: with it, two demos would silently share the port.
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            message = f"this user may not listen on port {port}; choose one above 1023"
            raise StartError(message) from None
        except OSError:
            return True
    return False
