"""Counts live sessions, in memory that does not grow with their number."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from math import ceil, log
from typing import Final

import msgspec

from session_core.identity import Identity

__all__ = ("SessionStats", "StatsCounter")

_MINUTE_MS: Final = 60_000
_IDLE: Final = (("5 minutes", 5 * _MINUTE_MS), ("1 hour", 60 * _MINUTE_MS), ("1 day", 1440 * _MINUTE_MS))
_LONGER: Final = "longer"
_BITS: Final = 1 << 23
_MAX_SIZES: Final = 100_000
_COARSE: Final = 1024


class SessionStats(msgspec.Struct, frozen=True, kw_only=True):
    """How many sessions there are and how large their records are (bytes)."""

    total: int
    logged_in: int
    anonymous: int
    undecodable: int
    users: int
    """Number of logged-in users: exact for a few thousand, within one in a thousand for millions."""
    size_p50: int
    size_p90: int
    size_p99: int
    size_max: int
    issuers: dict[str, int]
    """Logged-in sessions by the issuer of their login."""
    idle: dict[str, int]
    """Sessions by how long ago they were used: at most `5 minutes`, `1 hour`, `1 day`, `longer`; exact to the touch interval."""


class StatsCounter:
    """Counts sessions one by one.

    Sizes are counted exactly, one number for each distinct size (rounded to kilobytes above 100,000 of these). Users are
    counted by linear counting in a bitmap of one mebibyte (Whang et al., 1990): a set of a million user keys would take a
    hundred times that.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self._sizes: Counter[int] = Counter()
        self._users = bytearray(_BITS // 8)
        self._issuers: Counter[str] = Counter()
        self._idle: Counter[str] = Counter()
        self._undecodable = 0

    def add_undecodable(self, size: int) -> None:
        """Count a record that this version cannot read."""
        self._undecodable += 1
        self._add_size(size)

    def add(self, size: int, identity: Identity | None, last_seen_at: int) -> None:
        """Count a session."""
        self._add_size(size)
        self._idle[next((name for name, most in _IDLE if self._now - last_seen_at <= most), _LONGER)] += 1
        if identity is not None:
            self._issuers[identity.issuer] += 1
            place = int.from_bytes(blake2b(identity.user_key.encode(), digest_size=8).digest()) % _BITS
            self._users[place >> 3] |= 1 << (place & 7)

    def result(self) -> SessionStats:
        """Return the counts."""
        total, logged_in = self._sizes.total(), self._issuers.total()
        return SessionStats(
            total=total,
            logged_in=logged_in,
            anonymous=total - logged_in - self._undecodable,
            undecodable=self._undecodable,
            users=min(self._count_users(), logged_in),
            size_p50=self._percentile(50),
            size_p90=self._percentile(90),
            size_p99=self._percentile(99),
            size_max=max(self._sizes, default=0),
            issuers=dict(self._issuers.most_common()),
            idle={name: self._idle[name] for name in (*(name for name, _ in _IDLE), _LONGER)},
        )

    def _add_size(self, size: int) -> None:
        if size not in self._sizes and len(self._sizes) >= _MAX_SIZES:
            size = -(-size // _COARSE) * _COARSE
        self._sizes[size] += 1

    def _count_users(self) -> int:
        taken = int.from_bytes(self._users).bit_count()
        if taken == _BITS:
            return self._issuers.total()
        return round(-_BITS * log(1 - taken / _BITS))

    def _percentile(self, percent: int) -> int:
        """The smallest size that is not exceeded by `percent` of the records (nearest rank)."""
        wanted = max(ceil(self._sizes.total() * percent / 100), 1)
        for size in sorted(self._sizes):
            wanted -= self._sizes[size]
            if wanted <= 0:
                return size
        return 0
