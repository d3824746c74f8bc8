"""Cursor pages: how large, and from where."""

from __future__ import annotations

import base64
import binascii

from mier_service.errors import invalid

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


def require_page_size(page_size: int) -> int:
    """0 means the default."""
    if not 0 <= page_size <= MAX_PAGE_SIZE:
        raise invalid("page_size", f"expected 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}, got {page_size}")
    return page_size or DEFAULT_PAGE_SIZE


def encode_token(position: int | None) -> str:
    """Opaque, so that its content can change."""
    return "" if position is None else _encode(position)


def decode_token(token: str) -> int:
    return _decode(token, 1)[0]


def encode_place(place: tuple[int, int] | None) -> str:
    """Of a list whose entries are parts of rows: the row, and how much of it came already."""
    return "" if place is None else _encode(*place)


def decode_place(token: str) -> tuple[int, int]:
    row, skip = _decode(token, 2)
    return row, skip


def _encode(*numbers: int) -> str:
    return base64.urlsafe_b64encode(".".join(map(str, numbers)).encode()).decode()


def _decode(token: str, count: int) -> list[int]:
    if not token:
        return [0] * count
    try:
        numbers = [int(part) for part in base64.b64decode(token.encode(), altchars=b"-_", validate=True).split(b".")]
    except (ValueError, binascii.Error, UnicodeEncodeError):
        numbers = []
    if len(numbers) != count or not all(0 <= number < 2**62 for number in numbers):
        raise invalid("page_token", "expected the next_page_token of an earlier page of the same list, or nothing")
    return numbers
