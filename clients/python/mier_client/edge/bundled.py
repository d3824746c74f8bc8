"""Acting by signed bundles: the newest good one, for as long as it is young enough, then what the session declared.

Invariants
- An action is by one version as a whole: `take` makes everything new beside what acts, and puts it in its place by one
  assignment; an act reads that place once.
- Nothing is waited for: no disk, no network, no lock.
- A bundle that cannot be taken changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mier_client.edge.bundles import BundleRefused, require_not_older
from mier_client.edge.graphs import Actor, Graph
from mier_client.edge.policy import Acts, ActsAtTheEdge
from mier_client.errors import MierError, Problem
from mier_client.values import Acted, Fallback, FallbackKind, FallbackReason, FloatArray
from mier_proto.action_limits import Limiter
from mier_proto.bundles import ActsWith, BundleError, BundleFault, Manifest, Unpacked

NOBODY = 0
"""The version of an action that no policy chose."""


class BundleTooOld(MierError):
    """There is no action: the bundle is too old, and the session declared no fallback."""


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A bundle, ready to act."""

    manifest: Manifest
    graphs: dict[str, Graph]
    acts: Acts
    base: Acts | None
    holder: Limiter
    """Keeps holds within the limits; policies that need none have none."""
    fallback: FallbackKind | None
    first_s: float
    """Seconds since the epoch between which it is young; an older clock than its own cannot tell its age."""
    last_s: float


class BundledPolicy(ActsAtTheEdge):
    """A session's policy by its bundles. One thread acts; any may `take`."""

    def __init__(
        self,
        bundle: Unpacked,
        *,
        explore: bool = False,
        episode: int = 0,
        max_age_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            bundle: what acts first; `BundleReader.read` gives it.
            explore: whether `act` explores, with the session's seed; `predict` goes by its own argument.
            episode: number of the first episode.
            max_age_s: the robot's own limit, where it is lower than the bundle's.
            clock: seconds since the epoch; a bundle's age is told by it.

        Raises:
            BundleRefused: nothing in it to act with.
        """
        super().__init__(episode, explore)
        self._max_age_s, self._clock = max_age_s, clock
        self._held = self._prepare(bundle, {})
        self.version = NOBODY
        """The version that chose the last action; 0: none did, it was held."""
        self.fallback: Fallback | None = None
        """What chose it in the place of a bundle that is too old."""
        self._last: FloatArray | None = None
        self._weights_hash = ""

    @property
    def manifest(self) -> Manifest:
        """Of the bundle that acts."""
        return self._held.manifest

    @property
    def age_s(self) -> float:
        """Of the bundle that acts, by the robot's clock."""
        return self._clock() - self._held.manifest.create_time_unix_us / 1e6

    @property
    def acted(self) -> Acted | None:
        """The last action, with what chose it."""
        if self._last is None:
            return None
        return Acted(self._last.copy(), self.version, self._weights_hash, None, self.fallback, self.limited)

    def take(self, bundle: Unpacked) -> None:
        """Acts with the bundle from the next action on. BundleRefused: it is older than what acts, or nothing to act
        with; then what acted goes on."""
        held = self._held
        require_not_older(bundle.manifest, held.manifest)
        self._held = self._prepare(bundle, held.graphs)

    def act_at(self, observation: npt.ArrayLike, episode: int, step: int, deterministic: bool) -> FloatArray:
        """The action at that step of that episode, without counting it.

        Raises:
            ValueError: as of `act`.
            BundleTooOld: see there.
        """
        held = self._held  # once: whatever is taken meanwhile, this action is by one version
        acts: Acts | None = held.acts
        fallback = None
        if not held.first_s <= self._clock() < held.last_s:
            acts, fallback = _instead(held)
        if acts is None:
            action = self._hold(held, episode, step)
            version, weights_hash = NOBODY, ""
        else:
            self.limited = False
            action = self._by(acts, observation, episode, step, deterministic)
            version, weights_hash = acts.version, acts.weights_hash
        self._last, self.version, self._weights_hash, self.fallback = action.copy(), version, weights_hash, fallback
        return action

    def _hold(self, held: _Held, episode: int, step: int) -> FloatArray:
        zero: FloatArray = np.zeros(held.acts.actor.action_dim, np.float32)
        last = self._last if held.fallback is FallbackKind.HOLD_LAST else None
        return self._within(zero if last is None else last, episode, step, held.holder)

    def _prepare(self, bundle: Unpacked, known: dict[str, Graph]) -> _Held:
        manifest = bundle.manifest
        try:
            return self._prepared(bundle, known)
        except Exception as error:  # ONNX Runtime has many of its own
            if isinstance(error, ImportError):
                raise
            detail = f"version {manifest.acts.version} cannot act here: {type(error).__name__}: {error}"
            raise BundleRefused.of(BundleError(BundleFault.UNUSABLE, detail)) from error

    def _prepared(self, bundle: Unpacked, known: dict[str, Graph]) -> _Held:
        manifest = bundle.manifest
        graphs = {name: known.get(name) or Graph(data) for name, data in bundle.graphs.items()}
        limiter = Limiter(manifest.action_low, manifest.action_high, manifest.action_max_change)
        fallback = FallbackKind(manifest.fallback) if manifest.fallback else None
        if fallback is FallbackKind.UNRECOGNIZED:
            raise ValueError(f"expected a fallback that is known here, got {manifest.fallback!r}")
        made = manifest.create_time_unix_us / 1e6
        ages = [age for age in (manifest.max_age_s, self._max_age_s) if age is not None]
        max_age_s = min(ages, default=float("inf"))

        def acts(with_: ActsWith) -> Acts:
            actor = Actor(graphs[with_.graph], with_.context)
            named = (len(manifest.observation_names), len(manifest.action_names))
            if (actor.observation_dim, actor.action_dim) != named:
                raise ValueError("the graph's sizes are not those of the environment")
            actor(np.zeros(actor.observation_dim, np.float32), None)  # the first run is the slow one
            return Acts(actor, limiter if manifest.limited else None, manifest.seed, with_.version, with_.weights_hash)

        base = None if manifest.base is None else acts(manifest.base)
        if fallback is FallbackKind.BASE_POLICY and base is None:
            raise ValueError("expected a base policy, which the session falls back to")
        return _Held(manifest, graphs, acts(manifest.acts), base, limiter, fallback, made - max_age_s, made + max_age_s)


def _instead(held: _Held) -> tuple[Acts | None, Fallback]:
    """What acts in the place of a bundle that is too old; None: an action is held."""
    if held.fallback is None:
        raise BundleTooOld(
            Problem(
                "BUNDLE_TOO_OLD",
                f"version {held.manifest.acts.version} is in a bundle that is older than it may be, or the clock is "
                "wrong, and the session declared no fallback: reach the service, or stop the robot",
            )
        )
    fallback = Fallback(held.fallback, FallbackReason.TOO_OLD)
    if held.fallback is FallbackKind.INCUMBENT:
        return held.acts, fallback
    return held.base if held.fallback is FallbackKind.BASE_POLICY else None, fallback
