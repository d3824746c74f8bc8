"""A bare grpc.aio server: answers bytes with those bytes, one call at a time and in a stream."""

from __future__ import annotations

import asyncio
import sys

import grpc


class Echo(grpc.GenericRpcHandler):
    def service(self, handler_call_details):
        if handler_call_details.method.endswith("Stream"):
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


async def unary(request, rpc):
    return request


async def stream(requests, rpc):
    while (request := await rpc.read()) is not grpc.aio.EOF:
        await rpc.write(request)


async def serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("port", port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    if "uvloop" in sys.argv:
        import uvloop

        uvloop.run(serve())
    else:
        asyncio.run(serve())
