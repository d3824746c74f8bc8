"""The commands of the docs: every fenced block of a page, with the mark that its readers see if it is not run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
LANGUAGES = {"sh", "python", ""}
"""What fences of a page may say. `sh` and `python` are run, in order; the empty one is for pictures and output."""
NOT_RUN = re.compile(r"\*Checked, not run by the tests: (.+)\*")
"""A line of its own before a block that cannot run, or not in the time of a test. Its syntax is checked."""
_FENCE = re.compile(r'( *)```(\w*)(?: title="([^"]+)")?')


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    """Of its first line of code, from 1."""
    language: str
    title: str | None
    """The name of the file that it is."""
    code: str
    not_run: str | None
    """Why."""


def pages() -> list[str]:
    """Every page that tells somebody what to do, by its path in the repository. Decisions have no commands."""
    docs = (page for page in (REPOSITORY / "docs").rglob("*.md") if "adr" not in page.parts)
    return ["README.md", "SECURITY.md", "CONTRIBUTING.md", *sorted(str(page.relative_to(REPOSITORY)) for page in docs)]


def blocks(page: str) -> list[Block]:
    """Those of a page, in order."""
    return list(_blocks(page, (REPOSITORY / page).read_text().splitlines()))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    before, number = "", 0
    while number < len(lines):
        opening = _FENCE.fullmatch(lines[number])
        if opening is None:
            before = lines[number].strip() or before
            number += 1
            continue
        indent, language, title = opening.groups()
        end = lines.index(f"{indent}```", number + 1)
        code = "\n".join(line.removeprefix(indent) for line in lines[number + 1 : end]) + "\n"
        marked = NOT_RUN.fullmatch(before)
        yield Block(page, number + 2, language, title, code, marked[1] if marked else None)
        before, number = "", end + 1
