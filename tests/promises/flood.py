"""Asks for acts without end, over as many connections (HTTP) or calls (gRPC) at once as it is told, and tries again at
once what is refused: `python -m tests.promises.flood KIND ADDRESS KEY SESSION AT_ONCE`.

Each line on its standard input begins a flood, or ends the one that is under way. It prints a line once a flood has got
an answer, and at its end one that says how many calls were answered and how many refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import grpc
import uvloop

from mier_proto.convert import encode
from mier_proto.v1 import adaptation_pb2 as pb
from mier_proto.v1 import adaptation_pb2_grpc as pb_grpc
from tests.contract.helpers import OBSERVATION

Ask = Callable[[], Awaitable[bool]]
"""One call; whether it was answered, and not refused."""
Connected = Callable[[], AbstractAsyncContextManager[Ask]]


async def main(kind: str, address: str, key: str, session: str, at_once: int) -> None:
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    connected = (_http if kind == "http" else _grpc)(address, key, session)
    while await commands.readline():
        told: Counter[bool] = Counter()
        begun = asyncio.Event()
        async with AsyncExitStack() as connections:
            flood = [asyncio.create_task(_repeat(connected, connections, told, begun)) for _ in range(at_once)]
            await begun.wait()
            print(flush=True)
            await commands.readline()
            for task in flood:
                task.cancel()
            await asyncio.gather(*flood, return_exceptions=True)
        print(told[True], told[False], flush=True)


async def _repeat(connected: Connected, connections: AsyncExitStack, told: Counter[bool], begun: asyncio.Event) -> None:
    ask = await connections.enter_async_context(connected())
    while True:
        told[await ask()] += 1
        begun.set()


def _http(address: str, key: str, session: str) -> Connected:
    body = json.dumps({"session_id": session, "observation": OBSERVATION.tolist(), "deterministic": True})
    request = (
        f"POST /act HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    host, port = address.removeprefix("http://").split(":")

    @asynccontextmanager
    async def connected() -> AsyncIterator[Ask]:
        reader, writer = await asyncio.open_connection(host, int(port))

        async def ask() -> bool:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            return head.startswith(b"HTTP/1.1 200")

        try:
            yield ask
        finally:
            writer.close()

    return connected


def _grpc(address: str, key: str, session: str) -> Connected:
    stub = pb_grpc.AdaptationServiceStub(grpc.aio.insecure_channel(address))
    message = pb.ActRequest(session_id=session, observation=encode(OBSERVATION), deterministic=True)
    metadata = (("authorization", f"Bearer {key}"),)

    async def ask() -> bool:
        with contextlib.suppress(grpc.RpcError):
            await stub.Act(message, metadata=metadata)
            return True
        return False

    @asynccontextmanager
    async def connected() -> AsyncIterator[Ask]:
        yield ask  # all over one connection

    return connected


if __name__ == "__main__":
    kind, address, key, session, at_once = sys.argv[1:]
    uvloop.run(main(kind, address, key, session, int(at_once)))
