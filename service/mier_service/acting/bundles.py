"""Use case: what a session acts with, as one signed file for a robot that acts by itself (`mier_proto.bundles`).

The serial of a bundle is the number of the newest entry in the session's record of promotions: it grows with whatever
changes what acts, so a robot tells a rollback, which is news, from an old bundle that somebody sends again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from mier_proto.bundles import ActsWith, Manifest, pack
from mier_service.acting.opening import open_version
from mier_service.acting.rules import EnforcedRules
from mier_service.data.files import ContentFiles
from mier_service.data.storage import Storage
from mier_service.errors import invalid
from mier_service.offload import BoundedPool
from mier_service.store import promotion_rows, session_rows
from mier_service.values import FallbackKind, SessionValue, VersionValue

MAX_TAG_CHARACTERS = 100
MAX_KNOWN_GRAPHS = 8
HASH_PATTERN = "[0-9a-f]{64}"
_RENEWED_FROM = 0.25
"""Of the maximum age: a bundle that is older is made anew, although the same acts, so that the next failures of the
network find it young."""


@dataclass(frozen=True)
class Packed:
    """One file."""

    data: bytes
    tag: str


@dataclass(frozen=True)
class Contents:
    """What a bundle is made of, as one moment of the store has it."""

    session: SessionValue
    acts: ActsWith
    base: ActsWith | None
    serial: int

    @staticmethod
    def read(c: Connection, session_id: str) -> Contents:
        """Refuses an unknown session."""
        session = session_rows.get_session(c, session_id)
        base = None
        if session.fallback is FallbackKind.BASE_POLICY:
            base = _acts_with(*session_rows.get_version(c, session_id, 1))
        return Contents(
            session,
            _acts_with(*session_rows.get_version(c, session_id, session.active_version)),
            base,
            promotion_rows.newest_serial(c, session_id),
        )

    def manifest(self, now_s: float, max_age_s: float | None) -> Manifest:
        session, environment = self.session, self.session.environment
        own, rules = session.action_limits, EnforcedRules.of(session)
        return Manifest(
            session_id=session.id,
            serial=self.serial,
            acts=self.acts,
            base=self.base,
            checkpoint_hash=session.checkpoint_hash,
            seed=session.seed,
            environment=environment.id,
            observation_names=tuple(environment.observation_names),
            action_names=tuple(environment.action_names),
            dt_s=environment.dt_s,
            action_low=tuple((own and own.low) or environment.action_low),
            action_high=tuple((own and own.high) or environment.action_high),
            action_max_change=tuple((own and own.max_change) or environment.action_max_change),
            limited=rules is not None and rules.is_tighter,
            fallback=session.fallback.value if session.fallback else "",
            create_time_unix_us=round(now_s * 1e6),
            max_age_s=max_age_s,
        )


class Bundles:
    """Packs and signs."""

    def __init__(self, storage: Storage, sign: Callable[[bytes], bytes], pool: BoundedPool, max_age_s: float) -> None:
        self._storage = storage
        self._sign = sign
        self._pool = pool
        self._max_age_s = max_age_s

    async def get(self, session_id: str, known_tag: str, known_graphs: Sequence[str]) -> Packed | None:
        """The bundle, without graphs that the caller has; None where the one that it has is what acts, and young."""
        if len(known_tag) > MAX_TAG_CHARACTERS:
            raise invalid("known_tag", f"known_tag: expected at most {MAX_TAG_CHARACTERS} characters")
        if len(known_graphs) > MAX_KNOWN_GRAPHS:
            text = f"known_graphs: expected at most {MAX_KNOWN_GRAPHS} names, got {len(known_graphs)}"
            raise invalid("known_graphs", text)
        for i, name in enumerate(known_graphs):
            if re.fullmatch(HASH_PATTERN, name) is None:
                text = f"known_graphs.{i}: expected a SHA-256, 64 lower-case hex digits, got {name[:80]!r}"
                raise invalid(f"known_graphs.{i}", text)
        return await self._pool.run(self._get, session_id, known_tag, frozenset(known_graphs))

    def _get(self, session_id: str, known_tag: str, known_graphs: frozenset[str]) -> Packed | None:
        with self._storage.store.read() as c:
            contents = Contents.read(c, session_id)
        manifest = contents.manifest(self._storage.clock(), self._max_age_s)
        if self._is_young(known_tag, manifest):
            return None
        return Packed(packed(manifest, self._storage.onnx, self._sign, known_graphs), manifest.tag)

    def _is_young(self, known_tag: str, now: Manifest) -> bool:
        serial, _, made = known_tag.partition("-")
        if serial != str(now.serial) or re.fullmatch("[0-9]{1,16}", made) is None:
            return False
        return 0 <= now.create_time_unix_us - int(made) < 1e6 * _RENEWED_FROM * self._max_age_s


def packed(
    manifest: Manifest,
    onnx: ContentFiles,
    sign: Callable[[bytes], bytes],
    left_out: frozenset[str] = frozenset(),
) -> bytes:
    """The file. Refuses (VERSION_UNUSABLE) where a graph's own file is damaged."""

    def graph(name: str) -> bytes:
        if name in left_out:
            return b""
        return open_version(manifest.session_id, manifest.acts.version, lambda: onnx.get(name))

    return pack(manifest.to_bytes(), sign, [graph(name) for name in manifest.graphs])


def _acts_with(version: VersionValue, onnx_hash: str) -> ActsWith:
    return ActsWith(version.number, version.weights_hash, onnx_hash, tuple(version.policy_context))
