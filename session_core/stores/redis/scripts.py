"""The atomic steps of the Redis store: loads the Lua scripts of this folder and names their answers.

A script is made of several files: `in_time.lua`, the functions that it uses (`record.lua`, `index.lua`, `announce.lua`,
`login.lua`, `ending.lua`), and the file of its name. All KEYS of one script are in one slot when the server is a cluster.

All begin with the same arguments:

- ARGV[1] is not empty when the command may already have been run (the connection was lost before the reply). So no step is
  applied twice: what a first run did is recognized by the caller's own random bytes in the record, and where that cannot be
  known any more the answer is UNKNOWN, never a guess.
- ARGV[2] and ARGV[3] are the server time at which the command was sent at the earliest, and the time by which it must take
  effect (`session_core.stores.redis.connection.ServerClock`). Outside of the two a script changes nothing and answers LATE.
- ARGV[4] is the caller's now, which expiries are compared with.

The writes of a script come after all of its decisions, and Redis refuses the first of them, not a later one, when memory is
full: a script is never half run. On a single server the indexes change in the script that changes the record. On a cluster they
are in other slots: KEYS then holds the record alone, and `session_core.stores.redis.cluster_login` does the rest.
"""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import Final

__all__ = (
    "CLAIM", "CONFLICT", "CREATE", "DELIST", "ENLIST", "FINISH", "GONE", "LAPSED", "MANY", "REINDEX", "REPLACE", "RESERVE",
    "ROTATE", "SWEEP", "TOUCH", "UNKNOWN", "WITHDRAW", "Script",
)  # fmt: skip

_FOLDER: Final = files("session_core.stores.redis")


class Script:
    """A script made of these files, one after the other, and the digest by which servers remember it."""

    __slots__ = ("digest", "text")

    def __init__(self, *names: str) -> None:
        self.text = b"".join(_FOLDER.joinpath(f"{name}.lua").read_bytes() for name in ("in_time", *names))
        self.digest = sha1(self.text, usedforsecurity=False).hexdigest().encode()


GONE: Final = -1
CONFLICT: Final = -2
REINDEX: Final = -3
"""Nothing was done: the caller must put the record into its indexes (again) in the same step, or before it."""
UNKNOWN: Final = -4
"""The first run may have been applied; what happened since hides it."""
LAPSED: Final = -5
"""The reservation is gone: it took too long, or the server lost it."""
MANY: Final = -6
"""Nothing was done: the user has more sessions than one script may look at; the login must be made in several steps."""

CREATE: Final = Script("record", "index", "announce", "login", "create")
REPLACE: Final = Script("replace_plainly", "record", "index", "replace")
TOUCH: Final = Script("record", "index", "touch")
ROTATE: Final = Script("index", "rotate_plainly", "record", "announce", "login", "rotate")
FINISH: Final = Script("record", "announce", "ending", "finish")
SWEEP: Final = Script("record", "announce", "ending", "sweep")
RESERVE: Final = Script("record", "reserve")
WITHDRAW: Final = Script("withdraw")
ENLIST: Final = Script("index", "enlist")
DELIST: Final = Script("delist")
CLAIM: Final = Script("claim")
