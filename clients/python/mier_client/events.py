"""Server-sent events, line by line. Does no I/O, so that it serves a blocking reader and one that is not."""

from __future__ import annotations

import time

from mier_client.errors import DeadlineExceeded, Problem


class Events:
    """One stream of events, up to a deadline of `time.monotonic()`. Comments only show that the peer lives."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._name, self._data = "message", list[str]()

    def line(self, line: str) -> tuple[str, str] | None:
        """Name and data (its `data:` lines joined) of the event that this line ends, if it ends one."""
        if time.monotonic() >= self._deadline_s:
            raise DeadlineExceeded(Problem("DEADLINE_EXCEEDED", "the operation was not final in time"))
        key, _, value = line.partition(":")
        if key == "event":
            self._name = value.removeprefix(" ")
        elif key == "data":
            self._data.append(value.removeprefix(" "))
        elif not line:
            event = (self._name, "\n".join(self._data)) if self._data else None
            self._name, self._data = "message", []
            return event
        return None
