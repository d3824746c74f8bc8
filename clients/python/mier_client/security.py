"""What a client shows and trusts: its key, and certificates."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

KEY_VARIABLE = "MIER_API_KEY"


@dataclass(frozen=True)
class Tls:
    """For `https://` and `grpcs://`. PEM files; without any, the authorities that are trusted anyway."""

    ca: PathLike[str] | str | None = None
    """The authority that the service's certificate comes from."""
    certificate: PathLike[str] | str | None = None
    """The client's own certificate, if the service asks for one (mutual TLS); with `private_key`."""
    private_key: PathLike[str] | str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("expected certificate and private_key, or neither of them, got one alone")

    def http(self) -> ssl.SSLContext:
        """ValueError if a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None and self.private_key is not None:
                context.load_cert_chain(self.certificate, self.private_key)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"expected PEM files that fit together, got {self} ({error.strerror or error})") from error
        return context

    def grpc(self) -> grpc.ChannelCredentials:
        """The same; gRPC itself would only say, at the first call, that the service cannot be reached."""
        self.http()
        files = (self.ca, self.private_key, self.certificate)
        return grpc.ssl_channel_credentials(*(None if path is None else Path(path).read_bytes() for path in files))


def authorization(api_key: str) -> str:
    """The value of `Authorization`. ValueError, without showing the key, if no header can carry it."""
    key = api_key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("expected api_key as `mierctl keys create` printed it, got something that is no key")
    return f"Bearer {key}"


class KeyedChannel:
    """A gRPC channel, each of whose calls carries the key. It covers the four kinds of calls that stubs are made of,
    so that no call can forget it; and unlike an interceptor it costs a call next to nothing."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel, value: str) -> None:
        self._channel: Any = channel
        self._metadata = (("authorization", value),)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return partial(self._channel.unary_unary(*args, **kwargs), metadata=self._metadata)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return partial(self._channel.unary_stream(*args, **kwargs), metadata=self._metadata)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return partial(self._channel.stream_unary(*args, **kwargs), metadata=self._metadata)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return partial(self._channel.stream_stream(*args, **kwargs), metadata=self._metadata)
