"""How every subcommand speaks: results on standard output, words about them on standard error."""

from __future__ import annotations

import sys


class Refused(Exception):
    """The command cannot be done; the message says what was expected, what came, what to do."""


def note(text: str) -> None:
    """A word to the operator."""
    print(text, file=sys.stderr)
