"""Lets all HTTP clients of this process share one TLS context: each would spend 20 ms on loading the trusted authorities."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

_TRANSPORTS: Final = ("httpx._transports.default", "httpx2._transports.default")


def _load_once(transports: Any) -> None:
    create = transports.create_ssl_context
    known: dict[object, ssl.SSLContext] = {}

    def shared(verify: Any = True, cert: Any = None, trust_env: bool = True) -> Any:
        if verify is not True or cert is not None:
            return create(verify=verify, cert=cert, trust_env=trust_env)
        # Some tests name other authorities in these variables.
        source = (trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        if source not in known:
            known[source] = create(trust_env=trust_env)
        return known[source]

    transports.create_ssl_context = shared


for _name in _TRANSPORTS:
    with suppress(ImportError):
        _load_once(import_module(_name))
