"""Acting: an observation in, an action and the version that chose it out. No gradient, no disk, no lock.

Invariants
- `_active` belongs to the event loop. A version swap is one assignment of an immutable `Active`, so an act sees the
  old version or the new one, whole.
- Everything that enters `_active` comes from `refresh`, which reads the store after the change it was called for.
- A session acts for as long as one of its versions can be read: while the active one cannot, what acted last goes on,
  or the nearest of its parents that is whole. Each answer names its version. `catch_up` tries again.
- Exploration noise is a function of (seed of the session, episode, step): a retry repeats the action.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog

from mier import exploration
from mier_proto import convert
from mier_service import store_sessions
from mier_service.errors import Reason, ServiceError, Violation, invalid
from mier_service.files import ContentFiles, DamagedFile
from mier_service.offload import BoundedPool
from mier_service.policies import Policy, PolicyCache
from mier_service.store import Store, storage_unavailable
from mier_service.store_sessions import Acts
from mier_service.values import MAX_INDEX, SessionValue, VersionValue

FloatArray = npt.NDArray[np.float32]

MAX_BATCH = 1024
_MAX_CATCH_UPS = 20
_MAY_PASS = (Reason.STORAGE_UNAVAILABLE, Reason.VERSION_UNUSABLE, Reason.OVERLOADED)
"""Why a load may fail though the session is there."""
_log = structlog.get_logger(__name__)
_MAX_ROWS_ON_LOOP = 32
"""More rows than this take longer than an act may hold the event loop."""


@dataclass(frozen=True)
class ActCall:
    """One question."""

    session_id: str
    observation: FloatArray
    """[observation_dim] or [1, observation_dim]"""
    deterministic: bool
    episode: int | None = None
    step: int | None = None


@dataclass(frozen=True)
class Action:
    """One answer."""

    action: FloatArray
    """[action_dim], environment units"""
    policy_version: int
    weights_hash: str
    ood_percentile: float | None = None
    """The newest model context's."""


