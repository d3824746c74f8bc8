"""A proxy whose connections can be cut, as a network does it."""

from __future__ import annotations

import asyncio
from typing import Self


class CuttingProxy:
    """Passes everything on to the target, until `cut`; who connects again is passed on again."""

    def __init__(self, target: str) -> None:
        """`target` is `host:port`, with or without `http://`."""
        host, _, port = target.removeprefix("http://").rpartition(":")
        self._target = (host, int(port))
        self._scheme = "http" if target.startswith("http://") else "grpc"
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Breaks every connection that there is now."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        back_reader, back_writer = await asyncio.open_connection(*self._target)
        ends = {writer, back_writer}
        self._writers |= ends
        try:
            await asyncio.gather(_pass_on(reader, back_writer), _pass_on(back_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.transport.abort()
