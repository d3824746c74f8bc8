"""Signed bundles as a robot takes them: nothing is believed before the signature holds (`mier_proto.bundles`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mier_client.errors import MierError, Problem
from mier_client.surface import MAX_BUNDLE_BYTES
from mier_proto.bundles import BundleError, BundleFault, Manifest, Unpacked, unpack

PUBLIC_KEY_BYTES = 32


class BundleRefused(MierError):
    """A bundle that is not acted with; `reason` says why (`mier_proto.bundles.BundleFault`). What acted goes on."""

    @classmethod
    def of(cls, error: BundleError) -> BundleRefused:
        return cls(Problem(error.fault.value, error.detail))


class BundleReader:
    """What a robot holds bundles against: the keys that it trusts, and its session."""

    def __init__(self, public_keys: str | Sequence[str], session_id: str, *, max_bytes: int = MAX_BUNDLE_BYTES) -> None:
        """
        Args:
            public_keys: what `mierctl bundles key` printed; several while the service's key is being changed.
            session_id: the only session whose bundles are taken.
            max_bytes: larger ones are refused.

        Raises:
            ImportError: the library that checks signatures is not installed.
            ValueError: a key is none.
        """
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError as error:
            raise ImportError("signed bundles need the extra `edge`: pip install 'mier[edge]'") from error
        self._invalid: type[Exception] = InvalidSignature
        given = [public_keys] if isinstance(public_keys, str) else public_keys
        self._keys = [Ed25519PublicKey.from_public_bytes(_raw(key)) for key in given]
        self.session_id, self.max_bytes = session_id, max_bytes

    def read(self, data: bytes, held: Callable[[str], bytes | None] = lambda _: None) -> Unpacked:
        """The bundle in a file; `held` gives a graph that it leaves out, by SHA-256.

        Raises:
            BundleRefused: too large, not whole, signed by nobody who is trusted, of another session.
        """
        try:
            if len(data) > self.max_bytes:
                raise BundleError(BundleFault.TOO_LARGE, f"expected at most {self.max_bytes} bytes, got {len(data)}")
            bundle = unpack(data, self._verified, held)
            if bundle.manifest.session_id != self.session_id:
                raise BundleError(
                    BundleFault.OTHER_SESSION,
                    f"expected a bundle of session {self.session_id}, got one of {bundle.manifest.session_id[:80]}",
                )
        except BundleError as error:
            raise BundleRefused.of(error) from error
        return bundle

    def _verified(self, signature: bytes, message: bytes) -> bool:
        for key in self._keys:
            try:
                key.verify(signature, message)
            except self._invalid:
                continue
            return True
        return False


def require_not_older(bundle: Manifest, held: Manifest) -> None:
    """Refuses what acted before; what an operator rolled back to is no such thing, its serial is higher."""
    same = bundle.serial == held.serial
    if bundle.serial < held.serial or (same and bundle.acts.version != held.acts.version):
        raise BundleRefused.of(
            BundleError(
                BundleFault.OLDER,
                f"expected serial {held.serial} or above, got {bundle.serial} (version {bundle.acts.version}): an old "
                "bundle was sent again, or the service was restored from a backup; then remove the robot's own copy",
            )
        )


def _raw(public_key: str) -> bytes:
    try:
        raw = bytes.fromhex(public_key)
    except ValueError:
        raw = b""
    if len(raw) != PUBLIC_KEY_BYTES:
        raise ValueError(f"expected a public key of 64 hex digits, as `mierctl bundles key` prints, got {public_key!r}")
    return raw
