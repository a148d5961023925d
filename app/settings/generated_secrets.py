"""Generates secrets in development, once, and keeps them in `var/`."""

from __future__ import annotations

import os
import secrets
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ("CLIENT_SECRET_FILE", "ENCRYPTION_KEYS_FILE", "SESSION_SECRETS_FILE", "new_secret", "read_or_create")

VAR: Final = Path("var")
SESSION_SECRETS_FILE: Final = VAR / "session-secrets"
ENCRYPTION_KEYS_FILE: Final = VAR / "session-encryption-keys"
CLIENT_SECRET_FILE: Final = VAR / "oidc-client-secret"


def new_secret() -> str:
    """Return 32 random bytes in base64url, fit for signing and for encryption."""
    return urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()


def read_or_create(path: Path) -> str:
    """Return the secret in `path`; the first process creates it, all others read it.

    Raises `OSError` when the directory cannot be written.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(new_secret() + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link fails if the name exists: of concurrent workers one wins, and none reads a partial file.
        with suppress(FileExistsError):
            os.link(draft, path)
        return _read(path)
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path) -> str:
    secret = path.read_text(encoding="utf-8").strip()
    if not secret:
        message = f"{path} is empty; delete it to have a new secret made"
        raise OSError(message)
    return secret
