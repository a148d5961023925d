"""`demo`: the provider and the reference application in one process, from nothing to logged in.

One process on purpose: Ctrl-C, or any other end of it, cannot leave half of the demo running.
"""

# ruff: noqa: T201 - a command prints to its terminal

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from auth_demo.stop_signal import StopRequestedError, StopSignal, handling_signals

if TYPE_CHECKING:
    from auth_demo.cluster.watch import ClusterWatch
    from auth_demo.servers import Addresses, DemoServers

__all__ = ("main",)

_MAX_PORT: Final = 65535


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo until interrupted; return the exit code. An error at start is one line."""
    options = _parser().parse_args(arguments)
    refusal = _refusal(options)
    if refusal is not None:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    with handling_signals() as stop:
        # The imports take most of a second, in which Ctrl-C must be noted as at any other time.
        from auth_demo.servers import StartError, end_with_launcher  # noqa: PLC0415

        end_with_launcher()
        try:
            return _run(options, stop)
        except StartError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except StopRequestedError:
            return 1 if options.smoke else 0  # an unfinished walk counts as failed


def _refusal(options: argparse.Namespace) -> str | None:
    """Return why these options exclude each other, or None."""
    if options.kill_primary and not options.cluster:
        return "--kill-primary needs a cluster to kill one of: uv run demo --cluster --kill-primary"
    if options.cluster and options.store is not None:
        return "--cluster brings its own store; leave --store out"
    return None


def _run(options: argparse.Namespace, stop: StopSignal) -> int:
    from auth_demo.servers import Addresses, DemoServers  # noqa: PLC0415 - see main

    addresses = Addresses(options.port, options.op_port)
    addresses.refuse_busy()
    if options.smoke:
        # Only its own output is shown, without the log.
        os.environ.setdefault("APP_LOG_LEVEL", "WARNING")
    with ExitStack() as stack:
        from auth_demo.guarantees.page import add_guarantees_page  # noqa: PLC0415 - see main

        watch = None
        if options.cluster:
            # Only here: without the option the demo needs no Redis client.
            from auth_demo.cluster.cluster import running_cluster  # noqa: PLC0415
            from auth_demo.cluster.page import add_cluster_page  # noqa: PLC0415
            from auth_demo.cluster.watch import ClusterWatch  # noqa: PLC0415

            cluster = stack.enter_context(running_cluster(stop.check))
            watch = ClusterWatch(cluster)
            servers = DemoServers(
                addresses, store=cluster.url, pages=[partial(add_cluster_page, watch=watch), add_guarantees_page]
            )
        else:
            servers = DemoServers(addresses, store=options.store, pages=[add_guarantees_page])
        stop.check()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(options, addresses, servers, watch, stop))


async def _serve(
    options: argparse.Namespace, addresses: Addresses, servers: DemoServers, watch: ClusterWatch | None, stop: StopSignal
) -> int:
    from auth_demo.banner import banner, cluster_page  # noqa: PLC0415 - see main

    async with AsyncExitStack() as stack:
        if watch is not None:
            await stack.enter_async_context(watch.running())
        await stack.enter_async_context(servers.running())
        if options.smoke:
            return await _walk_until(stop, options, addresses)
        print(banner(addresses, servers.accounts, watch), flush=True)
        if not options.no_browser and _has_display():
            # In a thread: some launchers wait for the browser.
            start = cluster_page(addresses) if watch is not None else addresses.app_url
            opening = asyncio.get_running_loop().run_in_executor(None, webbrowser.open, start)
            opening.add_done_callback(lambda future: future.exception())
        if options.kill_primary:
            await _walk_until(stop, options, addresses)
        await stop.wait()
        print("\nstopping", flush=True)
    return 0


async def _walk(options: argparse.Namespace, addresses: Addresses) -> int:
    """Use the demo as a browser does, and print the results; return the exit code."""
    # An HTTP client is needed only here.
    from auth_demo.visitor import SmokeFailure  # noqa: PLC0415

    name = "kill-primary" if options.kill_primary else "smoke"
    try:
        if options.kill_primary:
            from auth_demo.cluster.kill_primary import show_failover  # noqa: PLC0415

            await show_failover(addresses.app_url, addresses.issuer)
        else:
            from auth_demo.smoke import smoke  # noqa: PLC0415

            await smoke(addresses.app_url, addresses.issuer)
    except SmokeFailure as failure:
        print(f"{name}: FAILED: {failure}", file=sys.stderr, flush=True)
        return 1
    print(f"{name}: everything {'held' if options.kill_primary else 'worked'}", flush=True)
    return 0


async def _walk_until(stop: StopSignal, options: argparse.Namespace, addresses: Addresses) -> int:
    """Walk through the demo until it is asked to stop; return the exit code, a failure if stopped early."""
    walking = asyncio.create_task(_walk(options, addresses))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([walking, waiting], return_when=asyncio.FIRST_COMPLETED)
    for task in (walking, waiting):
        task.cancel()
    code, _ = await asyncio.gather(walking, waiting, return_exceptions=True)
    if isinstance(code, Exception):
        raise code
    return code if isinstance(code, int) else 1


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
    parser.add_argument("--cluster", action="store_true", help="keep the sessions in a real Valkey cluster of six servers")
    parser.add_argument(
        "--kill-primary", action="store_true", help="with --cluster: kill a primary, show that no user is logged out"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= _MAX_PORT:
        message = f"{text!r} is no port; a good example: 8000"
        raise argparse.ArgumentTypeError(message)
    return int(text)
