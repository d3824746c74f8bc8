"""The gate: who is calling, and whether that caller may. Both transports pass through it, and nothing else decides.

    transport ── enter(Authorization) ──► 401, or the call goes on, bearing its key
    guarded use case ── require(scope, session) ──► 403, or the use case runs

Invariants
- The table is in memory, so no call waits for the disk; `look` (every `poll_every_s`) takes over what changed in the
  store. A key revoked there is refused from the next look on, one that expires from that moment on.
- Every use case asks again, so that a stream ends with its key: each message of it is a use case.
- A call that never came through `enter` has no key, and is refused.
- If the store cannot be read, the last table stays in force: robots go on acting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NoReturn

from mier_service.access.callers import set_caller
from mier_service.access.keys import ApiKey, Scope, id_of
from mier_service.errors import Reason, ServiceError
from mier_service.store import api_key_rows
from mier_service.store.store import Store
from mier_service.watching.calls import note

_REALM = 'Bearer realm="mier"'
_HOW = "send the header (in gRPC: the metadata) Authorization: Bearer KEY"

_calling: ContextVar[str | None] = ContextVar("mier_calling_key", default=None)
"""Id of the key that the call under way was let in with; each call has its own context, as for the request's id."""


@dataclass(frozen=True)
class Caller:
    """Who is calling, and what that caller may do."""

    key_id: str
    """Empty where nobody is asked for a key."""
    scope: Scope
    session_id: str | None
    """The only session that it sees and touches; None: all."""


_ANYBODY = Caller("", Scope.ADMIN, None)


class Gate:
    """Belongs to the event loop, but for `read`."""

    def __init__(self, store: Store, required: bool, clock: Callable[[], float]) -> None:
        self._store = store
        self._required = required
        self._clock = clock
        self._keys: dict[str, ApiKey] = {}
        self._revision = 0

    @property
    def required(self) -> bool:
        """Whether callers are asked for a key."""
        return self._required

    @property
    def has_keys(self) -> bool:
        """Whether anybody holds one that is good now."""
        return any(key.revoke_time_s is None and not key.expired(self._clock()) for key in self._keys.values())

    def read(self) -> tuple[int, list[ApiKey]] | None:
        """What the store holds; None if it is what the table holds. Runs in a thread."""
        with self._store.read() as c:
            revision = api_key_rows.revision(c)
            return None if revision == self._revision else (revision, api_key_rows.all_keys(c))

    def take(self, found: tuple[int, list[ApiKey]] | None) -> None:
        """Puts in force what `read` found."""
        if found is not None:
            self._revision, keys = found
            self._keys = {key.id: key for key in keys}

    def enter(self, authorization: Iterable[str]) -> None:
        """Lets the call in, given its Authorization values (one, of a good key), or refuses it as unauthenticated."""
        if not self._required:
            return
        values = list(authorization)
        if not values:
            _unauthenticated(f"expected a key, got none: {_HOW}", challenge=_REALM)
        scheme, _, text = values[0].partition(" ")
        text = text.strip()
        key_id = id_of(text) if scheme.lower() == "bearer" and len(values) == 1 else None
        if key_id is None:
            _unauthenticated(f"expected one key as `mierctl keys create` printed it, got something else: {_HOW}")
        key = self._keys.get(key_id, _NOBODY)
        if not key.matches(text):
            _unauthenticated("the key is unknown: use one that `mierctl keys create` made for this service")
        self._let_in(key)

    def enter_as(self, key_id: str) -> None:
        """Lets the call in with a key that was shown before, as long as it is good."""
        if self._required:
            self._let_in(self._keys.get(key_id, _NOBODY))

    def _let_in(self, key: ApiKey) -> None:
        self._require_good(key)
        _calling.set(key.id)
        set_caller(key.id)

    def caller(self) -> Caller:
        """Who makes the call under way; refuses it if its key has ended in the meantime."""
        if not self._required:
            return _ANYBODY
        key = self._keys.get(_calling.get() or "")
        if key is None:
            _unauthenticated(f"expected a key, got none: {_HOW}", challenge=_REALM)
        self._require_good(key)
        return Caller(key.id, key.scope, key.session_id)

    def require(self, scope: Scope, session_id: str | None = None) -> Caller:
        """The caller, who may do what needs this scope; with `session_id`, on that session; without, on whichever
        the use case then keeps to. Refuses others. Knows nothing of whether the session exists."""
        caller = self.caller()
        if not caller.scope.includes(scope):
            raise ServiceError(
                Reason.PERMISSION_DENIED,
                f"this call needs a key with scope {scope}, got one with scope {caller.scope}: ask the operator for "
                "another key",
                challenge=f'{_REALM}, error="insufficient_scope", scope="{scope}"',
            )
        if session_id is not None:
            note(session=session_id)
            if caller.session_id not in (None, session_id):
                raise not_its_session(caller)
        return caller

    def _require_good(self, key: ApiKey) -> None:
        if key.revoke_time_s is not None:
            _unauthenticated(f"the key {key.id} was revoked: ask the operator for another one")
        if key.expired(self._clock()):
            _unauthenticated(f"the key {key.id} has expired: ask the operator for another one")


_NOBODY = ApiKey("", "0" * 64, Scope.ACT, "", None, 0.0, None, None)
"""Compared with where no key has the id: an unknown id takes as long as a wrong secret."""


def not_its_session(caller: Caller) -> ServiceError:
    """The same whether the other session, or the operation, exists or not."""
    return ServiceError(
        Reason.PERMISSION_DENIED,
        f"this key is bound to session {caller.session_id}, and the call is about something else: use a key of that "
        "other session, or one that is not bound",
        challenge=f'{_REALM}, error="insufficient_scope"',
    )


def _unauthenticated(detail: str, challenge: str = f'{_REALM}, error="invalid_token"') -> NoReturn:
    raise ServiceError(Reason.UNAUTHENTICATED, detail, challenge=challenge)
