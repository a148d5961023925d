"""The store contract as tests, for any store: subclass it and override one fixture. Needs pytest and anyio.

    from session_core.testing import FakeClock, SessionStoreContract

    class TestMyStore(SessionStoreContract):
        @pytest.fixture
        async def store(self, clock: FakeClock) -> AsyncIterator[SessionStore]:
            store = MyStore(clock=clock)
            await store.open()
            yield store
            await store.close()

Each test's docstring is a sentence of the contract in `session_core.stores.base`.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(
        f"session_core.testing.contract_{part}"
        for part in ("base", "records", "rotation", "index", "races", "upkeep", "deadlines")
    )
)

from session_core.testing.contract_deadlines import DeadlinesContract  # noqa: E402 - after the line that explains failures
from session_core.testing.contract_index import IndexContract  # noqa: E402
from session_core.testing.contract_races import RacesContract  # noqa: E402
from session_core.testing.contract_records import RecordsContract  # noqa: E402
from session_core.testing.contract_rotation import RotationContract  # noqa: E402
from session_core.testing.contract_upkeep import UpkeepContract  # noqa: E402

__all__ = ("SessionStoreContract",)


class SessionStoreContract(RecordsContract, RotationContract, IndexContract, RacesContract, UpkeepContract, DeadlinesContract):
    """Every sentence of the store contract as a test; override the fixture `store`.

    `DeadlinesContract.stalled` is the second thing to override, for a store whose engine the tests can stop.

    Where a store says in its capabilities that it cannot do a thing, the tests of that thing are skipped.
    """
