"""A missing guarantee of a store is logged at start, refused where a feature depends on it, and documented."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import pytest
from litestar import Litestar

from session_core import ConfigurationError, Event, SessionPlugin
from session_core.litestar.posture import session_problems
from session_core.oidc import OidcConfig, OidcPlugin
from session_core.sealing import SealingKeys
from session_core.stores.base import SessionStore, StoreCapabilities
from session_core.stores.document.cloudflare_kv import CloudflareKvStore
from session_core.stores.document.keyvalue_backends import _SCHEMES, BACKENDS
from session_core.stores.memory import MemoryStore
from session_core.stores.opening import _OPENERS, open_store
from session_core.testing import FakeClock, SessionStoreContract
from session_core.testing.contract_races import RacesContract
from tests.support.factories import ProviderFactory
from tests.support.sessions import make_config

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[4]
STRONG = StoreCapabilities(atomic=True, indexed=True, shared=True, durable=True, native_expiry=True)


def _store(**lost: bool) -> MemoryStore:
    store = MemoryStore()
    fields = {name: getattr(STRONG, name) for name in STRONG.__struct_fields__}
    store.capabilities = StoreCapabilities(**{**fields, **lost})  # type: ignore[misc]
    return store


def _oidc() -> OidcPlugin:
    return OidcPlugin(
        OidcConfig(providers=[ProviderFactory.build()], public_url=make_config().public_url, sealing=SealingKeys([b"k" * 32]))
    )


async def _announced(app: Litestar, events: list[Event]) -> dict[str, dict[str, str | int]]:
    async with app.lifespan():
        return {event.reason or "": event.detail for event in events if event.name == "store.weak"}


@pytest.mark.parametrize(
    ("lost", "reasons"),
    [
        ({}, []),
        ({"native_expiry": False}, []),
        ({"atomic": False}, ["no_compare_and_swap"]),
        ({"consistent": False}, ["eventually_consistent"]),
        ({"shared": False}, ["not_shared"]),
        ({"durable": False}, ["not_durable"]),
        ({"indexed": False}, ["no_index"]),
        ({"listable": False}, ["not_listable"]),
        ({"listable": False, "native_expiry": False}, ["not_listable", "never_removed"]),
    ],
)
async def test_each_missing_guarantee_is_logged_at_start(lost: dict[str, bool], reasons: list[str]) -> None:
    events: list[Event] = []
    config = make_config(store=_store(**lost), on_event=[events.append], accept_weak_store=True)
    announced = await _announced(Litestar([], plugins=[SessionPlugin(config)]), events)
    assert list(announced) == reasons
    assert all(detail["lost"] for detail in announced.values())


async def test_a_non_atomic_store_is_refused_for_a_relying_party() -> None:
    """Two processes could both use one callback, logout token or refresh token."""
    config = make_config(store=_store(atomic=False))
    with pytest.raises(ConfigurationError, match="claims are atomic"):
        Litestar([], plugins=[SessionPlugin(config), _oidc()])


async def test_an_accepted_weak_store_is_logged_with_its_missing_guarantees() -> None:
    events: list[Event] = []
    config = make_config(store=_store(atomic=False), on_event=[events.append], accept_weak_store=True)
    announced = await _announced(Litestar([], plugins=[SessionPlugin(config), _oidc()]), events)
    assert sorted(announced) == ["no_compare_and_swap", "no_single_use"]


@pytest.mark.parametrize("accept", [False, True])
def test_the_session_limit_is_refused_even_when_accepted(accept: bool) -> None:
    with pytest.raises(ConfigurationError, match="max_sessions_per_user"):
        SessionPlugin(make_config(store=_store(atomic=False), max_sessions_per_user=3, accept_weak_store=accept))


def test_an_eventually_consistent_store_is_refused_unless_accepted() -> None:
    store = open_store("cloudflare-kv://:token@account/namespace")
    with pytest.raises(ConfigurationError, match="eventually consistent"):
        SessionPlugin(make_config(store=store))
    SessionPlugin(make_config(store=store, accept_weak_store=True))
    assert "an ended session" in " ".join(session_problems(make_config(), store.capabilities))


_CLASSES = {name: kept for name, (_, kept) in _SCHEMES.items()}


_RACES = {name for name in vars(RacesContract) if name.startswith("test_")}
_LIMITS = {
    "test_a_rotation_does_not_count_twice",
    "test_the_limit_applies_to_a_login_that_rotates",
    "test_the_limit_does_not_count_ended_sessions",
    "test_the_limit_ends_the_lowest_rank",
    "test_the_limit_keeps_the_new_session",
    "test_the_limit_leaves_room_unused",
}
_LOOKS = {"test_scan_tolerates_changes", "test_scan_yields_the_live_records", "test_delete_expired_works_in_batches"}


@pytest.mark.parametrize(
    ("lost", "skipped"),
    [
        ({"native_expiry": False}, set()),
        ({}, {"test_delete_expired_works_in_batches"}),
        ({"native_expiry": False, "atomic": False}, _RACES | _LIMITS),
        ({"native_expiry": False, "listable": False}, _LOOKS),
        ({"native_expiry": False, "consistent": False, "indexed": False, "shared": False}, set()),
        ({"native_expiry": False, "durable": False}, {"test_durable_sessions_survive_reopening"}),
    ],
)
def test_the_contract_skips_only_tests_of_missing_capabilities(lost: dict[str, bool], skipped: set[str]) -> None:
    assert {name for name in dir(SessionStoreContract) if name.startswith("test_") and _is_skipped(name, lost)} == skipped


def _is_skipped(name: str, lost: dict[str, bool]) -> bool:
    """Whether a test of the contract skips; its result does not matter here."""
    test = getattr(SessionStoreContract, name)
    arguments: dict[str, object] = {"store": _store(**lost), "clock": FakeClock()}
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            arguments[mark.args[0]] = mark.args[1][0]

    async def run() -> None:
        async with asyncio.timeout(5):
            await test(SessionStoreContract(), **{name: arguments[name] for name in signature(test).parameters if name != "self"})

    try:
        asyncio.run(run())
    except pytest.skip.Exception:
        return True
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - this store does not do what it says
        return False
    return False


def _rows() -> Iterator[list[str]]:
    page = (ROOT / "docs" / "reference" / "stores.md").read_text(encoding="utf-8")
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 9 and "`" in cells[1]:
            yield cells


ROWS = list(_rows())


def test_every_scheme_has_a_row_in_the_reference() -> None:
    text = " ".join(row[1] for row in ROWS)
    known = set(_OPENERS)
    assert {"redis", "https", "cloudflare-kv", "keyvalue"} <= known
    assert [scheme for scheme in known if not re.search(rf"`{re.escape(scheme)}(?:\+[a-z]+)*://", text)] == []
    named = set(re.findall(r"`(\w+Store)`", text)) | {_CLASSES[name] for name in re.findall(r"`keyvalue\+(\w+)", text)}
    assert named == set(BACKENDS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_reference_equals_the_stores_capabilities(row: list[str]) -> None:
    store = _store_of(row[1])
    if store is None:
        pytest.skip("the driver is not installed, or the server is another's")
    said = store if isinstance(store, StoreCapabilities) else store.capabilities
    words = {True: "yes", False: "no"}
    assert row[2].split(",")[0] == words[said.atomic]
    assert row[3].split(",")[0] == ("by itself" if said.native_expiry else "swept" if said.listable else "never")
    assert row[4].split(",")[0] == (words[said.indexed] if said.listable else "users only")
    assert row[5].split(",")[0] == words[said.shared]
    assert row[6].split(",")[0] == words[said.durable]
    assert row[7].split(",")[0] == words[said.consistent]


def _store_of(cell: str) -> SessionStore | StoreCapabilities | None:
    """The store opened by the first example of a row."""
    example = re.findall(r"`([^`]+)`", cell)[0]
    backend = BACKENDS.get(example)
    if backend is None and (match := re.match(r"keyvalue\+([a-z0-9]+)", example)):
        backend = BACKENDS[_CLASSES[match[1]]]
    if backend is not None:
        return StoreCapabilities(
            atomic=False, indexed=True, shared=backend.shared, durable=backend.durable, native_expiry=backend.native_expiry,
            consistent=backend.consistent, listable=False,
        )  # fmt: skip
    if example.startswith("cloudflare-kv"):
        return CloudflareKvStore.capabilities
    try:
        return open_store(example)
    except ConfigurationError as error:
        if "not installed" not in str(error):
            raise
        return None
