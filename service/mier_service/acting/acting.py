"""What each session acts with, and an action by it: an observation in, an action and the version that chose it out.
No gradient, no disk, no lock.

What a call gets in the end, within its budget and its session's limits, is `acting/timely.py`.

Invariants
- `_active` belongs to the event loop. A version swap is one assignment of an immutable `Active`, so an act sees the
  old version or the new one, whole.
- Everything that enters `_active` comes from `refresh`, which reads the store after the change it was called for.
- A session acts for as long as one of its versions can be read: while the active one cannot, what acted last goes on,
  or the nearest of its parents that is whole. Each answer names its version. `catch_up` tries again.
- Exploration noise is a function of (seed of the session, episode, step): a retry repeats the action.
- Sessions that declared something of acting have a standby, which outlives their place in the table.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import structlog

from mier import exploration
from mier_proto import convert
from mier_service.acting.budget import Budget
from mier_service.acting.in_shadow import InShadow
from mier_service.acting.policies import Policy, PolicyCache
from mier_service.acting.ready_sessions import Active, ReadySessions
from mier_service.acting.rules import EnforcedRules
from mier_service.acting.standby import NEEDS_BASE, Standby, Standbys
from mier_service.data.files import ContentFiles, DamagedFile
from mier_service.errors import Reason, ServiceError, Violation, invalid
from mier_service.offload import BoundedPool
from mier_service.store import session_rows, shadow_rows
from mier_service.store.session_rows import Acts
from mier_service.store.store import Store, storage_unavailable
from mier_service.values import MAX_INDEX, ActionLimitsValue, FallbackValue, SessionValue, VersionValue

FloatArray = npt.NDArray[np.float32]

_MAX_CATCH_UPS = 20
MAY_PASS = (Reason.STORAGE_UNAVAILABLE, Reason.VERSION_UNUSABLE, Reason.OVERLOADED, Reason.TOO_MANY_CALLS)
"""Why a load may fail though the session is there."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ActCall:
    """One question."""

    session_id: str
    observation: FloatArray
    """[observation_dim] or [1, observation_dim]"""
    deterministic: bool
    episode: int | None = None
    step: int | None = None
    budget: Budget | None = None
    """The time there is; None: as long as it takes."""
    observed_at_unix_us: int | None = None
    previous_action: FloatArray | None = None
    """[action_dim] or [1, action_dim], what was done in the step before, environment units; None: not said."""


@dataclass(frozen=True)
class Action:
    """One answer."""

    action: FloatArray
    """[action_dim], environment units"""
    policy_version: int
    """0: no policy chose it, an action is held."""
    weights_hash: str
    ood_percentile: float | None = None
    """The newest model context's."""
    fallback: FallbackValue | None = None
    """What answered in the place of the active version, and why."""
    limited: bool = False
    """Whether the session's limits changed what was chosen."""


@dataclass
class _Flight:
    """A load that is under way; stale once another change came in the meantime."""

    done: asyncio.Future[Active]
    stale: bool = False


