"""Claims a login transaction once over all processes, even if the store's answer is lost. Independent of providers.

The claim is named after the transaction. If the answer is lost, the browser's cookie gets the `expires_at` of the claim, which no
other request knows. A retry with that cookie recognizes its own claim, and must win a second claim: of many requests with the
same cookie only one continues.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

import msgspec

from session_core.clock import TOLERATED_SKEW_MS
from session_core.errors import LoginExpiredError, StoreUnavailableError
from session_core.oidc.login.transaction import LIFETIME_SECONDS, LoginTransaction
from session_core.stores.base import SessionStore

__all__ = ("use_up",)

_CLAIM_MS: Final = (LIFETIME_SECONDS + 60) * 1000 + 2 * TOLERATED_SKEW_MS
"""How long a claim is kept: longer than any node can accept the transaction, with clock differences."""
_MAX_LOST: Final = 5
"""Lost answers in a row, after which the login must start again."""


async def use_up(
    store: SessionStore, transaction: LoginTransaction, now: int, on_lost: Callable[[LoginTransaction], None]
) -> None:
    """Return for one caller of each transaction only. `now` is in Unix milliseconds.

    `on_lost` is called with the transaction for the browser's next attempt, if the result of the claim is unknown.
    Raises `LoginExpiredError` (`state_replayed`) and `StoreUnavailableError`.
    """
    until = transaction.claimed_until or now + _CLAIM_MS + secrets.randbelow(_CLAIM_MS)  # of no other request
    for number in range(transaction.lost_claims):
        name = _name(transaction, number)
        if not await store.claim(name, until) and await store.claimed_until(name) != until:
            raise _replayed(transaction)
    try:
        won = await store.claim(_name(transaction, transaction.lost_claims), until)
    except StoreUnavailableError as error:
        if not error.not_applied and transaction.lost_claims < _MAX_LOST:
            lost = transaction.lost_claims + 1
            on_lost(msgspec.structs.replace(transaction, lost_claims=lost, claimed_until=until))
        raise
    if not won:
        raise _replayed(transaction)


def _replayed(transaction: LoginTransaction) -> LoginExpiredError:
    return LoginExpiredError("state_replayed", return_to=transaction.return_to)


def _name(transaction: LoginTransaction, number: int) -> str:
    return f"login-{transaction.state_digest}" + (f"-{number}" if number else "")
