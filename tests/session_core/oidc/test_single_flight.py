"""Concurrent callers share a run, but no error object: an answer adds data of its own request to it."""

from __future__ import annotations

import asyncio

import pytest

from session_core.errors import DiscoveryError, SessionLimitError, StepUpRequiredError
from session_core.oidc.single_flight import SingleFlight

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("error", [DiscoveryError("discovery_dns"), SessionLimitError(), StepUpRequiredError(max_age=60)])
async def test_each_caller_gets_its_own_copy_of_an_error(error: DiscoveryError | SessionLimitError | StepUpRequiredError) -> None:
    flight: SingleFlight[None] = SingleFlight()
    cause = OSError("no such host")
    runs = 0

    async def fail() -> None:
        nonlocal runs
        runs += 1
        raise error from cause

    first, second = await asyncio.gather(flight.run("key", fail), flight.run("key", fail), return_exceptions=True)
    assert runs == 1
    assert isinstance(first, type(error))
    assert isinstance(second, type(error))
    assert len({id(each) for each in (first, second, error)}) == 3
    first.return_to = "/page/of/the/first"
    assert second.return_to is None
    for each in (first, second):
        assert (str(each), each.__cause__) == (str(error), cause)
        assert {**each.__dict__, "return_to": None} == {**error.__dict__, "return_to": None}
