"""Keys for tests, put into the store of a data folder as `mierctl` does it."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from mier_service.access.keys import ApiKey, Scope, hash_of, id_of, new_key
from mier_service.store import api_key_rows
from mier_service.store.store import Store
from mier_service.store.url import open_store

KNOWN_WITHIN_S = 20.0


def make_key(
    data: Path, scope: Scope, *, session: str | None = None, expire_time_s: float | None = None, revoked: bool = False
) -> str:
    """The key as its holder presents it."""
    text, key_id = new_key()
    key = ApiKey(
        key_id, hash_of(text), scope, "", session, time.time(), expire_time_s, time.time() if revoked else None
    )
    store = _store(data)
    with store.write() as c:
        api_key_rows.add(c, key)
    store.close()
    return text


def revoke(data: Path, key: str) -> None:
    store = _store(data)
    with store.write() as c:
        api_key_rows.revoke(c, id_of(key) or "", time.time())
    store.close()


def wait_until(url: str, key: str, *, good: bool) -> None:
    """Until the running service takes the key, or does not take it any more."""
    deadline = time.monotonic() + KNOWN_WITHIN_S
    with httpx.Client(base_url=url, trust_env=False, headers=bearer(key)) as http:
        while (http.get("/sessions", params={"page_size": 1}).status_code != 401) is not good:
            assert time.monotonic() < deadline, f"the service did not notice within {KNOWN_WITHIN_S} s"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def migrate(data: Path) -> None:
    """A data folder with its tables, as the first start of a service would leave it."""
    data.mkdir(parents=True, exist_ok=True)
    store = _store(data)
    store.migrate()
    store.close()


def _store(data: Path) -> Store:
    return open_store(data, None, connections=1)
