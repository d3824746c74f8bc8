"""Settings, read once: command line, then environment (`MIER_...`), then defaults."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_MIB = 1024 * 1024


STORE_URL_VARIABLE = "MIER_STORE_URL"
"""Where a worker finds the URL of the store, and `mierctl` by default."""


class CannotStart(Exception):
    """The settings or the machine do not allow it; the message is for the user."""


def _bundled_checkpoints() -> Path:
    """The folder that comes with the source, or one of that name where the service is started."""
    bundled = Path(__file__).parents[2] / "checkpoints"
    return bundled if bundled.is_dir() else Path("checkpoints")


class ServeConfig(BaseSettings):
    """Serves adaptation sessions over HTTP and gRPC."""

    model_config = SettingsConfigDict(
        env_prefix="MIER_",
        frozen=True,
        cli_prog_name="mier-serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    checkpoints: Path = Field(default_factory=_bundled_checkpoints, description="folder of checkpoints to serve")
    data: Path = Field(
        default=Path("mier-data"),
        description="folder of everything durable; one service at a time, unless --store-url is given",
    )
    store_url: SecretStr | None = Field(
        default=None,
        description="postgresql://USER@HOST/DATABASE instead of the SQLite file in --data, which then keeps the files "
        "only; give a URL with a password as MIER_STORE_URL",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on, for HTTP and gRPC")
    http_port: int = Field(default=8080, ge=0, le=65535, description="0: any free one")
    grpc_port: int = Field(default=50051, ge=0, le=65535, description="0: any free one")
    address_file: Path | None = Field(
        default=None, description="JSON file to write the actual addresses to, once ready"
    )
    keys: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="whether callers need a key (see mierctl keys); auto: where strangers can reach the service",
    )
    tls_cert: Path | None = Field(default=None, description="PEM certificate (chain) of the service; with --tls-key")
    tls_key: Path | None = Field(default=None, description="PEM private key of that certificate, unencrypted")
    tls_client_ca: Path | None = Field(
        default=None, description="PEM authority of clients' certificates; if given, every client must show one"
    )
    insecure_public_bind: bool = Field(
        default=False,
        description="allow a host that is not loopback although strangers could call: the network keeps them out",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    trace_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="OpenTelemetry collector to send traces to, OTLP over gRPC, as http://127.0.0.1:4317; extra otel",
    )
    trace_ratio: float = Field(
        default=0.01, ge=0, le=1, description="share of requests traced that bring no traceparent of their own"
    )
    check_every_s: float = Field(
        default=5.0, gt=0, description="time between two looks at whether the store can be written"
    )
    grpc_reflection: bool = Field(default=False, description="let gRPC clients list the calls")

    keep_idle_sessions_s: float | None = Field(
        default=None,
        gt=0,
        description="sessions that nobody used for so long, in seconds, are deleted with all that is theirs; "
        "off unless given",
    )
    sweep_every_s: float = Field(default=60.0, gt=0, description="time between two looks for what is kept no longer")

    finetune_workers: int = Field(default=1, ge=0, le=64, description="processes that fine-tune; 0: they only queue")
    finetune_save_every_s: float = Field(default=10.0, gt=0, description="time between two resume saves, in seconds")
    finetune_lease_s: float = Field(default=15.0, gt=0, description="a worker silent for so long counts as dead")
    gate: bool = Field(
        default=True,
        description="judge fine-tuned policies before they act, where the checkpoint is calibrated; off: each acts",
    )
    automatic_rollback: bool = Field(
        default=True,
        description="roll a fine-tuned version back whose returns, as robots report them, fell beyond chance; off: "
        "only learning and people change what acts",
    )
    finetune_turn_s: float = Field(
        default=60.0, gt=0, description="a fine-tune that others wait for gives way after so long, in seconds"
    )
    max_queued_operations: int = Field(default=256, ge=1, description="fine-tunes that run or wait, at most")

    max_calls_per_key: int = Field(
        default=128,
        ge=1,
        description="calls, streams, openpi connections of one key under way, together, at most",
    )
    max_sessions_per_key: int = Field(
        default=20_000, ge=1, description="sessions that one key opened and that are not deleted, at most"
    )
    max_finetunes_per_key: int = Field(
        default=64, ge=1, description="fine-tunes that one key asked for and that run or wait, at most"
    )
    max_stored_bytes_per_key: int = Field(
        default=16 * 1024 * _MIB, ge=1, description="bytes that one key's calls have stored, at most"
    )

    max_body_bytes: int = Field(default=16 * _MIB, ge=1024, description="largest request, HTTP and gRPC")
    max_batch_steps: int = Field(default=50_000, ge=1, description="transitions in one submitted batch, at most")
    max_act_batch: int = Field(default=1024, ge=1, le=1024, description="acts in one batch, at most")
    max_http_requests: int = Field(default=256, ge=1, description="HTTP requests under way, at most")
    max_openpi_connections: int = Field(default=256, ge=1, description="robots connected by WebSocket, at most")
    max_grpc_calls: int = Field(default=512, ge=1, description="gRPC calls and streams under way, at most")
    max_watchers: int = Field(default=256, ge=1, description="operations being watched, at most")
    peer_within_s: float = Field(
        default=30.0,
        ge=1,
        description="time a peer has to send a whole request, to take an answer and to show that it lives; then it is "
        "let go",
    )
    keep_idle_connections_s: float = Field(
        default=300.0, gt=0, description="connections and streams on which nothing happens for so long are ended"
    )
    max_active_sessions: int = Field(
        default=4096, ge=1, description="sessions kept ready to act; others are read again"
    )
    max_policies: int = Field(default=256, ge=1, description="policies kept loaded; others are read again")
    store_threads: int = Field(default=4, ge=1, le=64, description="threads for the store")
    store_queue: int = Field(default=256, ge=1, description="calls that may wait for the store")
    adapt_queue: int = Field(default=64, ge=1, description="adaptations that may wait")
    poll_every_s: float = Field(default=0.1, gt=0, description="time between two looks at what workers did, in seconds")
    follow_every_s: float = Field(
        default=0.5,
        gt=0,
        description="with --store-url: time between two looks at what other services did to sessions that act here",
    )
    drain_within_s: float = Field(default=10.0, gt=0, description="time that calls under way are given at the end")


class WorkerConfig(BaseModel):
    """What a worker process is told."""

    model_config = ConfigDict(frozen=True)

    data: Path
    checkpoints: Path
    save_every_s: float
    lease_s: float
    turn_s: float = 60.0
    gate: bool = True
    log_level: str = "INFO"
    trace_endpoint: str | None = None
    trace_ratio: float = 0.0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_host(host: str) -> str:
    """As it stands in a URL."""
    return f"[{host}]" if ":" in host else host
