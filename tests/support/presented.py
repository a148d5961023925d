"""A session id without a request: the source of a session handle in tests without HTTP."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field

from session_core import Device
from session_core.ids import UncertainId


@dataclass
class PresentedId:
    """The id that the browser presents, or a function that returns it; `device` is its device."""

    session_id: str | UncertainId | None = None
    device: Device = field(default_factory=Device)
    on_websocket: bool = False
    presents_token: bool = False

    def is_bare(self) -> bool:
        return self.session_id is None

    def read_session_id(self) -> Awaitable[str | None] | str | UncertainId | None:
        return self.session_id

    def read_device(self) -> Device:
        return self.device

    def answer_by_token(self) -> None:
        raise NotImplementedError

    def token_of(self, text: str) -> str | None:
        del text
        return None
