"""The client of DynamoDB and S3: made in the running event loop, without retries."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from session_core.stores.base import opened

__all__ = ("AWS_OPTIONS", "AwsClient", "code_of")

AWS_OPTIONS: Final = frozenset({"region", "endpoint", "profile"})
_TIMEOUT_SECONDS: Final = 10
_MAX_CONNECTIONS: Final = 50


class AwsClient:
    """A client of one service. Region and credentials come from where AWS's library finds them, unless `options` name them."""

    def __init__(self, service: str, options: Mapping[str, str]) -> None:
        self._service = service
        self._options = options
        self._stack = AsyncExitStack()
        self._opened: Any = None

    async def open(self) -> Any:  # noqa: ANN401 - the client's methods are made at run time
        """Connect; return the client."""
        await self.close()
        # Each call already has a deadline. A retry could come after that.
        config = AioConfig(
            connect_timeout=_TIMEOUT_SECONDS,
            read_timeout=_TIMEOUT_SECONDS,
            max_pool_connections=_MAX_CONNECTIONS,
            retries={"total_max_attempts": 1},
        )
        session = get_session()
        if "profile" in self._options:
            session.set_config_variable("profile", self._options["profile"])
        client = session.create_client(
            self._service,
            region_name=self._options.get("region"),
            endpoint_url=self._options.get("endpoint"),
            config=config,
        )
        self._opened = await self._stack.enter_async_context(client)
        return self._opened

    async def close(self) -> None:
        """Close the connections."""
        self._opened = None
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    @property
    def client(self) -> Any:  # noqa: ANN401
        """The open client."""
        return opened(self._opened)


def code_of(error: ClientError) -> str:
    """Return the code of an error that the service answered."""
    return str(error.response.get("Error", {}).get("Code", ""))
