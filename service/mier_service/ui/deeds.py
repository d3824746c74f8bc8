"""What a form of the page may do, each by the use case that the API calls, with a key of its own so that a form sent
twice counts once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from mier_service.access.guarded import GuardedCore
from mier_service.errors import Reason, ServiceError, invalid
from mier_service.store.idempotency_rows import MAX_KEY_CHARACTERS

Fields = Mapping[str, str]


class Deed(NamedTuple):
    """One kind of form."""

    do: Callable[[GuardedCore, str, Fields], Awaitable[object]]
    """Given the session's id."""
    done: str
    """What the page says afterwards."""


async def _promote(core: GuardedCore, session_id: str, fields: Fields) -> object:
    return await core.lineage.promote(session_id, _version(fields), _reason(fields), _once(fields))


async def _roll_back(core: GuardedCore, session_id: str, fields: Fields) -> object:
    return await core.lineage.roll_back(session_id, _reason(fields), _once(fields))


async def _pin(core: GuardedCore, session_id: str, fields: Fields) -> object:
    return await core.lineage.pin(session_id, _version(fields), _reason(fields), _once(fields))


async def _unpin(core: GuardedCore, session_id: str, fields: Fields) -> object:
    return await core.lineage.unpin(session_id, _reason(fields), _once(fields))


async def _pause(core: GuardedCore, session_id: str, fields: Fields) -> object:
    return await core.sessions.pause(session_id, _once(fields))


async def _resume(core: GuardedCore, session_id: str, fields: Fields) -> object:
    return await core.sessions.resume(session_id, _once(fields))


async def _cancel(core: GuardedCore, session_id: str, fields: Fields) -> object:
    operation = fields.get("operation", "")
    if (await core.learning.operation(operation)).session_id != session_id:
        raise invalid("operation", f"expected an operation of session {session_id}, got one of another")
    return await core.learning.cancel(operation, _once(fields))


DEEDS: dict[str, Deed] = {
    "promote": Deed(_promote, "Done: the version you chose acts."),
    "rollback": Deed(_roll_back, "Rolled back: what acted before acts again."),
    "pin": Deed(_pin, "Pinned: the version acts until you unpin it."),
    "unpin": Deed(_unpin, "Unpinned: what is published next may act."),
    "pause": Deed(_pause, "Paused: learning stands still, acting goes on."),
    "resume": Deed(_resume, "Resumed: learning goes on."),
    "cancel": Deed(_cancel, "The fine-tune was asked to stop."),
}


def deed_of(name: str) -> Deed:
    if name not in DEEDS:
        raise ServiceError(Reason.ROUTE_NOT_FOUND, f"expected one of {', '.join(DEEDS)}, got {name[:80]!r}")
    return DEEDS[name]


def _version(fields: Fields) -> int:
    text = fields.get("version", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise invalid("version", f"expected the number of a version, got {text[:80]!r}")
    return int(text)


def _reason(fields: Fields) -> str:
    return fields.get("reason", "").strip()


def _once(fields: Fields) -> str:
    key = fields.get("once", "")
    if len(key) > MAX_KEY_CHARACTERS:
        raise invalid("once", f"expected at most {MAX_KEY_CHARACTERS} characters, got {len(key)}")
    return key
