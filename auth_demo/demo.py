"""`demo`: the provider and the reference application in one process, from nothing to logged in.

One process on purpose: Ctrl-C, or any other end of it, cannot leave half of the demo running.
"""

# ruff: noqa: T201 - a command speaks to whoever typed it

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import webbrowser
from typing import TYPE_CHECKING, Final

from auth_demo.demo_servers import Addresses, DemoServers, StartError, end_with_launcher

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("main",)

_MAX_PORT: Final = 65535
_LATER: Final = "error: the cluster demo is not there yet; with a server of your own: uv run demo --store redis://localhost"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo until interrupted; return the exit code. Anything that prevents it is one clear line."""
    options = _parser().parse_args(arguments)
    if options.cluster or options.kill_primary:
        print(_LATER, file=sys.stderr)
        return 2
    end_with_launcher()
    addresses = Addresses(options.port, options.op_port)
    try:
        return _run(options, addresses)
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _run(options: argparse.Namespace, addresses: Addresses) -> int:
    addresses.refuse_busy()
    if options.smoke:
        # What it saw is the output; what happened inside would only hide it.
        os.environ.setdefault("APP_LOG_LEVEL", "WARNING")
    servers = DemoServers(addresses, store=options.store)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(options, addresses, servers))


async def _serve(options: argparse.Namespace, addresses: Addresses, servers: DemoServers) -> int:
    async with servers.running() as interrupted:
        if options.smoke:
            from auth_demo.smoke import SmokeFailure, smoke  # noqa: PLC0415 - an HTTP client is needed only here

            try:
                await smoke(addresses.app_url, addresses.issuer)
            except SmokeFailure as failure:
                print(f"smoke: FAILED: {failure}", file=sys.stderr)
                return 1
            print("smoke: everything worked")
            return 0
        print(_banner(addresses, servers), flush=True)
        if not options.no_browser and _has_display():
            # In a thread: some launchers wait for the browser.
            opening = asyncio.get_running_loop().run_in_executor(None, webbrowser.open, addresses.app_url)
            opening.add_done_callback(lambda future: future.exception())
        await interrupted.wait()
        print("\nstopping", flush=True)
    return 0


def _banner(addresses: Addresses, servers: DemoServers) -> str:
    width = max(len(account.username) for account in servers.accounts)
    users = [f"{account.username:{width}}  {', '.join(account.roles)}" for account in servers.accounts]
    lines = [
        "",
        f"  Application        {addresses.app_url}",
        f"  Identity provider  {addresses.issuer}",
        "",
        f"  Log in as          {users[0]}",
        *(f"                     {user}" for user in users[1:]),
        f"                     one click each, or the password: {servers.accounts[0].password}",
        "",
        "  Ctrl-C stops both.",
        "",
    ]
    return "\n".join(lines)


def _has_display() -> bool:
    if os.environ.get("CI") or os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.Loop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description="Start the demo identity provider and the reference application.")
    parser.add_argument("--port", type=_port, default=8000, help="port of the application (default: %(default)s)")
    parser.add_argument("--op-port", type=_port, default=9000, help="port of the provider (default: %(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--smoke", action="store_true", help="start, log in, log out, stop; the exit code says whether it worked")
    parser.add_argument("--store", metavar="URL", help="where sessions are kept, for example memory://")
    parser.add_argument("--cluster", action="store_true", help="on a real Valkey cluster (not there yet)")
    parser.add_argument("--kill-primary", action="store_true", help="with --cluster: show that nobody is logged out")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= _MAX_PORT:
        message = f"{text!r} is no port; a good example: 8000"
        raise argparse.ArgumentTypeError(message)
    return int(text)
