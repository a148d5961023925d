"""The `demo` command as a new user runs it: it works, it stops, and an obstacle is reported in one line."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.app.processes import ROOT
from tests.auth_demo.demo_process import Demo, run_demo, running_demo, start_demo
from tests.support.ports import free_ports


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def ends_up_free(demo: Demo) -> bool:
    """Whether both ports are free again within a few seconds."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if is_free(demo.port) and is_free(demo.op_port):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("store", [None, "memory://"])
def test_smoke_logs_in_and_out_over_real_http(tmp_path: Path, store: str | None) -> None:
    port, op_port = free_ports()
    extra = [] if store is None else ["--store", store]
    result = run_demo(tmp_path, "--smoke", "--port", str(port), "--op-port", str(op_port), *extra)
    assert result.returncode == 0, result.stdout + result.stderr
    # A memory store warns of its limits at start; there is no other output.
    assert all(store is not None and "store.weak" in line for line in result.stderr.splitlines()), result.stderr
    assert "logged in as Alice (user)" in result.stdout
    assert result.stdout.endswith("smoke: everything worked\n")
    assert is_free(port)
    assert is_free(op_port)
    assert (tmp_path / "var" / "app.db").exists()


def test_ctrl_c_stops_both_and_leaves_nothing_running(tmp_path: Path) -> None:
    demo = start_demo(tmp_path)
    code, out, err = demo.stop()
    assert code == 0
    assert "Traceback" not in out + err
    for text in (demo.app_url, demo.issuer, "alice", "bob", "admin", "password: demo", "stopping"):
        assert text in out
    assert ends_up_free(demo)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_any_other_exit_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    demo = start_demo(tmp_path)
    demo.stop(number)
    assert ends_up_free(demo)


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="needs Linux: the kernel ends the demo with uv")
def test_the_demo_ends_when_uv_ends(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        if os.environ.get("CI") == "true":
            pytest.fail("uv is missing; install it with: pip install uv")
        pytest.skip("uv is missing; install it with: pip install uv")
    demo = start_demo(tmp_path, launcher=(uv, "run", "--no-sync", "--project", str(ROOT), "demo"))
    demo.process.kill()
    demo.process.communicate(timeout=120)
    assert ends_up_free(demo)


def test_a_connected_client_does_not_prevent_the_stop(tmp_path: Path) -> None:
    demo = start_demo(tmp_path)
    with socket.create_connection(("127.0.0.1", demo.port)) as idle, socket.create_connection(("127.0.0.1", demo.port)) as half:
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 200"
        half.sendall(b"POST /session/visits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        code, _, _ = demo.stop()
    assert code == 0
    assert ends_up_free(demo)


@pytest.mark.parametrize("option", ["--port", "--op-port"])
def test_a_port_in_use_is_reported_in_one_line(tmp_path: Path, option: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        busy = other.getsockname()[1]
        (free,) = free_ports(1)
        ports = {"--port": str(free), "--op-port": str(free), option: str(busy)}
        result = run_demo(tmp_path, "--no-browser", *(part for pair in ports.items() for part in pair))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"error: port {busy} on 127.0.0.1 is in use; stop the other program, or choose another port: "
        f"uv run demo {option} {busy + 1}\n"
    )


def test_two_demos_do_not_share_a_port(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        result = run_demo(tmp_path, "--no-browser", "--port", str(demo.port), "--op-port", str(free_ports(1)[0]))
    assert result.returncode == 1
    assert f"port {demo.port}" in result.stderr


def test_the_demo_does_not_run_in_production(tmp_path: Path) -> None:
    port, op_port = free_ports()
    result = run_demo(tmp_path, "--no-browser", "--port", str(port), "--op-port", str(op_port), APP_ENV="production")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "production" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--port", "zero"), "is no port"), (("--port", "70000"), "is no port"), (("--store", "nosuch://x"), "SESSION_STORE")],
)
def test_a_bad_option_is_refused_with_a_reason(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = run_demo(tmp_path, "--no-browser", *arguments)
    assert result.returncode in {1, 2}
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("accepted", [False, True])
def test_a_store_without_atomic_writes_runs_when_accepted(tmp_path: Path, *, accepted: bool) -> None:
    port, op_port = free_ports()
    arguments = ("--smoke", "--port", str(port), "--op-port", str(op_port), "--store", f"keyvalue+filetree://{tmp_path}/sessions")
    result = run_demo(tmp_path, *arguments, **({"SESSION_ACCEPT_WEAK_STORE": "true"} if accepted else {}))
    if accepted:
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stdout.endswith("smoke: everything worked\n")
    else:
        assert result.returncode == 1
        assert result.stderr.startswith("error: SESSION_STORE: the store has no atomic writes")
        assert "SESSION_ACCEPT_WEAK_STORE=true" in result.stderr
        assert len(result.stderr.splitlines()) == 1
