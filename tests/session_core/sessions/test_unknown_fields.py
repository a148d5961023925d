"""Two versions of an application on one store: fields unknown to the older version survive its writes, at any depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import msgspec
import pytest

from session_core import ConfigurationError, Identity, SessionConfig, SessionConflictError, SessionPlugin
from session_core.sessions.draft import updated
from session_core.sessions.record import DataCodec, Device, SessionRecord, UndecodableError, decode_record, encode_record
from session_core.stores import MemoryStore
from tests.support.sessions import ALICE, BOB, SECRET, handle_on

pytestmark = pytest.mark.anyio


class OldPrefs(msgspec.Struct):
    lang: str = "en"


class NewPrefs(msgspec.Struct):
    lang: str = "en"
    tz: str = "UTC"


class OldRow(msgspec.Struct, array_like=True):
    lang: str = "en"


class NewRow(msgspec.Struct, array_like=True):
    lang: str = "en"
    tz: str = "UTC"


class OldRowTagged(OldRow, array_like=True, tag="row"): ...


class NewRowTagged(NewRow, array_like=True, tag="row"): ...


class OldCard(msgspec.Struct, tag="card", rename="camel"):
    lang: str = "en"
    card_no: str = ""


class NewCard(msgspec.Struct, tag="card", rename="camel"):
    time_zone: str = "UTC"
    lang: str = "en"
    card_no: str = ""

    @property
    def tz(self) -> str:
        return self.time_zone


class Bill(msgspec.Struct, tag="bill"):
    note: str = ""


class OldTree(msgspec.Struct, omit_defaults=True):
    lang: str = "en"
    below: list[OldTree] = []


class NewTree(msgspec.Struct, omit_defaults=True):
    lang: str = "en"
    tz: str = "UTC"
    below: list[NewTree] = []


@dataclasses.dataclass
class OldDataclass:
    lang: str = "en"


@dataclasses.dataclass
class NewDataclass:
    lang: str = "en"
    tz: str = "UTC"


class OldTyped(TypedDict):
    lang: str


class NewTyped(TypedDict):
    lang: str
    tz: str


class OldPair(NamedTuple):
    one: OldPrefs
    two: int


class NewPair(NamedTuple):
    one: NewPrefs
    two: int


class Frozen(msgspec.Struct, frozen=True):
    lang: str = "en"


class NewFrozen(msgspec.Struct, frozen=True):
    lang: str = "en"
    tz: str = "UTC"


def set_lang(value: Any, lang: str) -> Any:
    value.lang = lang
    return value


def in_list(value: list[Any], lang: str) -> list[Any]:
    value[1].lang = lang
    return value


def rebuilt(value: list[Any], lang: str) -> list[Any]:
    return [type(each)(each.lang if index != 1 else lang) for index, each in enumerate(value)]


def replaced(value: Any, lang: str) -> Any:
    return type(value)(lang)


def said_of_each(value: list[Any]) -> list[tuple[str, str]]:
    return [(each.lang, each.tz) for each in value]


CASES: dict[str, tuple[Any, Any, Any, Callable[[Any, str], Any], Callable[[Any], list[tuple[str, str]]]]] = {
    # old type, new type, the newer version's value, the older version's change, the value read
    "struct": (OldPrefs, NewPrefs, NewPrefs("en", "CET"), set_lang, lambda v: [(v.lang, v.tz)]),
    "replaced": (OldPrefs, NewPrefs, NewPrefs("en", "CET"), replaced, lambda v: [(v.lang, v.tz)]),
    "frozen": (
        Frozen, NewFrozen, NewFrozen("en", "CET"),
        lambda v, lang: msgspec.structs.replace(v, lang=lang), lambda v: [(v.lang, v.tz)],
    ),
    "optional": (OldPrefs | None, NewPrefs | None, NewPrefs("en", "CET"), set_lang, lambda v: [(v.lang, v.tz)]),
    "tagged": (OldCard | Bill, NewCard | Bill, NewCard("CET", "en", "7"), set_lang, lambda v: [(v.lang, v.tz)]),
    "array_like": (OldRow, NewRow, NewRow("en", "CET"), set_lang, lambda v: [(v.lang, v.tz)]),
    "tagged array_like": (
        OldRowTagged | None, NewRowTagged | None, NewRowTagged("en", "CET"), set_lang, lambda v: [(v.lang, v.tz)],
    ),
    "dataclass": (OldDataclass, NewDataclass, NewDataclass("en", "CET"), set_lang, lambda v: [(v.lang, v.tz)]),
    "dataclass replaced": (OldDataclass, NewDataclass, NewDataclass("en", "CET"), replaced, lambda v: [(v.lang, v.tz)]),
    "typed dict": (
        OldTyped, NewTyped, {"lang": "en", "tz": "CET"},
        lambda v, lang: v.update(lang=lang) or v, lambda v: [(v["lang"], v["tz"])],
    ),
    "tuple": (
        tuple[OldPrefs, int], tuple[NewPrefs, int], (NewPrefs("en", "CET"), 1),
        lambda v, lang: (OldPrefs(lang), v[1]), lambda v: [(v[0].lang, v[0].tz)],
    ),
    "named tuple": (
        OldPair, NewPair, NewPair(NewPrefs("en", "CET"), 1),
        lambda v, lang: v._replace(one=OldPrefs(lang)), lambda v: [(v.one.lang, v.one.tz)],
    ),
    "list": (list[OldPrefs], list[NewPrefs], [NewPrefs("a", "1"), NewPrefs("en", "CET")], in_list, said_of_each),
    "list rebuilt": (
        list[OldPrefs], list[NewPrefs], [NewPrefs("a", "1"), NewPrefs("en", "CET")], rebuilt, said_of_each,
    ),
    "tuple of any length": (
        tuple[OldPrefs, ...], tuple[NewPrefs, ...], (NewPrefs("a", "1"), NewPrefs("en", "CET")),
        lambda v, lang: tuple(rebuilt(list(v), lang)), said_of_each,
    ),
    "dict": (
        dict[str, OldPrefs], dict[str, NewPrefs], {"z": NewPrefs("a", "1"), "b": NewPrefs("en", "CET")},
        lambda v, lang: {**v, "b": OldPrefs(lang)}, lambda v: [(e.lang, e.tz) for e in v.values()],
    ),
    "dict by number": (
        dict[int, OldPrefs], dict[int, NewPrefs], {9: NewPrefs("a", "1"), 2: NewPrefs("en", "CET")},
        lambda v, lang: set_lang(v[2], lang) and v, lambda v: [(e.lang, e.tz) for e in v.values()],
    ),
    "deep": (
        dict[str, list[tuple[OldCard, int]]], dict[str, list[tuple[NewCard, int]]],
        {"x": [(NewCard("1", "a"), 0), (NewCard("CET", "en"), 1)]},
        lambda v, lang: set_lang(v["x"][1][0], lang) and v, lambda v: [(e.lang, e.tz) for e, _ in v["x"]],
    ),
    "recursive": (
        OldTree, NewTree, NewTree("r", "0", [NewTree("a", "1"), NewTree("en", "CET", [NewTree("en", "2")])]),
        lambda v, lang: set_lang(v.below[1].below[0], lang) and v,
        lambda v: [(v.lang, v.tz), *((e.lang, e.tz) for e in v.below), (v.below[1].below[0].lang, v.below[1].below[0].tz)],
    ),
}  # fmt: skip


def versions(case: str) -> tuple[SessionPlugin, SessionPlugin]:
    """The older and the newer version of one application, on one store."""
    old, new, value, _, _ = CASES[case]
    store = MemoryStore()

    def plugin(kind: Any) -> SessionPlugin:
        fields = [("other", int, 0), ("value", kind | None, None)]
        data_type = msgspec.defstruct("Data", fields, rename="camel")
        return SessionPlugin(SessionConfig(data_type, store=store, secrets=(SECRET,)))

    del value
    return plugin(old), plugin(new)


async def _assign(handle: Any, change: Callable[[Any], Any]) -> None:
    handle.data.value = change(handle.data.value)
    await handle.save()


async def _update(handle: Any, change: Callable[[Any], Any]) -> None:
    def apply(data: Any) -> None:
        data.value = change(data.value)

    await handle.update(apply)


async def _update_returning(handle: Any, change: Callable[[Any], Any]) -> None:
    await handle.update(lambda data: type(data)(data.other, change(data.value)))


async def _update_field(handle: Any, change: Callable[[Any], Any]) -> None:
    await handle.update(value=change(handle.data.value))


async def _whole(handle: Any, change: Callable[[Any], Any]) -> None:
    handle.data = type(handle.data)(handle.data.other, change(handle.data.value))
    await handle.save()


async def _regenerate(handle: Any, change: Callable[[Any], Any]) -> None:
    handle.data.value = change(handle.data.value)
    await handle.regenerate()


async def _login(handle: Any, change: Callable[[Any], Any]) -> None:
    handle.data.value = change(handle.data.value)
    await handle.login(ALICE)


async def _login_first(handle: Any, change: Callable[[Any], Any]) -> None:
    def first(data: Any) -> None:
        data.value = change(data.value)

    await handle.login(ALICE, first=first)


async def _vault(handle: Any, change: Callable[[Any], Any]) -> None:
    handle.data.value = change(handle.data.value)
    await handle.store_vault(b"sealed")


VERBS = [_assign, _update, _update_returning, _update_field, _whole, _regenerate, _login, _login_first, _vault]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("case", CASES)
async def test_a_nested_field_of_a_newer_version_survives(case: str, verb: Callable[[Any, Callable[[Any], Any]], Any]) -> None:
    old, new = versions(case)
    _, _, value, change, said = CASES[case]
    theirs = handle_on(new)
    await theirs.update(value=value)
    before = said(theirs.data.value)
    ours = await handle_on(old, theirs.session_id).load()
    await verb(ours, lambda found: change(found, "de"))
    after = said((await handle_on(new, ours.session_id).load()).data.value)
    assert [tz for _, tz in after] == [tz for _, tz in before]
    assert after != before
    assert ("de", before[-1][1]) in after


@pytest.mark.parametrize("case", CASES)
async def test_a_change_of_another_field_leaves_it_unchanged(case: str) -> None:
    old, new = versions(case)
    value, said = CASES[case][2], CASES[case][4]
    theirs = handle_on(new)
    await theirs.update(value=value)
    ours = await handle_on(old, theirs.session_id).load()
    assert ours.changed is False
    ours.data.other = 5
    await ours.save()
    again = await handle_on(new, theirs.session_id).load()
    assert (said(again.data.value), again.data.other) == (said(value), 5)


class OldCart(msgspec.Struct):
    items: list[OldPrefs] = []
    archive: list[OldPrefs] = []
    chosen: OldPrefs | None = None
    kinds: list[OldCard | Bill] = []
    rows: list[list[OldPrefs]] = []


class NewCart(msgspec.Struct):
    items: list[NewPrefs] = []
    archive: list[NewPrefs] = []
    chosen: NewPrefs | None = None
    kinds: list[NewCard | Bill] = []
    rows: list[list[NewPrefs]] = []


def _move_to_front(data: OldCart) -> None:
    data.items.insert(0, data.items.pop())


def _rebuild_shorter(data: OldCart) -> None:
    data.items = [OldPrefs(each.lang) for each in data.items if each.lang != "b"]


def _archive(data: OldCart) -> None:
    data.archive, data.items = data.items, []


def _change_and_move(data: OldCart) -> None:
    last = data.items.pop()
    last.lang = "changed"
    data.items.insert(0, last)


def _choose(data: OldCart) -> None:
    data.chosen = data.items[2]


def _regroup(data: OldCart) -> None:
    data.rows = [data.items[2:], data.items[:1]]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data.items.pop(0), [("b", "2"), ("c", "3")]),
        (lambda data: data.items.insert(0, OldPrefs("n")), [("n", "UTC"), ("a", "1"), ("b", "2"), ("c", "3")]),
        (lambda data: data.items.append(OldPrefs("a")), [("a", "1"), ("b", "2"), ("c", "3"), ("a", "UTC")]),
        (lambda data: data.items.reverse(), [("c", "3"), ("b", "2"), ("a", "1")]),
        (_move_to_front, [("c", "3"), ("a", "1"), ("b", "2")]),
        (_rebuild_shorter, [("a", "1"), ("c", "3")]),
        (_change_and_move, [("changed", "3"), ("a", "1"), ("b", "2")]),
        (_choose, [("a", "1"), ("b", "2"), ("c", "3")]),
    ],
)
async def test_an_element_keeps_its_fields_at_any_position(change: Any, expected: list[tuple[str, str]]) -> None:
    old, new = (SessionPlugin(SessionConfig(kind, store=STORE, secrets=(SECRET,))) for kind in (OldCart, NewCart))
    for by_update in (False, True):
        theirs = handle_on(new)
        await theirs.update(items=[NewPrefs("a", "1"), NewPrefs("b", "2"), NewPrefs("c", "3")])
        ours = await handle_on(old, theirs.session_id).load()
        if by_update:
            await ours.update(lambda data: change(data) and None)
        else:
            change(ours.data)
            await ours.save()
        data = (await handle_on(new, theirs.session_id).load()).data
        assert [(each.lang, each.tz) for each in data.items] == expected
        assert change is not _choose or (data.chosen.lang, data.chosen.tz) == ("c", "3")


STORE = MemoryStore()


@pytest.mark.parametrize("change", [_archive, _regroup])
async def test_elements_moved_to_another_field_keep_their_fields(change: Any) -> None:
    old, new = (DataCodec(OldCart), DataCodec(NewCart))
    stored = new.encode(NewCart(items=[NewPrefs("a", "1"), NewPrefs("b", "2"), NewPrefs("c", "3")]))
    encoded, _ = updated(old, stored, change)
    data = new.decode(encoded)
    everything = [*data.items, *data.archive, *(each for row in data.rows for each in row)]
    assert {(each.lang, each.tz) for each in everything} == {("a", "1"), ("b", "2"), ("c", "3")}


def _replace_and_move(data: OldCart) -> None:
    data.items = [OldPrefs("n"), *data.items[:2]]


def _replace_two_by_one(data: OldCart) -> None:
    data.items = [OldPrefs("n"), data.items[1]]


@pytest.mark.parametrize("change", [_replace_and_move, _replace_two_by_one])
@pytest.mark.parametrize("on_conflict", ["refuse", "last_write_wins"])
async def test_a_replaced_element_with_unassignable_fields_is_refused(change: Any, on_conflict: Any) -> None:
    old, new = (
        SessionPlugin(SessionConfig(kind, store=STORE, secrets=(SECRET,), on_conflict=on_conflict)) for kind in (OldCart, NewCart)
    )
    theirs = handle_on(new)
    await theirs.update(items=[NewPrefs("a", "1"), NewPrefs("b", "2"), NewPrefs("c", "3")])
    ours = await handle_on(old, theirs.session_id).load()
    with pytest.raises(SessionConflictError, match=r"OldCart\.items") as refused:
        await ours.update(change)
    assert refused.value.fields == ("items",)
    change(ours.data)
    assert ours.has_to_save()
    with pytest.raises(SessionConflictError):
        await ours.save()
    data = (await handle_on(new, theirs.session_id).load()).data
    assert [(each.lang, each.tz) for each in data.items] == [("a", "1"), ("b", "2"), ("c", "3")]


async def test_removed_or_retyped_values_lose_their_unknown_fields() -> None:
    old, new = (SessionPlugin(SessionConfig(kind, store=STORE, secrets=(SECRET,))) for kind in (OldCart, NewCart))
    theirs = handle_on(new)
    await theirs.update(chosen=NewPrefs("a", "1"), kinds=[NewCard("CET", "en"), Bill("x")])
    ours = await handle_on(old, theirs.session_id).load()
    ours.data.chosen = None
    ours.data.kinds = [Bill("y"), Bill("x")]
    await ours.save()
    data = (await handle_on(new, theirs.session_id).load()).data
    assert (data.chosen, data.kinds) == (None, [Bill("y"), Bill("x")])


async def test_a_field_of_both_versions_changed_by_both_is_a_conflict() -> None:
    old, new = (SessionPlugin(SessionConfig(kind, store=STORE, secrets=(SECRET,))) for kind in (OldCart, NewCart))
    theirs = handle_on(new)
    await theirs.update(chosen=NewPrefs("a", "1"))
    ours = await handle_on(old, theirs.session_id).load()
    theirs.data.chosen.tz = "2"
    await theirs.save()
    ours.data.chosen.lang = "b"
    with pytest.raises(SessionConflictError):
        await ours.save()
    await ours.reload()
    await ours.update(lambda data: set_lang(data.chosen, "b") and None)
    data = (await handle_on(new, theirs.session_id).load()).data
    assert (data.chosen.lang, data.chosen.tz) == ("b", "2")


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""


class StrictInside(msgspec.Struct):
    items: dict[str, list[Strict | None]] = {}


@pytest.mark.parametrize("data_type", [Strict, StrictInside])
def test_a_struct_that_forbids_unknown_fields_is_refused_by_name(data_type: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Strict has forbid_unknown_fields"):
        SessionConfig(data_type)


class NewerIdentity(Identity, frozen=True, kw_only=True, omit_defaults=True):
    assurance: str = ""


class NewerDevice(Device, frozen=True, omit_defaults=True):
    model: str = ""


class NewerRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record as a later version of the library could write it."""

    created_at: int = msgspec.field(name="c")
    absolute_expires_at: int = msgspec.field(name="a")
    data: msgspec.Raw = msgspec.field(name="d", default=msgspec.Raw(b"\x80"))
    identity: NewerIdentity | None = msgspec.field(name="i", default=None)
    device: NewerDevice = msgspec.field(name="u", default=NewerDevice())
    vault: bytes = msgspec.field(name="t", default=b"")
    write_id: int = msgspec.field(name="w", default=0)
    policy: dict[str, int] = msgspec.field(name="p", default={})


