"""A service that asks for keys, as a browser meets it; and a browser without a window for what only HTTP is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from mier_client.http_transport import HttpTransport
from mier_client.transport import Transport
from mier_client.values import Session
from mier_service.access.keys import Scope
from tests.contract.helpers import ALL, CALL_S, batch, submit
from tests.contract.server import Server

_FIELD = re.compile(r'name="form_token" value="([0-9a-f]{64})"')


@dataclass(frozen=True)
class Site:
    """A good key of each scope."""

    server: Server
    keys: dict[Scope, str]

    @contextmanager
    def api(self) -> Iterator[HttpTransport]:
        """As a robot with every right has it."""
        transport = HttpTransport(self.server.http, None, self.keys[Scope.ADMIN])
        yield transport
        transport.close()

    @contextmanager
    def visitor(self, key: str | None = None) -> Iterator[httpx.Client]:
        """Keeps cookies, goes nowhere by itself; logged in if there is a key."""
        with httpx.Client(base_url=self.server.http, timeout=CALL_S, trust_env=False) as http:
            if key is not None:
                assert log_in(http, key).status_code == 303
            yield http


def log_in(http: httpx.Client, key: str, onward: str = "/ui") -> httpx.Response:
    return http.post("/ui/login", data={"key": key, "next": onward, "form_token": form_token(http, "/ui/login")})


def form_token(http: httpx.Client, path: str) -> str:
    """Of the forms of a page."""
    found = _FIELD.search(http.get(path).text)
    assert found, f"{path} has no form"
    return found.group(1)


def adapted(api: Transport, checkpoint: str) -> Session:
    """Two versions: the checkpoint's, and one with a context of its own, which acts."""
    session = api.create_session(checkpoint, 0, None, "", CALL_S)
    submit(api, session, batch(40))
    assert api.adapt(session.id, ALL, "", CALL_S).published
    return session
