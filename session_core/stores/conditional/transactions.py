"""Changes of several documents in one step, where the engine changes one at a time and only under a condition.

Every document of a change first gets an *intent*: its new value beside its current one, on the condition that it is unchanged.
Then the *decision* is created: one more document, which can be written once and means that the transaction is committed. That
write is the moment of the change for all readers. Afterwards the writer, or any other process that finds an intent, replaces it
by the new value. A process that dies before the decision has changed nothing.

A change of one document needs no decision: the write that replaces the intent makes the change, and only its own writer sends it.

A reader that finds an intent without a decision returns the previous state. Shortly before the deadline of that transaction, or
when it delays a writer, the reader aborts it: it writes the decision itself, or removes the intent, and a later commit fails. So
a late write has no effect once any process has read the document without it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from secrets import token_urlsafe
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

from session_core.clock import Clock
from session_core.concurrency import back_off, together
from session_core.errors import SessionCoreError, StoreUnavailableError
from session_core.stores.conditional.documents import ConditionalDocuments, Versioned
from session_core.stores.conditional.format import FOREVER, Corrupt, Decision, Document, Held, Intent, decode, encode, nonce
from session_core.stores.deadlines import Step, check_deadline, remaining
from session_core.stores.document.listing import read_again_at

__all__ = ("Change", "Found", "Transactions")

D = TypeVar("D", bound=Document)
T = TypeVar("T")

_SLACK_SECONDS: Final = 60
"""A document is kept this much longer than it is valid: the clocks of the nodes and of the engine may differ."""
_CALL_SECONDS: Final = 10.0
"""How long a call may take that has no deadline."""
_PATIENCE: Final = 10
"""How often a writer checks whether another transaction has ended, before it aborts it."""
_TIDY_SECONDS: Final = 2.0
_DECISION_MS: Final = 86_400_000


class Found(NamedTuple):
    """A document as it was read. `version` is None for an absent one, and `value` also where a decided change removes it."""

    name: str
    value: bytes | None
    until: int
    version: object | None
    clean: bool = True
    """It holds no intent, so it can be written."""

    def read(self, kind: type[D]) -> D | Corrupt | None:
        """Return its content."""
        return decode(self.value, kind)


Change = tuple[Found, Document | None]
"""A document as it was taken, and what it becomes; None removes it."""


class Transactions:
    """Reads documents, and changes one or several of them in one step."""

    def __init__(self, documents: ConditionalDocuments, clock: Clock) -> None:
        self.documents = documents
        self._clock = clock

    async def read(self, names: Sequence[str]) -> list[Found]:
        """Return the documents as they are, each by itself."""
        stored = await self._get(names)
        return [await self._judged(name, each) for name, each in zip(names, stored, strict=True)]

    async def take(self, names: Sequence[str]) -> list[Found]:
        """Return the documents to be changed: what other transactions left in them is tidied up first."""
        found = await self.read(names)
        attempt = 0
        while dirty := [place for place, each in enumerate(found) if not each.clean]:
            for place in dirty:
                found[place] = await self._settled(found[place].name, abort=attempt >= _PATIENCE)
            if any(not found[place].clean for place in dirty):
                await back_off(attempt)
                attempt += 1
        return found

    async def commit(self, changes: Sequence[Change]) -> bool:
        """Make all changes in one step; return False when a document is no longer what was taken, and nothing was changed.

        Raises `StoreUnavailableError` when the deadline of the step is over, or when it is unknown whether they were made.
        """
        check_deadline()
        transaction, due = token_urlsafe(16), _due()
        if len(changes) == 1:
            return await self._commit_alone(*changes[0], transaction, due)
        until = max(self._clock.now(), *(max(found.until, new.until if new else 0) for found, new in changes)) + _DECISION_MS
        committed = decides = False
        try:
            intended = await together(*(self._intend(found, document, transaction, due) for found, document in changes))
            if all(intended):
                check_deadline()
                decides = True
                committed = await self._put(f"t:{transaction}", _held(Decision(until, committed=True)), None)
        except StoreUnavailableError as error:
            if decides and not error.not_applied:
                raise
            await self._tidy(changes, transaction, committed=False)
            raise StoreUnavailableError(*error.args, not_applied=True, kind=error.kind) from error
        await self._tidy(changes, transaction, committed=committed)
        return committed

    async def _commit_alone(self, found: Found, document: Document | None, transaction: str, due: int) -> bool:
        """Change one document: first the intent, then the change, which fails if another process has removed the intent."""
        if document is None and found.version is None:
            return True
        try:
            if not await self._intend(found, document, transaction, due, alone=True):
                return False
            (stored,) = await self._get([found.name])
            check_deadline()
        except StoreUnavailableError as error:  # no other process makes the second write
            raise StoreUnavailableError(*error.args, not_applied=True, kind=error.kind) from error
        held = None if stored is None else decode(stored.value, Held)
        if stored is None or not isinstance(held, Held) or held.intent is None or held.intent.transaction != transaction:
            return False
        return await self._settle(found.name, held, held.intent, stored.version, committed=True)

    async def probe(self) -> str | None:
        """Write, read and remove a document; return what is wrong with an engine that does not keep the conditions."""
        name = f"c:ping-{token_urlsafe(12)}"

        async def put(version: object | None) -> bool:
            value = encode(_held(Document(0)))
            return await self._call(self.documents.put(name, value, version=version, seconds=_SLACK_SECONDS))

        created = await put(None)
        (first,) = await self._get([name])
        if not created or first is None:
            return "a written value was not read back unchanged"
        if await put(None):
            return "it overwrites a value that it should only create"
        if not await put(first.version) or await put(first.version):
            return "it does not compare versions when it writes"
        if await self._call(self.documents.delete(name, version=first.version)):
            return "it does not compare versions when it deletes"
        (last,) = await self._get([name])
        removed = last is not None and await self._call(self.documents.delete(name, version=last.version))
        return None if removed else "it does not delete"

    async def remove_if_over(self, name: str) -> int | None:
        """Remove a document that has ended and return None, or return when to read it again (Unix milliseconds)."""
        (stored,) = await self._get([name])
        now = self._clock.now()
        if stored is None:
            return now
        held = decode(stored.value, Held)
        due = read_again_at(_until(held) if isinstance(held, Held) else None, now)
        return now if due is None and not await self._delete(name, stored.version) else due

    async def _judged(self, name: str, stored: Versioned | None) -> Found:
        """Return the document after all decided transactions."""
        while stored is not None:
            held = decode(stored.value, Held)
            if not isinstance(held, Held):
                return Found(name, b"", FOREVER, stored.version)
            intent = held.intent
            if intent is None:
                return Found(name, held.value, held.until, stored.version)
            committed = await self._decision(intent, abort=time.time() * 1000 >= intent.due)
            if committed is False and intent.alone:
                await self._settle(name, held, intent, stored.version, committed=False)
                (stored,) = await self._get([name])
                continue
            if not committed:
                # The decision may have been made, carried out and removed since the document was read.
                (again,) = await self._get([name])
                if again is None or again.version != stored.version:
                    stored = again
                    continue
                return Found(name, held.value, held.until, stored.version, clean=False)
            return Found(name, intent.value, intent.until, stored.version, clean=False)
        return Found(name, None, 0, None)

    async def _settled(self, name: str, *, abort: bool) -> Found:
        """Replace an intent on which there is a decision by what that says; with `abort` decide it."""
        (stored,) = await self._get([name])
        held = None if stored is None else decode(stored.value, Held)
        if stored is not None and isinstance(held, Held) and held.intent is not None:
            committed = await self._decision(held.intent, abort=abort or time.time() * 1000 >= held.intent.due)
            if committed is not None:
                await self._settle(name, held, held.intent, stored.version, committed=committed)
            (stored,) = await self._get([name])
        return await self._judged(name, stored)

    async def _settle(self, name: str, held: Held, intent: Intent, version: object, *, committed: bool) -> bool:
        value, until = (intent.value, intent.until) if committed else (held.value, held.until)
        if value is None:
            return await self._delete(name, version)
        return await self._put(name, Held(until, nonce(), value), version)

    async def _decision(self, intent: Intent, *, abort: bool) -> bool | None:
        """Return whether a transaction was committed, None where it is not decided; with `abort` decide it where it is not."""
        if intent.alone:
            return False if abort else None
        name = f"t:{intent.transaction}"
        while True:
            (stored,) = await self._get([name])
            if stored is not None:
                held = decode(stored.value, Held)
                decision = decode(held.value, Decision) if isinstance(held, Held) else held
                if not isinstance(decision, Decision):
                    msg = "a decision of the session store cannot be read"
                    raise StoreUnavailableError(msg)
                return decision.committed
            if not abort:
                return None
            aborted = Decision(self._clock.now() + _DECISION_MS, committed=False)
            if await self._put(name, _held(aborted), None):
                return False

    async def _intend(self, found: Found, document: Document | None, transaction: str, due: int, *, alone: bool = False) -> bool:
        value = None if document is None else encode(document)
        intent = Intent(0 if document is None else document.until, transaction, due, value, alone)
        return await self._put(found.name, Held(found.until, nonce(), found.value, intent), found.version)

    async def _tidy(self, changes: Sequence[Change], transaction: str, *, committed: bool) -> None:
        """Replace the intents, and forget the decision when none is left. What is left undone is done by its next reader."""
        with suppress(StoreUnavailableError), Step(until=monotonic() + _TIDY_SECONDS):
            await self._replace_intents(changes, transaction, committed=committed)

    async def _replace_intents(self, changes: Sequence[Change], transaction: str, *, committed: bool) -> None:
        names = [found.name for found, _ in changes]
        *held, decision = await self._get([*names, f"t:{transaction}"])

        async def settle(name: str, stored: Versioned | None) -> bool:
            mine = None if stored is None else decode(stored.value, Held)
            if stored is None or not isinstance(mine, Held) or mine.intent is None or mine.intent.transaction != transaction:
                return True  # another process was first, or the intent never came to be
            return await self._settle(name, mine, mine.intent, stored.version, committed=committed)

        settled = await together(*(settle(name, stored) for name, stored in zip(names, held, strict=True)))
        if all(settled) and decision is not None:
            await self._delete(f"t:{transaction}", decision.version)

    async def _get(self, names: Sequence[str]) -> list[Versioned | None]:
        if not names:
            return []
        try:
            return await self._call(self.documents.get(names))
        except StoreUnavailableError:  # a kept connection that the engine had closed, perhaps
            return await self._call(self.documents.get(names))

    async def _put(self, name: str, held: Held, version: object | None) -> bool:
        seconds = max(math.ceil((_until(held) - self._clock.now()) / 1000), 0) + _SLACK_SECONDS
        raw = encode(held)

        async def put() -> bool:
            return await self._call(self.documents.put(name, raw, version=version, seconds=seconds))

        try:
            return await put()
        except StoreUnavailableError as error:
            if error.not_applied:
                raise
        with _perhaps_applied() as unknown:  # an answer was lost, a kept connection's perhaps
            (stored,) = await self._get([name])
            if (None if stored is None else stored.version) == version and await put():
                return True
            (stored,) = await self._get([name])
            if stored is not None and stored.value == raw:  # the bytes are those of this write alone
                return True
            raise unknown  # it was not made, or it was and another process has gone on from it

    async def _delete(self, name: str, version: object) -> bool:
        try:
            return await self._call(self.documents.delete(name, version=version))
        except StoreUnavailableError as error:
            if error.not_applied:
                raise
        with _perhaps_applied() as unknown:
            (stored,) = await self._get([name])
            if stored is None or (stored.version == version and await self._call(self.documents.delete(name, version=version))):
                return True
            raise unknown

    async def _call(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            check_deadline()
            async with asyncio.timeout(remaining(_CALL_SECONDS)):
                return await call
        except SessionCoreError:
            raise
        except TimeoutError:
            msg = "the session store did not answer in time"
            raise StoreUnavailableError(msg) from None
        except Exception as error:
            kind = type(error).__name__  # alone: a driver's message may quote values
            msg = f"the session store failed: {kind}"
            raise StoreUnavailableError(msg, kind=kind) from error
        finally:
            call.close()


def _due() -> int:
    """Return when readers may abort a transaction that begins now (Unix milliseconds).

    After half of its caller's time, so that a reader whose clock is behind by less than the other half aborts it in time.
    """
    return round((time.time() + remaining(_CALL_SECONDS) / 2) * 1000)


@contextmanager
def _perhaps_applied() -> Iterator[StoreUnavailableError]:
    """Whatever fails in here, a write before it may have been made. Gives the error that says so."""
    unknown = StoreUnavailableError("the session store's answer to a write was lost")
    try:
        yield unknown
    except StoreUnavailableError as error:
        raise unknown from (None if error is unknown else error)


def _held(document: Document) -> Held:
    return Held(document.until, nonce(), encode(document))


def _until(held: Held) -> int:
    """Return how long a document is good for, with what may become of it."""
    return max(held.until, held.intent.until if held.intent is not None else 0)