class Acting:
    """The sessions' active versions, and acting with them."""

    def __init__(
        self,
        store: Store,
        onnx_files: ContentFiles,
        ready: ReadySessions,
        pool: BoundedPool,
        standbys: int = 65_536,
    ) -> None:
        self._store = store
        self._onnx_files = onnx_files
        self._policies = PolicyCache()
        self._pool = pool
        self._active = ready
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._acted: set[str] = set()
        self._behind: set[str] = set()
        self.standbys = Standbys(standbys)
        self.on_shadow: Callable[[InShadow], None] = lambda shadow: None
        """Told on the event loop when acts wait to be compared with a candidate's."""

    def ready(self, session_id: str) -> Active | None:
        """What the session acts with, if it is in memory; the session counts as used then."""
        active = self._active.get(session_id)
        if active is not None:
            self._active.touch(session_id)
            self._acted.add(session_id)
        return active

    def used(self, session_id: str) -> None:
        """The session was answered, though not by what acts."""
        self._acted.add(session_id)

    def standby_of(self, session_id: str, active: Active) -> Standby | None:
        """None where the session declared nothing."""
        if active.rules is None:
            return None
        return self.standbys.get(session_id) or self.standbys.keep(session_id, active.rules, None, active)

    async def load(self, session_id: str) -> Active:
        """What the session acts with, read if need be."""
        flight = self._flights.get(session_id)
        active = await (asyncio.shield(flight.done) if flight else self.refresh(session_id))
        self._acted.add(session_id)
        return active

    def begin_load(self, session_id: str) -> None:
        """Reads what the session acts with, if that is not under way; nobody waits."""
        if session_id not in self._flights:
            self._begin_flight(session_id)

    async def refresh(self, session_id: str) -> Active:
        """Reads the session's active version from the store; acts that start afterwards use it."""
        flight = self._flights.get(session_id)
        if flight is not None:
            flight.stale = True
        else:
            flight = self._begin_flight(session_id)
        return await asyncio.shield(flight.done)

    async def refresh_if_older(self, session_id: str, version: int) -> None:
        """Makes sure that acts which start afterwards use this version or a newer one."""
        active = self._active.get(session_id)
        # A load that is under way may have read the store before the change.
        if session_id in self._flights or (active is not None and active.number < version):
            await self.refresh(session_id)

    async def refresh_if_behind(self, session_id: str, version: int, model_context: int) -> None:
        """As `refresh_if_older`, and makes sure that acts tell of this model context or a newer one."""
        active = self._active.get(session_id)
        if session_id in self._flights or (
            active is not None and (active.number < version or active.model_context < model_context)
        ):
            await self.refresh(session_id)

    async def refresh_unless(self, session_id: str, version: int) -> None:
        """Makes sure that acts which start afterwards use what the store says, if that is not this version already."""
        active = self._active.get(session_id)
        if session_id in self._flights or (active is not None and active.number != version):
            await self.refresh(session_id)

    def warm(self) -> int:
        """Makes the standbys of sessions that declared a fallback, the last used first, and loads their base policies;
        how many. Before anything acts, and not on the event loop."""
        with self._store.read() as c:
            found = session_rows.with_fallback(c, self.standbys.capacity)
        for session, base, incumbent in found:
            self._warm(session, base, incumbent)
        return len(found)

    def _warm(self, session: SessionValue, base: tuple[VersionValue, str], incumbent: tuple[VersionValue, str]) -> None:
        rules = EnforcedRules.of(session)
        assert rules is not None, "a session with a fallback has rules"
        standby = self.standbys.keep(session.id, rules, None, None)
        if rules.fallback not in NEEDS_BASE:
            return
        try:
            standby.base = self._load_version(session, *base)
            if incumbent[1] == base[1]:
                standby.incumbent = self._load_version(session, *incumbent)
        except ServiceError as error:
            _log.error("base_policy_unusable", session=session.id, detail=error.detail)

    async def catch_up(self, every_s: float) -> None:
        """Until cancelled: tries again to load what could not be loaded, a few at a time."""
        while True:
            await asyncio.sleep(every_s)
            for session_id in list(self._behind)[:_MAX_CATCH_UPS]:
                with contextlib.suppress(ServiceError):
                    await self.refresh(session_id)

    def require_usable(self, session_id: str, number: int, onnx_hash: str) -> None:
        """Refuses a version whose policy does not load. Reads its file, so it is not for the event loop."""
        _open(session_id, number, lambda: Policy(self._onnx_files.get(onnx_hash)))

    @property
    def in_memory(self) -> int:
        """Sessions that are ready to act."""
        return len(self._active)

    @property
    def policies(self) -> int:
        """Policies that they act with."""
        return len(self._policies)

    @property
    def behind(self) -> int:
        """Sessions whose active version could not be loaded."""
        return len(self._behind)

    def held(self) -> dict[str, Acts]:
        """The sessions that are ready to act."""
        return {
            session_id: Acts(
                active.in_place_of or active.number,
                active.model_context,
                active.shadow.version if active.shadow is not None else 0,
            )
            for session_id, active in self._active.items()
        }

    def take_acted(self) -> set[str]:
        """The sessions that acted since it was last asked."""
        acted, self._acted = self._acted, set()
        return acted

    def give_back_acted(self, acted: set[str]) -> None:
        """What was taken could not be written down: it is to be taken again."""
        self._acted |= acted

    def acted_since_asked(self, session_id: str) -> bool:
        """Whether the session acted since `take_acted`."""
        return session_id in self._acted

    def forget(self, session_id: str) -> None:
        """The session is deleted."""
        self._active.remove(session_id)
        self._acted.discard(session_id)
        self._behind.discard(session_id)
        self.standbys.forget(session_id)
        if flight := self._flights.get(session_id):
            flight.stale = True

    def _begin_flight(self, session_id: str) -> _Flight:
        flight = self._flights[session_id] = _Flight(asyncio.get_running_loop().create_future())
        # Nobody may be waiting when it fails.
        flight.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        task = asyncio.create_task(self._fly(session_id, flight))
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)
        return flight

    async def _fly(self, session_id: str, flight: _Flight) -> None:
        try:
            while True:
                flight.stale = False
                active, base = await self._pool.run(self._read, session_id)
                if not flight.stale:
                    break
            self._behind.discard(session_id)
            if active.in_place_of is not None:
                self._behind.add(session_id)
            self._behind -= self._active.put(session_id, active)
            if active.rules is not None:
                self.standbys.keep(session_id, active.rules, base, active)
            flight.done.set_result(active)
        except Exception as error:
            if isinstance(error, ServiceError) and error.reason in MAY_PASS and session_id in self._active:
                self._behind.add(session_id)
            else:
                self._active.remove(session_id)
            flight.done.set_exception(error)
        finally:
            del self._flights[session_id]

    def _read(self, session_id: str) -> tuple[Active, Active | None]:
        """What the session acts with, and its base policy if its fallback may need that."""
        with self._store.read() as c:
            session = session_rows.get_session(c, session_id)
            version, onnx_hash = session_rows.get_version(c, session_id, session.active_version)
            first = session_rows.get_version(c, session_id, 1) if session.fallback in NEEDS_BASE else None
            running = shadow_rows.running(c, session_id)
            candidate = None if running is None else session_rows.get_version(c, session_id, running.version)
        base = None
        if first is not None:
            with contextlib.suppress(ServiceError):
                base = self._load_version(session, *first)
        try:
            active = self._load_version(session, version, onnx_hash)
            shadow = None if candidate is None else self._in_shadow(session, *candidate)
            return replace(active, shadow=shadow), base
        except ServiceError as error:
            if error.reason is not Reason.VERSION_UNUSABLE:
                raise
            _log.error("version_unusable", session=session_id, version=version.number, detail=error.detail)
            return self._load_parent(session, version, onnx_hash, error), base

    def _in_shadow(self, session: SessionValue, version: VersionValue, onnx_hash: str) -> InShadow | None:
        """None where its file cannot be read: then it stays in shadow, and nothing is compared."""
        try:
            active = self._load_version(session, version, onnx_hash)
        except ServiceError as error:
            _log.error("shadow_unusable", session=session.id, version=version.number, detail=error.detail)
            return None
        limits = session.action_limits or ActionLimitsValue()
        return InShadow(
            session.id,
            version.number,
            active.policy,
            active.context,
            np.asarray(limits.low or session.environment.action_low, np.float32),
            np.asarray(limits.high or session.environment.action_high, np.float32),
            lambda shadow: self.on_shadow(shadow),  # which is set once all is wired
        )

    def _load_parent(
        self, session: SessionValue, damaged: VersionValue, damaged_hash: str, error: ServiceError
    ) -> Active:
        """The nearest parent that is whole; raises `error` if there is none."""
        version = damaged
        while version.parent:
            with self._store.read() as c:
                version, onnx_hash = session_rows.get_version(c, session.id, version.parent)
            if onnx_hash == damaged_hash:
                continue
            with contextlib.suppress(ServiceError):
                return self._load_version(session, version, onnx_hash, in_place_of=damaged.number)
        raise error

    def _load_version(
        self, session: SessionValue, version: VersionValue, onnx_hash: str, in_place_of: int | None = None
    ) -> Active:
        policy = _open(
            session.id,
            version.number,
            lambda: self._policies.get(onnx_hash, lambda: self._onnx_files.get(onnx_hash)),
        )
        return Active(
            number=version.number,
            weights_hash=version.weights_hash,
            onnx_hash=onnx_hash,
            seed=session.seed,
            observation_dim=session.environment.observation_dim,
            action_dim=session.environment.action_dim,
            context=np.asarray(version.policy_context, np.float32)[None],
            policy=policy,
            model_context=session.model_context.number,
            ood_percentile=session.model_context.ood_percentile,
            in_place_of=in_place_of,
            rules=EnforcedRules.of(session),
        )


