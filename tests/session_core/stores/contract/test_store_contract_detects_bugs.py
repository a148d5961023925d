"""Each test of the contract detects the bug of at least one broken store."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator

import pytest

from session_core.stores.memory import MemoryStore
from session_core.testing import FakeClock, SessionStoreContract
from tests.session_core.stores.contract import (
    broken_deadlines,
    broken_indexes,
    broken_pauses,
    broken_promises,
    broken_records,
    broken_rotation,
    broken_upkeep,
)
from tests.session_core.stores.contract.broken import FOUND_BY

BROKEN = (
    broken_records,
    broken_rotation,
    broken_indexes,
    broken_pauses,
    broken_promises,
    broken_upkeep,
    broken_deadlines,
)  # these modules register their stores

TESTS = {
    name.removeprefix("test_"): getattr(SessionStoreContract, name)
    for name in dir(SessionStoreContract)
    if name.startswith("test_")
}


def _cases(test: Callable[..., Coroutine[None, None, None]]) -> Iterator[dict[str, object]]:
    """The arguments of each parametrized case, as pytest passes them."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    for values in itertools.product(*(mark.args[1] for mark in marks)):
        yield dict(zip((mark.args[0] for mark in marks), values, strict=True))


def _finds_a_bug(store_type: type[MemoryStore], test: Callable[..., Coroutine[None, None, None]], *, seconds: float = 2) -> bool:
    async def run(arguments: dict[str, object]) -> None:
        clock = FakeClock()
        call = {"store": store_type(clock=clock), **arguments}
        if "clock" in test.__annotations__:
            call["clock"] = clock
        # A broken store may make a test wait forever; a timeout counts as detected.
        async with asyncio.timeout(seconds):
            await test(SessionStoreContract(), **call)

    for arguments in _cases(test):
        try:
            asyncio.run(run(arguments))
        except pytest.skip.Exception:
            continue
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - whatever makes the test fail
            return True
    return False


@pytest.mark.parametrize(
    ("store_type", "name"),
    [(store_type, name) for store_type, names in FOUND_BY.items() for name in names],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_bug_is_detected(store_type: type[MemoryStore], name: str) -> None:
    assert _finds_a_bug(store_type, TESTS[name])


def test_every_test_of_the_contract_detects_a_bug() -> None:
    assert set(TESTS) == {name for names in FOUND_BY.values() for name in names}


@pytest.mark.parametrize("name", TESTS)
def test_a_correct_store_passes(name: str) -> None:
    assert not _finds_a_bug(MemoryStore, TESTS[name], seconds=60)
