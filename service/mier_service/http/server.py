"""The HTTP server and its port: uvicorn, with this service's signals, refusals and patience."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from mier_service.access.tls import Tls
from mier_service.config import ServeConfig
from mier_service.http.connections import Door, Place, Places
from mier_service.http.protocol import HttpProtocol, http_protocol
from mier_service.http.websocket import websocket_protocol
from mier_service.watching.metrics import Metrics

_BACKLOG = 2048
_LOOK_EVERY_S = 0.02
_PROBES = 3


class HttpServer(uvicorn.Server):
    """Serves on sockets that listen already. Signals are the whole service's business, not its own."""

    def __init__(self, app: ASGIApp, config: ServeConfig, tls: Tls | None, metrics: Metrics) -> None:
        secured: dict[str, Any] = tls.uvicorn() if tls else {}
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http=http_protocol(config.peer_within_s, functools.partial(metrics.let_go, "http")),
                lifespan="off",
                ws=websocket_protocol(config.peer_within_s, functools.partial(metrics.let_go, "openpi")),
                ws_max_size=config.max_body_bytes,
                ws_ping_interval=config.peer_within_s * 2 / 3,
                ws_ping_timeout=config.peer_within_s / 3,
                ws_per_message_deflate=False,  # a few bytes could become many
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=max(1, round(config.keep_idle_connections_s)),
                timeout_graceful_shutdown=max(1, round(config.drain_within_s)),
                **secured,
            )
        )
        self._places = Places(config.max_connections, metrics.connection_refused)
        metrics.connections(lambda: len(self._places), config.max_connections)
        self._tls_within_s = config.peer_within_s if tls else None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def calls_ended(self, until_s: float) -> None:
        """Waits for a moment without a call under way, but not beyond that time of the event loop. A WebSocket would be
        a call for as long as it is open: these are closed at once."""
        for connection in list(self.server_state.connections):
            if not isinstance(connection, HttpProtocol):
                connection.shutdown()
        while self.server_state.tasks and asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(_LOOK_EVERY_S)

    def end(self, within_s: float) -> None:
        """Takes no more connections; calls under way may end within that time."""
        self.config.timeout_graceful_shutdown = max(1, round(within_s))
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop, config = asyncio.get_running_loop(), self.config

        async def connect(connection: socket.socket, place: Place) -> None:
            def protocol() -> HttpProtocol:
                made: HttpProtocol = config.http_protocol_class(  # type: ignore[call-arg, assignment]
                    config=config, server_state=self.server_state, app_state=self.lifespan.state
                )
                made.place = place
                return made

            await loop.connect_accepted_socket(
                protocol,
                connection,
                ssl=config.ssl,
                # uvicorn leaves a peer a minute to begin TLS, and half of one to end it.
                ssl_handshake_timeout=self._tls_within_s,
                ssl_shutdown_timeout=self._tls_within_s,
            )

        self.servers = [Door(listener, self._places, connect) for listener in sockets or []]  # type: ignore[misc]
        self.started = True


def listen(host: str, port: int, peer_within_s: float) -> socket.socket:
    """Bound and listening; a connection whose peer is gone breaks within `peer_within_s`. OSError: it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _notice_silence(listener, peer_within_s)
    try:
        listener.bind((host, port))
        # From here on who connects waits to be accepted: "ready" may be said before the HTTP server has begun.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port} for HTTP: {error.strerror}") from error
    listener.set_inheritable(False)
    return listener


def _notice_silence(listener: socket.socket, within_s: float) -> None:
    """A peer that is gone without a word, with its machine or its network: the kernel asks for a sign of life. What is
    set here every connection inherits. Elsewhere than on Linux some of it has no name, and the kernel's own patience
    holds."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", max(1, round(within_s / 2))),
        ("TCP_KEEPINTVL", max(1, round(within_s / 2 / _PROBES))),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", round(1000 * within_s)),  # of what was sent and never confirmed
    ):
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
