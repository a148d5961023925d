"""Binds the provider's forms to the browser that requested them."""

import hashlib
import hmac
import secrets
from typing import Final

from auth_demo.op.state.secret import new_secret, same

__all__ = ("BROWSER_COOKIE", "FormTokens")

BROWSER_COOKIE: Final = "op_browser"


class FormTokens:
    """Stateless form tokens: HMAC of the browser's random cookie and the form's purpose.

    Login CSRF: another site must not be able to sign the user in under an account of the attacker's choice.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    @staticmethod
    def browser_id(cookie: str | None) -> str:
        """Return the browser's cookie value if it looks like ours, else a new one to be set."""
        return cookie if cookie and len(cookie) == len(new_secret()) and cookie.isascii() else new_secret()

    def issue(self, browser_id: str, purpose: str) -> str:
        """Return the token to put into a form meant for `purpose`."""
        return hmac.new(self._key, f"{purpose}:{browser_id}".encode(), hashlib.sha256).hexdigest()

    def accept(self, browser_id: str | None, purpose: str, token: str | None) -> bool:
        """Tell whether `token` came from a form shown to this browser for `purpose`."""
        return bool(browser_id and token) and same(token or "", self.issue(browser_id or "", purpose))
