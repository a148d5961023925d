"""Records written by earlier versions are readable. Lines here are only added, never changed or removed."""

from __future__ import annotations

import msgspec

from session_core import Identity
from session_core.sessions.record import DataCodec, Device, decode_record
from tests.support.sessions import AppSession

VERSION_0_1_0 = bytes.fromhex(
    "88a163cf0000018bcfe56800a161cf0000018bd50bc400a16483a57468656d65a46461726ba46361727491a4626f6f6ba6766973697473"
    "03a16986a6697373756572b268747470733a2f2f6f702e6578616d706c65a77375626a656374a5616c696365a3736964a46f702d31a961"
    "7574685f74696d65ce6553f100a3616372a3706872a3616d7292a3707764a36f7470a16ccf0000018bcfe569f4a17582a26970a9313932"
    "2e302e322e31aa757365725f6167656e74a942726f777365722f31a174c407017365616c6564a177cf5b1ed3f5059e5c99"
)


def test_a_record_of_0_1_0_is_read() -> None:
    record = decode_record(VERSION_0_1_0)
    assert (record.created_at, record.absolute_expires_at, record.logged_in_at) == (
        1_700_000_000_000,
        1_700_086_400_000,
        1_700_000_000_500,
    )
    assert record.identity == Identity(
        issuer="https://op.example", subject="alice", sid="op-1", auth_time=1_700_000_000, acr="phr", amr=("pwd", "otp")
    )
    assert record.device == Device("192.0.2.1", "Browser/1")
    assert record.vault == b"\x01sealed"
    assert DataCodec(AppSession).decode(record.data) == AppSession(theme="dark", cart=["book"], visits=3)


def test_its_data_is_read_by_a_type_with_added_and_removed_fields() -> None:
    class Later(msgspec.Struct):
        visits: int = 0
        currency: str = "EUR"

    assert DataCodec(Later).decode(decode_record(VERSION_0_1_0).data) == Later(visits=3)
