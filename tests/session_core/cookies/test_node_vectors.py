"""Byte compatibility with the npm packages cookie-signature and express-session, by vectors from those packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from session_core.cookies import CookieConfig, CookieSigner, read_cookies, read_session_id, sign_cookie, unsign_cookie

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("node_vectors.json").read_text(encoding="utf-8"))
LIVE: dict[str, Any] = VECTORS["express_session"]


def secret_of(secret: dict[str, str]) -> str | bytes:
    return bytes.fromhex(secret["hex"]) if "hex" in secret else secret["text"]


@pytest.mark.parametrize("vector", VECTORS["signed"], ids=lambda vector: repr(vector["value"][:12]))
def test_signatures_of_node_verify_and_equal_ours(vector: dict[str, Any]) -> None:
    secret = secret_of(vector["secret"])
    assert sign_cookie(vector["value"], secret) == vector["signed"]
    unsigned = unsign_cookie(vector["signed"], [b"another", secret])
    assert unsigned is not None
    assert unsigned.value == vector["value"]
    assert not unsigned.by_first_secret


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["attack"])
def test_signatures_refused_by_node_are_refused(vector: dict[str, str]) -> None:
    assert unsign_cookie(vector["signed"], [VECTORS["secret"]]) is None


@pytest.mark.parametrize("vector", VECTORS["headers"], ids=lambda vector: repr(vector["value"][:12]))
def test_the_cookie_pair_is_encoded_as_by_node_and_read_back(vector: dict[str, str]) -> None:
    cookie = CookieConfig(name="connect.sid").resolve("http://localhost")
    signed = sign_cookie(vector["value"], VECTORS["secret"])
    pair = cookie.set_header(signed, None).split(b"; ")[0]
    assert pair.decode("ascii") == vector["pair"]
    assert read_cookies([(b"cookie", pair)], "connect.sid") == [signed]


def test_cookies_interoperate_with_express_session() -> None:
    cookie = CookieConfig(name="sid").resolve("http://localhost")
    signer = CookieSigner(LIVE["secrets"])
    pair = LIVE["set_cookie"].split(";")[0].encode()
    reading = read_session_id([(b"cookie", pair)], cookie, signer)
    assert reading.session_id == LIVE["id"]
    assert not reading.needs_resign
    assert cookie.set_header(signer.sign(LIVE["id"]), None).decode() == LIVE["set_cookie"]


def test_cookies_accepted_by_a_live_express_session_equal_ours() -> None:
    """Both were sent to a running server when the vectors were made: one with its first secret, one with its second."""
    cookie = CookieConfig(name="sid").resolve("http://localhost")
    written = [cookie.set_header(CookieSigner([secret]).sign(LIVE["id"]), None) for secret in LIVE["secrets"]]
    assert [header.split(b"; ")[0].decode() for header in written] == LIVE["ours"]
