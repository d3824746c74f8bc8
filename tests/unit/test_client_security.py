"""What the client shows and trusts, and what it refuses before it says anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mier_client import Client, Tls
from mier_client.security import authorization
from mier_mujoco.settings import Settings


def test_a_key_from_a_file_may_end_with_a_newline() -> None:
    """Broken on purpose: the key not stripped."""
    assert authorization(" mier_1_2\n") == "Bearer mier_1_2"


@pytest.mark.parametrize("key", ["", " ", "two words", "line\nbreak", "schlüssel"])
def test_what_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    """Broken on purpose: the key as it came in the message; no check at all."""
    with pytest.raises(ValueError, match="mierctl keys create") as told:
        authorization(key)
    assert not key.strip() or key not in str(told.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "grpc://127.0.0.1:1"])
def test_tls_for_a_plain_url_is_refused(url: str) -> None:
    """Broken on purpose: `tls` passed over; the key would then go readably."""
    with pytest.raises(ValueError, match="grpcs:// or https://"):
        Client.connect(url, tls=Tls())


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "grpcs://127.0.0.1:1"])
def test_files_that_cannot_be_used_are_told_at_once(url: str, tmp_path: Path) -> None:
    """Broken on purpose: gRPC's `grpc` without trying the files; it fails at the first call, as unreachable."""
    (tmp_path / "not.pem").write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    for tls in (Tls(tmp_path / "nowhere.pem"), Tls(tmp_path / "not.pem")):
        with pytest.raises(ValueError, match=r"\.pem"):
            Client.connect(url, tls=tls)


def test_a_certificate_needs_its_key() -> None:
    """Broken on purpose: no check; the certificate was passed over."""
    with pytest.raises(ValueError, match="private_key"):
        Tls(certificate="robot.pem")
    with pytest.raises(ValueError, match="--tls-key"):
        Settings(tls_cert=Path("robot.pem"))


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "grpc://127.0.0.1:50051"),
        ({"tls_ca": Path("ca.pem")}, "grpcs://127.0.0.1:50051"),
        ({"tls_ca": Path("ca.pem"), "transport": "http", "server": "robots:1"}, "https://robots:1"),
        ({"server": "https://robots:1"}, "https://robots:1"),
    ],
)
def test_an_evaluation_takes_tls_where_it_is_given_a_file_of_it(settings: dict[str, Any], url: str) -> None:
    """Broken on purpose: the scheme without its s."""
    assert Settings(**settings).url == url


def test_an_evaluation_reads_its_key_from_a_file(tmp_path: Path) -> None:
    """Broken on purpose: the error of a file that is not there let through, which ends in a traceback."""
    (tmp_path / "key").write_text("mier_1_2\n")
    assert Settings(api_key_file=tmp_path / "key").api_key() == "mier_1_2"
    assert Settings().api_key() is None
    with pytest.raises(ValueError, match="nowhere"):
        Settings(api_key_file=tmp_path / "nowhere").api_key()