def newer_record() -> NewerRecord:
    identity = NewerIdentity(issuer=ALICE.issuer, subject=ALICE.subject, assurance="high")
    return NewerRecord(created_at=1, absolute_expires_at=2**40, identity=identity, device=NewerDevice(model="x"), policy={"a": 1})


def read_newer(raw: bytes) -> NewerRecord:
    return msgspec.msgpack.decode(raw, type=NewerRecord)


def test_fields_of_a_newer_record_identity_and_device_survive_a_write() -> None:
    record = decode_record(msgspec.msgpack.encode(newer_record()))
    changed = msgspec.structs.replace(record, data=msgspec.Raw(msgspec.msgpack.encode({"note": "x"})), vault=b"v")
    again = read_newer(encode_record(decode_record(encode_record(changed))))
    assert again.policy == {"a": 1}
    assert again.identity is not None
    assert (again.identity.assurance, again.device.model, again.vault) == ("high", "x", b"v")


def test_data_cannot_pose_as_unknown_fields() -> None:
    raw = msgspec.msgpack.encode({"c": 1, "a": 2, "-": {"x": 1}})
    with pytest.raises(UndecodableError):
        decode_record(raw)


@pytest.mark.parametrize("who", [ALICE, BOB])
async def test_fields_of_a_newer_record_survive_every_verb(who: Identity) -> None:
    class Data(msgspec.Struct):
        note: str = ""

    store = MemoryStore()
    plugin = SessionPlugin(SessionConfig(Data, store=store, secrets=(SECRET,)))
    handle = handle_on(plugin)
    await handle.login(ALICE)
    stored = await store.load(handle.key)
    assert stored is not None
    record = decode_record(stored.entry.data)
    newer = msgspec.structs.replace(newer_record(), absolute_expires_at=record.absolute_expires_at)
    entry = msgspec.structs.replace(stored.entry, data=msgspec.msgpack.encode(newer))
    await store.replace(handle.key, entry, version=stored.version)

    ours = await handle_on(plugin, handle.session_id).load()
    await ours.update(note="x")
    await ours.regenerate()
    await ours.store_vault(b"v")
    kept = read_newer((await store.load(ours.key)).entry.data)  # type: ignore[union-attr]
    assert kept.identity is not None
    assert (kept.policy, kept.identity.assurance, kept.device.model) == ({"a": 1}, "high", "x")
    await ours.login(who)
    kept = read_newer((await store.load(ours.key)).entry.data)  # type: ignore[union-attr]
    assert kept.identity is not None
    assert (kept.policy, kept.identity.assurance, kept.device.model) == ({"a": 1} if who is ALICE else {}, "", "")


def test_a_record_of_this_version_has_no_unknown_fields() -> None:
    record = SessionRecord(created_at=1, absolute_expires_at=2, identity=ALICE, device=Device("a", "b"), vault=b"v")
    assert decode_record(encode_record(record)).newer is None
