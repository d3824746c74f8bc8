"""Bearer keys as values: how one looks, what it may do, and what is kept of it.

A key is `mier_<id>_<secret>`. The id is public: lists and logs name the key by it. The secret is 256 random bits, so
its SHA-256 is all that needs to be kept: there is no dictionary to try, and a slow hash would cost every call.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum

_PREFIX = "mier"
_ID_BYTES = 6
_SECRET_BYTES = 32
_FORM = re.compile(rf"{_PREFIX}_([0-9a-f]{{{2 * _ID_BYTES}}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")


class Scope(StrEnum):
    """What a key may do; each includes those before it."""

    ACT = "act"
    """Act; read sessions and their versions."""
    ADAPT = "adapt"
    """Also open, pause and resume sessions, submit transitions, adapt, fine-tune, and all of operations."""
    ADMIN = "admin"
    """Everything: also delete sessions, and choose by hand which version acts."""

    def includes(self, other: Scope) -> bool:
        return _RANK[self] >= _RANK[other]


_RANK = {scope: rank for rank, scope in enumerate(Scope)}


@dataclass(frozen=True)
class ApiKey:
    """What is kept of a key: everything but its secret."""

    id: str
    secret_hash: str
    """SHA-256 of the whole key, 64 lower-case hex digits."""
    scope: Scope
    name: str
    """What the operator calls it; may be empty."""
    session_id: str | None
    """The only session that it sees and touches; None: all."""
    create_time_s: float
    expire_time_s: float | None
    revoke_time_s: float | None

    def expired(self, now_s: float) -> bool:
        return self.expire_time_s is not None and now_s >= self.expire_time_s

    def matches(self, text: str) -> bool:
        """Whether this is the key, in a time that does not depend on where they differ."""
        return hmac.compare_digest(self.secret_hash, hash_of(text))


def new_key() -> tuple[str, str]:
    """A key as its holder presents it, and its id."""
    key_id = secrets.token_hex(_ID_BYTES)
    return f"{_PREFIX}_{key_id}_{secrets.token_hex(_SECRET_BYTES)}", key_id


def id_of(text: str) -> str | None:
    """The id within a key; None if the text does not have the form of one."""
    found = _FORM.fullmatch(text)
    return found.group(1) if found else None


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
