"""A bare ASGI application on uvicorn, on its fastest loop and parser: answers a body with that body."""

from __future__ import annotations

import socket

import uvicorn


async def app(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print("port", listener.getsockname()[1], flush=True)
    settings = {"lifespan": "off", "access_log": False, "log_level": "warning", "timeout_keep_alive": 600}
    config = uvicorn.Config(app, loop="uvloop", http="httptools", **settings)
    uvicorn.Server(config).run([listener])