def _open(session_id: str, number: int, load: Callable[[], Policy]) -> Policy:
    try:
        return load()
    except OSError as error:
        raise storage_unavailable(error) from error
    except DamagedFile as error:
        raise ServiceError(
            Reason.VERSION_UNUSABLE,
            f"version {number} of session {session_id} cannot act: {error}. Restore the data folder "
            "from a backup, or fine-tune a new session",
        ) from error


def answer(call: ActCall, active: Active) -> Action:
    """One action, by that version."""
    observation, noise = inputs(call, active)
    action = chosen(active.policy.act(observation, active.context, noise)[0], active)
    if active.shadow is not None:
        active.shadow.see(observation, noise, action.action)
    return action


def chosen(action: FloatArray, active: Active) -> Action:
    """What the policy chose; refused if it is no number, which a robot must never be sent."""
    if not np.isfinite(action).all():
        raise invalid(
            "observation",
            f"observation: under version {active.number} it leads to no finite action; check its units and order "
            "against the session's environment",
        )
    return Action(action, active.number, active.weights_hash, active.ood_percentile)


def inputs(call: ActCall, active: Active) -> tuple[FloatArray, FloatArray]:
    """observation [1, observation_dim], noise [1, action_dim]."""
    require_sound(call, active.observation_dim)
    observation = call.observation.reshape(1, -1)
    if call.deterministic:
        return observation, np.zeros((1, active.action_dim), np.float32)
    noise = exploration.noise(
        active.seed, call.episode or 0, call.step or 0, active.action_dim
    )  # it is sound: has both
    return observation, noise[None].astype(np.float32, copy=False)


def require_sound(call: ActCall, observation_dim: int) -> None:
    """Refuses what no policy of the session could answer."""
    observation = call.observation
    try:
        if observation.ndim == 2:
            convert.check_shape(observation, "observation", (1, observation_dim))
        else:
            convert.check_shape(observation, "observation", (observation_dim,))
        convert.check_finite(observation, "observation")
    except ValueError as error:
        raise invalid("observation", str(error)) from None
    for name, value in (("episode", call.episode), ("step", call.step)):
        if value is not None and not 0 <= value < MAX_INDEX:
            raise invalid(name, f"expected 0 <= {name} < 2^31, got {value}")
    if not call.deterministic and (call.episode is None or call.step is None):
        missing = [name for name in ("episode", "step") if getattr(call, name) is None]
        text = "an exploring action needs episode and step, which its noise is a function of; or set deterministic"
        raise ServiceError(Reason.INVALID_ARGUMENT, text, tuple(Violation(name, text) for name in missing))
