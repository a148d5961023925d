"""Refuses to run the demo provider on an address that other machines can reach."""

import ipaddress
from typing import Final

__all__ = ("UnsafeProviderError", "is_loopback", "refuse_unsafe")

_PRODUCTION: Final = frozenset({"production", "prod", "live"})


class UnsafeProviderError(RuntimeError):
    """The demo provider was asked to run in production or on an address others can reach."""


def is_loopback(host: str) -> bool:
    """Tell whether `host` (a name or an address, IPv6 with or without brackets) is this machine only.

    Names other than ``localhost`` are never trusted: what they resolve to can change after the check.
    """
    bare = host.removeprefix("[").removesuffix("]")
    if bare.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def refuse_unsafe(app_env: str, host: str) -> None:
    """Raise `UnsafeProviderError` unless the demo provider may run in `app_env` and listen on `host`.

    Every visitor may sign in as any user, so it never runs with ``APP_ENV=production`` and never listens on
    an address that another machine can reach.
    """
    if app_env.strip().lower() in _PRODUCTION:
        message = (
            f"The demo identity provider does not run with APP_ENV={app_env}: it lets every visitor sign in as "
            "any user. Set OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET to a real provider."
        )
        raise UnsafeProviderError(message)
    if not is_loopback(host):
        message = (
            f"The demo identity provider listens on a loopback address only, not on {host!r}: it lets "
            "every visitor sign in as any user. Use 127.0.0.1, ::1 or localhost."
        )
        raise UnsafeProviderError(message)
