"""What is special about sessions in files: permissions, damaged files, kills at every step, marks that heal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from session_core.errors import StoreUnavailableError
from session_core.stores.base import Entry, SessionIndex
from session_core.stores.file.format import FileRecord, decode, encode
from session_core.stores.file.store import FileStore
from session_core.testing import FakeClock

FOREVER = 2**52
HERE = Path(__file__).parent

pytestmark = pytest.mark.anyio
# ruff: noqa: ASYNC240 - nothing else runs in these event loops


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deeper" / "sessions"


@pytest.fixture
async def store(root: Path, clock: FakeClock) -> AsyncIterator[FileStore]:
    store = FileStore(root, clock=clock)
    await store.open()
    yield store
    await store.close()


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def test_only_the_owner_can_read(store: FileStore, root: Path) -> None:
    await store.create("a", Entry(b"secret", FOREVER, "u", "o"), limit=1)
    await store.rotate("a", "b", Entry(b"secret", FOREVER, "u", "o"), version=1, successor_until=FOREVER)
    await store.claim("name", FOREVER)
    directories = [root, *(path for path in root.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in directories} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in files(root)} == {0o600}


@pytest.mark.parametrize("key", ["../evil", "a/b", "", ".", "..", "a\0b", "a b", "ä", "a\n", "x" * 201])
async def test_path_traversal_is_impossible(store: FileStore, root: Path, key: str) -> None:
    before = files(root.parent)
    with pytest.raises(ValueError, match="a session key consists of"):
        await store.create(key, Entry(b"", FOREVER))
    with pytest.raises(ValueError, match="a session key consists of"):
        await store.rotate("a", key, Entry(b"", FOREVER), version=1, successor_until=FOREVER)
    with pytest.raises(ValueError, match="a session key consists of"):
        await store.load(key)
    assert [path for path in files(root.parent) if path.parent.name != "locks"] == before


@pytest.mark.parametrize("name", ["../evil", "a/b", ".", "..", "ä", "x" * 300])
async def test_no_name_leaves_the_directory(store: FileStore, root: Path, name: str) -> None:
    await store.create("a", Entry(b"", FOREVER, name, name))
    assert await store.claim(name, FOREVER)
    assert [stored.key for stored in await store.find(SessionIndex(user=name))] == ["a"]
    assert [stored.key for stored in await store.find(SessionIndex(op_session=name))] == ["a"]
    assert all(path.is_relative_to(root) for path in files(root.parent))


RECORD = encode(FileRecord("a", 1, FOREVER, "u", None, 3, None, b"data" * 100))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        RECORD[:10],
        RECORD[:40],
        RECORD[:-1],
        RECORD + b"x",
        b"x" + RECORD[1:],
        RECORD[:-5] + b"x" + RECORD[-4:],
        b"\0" * len(RECORD),
        b"S" * 70000,
    ],
    ids=["empty", "prefix", "header", "truncated", "longer", "magic", "flipped", "zeros", "huge"],
)
async def test_a_damaged_file_is_as_good_as_none(store: FileStore, root: Path, content: bytes) -> None:
    """It is told in the log, without the key; a new session can take its place; nothing answers 500."""
    await store.create("a", Entry(b"data", FOREVER, "u"))
    (root / "sessions" / "a").write_bytes(content)
    with structlog.testing.capture_logs() as logs:
        assert await store.load("a") is None
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("store.file_unreadable", "error")]
    assert await store.find(SessionIndex(user="u")) == []
    assert await store.delete_expired() == 0
    await store.create("a", Entry(b"new", FOREVER, "u"))
    stored = await store.load("a")
    assert stored is not None
    assert stored.entry.data == b"new"
    (root / "sessions" / "a").write_bytes(content)
    assert await store.delete("a") == ()
    assert not (root / "sessions" / "a").exists()


def test_each_flipped_byte_is_noticed() -> None:
    for place in range(len(RECORD)):
        with pytest.raises(ValueError, match="the file is"):
            decode(RECORD[:place] + bytes([RECORD[place] ^ 1]) + RECORD[place + 1 :])


async def test_marks_heal_on_the_way(store: FileStore, root: Path) -> None:
    """A mark whose session is not there, or somebody else's, is dropped; the others stay."""
    await store.create("a", Entry(b"", FOREVER, "u"))
    await store.create("b", Entry(b"", FOREVER, "v"))
    for stale in ("b", "never"):
        (root / "users" / "u" / stale).touch()
    assert [stored.key for stored in await store.find(SessionIndex(user="u"))] == ["a"]
    assert [path.name for path in (root / "users" / "u").iterdir()] == ["a"]
    (root / "users" / "u" / "b").touch()
    assert await store.delete_by(SessionIndex(user="u")) == ("a",)
    assert await store.load("b") is not None


