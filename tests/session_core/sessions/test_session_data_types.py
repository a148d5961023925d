"""Session data of every kind: what is stored and found unchanged, what is refused, what no version can read."""

from __future__ import annotations

import enum
import random
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from session_core import (
    ConfigurationError,
    Identity,
    SessionConfig,
    SessionPlugin,
)
from session_core.ids import session_key
from session_core.stores import MemoryStore
from session_core.testing import logged_in_cookie
from tests.support.sessions import ALICE, handle_on, make_app, plugin_in

pytestmark = pytest.mark.anyio


async def test_a_field_gained_with_another_default_each_time_is_no_change() -> None:
    class Before(msgspec.Struct):
        visits: int = 0

    class After(msgspec.Struct):
        visits: int = 0
        lucky: float = msgspec.field(default_factory=random.random)
        since: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))

    store = MemoryStore()
    old = handle_on(SessionPlugin(SessionConfig(Before, store=store)))
    await old.update(visits=3)
    plugin = SessionPlugin(SessionConfig(After, store=store))
    readers = [await handle_on(plugin, old.session_id).load() for _ in range(2)]
    version = (await store.load(session_key(old.session_id))).version  # type: ignore[union-attr]
    for reader in readers:
        await reader.save()
    assert (await store.load(session_key(old.session_id))).version == version  # type: ignore[union-attr]
    readers[0].data.visits = 4
    await readers[0].save()
    readers[1].data.lucky = 7.0
    await readers[1].save()
    data = await readers[0].reload()
    assert (data.visits, data.lucky) == (4, 7.0)


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "kind",
    [dict[int, str], dict[Colour, int], set[str], frozenset[int], tuple[int, ...], dict[str, list[Colour]], datetime | None],
)
async def test_data_of_this_type_is_stored_and_found_unchanged(kind: Any) -> None:
    data_type = msgspec.defstruct("Data", [("value", kind | None, None), ("other", int, 0)])
    examples: dict[Any, Any] = {
        dict[int, str]: {2: "b", 1: "a"},
        dict[Colour, int]: {Colour.RED: 1},
        set[str]: {"c", "a", "b", "d"},
        frozenset[int]: frozenset({3, 1, 2}),
        tuple[int, ...]: (3, 1),
        dict[str, list[Colour]]: {"x": [Colour.RED]},
        datetime | None: datetime(2030, 1, 1, tzinfo=UTC),
    }
    plugin = SessionPlugin(SessionConfig(data_type))
    handle = handle_on(plugin)
    await handle.update(value=examples[kind])
    again = await handle_on(plugin, handle.session_id).load()
    assert again.data.value == examples[kind]
    assert again.changed is False


@pytest.mark.parametrize("kind", [set[Colour], dict[int, set[str]]])
def test_data_whose_encoding_would_change_by_itself_is_refused_at_start(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="Data"):
        SessionConfig(msgspec.defstruct("Data", [("value", kind | None, None)]))


async def test_a_number_too_large_to_store_is_a_data_error() -> None:
    from session_core import SessionDataError

    handle = handle_on(plugin_in(make_app()))
    with pytest.raises(SessionDataError):
        await handle.update(visits=2**70)


@pytest.mark.attack("61")
@pytest.mark.parametrize(
    "poison", [b"", b"\xc1", b"\x91" * 5000, b"\x81\xa1c\xa1\xff", b"\x80\x04pickle", b"\x81\xa1d\xcf" + b"\xff" * 8]
)
async def test_a_poisoned_record_breaks_no_list_and_no_count(poison: bytes) -> None:
    app = make_app()
    plugin = plugin_in(app)
    await logged_in_cookie(app, ALICE)
    await logged_in_cookie(app, ALICE)
    victim = (await plugin.store.find(_user(ALICE)))[0]
    entry = type(victim.entry)(poison, victim.entry.expires_at, victim.entry.user)
    await plugin.store.replace(victim.key, entry, version=victim.version)
    assert len(await plugin.sessions.list_for(ALICE)) == 1
    assert (await plugin.sessions.stats()).undecodable == 1
    assert [summary async for summary in plugin.sessions.all()] != []


def _user(identity: Identity) -> Any:
    from session_core.stores import SessionIndex

    return SessionIndex(user=identity.user_key)
