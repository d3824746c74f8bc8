"""What is no HTTP at all is refused as a problem, too: the HTTP server would answer in plain words of its own."""

from __future__ import annotations

import uuid

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mier_service.errors import Reason, ServiceError
from mier_service.problems import MEDIA_TYPE, problem_json


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def send_400_response(self, msg: str) -> None:
        """Called where the request cannot be parsed; ends the connection."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            # Another reply of this connection is being sent: nothing can be put into it.
            self.transport.close()
            return
        request_id = uuid.uuid4().hex
        error = ServiceError(Reason.MALFORMED_REQUEST, "expected an HTTP request, got bytes that are none")
        body = problem_json(error, request_id).encode()
        head = (
            f"HTTP/1.1 {error.rule.http_status} Bad Request\r\n"
            f"content-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
