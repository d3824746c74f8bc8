"""Keys that were shown in a browser: a form takes the key once, a cookie with a random token stands for it afterwards.

Invariants
- A token means a key to this process alone: nothing about it is stored, a restart or a logout ends it, and no other
  service knows it. What it may do is asked of the gate at each use case, so it ends with its key, too.
- One key has at most `_OPEN_PER_KEY` logins, so that its holder cannot log out others.
- A form that changes something carries `form_token` of the login it was made for (or of none, where nobody is asked for
  a key): another site can send a form here, but cannot read one.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import NamedTuple

from mier_service.access.callers import current_caller
from mier_service.access.gate import Gate
from mier_service.errors import Reason, ServiceError

LASTS_S = 12 * 3600
_OPEN_PER_KEY = 16


class _Login(NamedTuple):
    key_id: str
    until_s: float


class Logins:
    """Belongs to the event loop."""

    def __init__(self, gate: Gate, clock: Callable[[], float]) -> None:
        """`clock`: seconds."""
        self._gate = gate
        self._clock = clock
        self._open: dict[str, _Login] = {}
        self._secret = secrets.token_bytes(32)

    @property
    def needed(self) -> bool:
        """Whether callers are asked for a key at all."""
        return self._gate.required

    def open(self, key: str) -> str:
        """The token for a key; refuses it as the gate does."""
        self._gate.enter([f"Bearer {key}"])
        now_s, key_id = self._clock(), current_caller()
        self._open = {token: login for token, login in self._open.items() if login.until_s > now_s}
        own = [token for token, login in self._open.items() if login.key_id == key_id]
        for oldest in own[: len(own) - _OPEN_PER_KEY + 1]:
            self.close(oldest)
        token = secrets.token_urlsafe(32)
        self._open[token] = _Login(key_id, now_s + LASTS_S)
        return token

    def close(self, token: str) -> None:
        """From here on it means nothing."""
        self._open.pop(token, None)

    def enter(self, token: str) -> None:
        """Lets the call under way in as the key that the token stands for; without one, as a call without a key."""
        login = self._open.get(token)
        if login is None or login.until_s <= self._clock():
            self._gate.enter([])
        else:
            self._gate.enter_as(login.key_id)

    def form_token(self, token: str) -> str:
        """What the forms of this login carry."""
        return hmac.digest(self._secret, token.encode(), "sha256").hex()

    def require_form_token(self, token: str, sent: str) -> None:
        """Refuses a form that was not made for this login."""
        if not hmac.compare_digest(self.form_token(token).encode(), sent.encode()):
            raise ServiceError(
                Reason.PERMISSION_DENIED,
                "expected a form of this page, got one of another login or from before the service started anew: "
                "reload the page and send it again",
            )
