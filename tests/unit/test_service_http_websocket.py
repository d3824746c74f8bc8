"""A WebSocket whose peer reads nothing: what is unsent is dropped with the connection, in time."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from uvicorn.server import ServerState

from mier_service.http.websocket import websocket_protocol

WITHIN_S = 0.8
MUCH = 8 * 1024 * 1024
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def _answers_much(scope: object, receive: object, send: object) -> None:
    await receive()  # type: ignore[operator]
    await send({"type": "websocket.accept"})  # type: ignore[operator]
    await send({"type": "websocket.send", "bytes": bytes(MUCH)})  # type: ignore[operator]
    await receive()  # type: ignore[operator]


def test_who_reads_nothing_is_let_go() -> None:
    """Its kernel says that it lives, and has no room. Broken on purpose: without the look at what is unsent, the
    connection outlives its close, which waits until all is sent."""
    told: list[str] = []

    async def run() -> None:
        loop, lost = asyncio.get_running_loop(), asyncio.Event()
        config = uvicorn.Config(
            _answers_much, lifespan="off", log_config=None, ws_ping_interval=WITHIN_S * 2, ws_ping_timeout=WITHIN_S
        )
        config.load()
        made = websocket_protocol(WITHIN_S, told.append)
        near, far = socket.socketpair()
        with near:
            near.sendall(HANDSHAKE)
            _, protocol = await loop.connect_accepted_socket(lambda: made(config, ServerState(), {}), far)
            protocol.on_lost = lost.set
            async with asyncio.timeout(30.0):
                await lost.wait()

    asyncio.run(run())
    assert told == ["answer"]
