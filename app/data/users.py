"""The users of this application: their identity at the provider, their roles, and whether they are disabled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import ColumnElement, Row, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.data.tables import users as table
from session_core.errors import ForbiddenError, LoginRefusedError
from session_core.oidc import claim_at, names_at

if TYPE_CHECKING:
    from app.data.database import Database
    from session_core import Clock, Identity

__all__ = ("AccountDisabledError", "User", "Users")

_MAX_ROLES: Final = 1000
_MAX_ROLE: Final = 64


class AccountDisabledError(ForbiddenError):
    """An administrator has disabled this account."""

    code = "account_disabled"
    title = "This account is disabled"


class User(msgspec.Struct, frozen=True, kw_only=True):
    """One user. `key` is `Identity.user_key`; times are Unix milliseconds."""

    key: str
    issuer: str
    subject: str
    name: str
    email: str | None
    roles: tuple[str, ...]
    disabled: bool
    created_at: int
    last_login_at: int

    @property
    def is_administrator(self) -> bool:
        """Whether this user may administer others."""
        return "admin" in self.roles


_COLUMNS: Final[list[ColumnElement[Any]]] = [
    table.c.user_key.label("key"),
    *(table.c[name] for name in User.__struct_fields__ if name != "key"),
]
"""By name: a clone may add a column to the table and not to the struct."""


class Users:
    """The table of users."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def find(self, key: str) -> User | None:
        """Return the user of an `Identity.user_key`."""
        async with self._database.connect() as connection:
            row = (await connection.execute(select(*_COLUMNS).where(table.c.user_key == key))).first()
        return _user(row) if row else None

    async def is_active(self, identity: Identity) -> bool:
        """Whether this user exists here and is not disabled."""
        user = await self.find(identity.user_key)
        return user is not None and not user.disabled

    async def remember(self, identity: Identity, claims: Mapping[str, Any], *, roles_claim: str = "roles") -> User:
        """Store the provider's claims about the user at a login; `disabled` stays.

        `roles_claim` is the path of the claim with the roles.
        """
        now = self._clock.now()
        said = {
            "name": _name(claims) or identity.subject,
            "email": _text(claims.get("email"), 320),
            "roles": msgspec.json.encode(_roles(names_at(claims, roles_claim))).decode(),
            "last_login_at": now,
        }
        mine = table.c.user_key == identity.user_key
        async with self._database.begin() as connection:
            known = (await connection.execute(update(table).where(mine).values(**said))).rowcount
        if not known:
            new = {"user_key": identity.user_key, "issuer": identity.issuer, "subject": identity.subject}
            row = {**said, **new, "disabled": False, "created_at": now}
            try:
                async with self._database.begin() as connection:
                    await connection.execute(insert(table).values(**row))
            except IntegrityError:
                # Two concurrent first logins: the other one inserted the row.
                async with self._database.begin() as connection:
                    await connection.execute(update(table).where(mine).values(**said))
        user = await self.find(identity.user_key)
        if user is None:  # another process has just deleted the row
            message = "the user was deleted while logging in"
            raise LookupError(message)
        return user

    async def set_disabled(self, key: str, *, disabled: bool) -> bool:
        """Disable or enable a user; return whether there is one."""
        async with self._database.begin() as connection:
            statement = update(table).where(table.c.user_key == key).values(disabled=disabled)
            return (await connection.execute(statement)).rowcount > 0

    async def names(self, keys: Collection[str]) -> dict[str, str]:
        """Return the names of several users by key."""
        statement = select(table.c.user_key, table.c.name).where(table.c.user_key.in_(keys))
        async with self._database.connect() as connection:
            return {row.user_key: row.name for row in await connection.execute(statement)}

    async def search(self, query: str = "", *, limit: int = 50, skip: int = 0) -> list[User]:
        """Return users whose name, email or subject contains `query`, the latest login first, without the first `skip`."""
        statement = select(*_COLUMNS).order_by(table.c.last_login_at.desc(), table.c.user_key).limit(limit).offset(skip)
        # PostgreSQL refuses the NUL character, and SQLite ends the text there.
        query = "".join(character for character in query if character.isprintable())
        if query:
            columns = (table.c.name, table.c.email, table.c.subject)
            statement = statement.where(or_(*(column.icontains(query, autoescape=True) for column in columns)))
        async with self._database.connect() as connection:
            return [_user(row) for row in await connection.execute(statement)]


def _user(row: Row[*tuple[Any, ...]]) -> User:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return User(**{**values, "roles": msgspec.json.decode(values["roles"], type=tuple[str, ...])})


def _name(claims: Mapping[str, Any]) -> str | None:
    """Return the display name of a user. GitHub has `login`, X `username`; Apple posts unsigned names at the first login."""
    said = (_text(claims.get(name)) for name in ("name", "preferred_username", "login", "username"))
    posted = claim_at(claims, "user.name")
    parts = [_text(posted.get(part)) for part in ("firstName", "lastName")] if isinstance(posted, dict) else []
    return next(filter(None, said), None) or _text(" ".join(filter(None, parts)))


def _text(value: object, limit: int = 255) -> str | None:
    """Return a claim as printable text; claims are untrusted."""
    if not isinstance(value, str):
        return None
    return "".join(character for character in value if character.isprintable())[:limit].strip() or None


def _roles(names: Sequence[object]) -> list[str]:
    good = [role for role in names if isinstance(role, str) and 0 < len(role) <= _MAX_ROLE and role.isprintable()]
    roles = sorted(set(good))
    if len(roles) > _MAX_ROLES:
        # Not silently truncated: the remaining roles would depend on their names.
        reason = "too_many_roles"
        raise LoginRefusedError(reason)
    return roles
