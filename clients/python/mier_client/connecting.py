"""A service's URL as a client is given it: which transport, where, how secured."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from mier_client.security import KEY_VARIABLE, Tls


@dataclass(frozen=True)
class Address:
    """Where to call, and what to show."""

    grpc: bool
    target: str
    """`host:port` for gRPC, else the URL."""
    tls: Tls | None
    api_key: str | None


def address(url: str, api_key: str | None, tls: Tls | None) -> Address:
    """ValueError if it cannot be one. A key that is not given is the environment's MIER_API_KEY, if that is set."""
    parts = urlsplit(url)
    if parts.scheme not in ("grpc", "grpcs", "http", "https") or not parts.hostname:
        raise ValueError(
            f"expected the service's URL, such as grpc://127.0.0.1:50051 or http://127.0.0.1:8080, got {url!r}"
        )
    if tls is not None and parts.scheme not in ("grpcs", "https"):
        raise ValueError(f"tls needs a URL of grpcs:// or https://, got {url!r}")
    key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE) or None
    if parts.scheme in ("http", "https"):
        return Address(False, url, tls, key)
    if parts.port is None:
        raise ValueError(f"expected a port, such as grpc://{parts.hostname}:50051, got {url!r}")
    return Address(True, parts.netloc, (tls or Tls()) if parts.scheme == "grpcs" else None, key)
