"""`python -m mier_service.probe`: whether the service of this machine is ready, as an exit status; for health checks.

It asks `/readyz` on loopback, at the port and by the scheme that the settings in the environment (`MIER_...`) say, and
needs no more than the standard library: it runs every few seconds beside the service. Status 0: ready; 1: not, or no
answer, with the reason. A service that asks clients for certificates (`MIER_TLS_CLIENT_CA`) does not answer it.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection

_WITHIN_S = 4.0


def ready(environment: Mapping[str, str]) -> tuple[bool, str]:
    """Whether it is, and what it answered or why there is no answer."""
    try:
        connection = _connection(environment)
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        return reply.status == 200, reply.read().decode(errors="replace")
    except (OSError, ValueError, HTTPException) as error:
        return False, f"no answer on loopback: {error}"


def _connection(environment: Mapping[str, str]) -> HTTPConnection:
    port = int(environment.get("MIER_HTTP_PORT") or "8080")
    if not environment.get("MIER_TLS_CERT"):
        return HTTPConnection("127.0.0.1", port, timeout=_WITHIN_S)
    # What is asked never leaves this machine, and the certificate is for another name.
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    return HTTPSConnection("127.0.0.1", port, timeout=_WITHIN_S, context=trusting)


if __name__ == "__main__":
    good, said = ready(os.environ)
    print(said)
    sys.exit(0 if good else 1)
