"""Session data of all kinds: what is stored and restored unchanged, refused, or unreadable."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import random
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import pytest
from litestar import Response, post

from session_core import ConfigurationError, Identity, Session, SessionConfig, SessionDataError, SessionPlugin
from session_core.ids import session_key
from session_core.sessions.data_types import _is_immutable, parts_of
from session_core.sessions.record import DataCodec
from session_core.stores import MemoryStore
from session_core.testing import logged_in_cookie
from tests.support.sessions import ALICE, AppSession, client_of, handle_on, make_app, plugin_in

pytestmark = pytest.mark.anyio


async def test_an_added_field_with_a_random_default_is_no_change() -> None:
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
    BLUE = "blue"
    GREEN = "green"


@pytest.mark.parametrize(
    "kind",
    [
        dict[int, str], dict[Colour, int], set[str], frozenset[int], tuple[int, ...], dict[str, list[Colour]], datetime | None,
        set[Colour], dict[int, set[str]], dict[str, frozenset[tuple[int, str]]], dict[tuple[int, int], str], dict[str, Any],
    ],
)  # fmt: skip
async def test_data_of_this_type_is_stored_and_restored_unchanged(kind: Any) -> None:
    data_type = msgspec.defstruct("Data", [("value", kind | None, None), ("other", int, 0)])
    examples: dict[Any, Any] = {
        dict[int, str]: {2: "b", 1: "a"},
        dict[Colour, int]: {Colour.RED: 1},
        set[str]: {"c", "a", "b", "d"},
        frozenset[int]: frozenset({3, 1, 2}),
        tuple[int, ...]: (3, 1),
        dict[str, list[Colour]]: {"x": [Colour.RED]},
        datetime | None: datetime(2030, 1, 1, tzinfo=UTC),
        set[Colour]: set(Colour),
        dict[int, set[str]]: {2: {"b", "a", "c"}, 1: {"d"}},
        dict[str, frozenset[tuple[int, str]]]: {"x": frozenset({(2, "b"), (1, "a")})},
        dict[tuple[int, int], str]: {(2, 1): "b", (1, 2): "a"},
        dict[str, Any]: {"z": 1, "a": [{"y": 1, "b": {2: "two"}}]},
    }
    plugin = SessionPlugin(SessionConfig(data_type))
    handle = handle_on(plugin)
    await handle.update(value=examples[kind])
    again = await handle_on(plugin, handle.session_id).load()
    assert again.data.value == examples[kind]
    assert again.changed is False


class Point(msgspec.Struct, frozen=True):
    x: int = 0


@pytest.mark.parametrize("kind", [set[Point], frozenset[tuple[Point, int]], dict[Point, int], dict[frozenset[int], int]])
def test_a_struct_in_a_set_or_as_a_key_is_refused_at_start(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="Data"):
        SessionConfig(msgspec.defstruct("Data", [("value", kind | None, None)]))


async def test_a_number_too_large_to_store_is_a_data_error() -> None:
    handle = handle_on(plugin_in(make_app()))
    with pytest.raises(SessionDataError):
        await handle.update(visits=2**70)


@pytest.mark.attack("61")
@pytest.mark.parametrize(
    "poison", [b"", b"\xc1", b"\x91" * 5000, b"\x81\xa1c\xa1\xff", b"\x80\x04pickle", b"\x81\xa1d\xcf" + b"\xff" * 8]
)
async def test_an_unreadable_record_does_not_break_lists_and_counts(poison: bytes) -> None:
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


class Ordered(msgspec.Struct):
    plain: dict[str, int] = {}
    numbered: dict[int, str] = {}
    loose: Any = None
    deep: list[dict[str, dict[str, int]]] = []


class OrderedBesideSets(Ordered):
    roles: set[str] = set()
    by_name: dict[str, set[str]] = {}


@pytest.mark.parametrize("data_type", [Ordered, OrderedBesideSets])
@pytest.mark.parametrize(
    ("field", "value", "other"),
    [
        ("plain", {"z": 1, "a": 2, "m": 3}, {"a": 2, "z": 1, "m": 3}),
        ("numbered", {9: "x", 1: "y"}, {1: "y", 9: "x"}),
        ("loose", {"z": {"y": 1, "b": 2}}, {"z": {"b": 2, "y": 1}}),
        ("deep", [{"z": {"y": 1, "b": 2}, "a": {}}], [{"a": {}, "z": {"y": 1, "b": 2}}]),
    ],
)
async def test_the_order_of_a_dict_is_significant(data_type: Any, field: str, value: Any, other: Any) -> None:
    plugin = SessionPlugin(SessionConfig(data_type))
    handle = handle_on(plugin)
    await handle.update(**{field: value})
    again = await handle_on(plugin, handle.session_id).load()
    assert repr(getattr(again.data, field)) == repr(value)
    assert again.changed is False
    setattr(again.data, field, other)
    assert again.changed is True
    await again.save()
    assert repr(getattr(await handle.reload(), field)) == repr(other)


@pytest.mark.parametrize("kind", [set[str], frozenset[int], set[Colour], dict[str, set[str]], list[frozenset[tuple[int, int]]]])
def test_equal_sets_have_the_same_encoding_in_every_process(kind: Any) -> None:
    beside = msgspec.field(default_factory=dict)
    data_type = msgspec.defstruct("Data", [("value", kind | None, None), ("beside", dict[str, int], beside)])
    codec = DataCodec(data_type)
    # A list represents a set in its own order; both are encoded the same.
    members: Any = {set[str]: ["c", "bb", "a"], frozenset[int]: [3, 2**40, 1], set[Colour]: list(Colour)}
    wrapped: Any = {dict[str, set[str]]: ["c", "b"], list[frozenset[tuple[int, int]]]: [(2, 1), (1, 2)]}
    values = [members.get(kind, wrapped.get(kind))[::step] for step in (1, -1)]
    if kind in wrapped:
        values = [{"z": value} if kind == dict[str, set[str]] else [value] for value in values]
    data = [data_type(value, {"z": 1, "a": 2}) for value in values]
    assert codec.encode(data[0]) == codec.encode(data[1])
    assert codec.fields(data[0]) == codec.fields(data[1])
    assert list(codec.decode(codec.encode(data[0])).beside) == ["z", "a"]


class Loose(msgspec.Struct, rename="camel"):
    my_extra: dict[str, Any] = {}
    note: str = ""


@pytest.mark.parametrize(
    "value", [{1: "a"}, {None: 1}, {"a": object()}, {"a": {"b": {1, object()}}}, {"a": 2**70}, {"a": "\ud800"}]
)
async def test_a_value_that_cannot_be_stored_is_a_data_error_that_names_the_field(value: Any) -> None:
    for verb in ("save", "update", "login", "regenerate"):
        handle = handle_on(SessionPlugin(SessionConfig(Loose)))
        await handle.update(note="begun")
        handle.data.my_extra = value
        handle.data.note = "lost with it"
        calls: Any = {"update": lambda h=handle: h.update(note="x"), "login": lambda h=handle: h.login(ALICE)}
        with pytest.raises(SessionDataError, match=r"my_?[eE]xtra") as refused:
            await calls.get(verb, getattr(handle, verb))()
        assert refused.value.fields == ("my_extra",)
        assert "ud800" not in str(refused.value)
        assert (handle.data.my_extra, handle.data.note, handle.changed) == ({}, "begun", False)


async def test_a_refused_update_leaves_other_valid_assignments_to_be_saved() -> None:
    handle = handle_on(SessionPlugin(SessionConfig(Loose)))
    await handle.load()
    handle.data.note = "valid"
    with pytest.raises(SessionDataError):
        await handle.update(my_extra={1: 2})
    await handle.save()
    assert (await handle.reload()).note == "valid"


@pytest.mark.parametrize("begun", [True, False])
async def test_after_a_caught_data_error_the_handler_sends_the_response(begun: bool) -> None:
    @post("/careless")
    async def careless(session: Session[AppSession]) -> Response[str]:
        session.data.note = object()  # type: ignore[assignment]
        try:
            await session.save()
        except SessionDataError:
            return Response("that cannot be kept", status_code=400)
        return Response("kept")

    async with client_of(make_app(careless)) as client:
        if begun:
            await client.post("/visit")
        answer = await client.post("/careless")
        assert (answer.status_code, answer.text) == (400, "that cannot be kept")
        assert (await client.get("/read")).json()["data"]["note"] == ""


@dataclasses.dataclass
class Seat:
    row: int = 0


@dataclasses.dataclass(frozen=True)
class FrozenSeat:
    row: int = 0
    names: Any = ()


class FrozenBox(msgspec.Struct, frozen=True):
    held: Any = None


class Deep(msgspec.Struct):
    box: FrozenBox = FrozenBox(FrozenBox([1]))


class Element(msgspec.Struct):
    name: str
    deep: Deep | None = None


class WithRow(NamedTuple):
    seats: Any = FrozenBox({1: 2})


SHARED_LIST: list[int] = []


@pytest.mark.parametrize(
    "default",
    [
        FrozenBox([1]), FrozenBox({}), FrozenBox(bytearray()), FrozenBox((1, [2])), FrozenBox(FrozenBox({1})), Seat(),
        FrozenSeat(names=[1]), FrozenBox(Seat()), MappingProxyType({}), (1, [2]), FrozenBox(MappingProxyType({"a": 1})), object(),
    ],
)  # fmt: skip
def test_a_mutable_default_is_refused_by_name(default: Any) -> None:
    kinds: list[Any] = [
        msgspec.defstruct("Data", [("value", Any, default)]),
        msgspec.defstruct(
            "Data", [("items", list[msgspec.defstruct("Inner", [("value", Any, default)])], msgspec.field(default_factory=list))]
        ),
    ]
    for kind in kinds:
        with pytest.raises(ConfigurationError, match=r"(Data|Inner)\.value"):
            SessionConfig(kind)


@pytest.mark.parametrize(
    ("kind", "name"), [(list[Element], r"Deep\.box"), (dict[str, WithRow], r"WithRow\.seats"), (Deep | None, r"Deep\.box")]
)
def test_a_mutable_default_is_found_at_any_depth(kind: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        SessionConfig(msgspec.defstruct("Data", [("value", kind | None, None)]))


@pytest.mark.parametrize(
    "default",
    [
        None, 1, "x", b"x", (), (1, ("a", None)), frozenset({1}), FrozenBox((1, FrozenBox("x"))), FrozenSeat(), Colour.RED,
        datetime(2030, 1, 1, tzinfo=UTC), [], {}, set(),
    ],
)  # fmt: skip
def test_an_immutable_default_is_accepted(default: Any) -> None:
    data_type = msgspec.defstruct("Data", [("value", Any, default)])
    assert SessionConfig(data_type).codec.fresh is data_type


@pytest.mark.parametrize(
    "factory",
    [
        lambda: SHARED_LIST, lambda: {"a": SHARED_LIST}, lambda: FrozenBox(SHARED_LIST), lambda: [Seat(), (1, SHARED_LIST)],
        lambda: MappingProxyType({"a": 1}), functools.cache(Seat), lambda: copy.copy({"a": SHARED_LIST}),
    ],
)  # fmt: skip
def test_a_factory_that_returns_a_shared_object_is_refused(factory: Any) -> None:
    data_type = msgspec.defstruct("Data", [("value", Any, None)])
    inner = msgspec.defstruct("Inner", [("value", Any, msgspec.field(default_factory=factory))])
    with pytest.raises(ConfigurationError, match=r"Inner\.value"):
        SessionConfig(msgspec.defstruct("Data", [("items", list[inner], msgspec.field(default_factory=list))]))  # type: ignore[valid-type]
    with pytest.raises(ConfigurationError):
        SessionConfig(data_type, default_factory=lambda: data_type(factory()))


def test_a_factory_that_creates_objects_is_accepted() -> None:
    new = msgspec.field(default_factory=lambda: {"a": [Seat(), FrozenBox((1,))]})
    data_type = msgspec.defstruct("Data", [("value", Any, new)])
    assert SessionConfig(data_type, default_factory=lambda: data_type([1])).codec.fresh() == data_type([1])


def test_a_post_init_that_assigns_a_shared_object_is_refused() -> None:
    class Tagged(msgspec.Struct):
        tags: list[int] = []

        def __post_init__(self) -> None:
            self.tags = SHARED_LIST

    with pytest.raises(ConfigurationError, match="Tagged"):
        SessionConfig(Tagged)
    with pytest.raises(ConfigurationError, match="Tagged"):
        SessionConfig(msgspec.defstruct("Data", [("value", Tagged | None, None)]))


async def test_two_requests_with_one_stored_record_share_no_mutable_data() -> None:
    class Data(msgspec.Struct):
        cart: list[str] = []
        prefs: dict[str, list[int]] = {}

    plugin = SessionPlugin(SessionConfig(Data))
    handle = handle_on(plugin)
    await handle.login(ALICE)
    await handle.update(cart=["a"], prefs={"x": [1]})
    first, second = [await handle_on(plugin, handle.session_id).load() for _ in range(2)]
    assert first.snapshot is second.snapshot  # cached
    assert _is_immutable(first.snapshot)
    ids = {id(part) for part in parts_of(first.data) if not _is_immutable(part)}
    assert ids.isdisjoint(id(part) for part in parts_of(second.data))
