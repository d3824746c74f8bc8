"""The only place where objects are wired; and the order in which a service starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any

import structlog
import torch
from starlette.types import ASGIApp, Receive, Scope, Send

from mier_service.access.exposure import exposure_of
from mier_service.access.gate import Gate
from mier_service.access.guarded import GuardedCore
from mier_service.access.key_bounds import CallsUnderWay, KeyBounds
from mier_service.access.refresh import keep_current
from mier_service.access.tls import load_tls
from mier_service.acting.acting import Acting
from mier_service.acting.other_services import OtherServices
from mier_service.acting.ready_sessions import ReadySessions
from mier_service.acting.timely import TimelyActing
from mier_service.config import CannotStart, ServeConfig, WorkerConfig, url_host
from mier_service.core import Core
from mier_service.data.checkpoints import Checkpoints
from mier_service.data.data_lock import join_data, let_others_join, lock_data
from mier_service.data.files import write_durably
from mier_service.data.retention import Retention
from mier_service.data.storage import Storage
from mier_service.ending import end_now
from mier_service.errors import ServiceError
from mier_service.grpc.servicer import GrpcServer
from mier_service.http.app import Guard, build_app
from mier_service.http.health import build_health
from mier_service.http.inference import build_inference
from mier_service.http.openpi import OpenpiEndpoint
from mier_service.http.routes import build_router
from mier_service.http.server import HttpServer, listen
from mier_service.learning.changes import Changes, Poller
from mier_service.learning.learning import Learning
from mier_service.learning.regression import RolledBack
from mier_service.learning.self_adapting import SelfAdapting
from mier_service.learning.shadowing import Shadowing
from mier_service.learning.workers import Workers
from mier_service.lifecycle import Lifecycle, Phase
from mier_service.offload import BoundedPool
from mier_service.sessions.life import Sessions
from mier_service.sessions.lineage import Lineage
from mier_service.sessions.moving import Moving
from mier_service.sessions.recording import Recording
from mier_service.values import FallbackValue
from mier_service.warm_up import prepare_checkpoints
from mier_service.watching.logs import quiet_exporter
from mier_service.watching.loop_watch import LoopWatch
from mier_service.watching.metrics import Metrics
from mier_service.watching.monitor import Monitor
from mier_service.watching.watched import watched

_log = structlog.get_logger(__name__)
_CATCH_UP_EVERY_S = 2.0

_CLOSE_WITHIN_S = 5.0
"""After the drain: what threads still do by then has no caller any more."""
_SWITCH_INTERVAL_S = 0.001
"""A thread that computes hands over to the event loop after this long (Python's default is five times that)."""


class Service:
    """Everything wired. `run` serves until `stop` is asked for."""

    def __init__(self, config: ServeConfig) -> None:
        exposure = exposure_of(config)
        tls = load_tls(config)
        for warning in exposure.warnings:
            _log.warning("exposed", detail=warning)
        self._config = config
        self._tls = tls
        self._stop = asyncio.Event()
        store_url = (config.store_url.get_secret_value() if config.store_url else "") or None
        self._lock, self._alone = _lock_data(config.data, shared=store_url is not None)
        self._lifecycle = Lifecycle()
        self._metrics = Metrics()
        self._checkpoints = Checkpoints(config.checkpoints)
        # Pools may wait for each other's connections, so there is one for every thread.
        bounds = KeyBounds(
            calls=config.max_calls_per_key,
            sessions=config.max_sessions_per_key,
            fine_tunes=config.max_finetunes_per_key,
            stored_bytes=config.max_stored_bytes_per_key,
        )
        calls_under_way = CallsUnderWay(bounds)
        self._storage = Storage(config.data, config.store_threads + 5, time.time, store_url, bounds)
        self._store_pool = BoundedPool("store", config.store_threads, config.store_queue)
        self._adapt_pool = BoundedPool("adapt", 1, config.adapt_queue)
        self._decode_pool = BoundedPool("decode", 1, config.store_queue)
        self._poll_pool = BoundedPool("poll", 1, 4, shared=False)
        self._upkeep_pool = BoundedPool("upkeep", 1, 4, shared=False)
        # Alone: what asks whether the store can be written must not wait behind those who found that it cannot.
        self._monitor_pool = BoundedPool("monitor", 1, 0, shared=False)
        self._changes = Changes(config.max_watchers)
        self._acting = acting = Acting(
            self._storage.store,
            self._storage.onnx,
            ReadySessions(config.max_active_sessions, config.max_policies),
            self._store_pool,
            16 * config.max_active_sessions,
        )
        learning = Learning(
            self._storage,
            self._checkpoints,
            acting,
            self._changes,
            self._store_pool,
            self._adapt_pool,
            config.max_queued_operations,
            _new_id,
        )
        recording = Recording(
            self._storage, acting, self._store_pool, config.max_batch_steps, config.automatic_rollback
        )
        self._self_adapting = SelfAdapting(self._storage, self._checkpoints, acting, learning, self._adapt_pool)
        self._shadowing = Shadowing(self._storage, acting, self._upkeep_pool, self._metrics.shadow_ended)
        acting.on_shadow = self._shadowing.notice
        sessions = Sessions(self._storage, self._checkpoints, acting, self._changes, self._store_pool, _new_id)
        self._gate = Gate(self._storage.store, exposure.keys_required, time.time)
        plain = Core(
            sessions,
            recording,
            learning,
            TimelyActing(acting, self._store_pool, max_batch=config.max_act_batch, on_fallback=_counter(self._metrics)),
            Lineage(self._storage, acting, self._store_pool),
            Moving(self._storage, self._checkpoints, acting, self._adapt_pool),
        )
        core = watched(GuardedCore.of(plain, self._gate), self._metrics)
        self._poller = Poller(
            self._storage.store,
            self._changes,
            self._poll_pool,
            _refresher(acting, self._self_adapting, self._storage.store.shared),
            config.poll_every_s,
        )
        self._other_services = OtherServices(self._storage.store, acting, self._upkeep_pool, config.follow_every_s)
        self._retention = Retention(
            self._storage, acting, self._upkeep_pool, config.keep_idle_sessions_s, config.sweep_every_s, time.monotonic
        )
        self._workers = Workers(
            WorkerConfig(
                data=config.data.absolute(),
                checkpoints=config.checkpoints.absolute(),
                save_every_s=config.finetune_save_every_s,
                lease_s=config.finetune_lease_s,
                turn_s=config.finetune_turn_s,
                gate=config.gate,
                log_level=config.log_level,
                trace_endpoint=config.trace_endpoint,
                trace_ratio=config.trace_ratio,
            ),
            store_url,
            config.finetune_workers,
            config.drain_within_s,
            self._metrics.worker_ended,
            self._metrics.worker_told,
        )
        learning.on_queued = self._workers.wake
        recording.on_stored = self._self_adapting.notice
        recording.on_rolled_back = self._rolled_back
        watch = LoopWatch()
        self._grpc = GrpcServer(core, self._gate, calls_under_way, self._metrics, watch, config)
        calls = build_router(core, self._decode_pool, self._metrics, watch, config.keep_idle_connections_s)
        self._monitor = Monitor(
            self._storage,
            self._lifecycle,
            self._metrics,
            self._monitor_pool,
            config.check_every_s,
            self._grpc.set_serving,
        )
        health = build_health(self._monitor, self._metrics, self._checkpoints.names)
        inference = build_inference(core, self._decode_pool, self._monitor)
        self._app = build_app(calls, health, inference, exposure.keys_required)
        self._watch_parts()
        guard = Guard(self._app, self._lifecycle, self._gate, calls_under_way, self._metrics, watch, config)
        openpi = OpenpiEndpoint(
            core, self._gate, calls_under_way, self._lifecycle, self._decode_pool, self._metrics, config
        )
        self._http = HttpServer(_by_kind(guard, openpi), config, tls, self._metrics)

    def _rolled_back(self, session_id: str, done: RolledBack) -> None:
        about = {"session": session_id, "from_version": done.from_version, "to_version": done.to_version}
        _log.warning("rolled_back_by_itself", **about, detail=done.reason)
        self._metrics.rolled_back()
        if done.cancelled is not None:
            self._changes.tell(done.cancelled)

    def stop(self) -> None:
        """Asks `run` to end in good order."""
        self._stop.set()

    async def run(self) -> int:
        """Serves until `stop`; the exit status: 1 where it ended by a fault of its own. Raises `CannotStart`."""
        torch.set_num_threads(1)
        quiet_exporter()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        try:
            await asyncio.to_thread(self._prepare)
            http_socket = listen(self._config.host, self._config.http_port, self._config.peer_within_s)
            grpc_port = await self._grpc.start(url_host(self._config.host), self._tls)
        except (OSError, ServiceError) as error:
            raise CannotStart(error.detail if isinstance(error, ServiceError) else str(error)) from error
        http = asyncio.create_task(self._http.serve([http_socket]), name="http")
        background = [
            asyncio.create_task(self._poller.run(), name="poller"),
            asyncio.create_task(keep_current(self._gate, self._poll_pool, self._config.poll_every_s), name="keys"),
            asyncio.create_task(self._retention.run(), name="upkeep"),
            asyncio.create_task(self._monitor.run(), name="monitor"),
            asyncio.create_task(self._self_adapting.run(), name="self_adapting"),
            asyncio.create_task(self._shadowing.run(), name="shadowing"),
            asyncio.create_task(self._acting.catch_up(_CATCH_UP_EVERY_S), name="catching_up"),
        ]
        if self._storage.store.shared:
            background.append(asyncio.create_task(self._other_services.run(), name="other_services"))
        if not self._stop.is_set():  # it may have been asked to end while it prepared
            self._workers.start()
            await self._monitor.look()
            await self._enter(Phase.READY)
            self._announce(http_socket.getsockname()[1], grpc_port)
        stop = asyncio.create_task(self._stop.wait())
        ended, _ = await asyncio.wait((stop, http, *background), return_when=asyncio.FIRST_COMPLETED)
        status = _status(ended - {stop})
        await self._drain(http)
        stop.cancel()
        try:
            async with asyncio.timeout(_CLOSE_WITHIN_S):
                await self._close(background)
        except TimeoutError:
            # A thread that computes cannot be stopped. Whatever was acknowledged is on disk; the rest was not.
            _log.warning("stopped_while_computing", waited_s=_CLOSE_WITHIN_S)
            end_now(status)
        self._lock.close()
        _log.info("stopped")
        return status

    async def _close(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(ServiceError):
            await self._retention.write_down_use()
        for pool in self._pools:
            await asyncio.to_thread(pool.close)
        self._storage.close()

    def _prepare(self) -> None:
        """Migrates and clears up; decodes the checkpoints and makes the document, so that no caller waits for them."""
        self._app.openapi()
        self._storage.prepare(self._alone)
        if self._alone and self._storage.store.shared:
            let_others_join(self._lock)
        self._gate.take(self._gate.read())
        if self._gate.required and not self._gate.has_keys:
            _log.warning("no_keys", detail="nobody can call yet: make a key with `mierctl keys create`")
        names = self._checkpoints.names()
        if not names:
            raise CannotStart(
                f"there is no checkpoint in {self._config.checkpoints}: give --checkpoints a folder whose "
                "subfolders have a manifest.json"
            )
        self._monitor.prepared(*prepare_checkpoints(self._checkpoints, self._storage, self._metrics))
        self._acting.warm()

    def _watch_parts(self) -> None:
        """Metrics that are looked at when they are asked for."""
        for pool in self._pools:
            self._metrics.watch_pool(pool)
        acting = self._acting
        self._metrics.watch_memory(lambda: acting.in_memory, lambda: acting.behind, lambda: acting.policies)
        self._storage.store.on_done = self._metrics.store_call

    @property
    def _pools(self) -> tuple[BoundedPool, ...]:
        working = (self._store_pool, self._adapt_pool, self._decode_pool)
        return (*working, self._poll_pool, self._upkeep_pool, self._monitor_pool)

    async def _enter(self, phase: Phase) -> None:
        """Told by the probes of both transports at once."""
        self._lifecycle.phase = phase
        await self._monitor.tell()

    def _announce(self, http_port: int, grpc_port: int) -> None:
        host = url_host(self._config.host)
        addresses = {"http": f"http{'s' if self._tls else ''}://{host}:{http_port}", "grpc": f"{host}:{grpc_port}"}
        if self._config.address_file is not None:
            write_durably(self._config.address_file, json.dumps(addresses).encode())
        over = "gRPC over TLS" if self._tls else "gRPC"
        print(f"mier-serve is ready: {addresses['http']} and {over} at {addresses['grpc']}", flush=True)
        _log.info("ready", **addresses, checkpoints=self._checkpoints.names())

    async def _drain(self, http: asyncio.Task[None]) -> None:
        """Not ready; streams end; calls under way end; workers save and end. The HTTP port stays open until then, so
        that probes hear that it drains, and callers when to come back; a port that is closed says neither."""
        _log.info("draining")
        clock = asyncio.get_running_loop().time
        until_s = clock() + self._config.drain_within_s
        await self._enter(Phase.DRAINING)
        self._changes.drain()
        await asyncio.gather(
            self._grpc.stop(self._config.drain_within_s),
            self._workers.stop(),
            self._http.calls_ended(until_s),
            return_exceptions=True,
        )
        self._http.end(max(0.0, until_s - clock()))
        await asyncio.gather(http, return_exceptions=True)


def _by_kind(http: ASGIApp, websocket: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (websocket if scope["type"] == "websocket" else http)(scope, receive, send)

    return app


def _status(ended: set[asyncio.Task[Any]]) -> int:
    """1 if a part that serves until it is stopped ended by itself; says which, and why."""
    for task in ended:
        # Without it the service would go on half alive: fine-tunes unseen, revoked keys let in.
        _log.error("part_ended", part=task.get_name(), exc_info=task.exception())
    return 1 if ended else 0


def _refresher(acting: Acting, self_adapting: SelfAdapting, shared: bool) -> Callable[[str], Awaitable[None]]:
    async def refresh(session_id: str) -> None:
        self_adapting.notice(session_id)
        if shared and session_id not in acting.held():
            return  # it may act through another service, which learned of it as this one did
        try:
            await acting.refresh(session_id)
        except ServiceError as error:
            _log.warning("version_not_loaded", session=session_id, detail=error.detail)

    return refresh


def _counter(metrics: Metrics) -> Callable[[FallbackValue], None]:
    return lambda fallback: metrics.fell_back(fallback.kind.value, fallback.reason.value)


def _new_id() -> str:
    return uuid.uuid4().hex


def _lock_data(data: Path, shared: bool) -> tuple[IO[str], bool]:
    """And whether this service alone has it now."""
    if shared:
        held = join_data(data)
    else:
        file = lock_data(data)
        held = (file, True) if file is not None else None
    if held is None:
        raise CannotStart(f"another service is using the data folder {data}: choose another --data")
    return held