async def test_lost_marks_come_back_with_the_sweep(store: FileStore, root: Path) -> None:
    """After a restore of half a backup, say: nobody may be out of reach of a revocation for long."""
    await store.create("a", Entry(b"", FOREVER, "u", "o"))
    shutil.rmtree(root / "users" / "u")
    (root / "op_sessions" / "o" / "a").unlink()
    assert await store.delete_expired() == 0
    for index in (SessionIndex(user="u"), SessionIndex(op_session="o")):
        assert [stored.key for stored in await store.find(index)] == ["a"]


async def test_the_sweep_leaves_nothing(store: FileStore, root: Path, clock: FakeClock) -> None:
    """Neither marks nor directories of users who have gone, nor what killed processes left."""
    soon = clock.now() + 1000
    await store.create("a", Entry(b"", soon, "u", "o"))
    await store.rotate("a", "b", Entry(b"", soon, "u", "o"), version=1, successor_until=soon)
    await store.claim("name", soon)
    (root / "users" / "gone").mkdir()
    (root / "users" / "gone" / "a").touch()
    for name, age in (("old", 4000), ("new", 0)):
        unfinished = root / "unfinished" / name
        unfinished.touch()
        at = unfinished.stat().st_mtime - age
        os.utime(unfinished, (at, at))
    clock.advance(seconds=1)
    assert await store.delete_expired() == 3
    left = [path.relative_to(root) for path in root.rglob("*") if path.parent != root and path.parent.name != "locks"]
    assert left == [Path("unfinished/new")]


async def test_a_full_disk_is_an_outage(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is acknowledged, nothing of it remains, and later it works again."""
    await store.create("a", Entry(b"1", FOREVER))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device", "/somewhere/a")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for call in (store.replace("a", Entry(b"2", FOREVER), version=1), store.claim("name", FOREVER), store.ping()):
            with pytest.raises(StoreUnavailableError, match=r"\(ENOSPC\)$"):
                await call
    stored = await store.load("a")
    assert stored is not None
    assert stored.entry.data == b"1"
    assert await store.replace("a", Entry(b"2", FOREVER), version=1) == 2
    assert await store.claim("name", FOREVER)


async def test_a_directory_that_is_a_file_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = FileStore(tmp_path / "file")
    with pytest.raises(StoreUnavailableError) as caught:
        await store.open()
    assert str(tmp_path) not in str(caught.value)


async def test_a_store_that_is_not_open_is_an_outage(store: FileStore) -> None:
    await store.close()
    with pytest.raises(StoreUnavailableError):
        await store.load("a")


@contextmanager
def all_locked(root: Path) -> Iterator[None]:
    descriptors = [os.open(root / "locks" / f"{number:02x}", os.O_RDWR | os.O_CREAT, 0o600) for number in range(64)]
    for descriptor in descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    for descriptor in descriptors:
        os.close(descriptor)


async def test_a_stopped_neighbour_is_an_outage_not_a_hang(root: Path) -> None:
    """A process that holds a lock and does not go on: calls end in time, the event loop runs, recovery needs no restart."""
    patient = FileStore(root, timeout=30)
    await patient.open()
    await patient.create("a", Entry(b"", FOREVER))
    await patient.close()
    store = FileStore(root, timeout=1)
    await store.open()
    with all_locked(root):
        loading = asyncio.create_task(store.load("a"))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError):
            await loading
    assert await store.load("a") is not None
    await store.close()


def test_a_kill_at_any_step_leaves_the_state_before_or_after() -> None:
    """Each change is killed before each of its steps on the disk; what the next process sees is one of the two states."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}
    command = [sys.executable, str(HERE / "file_kill_points.py")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 9
    for result in results:
        assert result["wrong"] == []
        # It was killed often enough to see both: before the instant at which it happened, and after it.
        assert result["steps"] > 5
        assert result["seen"] == ["after", "before"]
