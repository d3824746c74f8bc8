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
    return "" if position is None else base64.urlsafe_b64encode(str(position).encode()).decode()


def decode_token(token: str) -> int:
    if not token:
        return 0
    try:
        position = int(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, UnicodeEncodeError):
        position = -1
    if not 0 <= position < 2**62:
        raise invalid("page_token", "expected the next_page_token of an earlier page, or nothing")
    return position
