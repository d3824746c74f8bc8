"""The key that signs bundles: an Ed25519 private key, unencrypted PEM, in the data folder unless another is given.

It is made once, at the first start or by `mierctl bundles key`, whichever comes first: robots trust its public half.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from mier_service.config import CannotStart
from mier_service.data.files import make_folder, sync_folder

KEY_FILE = "bundle-key.pem"


def load_bundle_key(data: Path, given: Path | None) -> Ed25519PrivateKey:
    """The key in the file that was given, or the data folder's own, made if it is not there. `CannotStart` if it is no
    such key."""
    path = given or data / KEY_FILE
    try:
        if given is None and not path.exists():
            _make(path)
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, TypeError, ValueError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise _refusal(path, str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _refusal(path, f"it is a {type(key).__name__}")
    return key


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half as robots are given it: 64 lower-case hex digits."""
    return key.public_key().public_bytes_raw().hex()


def _make(path: Path) -> None:
    """Durably, and readable by its owner alone; where two services start at once, one makes it and both use that."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    make_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _refusal(path: Path, cause: str) -> CannotStart:
    return CannotStart(
        f"the key that signs bundles cannot be read from {path}: expected an Ed25519 private key as unencrypted PEM, "
        f"such as `openssl genpkey -algorithm ed25519` makes ({cause})"
    )
