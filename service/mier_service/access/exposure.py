"""Who can reach the service, and what it asks of callers for that: the rules of its bind.

    host       TLS                       --keys auto    without more it
    loopback   any                       off            starts
    public     none                      refused        starts with --keys required (and warns: keys travel readably)
    public     server's certificate      required       starts
    public     clients' certificates     off            starts: every caller has shown a certificate
    public     any                       off            starts with --insecure-public-bind: the network guards it

TLS alone hides what is said, not who says it; so `--keys off` with nothing but a server's certificate is refused, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from mier_service.config import CannotStart, ServeConfig, is_loopback

_TLS = "--tls-cert and --tls-key"


@dataclass(frozen=True)
class Exposure:
    """What follows from the settings."""

    keys_required: bool
    warnings: tuple[str, ...] = ()
    """For the operator's log."""


def exposure_of(config: ServeConfig) -> Exposure:
    """Refuses (`CannotStart`) settings under which strangers could call."""
    required = config.keys == "required"
    if is_loopback(config.host):
        return Exposure(required)
    tls, mutual = config.tls_cert is not None, config.tls_client_ca is not None
    if config.keys == "auto" and tls and not mutual and not config.insecure_public_bind:
        required = True
    if required and not tls:
        return Exposure(True, (f"keys travel readably over --host {config.host}: add {_TLS}",))
    if required or mutual or config.insecure_public_bind:
        return Exposure(required)
    if tls:
        raise CannotStart(
            f"--host {config.host} can be reached from other machines, and --keys off lets anyone call (TLS hides what "
            "is said, not who says it): leave --keys off out, or ask for clients' certificates with --tls-client-ca"
        )
    raise CannotStart(
        f"--host {config.host} can be reached from other machines, and callers are not asked for a key: use a loopback "
        f"address, or add {_TLS} (callers then need a key, which `mierctl keys create` makes, or a certificate with "
        "--tls-client-ca), or add --keys required; or --insecure-public-bind if the network itself keeps strangers out"
    )
