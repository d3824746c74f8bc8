"""TLS of both transports, from one certificate and key, and for mutual TLS the authority that clients' come from.

Files are read and tried once, at the start: a renewed certificate is taken up by a restart.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from mier_service.config import CannotStart, ServeConfig


@dataclass(frozen=True)
class Tls:
    """PEM files that fit together."""

    certificate: Path
    """The server's, and after it those of the authorities between it and the root."""
    private_key: Path
    client_ca: Path | None
    """Clients must show a certificate of this authority; None: they need none."""

    def uvicorn(self) -> dict[str, Any]:
        """Settings of uvicorn."""
        return {
            "ssl_certfile": str(self.certificate),
            "ssl_keyfile": str(self.private_key),
            "ssl_ca_certs": str(self.client_ca) if self.client_ca else None,
            "ssl_cert_reqs": ssl.CERT_REQUIRED if self.client_ca else ssl.CERT_NONE,
        }

    def grpc(self) -> grpc.ServerCredentials:
        pair = (self.private_key.read_bytes(), self.certificate.read_bytes())
        root = self.client_ca.read_bytes() if self.client_ca else None
        return grpc.ssl_server_credentials([pair], root, require_client_auth=root is not None)


def load_tls(config: ServeConfig) -> Tls | None:
    """None: no TLS is asked for. Refuses (`CannotStart`) settings and files that do not work."""
    certificate, private_key, client_ca = config.tls_cert, config.tls_key, config.tls_client_ca
    if certificate is None and private_key is None and client_ca is None:
        return None
    if certificate is None or private_key is None:
        given = [f"--{name}" for name, value in _named(config).items() if value is not None]
        raise CannotStart(
            "TLS needs both --tls-cert and --tls-key (and for clients' certificates --tls-client-ca as well), "
            f"got {', '.join(given)}"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, private_key, password=_refuse_password)
    except OSError as error:  # ssl.SSLError is one
        raise CannotStart(
            f"--tls-cert {certificate} and --tls-key {private_key} cannot be used: expected a PEM certificate and its "
            f"own private key, unencrypted ({_cause(error)})"
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise CannotStart(
                f"--tls-client-ca {client_ca} cannot be used: expected the PEM certificate of the authority that "
                f"clients' certificates come from ({_cause(error)})"
            ) from error
    return Tls(certificate, private_key, client_ca)


def _named(config: ServeConfig) -> dict[str, Path | None]:
    return {"tls-cert": config.tls_cert, "tls-key": config.tls_key, "tls-client-ca": config.tls_client_ca}


def _refuse_password() -> str:
    """An encrypted key would otherwise be asked for on the terminal, and a service has none."""
    raise ssl.SSLError("the private key is encrypted")


def _cause(error: OSError) -> str:
    return error.strerror or str(error)
