"""Properties of arbitrary data: it is stored, restored unchanged, and merged by field."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
from polyfactory.factories.msgspec_factory import MsgspecFactory

from session_core import SessionConfig, SessionConflictError, SessionHandle, SessionPlugin
from session_core.identity import op_session_key, user_key
from session_core.oidc.tokens.vault import TokenVault
from session_core.sealing import SealingKeys
from session_core.sessions.draft import Draft
from session_core.sessions.record import SessionRecord, decode_record, encode_record
from session_core.sessions.timeouts import Timeouts
from tests.support.factories import RecordFactory, TokenSetFactory
from tests.support.sessions import ALICE, handle_on

pytestmark = pytest.mark.anyio

RUNS = range(40)


class Address(msgspec.Struct):
    street: str = ""
    lines: list[str] = []
    geo: tuple[float, float] | None = None


class Profile(msgspec.Struct, rename="camel"):
    theme: Literal["light", "dark"] = "light"
    display_name: str = ""
    visits: int = 0
    ratio: float = 0.0
    tags: set[str] = set()
    cart: dict[str, int] = {}
    address: Address | None = None
    history: list[Address] = []
    secret: bytes = b""
    agreed: bool = False


class ProfileFactory(MsgspecFactory[Profile]):
    __model__ = Profile


PLUGIN = SessionPlugin(SessionConfig(Profile))


def handle(session_id: str | None = None) -> SessionHandle[Profile]:
    found: SessionHandle[Profile] = handle_on(PLUGIN, session_id)
    return found


@pytest.mark.parametrize("seed", RUNS)
async def test_any_data_is_restored_as_stored(seed: int) -> None:
    ProfileFactory.seed_random(seed)
    data = ProfileFactory.build()
    first = handle()
    await first.load()
    first.data = data
    await first.save()
    again = await handle(first.session_id).load()
    assert again.data == data
    assert again.changed is False


@pytest.mark.parametrize("seed", RUNS)
async def test_two_requests_that_change_different_fields_both_succeed(seed: int) -> None:
    ProfileFactory.seed_random(seed)
    begun, mine, theirs = (ProfileFactory.build() for _ in range(3))
    owner = handle()
    await owner.load()
    owner.data = begun
    await owner.save()
    one, two = await handle(owner.session_id).load(), await handle(owner.session_id).load()
    names = [field.name for field in msgspec.structs.fields(Profile)]
    for position, name in enumerate(names):
        source, target = (mine, one) if position % 2 else (theirs, two)
        setattr(target.data, name, getattr(source, name))
    await one.save()
    await two.save()
    final = await owner.reload()
    for position, name in enumerate(names):
        assert getattr(final, name) == getattr(mine if position % 2 else theirs, name)


@pytest.mark.parametrize("seed", RUNS)
def test_a_field_changed_twice_is_a_conflict_exactly_when_the_values_differ(seed: int) -> None:
    ProfileFactory.seed_random(seed)
    codec: Any = PLUGIN.lifecycle.codec
    base, mine, theirs = (ProfileFactory.build() for _ in range(3))
    stored = codec.encode(base)
    draft: Draft[Profile] = Draft(codec, stored)
    other: Draft[Profile] = Draft(codec, stored)
    draft.data = msgspec.structs.replace(base, visits=mine.visits)
    other.data = msgspec.structs.replace(base, visits=theirs.visits)
    newest = SessionRecord(created_at=0, absolute_expires_at=0, data=msgspec.Raw(other.encoded()))
    if len({base.visits, mine.visits, theirs.visits}) == 3:
        with pytest.raises(SessionConflictError) as conflict:
            draft.merged(newest)
        assert conflict.value.fields == ("visits",)
    else:
        draft.merged(newest)


@pytest.mark.parametrize("seed", RUNS)
def test_any_record_is_decoded_as_it_was_encoded(seed: int) -> None:
    RecordFactory.seed_random(seed)
    record = RecordFactory.build()
    decoded = decode_record(encode_record(record))
    assert msgspec.structs.replace(decoded, write_id=record.write_id) == record


@pytest.mark.parametrize("seed", RUNS)
def test_any_tokens_are_opened_as_they_were_sealed(seed: int) -> None:
    TokenSetFactory.seed_random(seed)
    tokens, vault = TokenSetFactory.build(), TokenVault(SealingKeys([b"k" * 32]))
    assert vault.open(vault.seal(tokens, ALICE), ALICE) == tokens


def test_index_keys_never_collide() -> None:
    pairs = [("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"), ("a\0b", "c"), ("a", "b\0c")]
    keys = [key(*pair) for pair in pairs for key in (user_key, op_session_key)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("now", "expires_at", "due"), [(0, 3_600_000, False), (59_999, 3_600_000, False), (60_000, 3_600_000, True)]
)
def test_a_touch_is_due_after_the_interval(now: int, expires_at: int, *, due: bool) -> None:
    assert Timeouts().touch_due(now, expires_at, 86_400_000) is due


def test_a_touch_never_exceeds_the_absolute_expiry() -> None:
    timeouts = Timeouts(idle=3600, absolute=7200)
    assert timeouts.expiry(7_000_000, 7_200_000) == 7_200_000
    assert timeouts.touch_due(7_150_000, 7_200_000, 7_200_000) is False
