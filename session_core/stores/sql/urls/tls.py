"""TLS to a database, from the names of files, which are read once when the store is created."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from session_core.errors import ConfigurationError

__all__ = ("ENCRYPTED", "VERIFIED_CA", "VERIFIED_HOST", "client_context")

ENCRYPTED: Final = 0
"""Accepts any server: protects against eavesdropping, not against impersonation."""
VERIFIED_CA: Final = 1
VERIFIED_HOST: Final = 2


def client_context(
    level: int,
    *,
    authorities: str | Path | None = None,
    certificate: str | None = None,
    key: str | None = None,
    password: str | None = None,
    revoked: str | None = None,
) -> ssl.SSLContext:
    """Return a context of TLS 1.2 or later. Without `authorities` those of the system are trusted.

    Raises `ConfigurationError` for a file that cannot be read, by what the file is for, and for a key without its certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = level >= VERIFIED_HOST
    context.verify_mode = ssl.CERT_REQUIRED if level > ENCRYPTED else ssl.CERT_NONE
    if level > ENCRYPTED:
        if authorities is None:
            context.load_default_certs()
        else:
            _load("certificate authorities", lambda: context.load_verify_locations(cafile=authorities))
    if key is not None and certificate is None:
        msg = "the URL of the session store names the key of a client certificate without the certificate"
        raise ConfigurationError(msg)
    if certificate is not None:
        _load("client certificate", lambda: context.load_cert_chain(certificate, key, lambda: password or ""))
    if revoked is not None:
        _load("revoked certificates", lambda: context.load_verify_locations(cafile=revoked))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    return context


def _load(what: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ssl.SSLError, ValueError) as error:
        msg = f"the file with the {what} in the URL of the session store cannot be used ({type(error).__name__})"
        raise ConfigurationError(msg) from error
