"""What a store holds, read beside the service that uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from mier_service.store.url import open_store


@contextmanager
def reading(data: Path, store_url: str | None) -> Iterator[Connection]:
    """One moment of it."""
    store = open_store(data, store_url, connections=1)
    try:
        with store.read() as c:
            yield c
    finally:
        store.close()


def found_rows(c: Connection, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Of a query with a question mark for each value."""
    number = count()
    named = re.sub(r"\?", lambda _: f":v{next(number)}", query)
    found = c.execute(text(named), {f"v{i}": value for i, value in enumerate(values)})
    return [tuple(row) for row in found]
