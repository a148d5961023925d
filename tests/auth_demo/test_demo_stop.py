"""Ctrl-C and SIGTERM end the demo at any moment, also inside a finalizer, where Python drops exceptions."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from auth_demo.stop_signal import handling_signals
from tests.auth_demo.demo_process import run_demo
from tests.support.ports import free_ports
from tests.support.redis_servers import needed_valkey

LAUNCHER = """
import asyncio, os, signal, sys
from auth_demo.demo import main

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.{number})
        for _ in range(10_000):
            pass  # Python runs a signal handler between two of these: what it raises here is printed and dropped

{patch}
sys.exit(main())
"""
WHILE_THE_CLUSTER_STARTS = """
from auth_demo.cluster.node import ClusterNode
wait = ClusterNode.wait
def interrupted_wait(self, *arguments):
    Finalized()
    wait(self, *arguments)
ClusterNode.wait = interrupted_wait
"""
WHILE_THE_APPLICATION_IS_BUILT = """
import app.asgi
create_app = app.asgi.create_app
def interrupted_create_app():
    Finalized()
    return create_app()
app.asgi.create_app = interrupted_create_app
"""
WHILE_IT_WALKS = """
import auth_demo.smoke
async def interrupted_smoke(*arguments):
    Finalized()
    await asyncio.Event().wait()
auth_demo.smoke.smoke = interrupted_smoke
"""


@pytest.mark.parametrize(
    ("patch", "number", "more"),
    [
        pytest.param(WHILE_THE_CLUSTER_STARTS, "SIGINT", ["--cluster"], id="while the cluster starts"),
        pytest.param(WHILE_THE_CLUSTER_STARTS, "SIGTERM", ["--cluster"], id="while the cluster starts, SIGTERM"),
        pytest.param(WHILE_THE_APPLICATION_IS_BUILT, "SIGINT", [], id="while the application is built"),
        pytest.param(WHILE_IT_WALKS, "SIGINT", [], id="while it walks"),
    ],
)
def test_a_signal_inside_a_finalizer_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch: str, number: str, more: list[str]
) -> None:
    if more:
        needed_valkey()
    servers = tmp_path / "servers"
    servers.mkdir()
    monkeypatch.setenv("TMPDIR", str(servers))
    port, op_port = free_ports()
    launcher = (sys.executable, "-c", LAUNCHER.format(patch=patch, number=number))
    arguments = ("--smoke", "--port", str(port), "--op-port", str(op_port), *more)
    result = run_demo(tmp_path, *arguments, launcher=launcher)
    # The smoke test was requested and did not run.
    assert (result.returncode, result.stderr) == (1, "")
    assert "everything worked" not in result.stdout
    assert not [*servers.iterdir()]


def test_the_callers_signal_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGINT)
    with handling_signals():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