@dataclass(frozen=True)
class Active:
    """What a session acts with now."""

    number: int
    weights_hash: str
    seed: int
    observation_dim: int
    action_dim: int
    context: FloatArray
    """[1, context_dim]"""
    policy: Policy
    model_context: int
    """Number of the newest."""
    ood_percentile: float | None
    """Its percentile."""
    in_place_of: int | None = None
    """The version that should act, whose file is damaged."""


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
        policies: PolicyCache,
        pool: BoundedPool,
        max_active_sessions: int,
    ) -> None:
        self._store = store
        self._onnx_files = onnx_files
        self._policies = policies
        self._pool = pool
        self._max_active_sessions = max_active_sessions
        self._active: OrderedDict[str, Active] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._acted: set[str] = set()
        self._behind: set[str] = set()

    async def act(self, call: ActCall) -> Action:
        """One action."""
        active = self._active.get(call.session_id) or await self._load(call.session_id)
        self._touch(call.session_id)
        observation, noise = _inputs(call, active)
        action = active.policy.act(observation, active.context, noise)
        return _action(action[0], active)

    async def act_batch(self, calls: list[ActCall | ServiceError]) -> list[Action | ServiceError]:
        """One outcome for each call, in order; sessions on the same weights act in one run. A call that could not
        be read is passed as its error, and handed back."""
        if not 1 <= len(calls) <= MAX_BATCH:
            raise invalid("requests", f"expected 1 to {MAX_BATCH} requests, got {len(calls)}")
        outcomes: list[Action | ServiceError | None] = [None] * len(calls)
        groups: dict[int, list[tuple[int, Active, FloatArray, FloatArray]]] = {}
        for index, call in enumerate(calls):
            try:
                if isinstance(call, ServiceError):
                    raise call
                active = self._active.get(call.session_id) or await self._load(call.session_id)
                self._touch(call.session_id)
                inputs = _inputs(call, active)
                groups.setdefault(id(active.policy), []).append((index, active, *inputs))
            except ServiceError as error:
                outcomes[index] = error
        for group in groups.values():
            policy = group[0][1].policy
            observation = np.concatenate([item[2] for item in group])
            noise = np.concatenate([item[3] for item in group])
            context = np.concatenate([item[1].context for item in group])
            if len(group) <= _MAX_ROWS_ON_LOOP:
                actions = policy.act(observation, context, noise)
            else:
                actions = await self._pool.run(policy.act, observation, context, noise)
            for (index, active, _, _), action in zip(group, actions, strict=True):
                try:
                    outcomes[index] = _action(action, active)
                except ServiceError as error:
                    outcomes[index] = error
        return [outcome for outcome in outcomes if outcome is not None]

    async def refresh(self, session_id: str) -> Active:
        """Reads the session's active version from the store; acts that start afterwards use it."""
        flight = self._flights.get(session_id)
        if flight is not None:
            flight.stale = True
            return await asyncio.shield(flight.done)
        flight = _Flight(asyncio.get_running_loop().create_future())
        # Nobody may be waiting when it fails.
        flight.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._flights[session_id] = flight
        task = asyncio.create_task(self._fly(session_id, flight))
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)
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

    def held(self) -> dict[str, Acts]:
        """The sessions that are ready to act."""
        return {
            session_id: Acts(active.in_place_of or active.number, active.model_context)
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
        self._active.pop(session_id, None)
        self._acted.discard(session_id)
        self._behind.discard(session_id)
        if flight := self._flights.get(session_id):
            flight.stale = True

    async def _load(self, session_id: str) -> Active:
        flight = self._flights.get(session_id)
        return await (asyncio.shield(flight.done) if flight else self.refresh(session_id))

    async def _fly(self, session_id: str, flight: _Flight) -> None:
        try:
            while True:
                flight.stale = False
                active = await self._pool.run(self._read, session_id)
                if not flight.stale:
                    break
            self._active[session_id] = active
            self._behind.discard(session_id)
            if active.in_place_of is not None:
                self._behind.add(session_id)
            while len(self._active) > self._max_active_sessions:
                self._behind.discard(self._active.popitem(last=False)[0])
            flight.done.set_result(active)
        except Exception as error:
            if isinstance(error, ServiceError) and error.reason in _MAY_PASS and session_id in self._active:
                self._behind.add(session_id)
            else:
                self._active.pop(session_id, None)
            flight.done.set_exception(error)
        finally:
            del self._flights[session_id]

    def _touch(self, session_id: str) -> None:
        if session_id in self._active:
            self._active.move_to_end(session_id)
        self._acted.add(session_id)

    def _read(self, session_id: str) -> Active:
        with self._store.read() as c:
            session = store_sessions.get_session(c, session_id)
            version, onnx_hash = store_sessions.get_version(c, session_id, session.active_version)
        try:
            return self._load_version(session, version, onnx_hash)
        except ServiceError as error:
            if error.reason is not Reason.VERSION_UNUSABLE:
                raise
            _log.error("version_unusable", session=session_id, version=version.number, detail=error.detail)
            return self._load_parent(session, version, error)

    def _load_parent(self, session: SessionValue, damaged: VersionValue, error: ServiceError) -> Active:
        """The nearest parent that is whole; raises `error` if there is none."""
        version = damaged
        while version.parent:
            with self._store.read() as c:
                version, onnx_hash = store_sessions.get_version(c, session.id, version.parent)
            if version.weights_hash == damaged.weights_hash:
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
            lambda: self._policies.get(version.weights_hash, lambda: self._onnx_files.get(onnx_hash)),
        )
        return Active(
            number=version.number,
            weights_hash=version.weights_hash,
            seed=session.seed,
            observation_dim=session.environment.observation_dim,
            action_dim=session.environment.action_dim,
            context=np.asarray(version.policy_context, np.float32)[None],
            policy=policy,
            model_context=session.model_context.number,
            ood_percentile=session.model_context.ood_percentile,
            in_place_of=in_place_of,
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


def _action(action: FloatArray, active: Active) -> Action:
    """What the policy chose; refused if it is no number, which a robot must never be sent."""
    if not np.isfinite(action).all():
        raise invalid(
            "observation",
            f"observation: under version {active.number} it leads to no finite action; check its units and order "
            "against the session's environment",
        )
    return Action(action, active.number, active.weights_hash, active.ood_percentile)


def _inputs(call: ActCall, active: Active) -> tuple[FloatArray, FloatArray]:
    """observation [1, observation_dim], noise [1, action_dim]."""
    observation = call.observation
    try:
        if observation.ndim == 2:
            convert.check_shape(observation, "observation", (1, active.observation_dim))
        else:
            convert.check_shape(observation, "observation", (active.observation_dim,))
        convert.check_finite(observation, "observation")
    except ValueError as error:
        raise invalid("observation", str(error)) from None
    for name, value in (("episode", call.episode), ("step", call.step)):
        if value is not None and not 0 <= value < MAX_INDEX:
            raise invalid(name, f"expected 0 <= {name} < 2^31, got {value}")
    if call.deterministic:
        return observation.reshape(1, -1), np.zeros((1, active.action_dim), np.float32)
    if call.episode is None or call.step is None:
        missing = [name for name in ("episode", "step") if getattr(call, name) is None]
        text = "an exploring action needs episode and step, which its noise is a function of; or set deterministic"
        raise ServiceError(Reason.INVALID_ARGUMENT, text, tuple(Violation(name, text) for name in missing))
    noise = exploration.noise(active.seed, call.episode, call.step, active.action_dim)
    return observation.reshape(1, -1), noise[None].astype(np.float32, copy=False)
