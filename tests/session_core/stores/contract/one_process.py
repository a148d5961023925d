"""The race tests of the contract, for a store that is atomic only within one process."""

from __future__ import annotations

import pytest

from session_core.stores.base import SessionStore
from session_core.testing import SessionStoreContract
from session_core.testing.contract_races import RacesContract

_NEEDS_A_LIMIT = "test_simultaneous_logins_never_exceed_the_limit"


class OneProcessContract(RacesContract):
    """The guarantees of `atomic` within one process."""

    rounds = 8

    def needs_an_atomic_store(self, store: SessionStore) -> None:
        assert not store.capabilities.atomic

    @pytest.fixture(autouse=True)
    def _refuses_the_limit(self, request: pytest.FixtureRequest) -> None:
        if request.function.__name__ == _NEEDS_A_LIMIT:
            pytest.skip("the store refuses a limit")


assert hasattr(SessionStoreContract, _NEEDS_A_LIMIT)
