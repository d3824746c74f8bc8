"""Where the service may listen, and what it then asks of callers; and what it says when it refuses to start."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from mier_service.access.exposure import exposure_of
from mier_service.access.tls import load_tls
from mier_service.config import CannotStart, ServeConfig
from mier_service.http.server import listen

TLS = {"tls_cert": Path("server.pem"), "tls_key": Path("server.key")}
MUTUAL = {**TLS, "tls_client_ca": Path("ca.pem")}
NETWORK = {"insecure_public_bind": True}
REFUSED = "refused"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize("more", [{}, TLS, MUTUAL])
def test_on_loopback_keys_are_asked_for_if_wanted(host: str, more: dict[str, Any]) -> None:
    """Broken on purpose: the host not looked at; then nothing starts without flags."""
    for keys, required in (("auto", False), ("off", False), ("required", True)):
        assert exposure_of(_config(host=host, keys=keys, **more)).keys_required is required


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "robots.example"])
@pytest.mark.parametrize(
    ("keys", "more", "outcome"),
    [
        ("auto", {}, REFUSED),
        ("off", {}, REFUSED),
        ("required", {}, True),
        ("auto", TLS, True),
        ("off", TLS, REFUSED),
        ("required", TLS, True),
        ("auto", MUTUAL, False),
        ("off", MUTUAL, False),
        ("required", MUTUAL, True),
        ("auto", NETWORK, False),
        ("off", NETWORK, False),
        ("required", NETWORK, True),
        ("auto", {**TLS, **NETWORK}, False),
        ("off", {**TLS, **NETWORK}, False),
        ("required", {**TLS, **NETWORK}, True),
    ],
)
def test_in_public_nobody_calls_unknown(host: str, keys: str, more: dict[str, Any], outcome: bool | str) -> None:
    """Broken on purpose: a server's certificate alone taken for a reason to let everybody call."""
    config = _config(host=host, keys=keys, **more)
    if outcome == REFUSED:
        with pytest.raises(CannotStart) as told:
            exposure_of(config)
        assert host in str(told.value)
        assert "--tls-client-ca" in str(told.value)
    else:
        exposure = exposure_of(config)
        assert exposure.keys_required is outcome
        # A key that goes readably over a network is worth a warning.
        assert bool(exposure.warnings) is (bool(outcome) and "tls_cert" not in more)


def test_the_command_says_what_to_do(tmp_path: Path) -> None:
    """Broken on purpose: `Service` not asking `exposure_of`; it then starts, and the test waits in vain."""
    for flags, words in (
        (["--host", "0.0.0.0"], ("--tls-cert", "--keys required", "--insecure-public-bind")),
        (["--host", "0.0.0.0", "--tls-cert", "x.pem"], ("both --tls-cert and --tls-key",)),
    ):
        command = [sys.executable, "-m", "mier_service", "--data", str(tmp_path / "data"), *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        for word in words:
            assert word in done.stderr
    assert not (tmp_path / "data").exists()


def test_files_that_do_not_fit_are_told_before_anything_listens(tmp_path: Path) -> None:
    """Broken on purpose: files handed on unread; HTTP then fails in a task, and gRPC at each handshake."""
    ca = trustme.CA()
    one, two = ca.issue_cert("localhost"), ca.issue_cert("localhost")
    one.cert_chain_pems[0].write_to_path(tmp_path / "one.pem")
    one.private_key_pem.write_to_path(tmp_path / "one.key")
    two.private_key_pem.write_to_path(tmp_path / "two.key")
    (tmp_path / "empty.pem").write_text("")
    good = {"tls_cert": tmp_path / "one.pem", "tls_key": tmp_path / "one.key"}
    assert load_tls(_config(**good)) is not None
    assert load_tls(_config()) is None
    for changed, word in (
        ({"tls_key": tmp_path / "two.key"}, "two.key"),
        ({"tls_cert": tmp_path / "nowhere.pem"}, "No such file"),
        ({"tls_client_ca": tmp_path / "empty.pem"}, "empty.pem"),
        ({"tls_key": None}, "both --tls-cert and --tls-key"),
    ):
        with pytest.raises(CannotStart, match=word):
            load_tls(_config(**{**good, **changed}))


def test_an_encrypted_private_key_is_not_asked_for_on_the_terminal(tmp_path: Path) -> None:
    """Broken on purpose: `load_cert_chain` without a password; it waits for somebody to type one."""
    from cryptography.hazmat.primitives import serialization

    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    plain = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    secret = plain.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "server.key").write_bytes(secret)
    with pytest.raises(CannotStart, match="key is encrypted"):
        load_tls(_config(tls_cert=tmp_path / "server.pem", tls_key=tmp_path / "server.key"))


def test_the_http_port_takes_connections_before_ready_is_said() -> None:
    """Broken on purpose: bound only, as it was; who read "ready" and connected at once was refused now and then."""
    listener = listen("127.0.0.1", 0, 30.0)
    socket.create_connection(listener.getsockname(), timeout=5.0).close()
    listener.close()


def _config(**settings: Any) -> ServeConfig:
    return ServeConfig(**settings)
