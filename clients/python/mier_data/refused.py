"""What a command cannot do."""

from __future__ import annotations


class Refused(Exception):
    """The message says what was expected, what came, what to do."""
