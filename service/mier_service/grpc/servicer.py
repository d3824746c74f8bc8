# ruff: noqa: N802 - the methods have the names of the contract
"""The gRPC transport: decode -> core -> encode. Refusals become statuses, nothing unexpected is shown.

Handlers call gRPC's own argument `rpc`, since a context is something else here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mier_proto.v1 import adaptation_pb2 as pb
from mier_proto.v1 import adaptation_pb2_grpc as pb_grpc
from mier_service.access.gate import Gate
from mier_service.access.guarded import GuardedCore
from mier_service.access.key_bounds import CallsUnderWay
from mier_service.access.tls import Tls
from mier_service.access.turns import MAX_HELD
from mier_service.acting.acting import ActCall, Action
from mier_service.acting.budget import Budget
from mier_service.config import ServeConfig
from mier_service.errors import ServiceError
from mier_service.grpc import messages as m
from mier_service.grpc.answers import Answers, Rpc, request_id
from mier_service.grpc.budgets import Budgets
from mier_service.grpc.patience import Patience, options
from mier_service.grpc.wire import Wire
from mier_service.watching.loop_watch import LoopWatch
from mier_service.watching.metrics import Metrics

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["AdaptationService"].full_name
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class AdaptationServicer(pb_grpc.AdaptationServiceServicer):
    """One method for each call of the contract."""

    def __init__(self, core: GuardedCore, answers: Answers, metrics: Metrics, watch: LoopWatch) -> None:
        self._core = core
        self._metrics = metrics
        self._budgets = Budgets(watch)
        self._answer, self._stream = answers.one, answers.many

    async def CreateSession(self, request: pb.CreateSessionRequest, rpc: Rpc) -> pb.CreateSessionResponse:
        async def work() -> pb.CreateSessionResponse:
            expected = None
            if request.HasField("expected_environment"):
                expected = m.expected_environment(request.expected_environment)
            session = await self._core.sessions.create(
                request.checkpoint, expected, request.seed, m.acting_rules(request), request.idempotency_key
            )
            return pb.CreateSessionResponse(session=m.session(session))

        return await self._answer("CreateSession", rpc, work)

    async def GetSession(self, request: pb.GetSessionRequest, rpc: Rpc) -> pb.GetSessionResponse:
        async def work() -> pb.GetSessionResponse:
            session = await self._core.sessions.get(request.session_id)
            return pb.GetSessionResponse(session=m.session(session))

        return await self._answer("GetSession", rpc, work)

    async def ListSessions(self, request: pb.ListSessionsRequest, rpc: Rpc) -> pb.ListSessionsResponse:
        async def work() -> pb.ListSessionsResponse:
            page = await self._core.sessions.list(request.page_size, request.page_token)
            return pb.ListSessionsResponse(
                sessions=[m.session(s) for s in page.sessions], next_page_token=page.next_page_token
            )

        return await self._answer("ListSessions", rpc, work)

    async def DeleteSession(self, request: pb.DeleteSessionRequest, rpc: Rpc) -> pb.DeleteSessionResponse:
        async def work() -> pb.DeleteSessionResponse:
            await self._core.sessions.delete(request.session_id, request.idempotency_key)
            return pb.DeleteSessionResponse()

        return await self._answer("DeleteSession", rpc, work)

    async def PauseSession(self, request: pb.PauseSessionRequest, rpc: Rpc) -> pb.PauseSessionResponse:
        async def work() -> pb.PauseSessionResponse:
            session = await self._core.sessions.pause(request.session_id, request.idempotency_key)
            return pb.PauseSessionResponse(session=m.session(session))

        return await self._answer("PauseSession", rpc, work)

    async def ResumeSession(self, request: pb.ResumeSessionRequest, rpc: Rpc) -> pb.ResumeSessionResponse:
        async def work() -> pb.ResumeSessionResponse:
            session = await self._core.sessions.resume(request.session_id, request.idempotency_key)
            return pb.ResumeSessionResponse(session=m.session(session))

        return await self._answer("ResumeSession", rpc, work)

    async def SetSessionMode(self, request: pb.SetSessionModeRequest, rpc: Rpc) -> pb.SetSessionModeResponse:
        async def work() -> pb.SetSessionModeResponse:
            mode = m.session_mode(request.mode)
            session = await self._core.sessions.set_mode(request.session_id, mode, request.idempotency_key)
            return pb.SetSessionModeResponse(session=m.session(session))

        return await self._answer("SetSessionMode", rpc, work)

    async def ListVersions(self, request: pb.ListVersionsRequest, rpc: Rpc) -> pb.ListVersionsResponse:
        async def work() -> pb.ListVersionsResponse:
            page = await self._core.sessions.versions(request.session_id, request.page_size, request.page_token)
            return pb.ListVersionsResponse(
                versions=[m.version(v) for v in page.versions], next_page_token=page.next_page_token
            )

        return await self._answer("ListVersions", rpc, work)

    async def PromoteVersion(self, request: pb.PromoteVersionRequest, rpc: Rpc) -> pb.PromoteVersionResponse:
        async def work() -> pb.PromoteVersionResponse:
            session = await self._core.lineage.promote(
                request.session_id, request.version, request.reason, request.idempotency_key
            )
            return pb.PromoteVersionResponse(session=m.session(session))

        return await self._answer("PromoteVersion", rpc, work)

    async def RollbackVersion(self, request: pb.RollbackVersionRequest, rpc: Rpc) -> pb.RollbackVersionResponse:
        async def work() -> pb.RollbackVersionResponse:
            session = await self._core.lineage.roll_back(request.session_id, request.reason, request.idempotency_key)
            return pb.RollbackVersionResponse(session=m.session(session))

        return await self._answer("RollbackVersion", rpc, work)

    async def PinVersion(self, request: pb.PinVersionRequest, rpc: Rpc) -> pb.PinVersionResponse:
        async def work() -> pb.PinVersionResponse:
            version = request.version if request.HasField("version") else None
            session = await self._core.lineage.pin(request.session_id, version, request.reason, request.idempotency_key)
            return pb.PinVersionResponse(session=m.session(session))

        return await self._answer("PinVersion", rpc, work)

    async def UnpinVersion(self, request: pb.UnpinVersionRequest, rpc: Rpc) -> pb.UnpinVersionResponse:
        async def work() -> pb.UnpinVersionResponse:
            session = await self._core.lineage.unpin(request.session_id, request.reason, request.idempotency_key)
            return pb.UnpinVersionResponse(session=m.session(session))

        return await self._answer("UnpinVersion", rpc, work)

    async def MoveSession(self, request: pb.MoveSessionRequest, rpc: Rpc) -> pb.MoveSessionResponse:
        async def work() -> pb.MoveSessionResponse:
            session = await self._core.moving.move(
                request.session_id, request.checkpoint, request.reason, request.idempotency_key
            )
            return pb.MoveSessionResponse(session=m.session(session))

        return await self._answer("MoveSession", rpc, work)

    async def ListPromotions(self, request: pb.ListPromotionsRequest, rpc: Rpc) -> pb.ListPromotionsResponse:
        async def work() -> pb.ListPromotionsResponse:
            page = await self._core.lineage.promotions(request.session_id, request.page_size, request.page_token)
            return pb.ListPromotionsResponse(
                promotions=[m.promotion(p) for p in page.promotions], next_page_token=page.next_page_token
            )

        return await self._answer("ListPromotions", rpc, work)

    async def GetBundle(self, request: pb.GetBundleRequest, rpc: Rpc) -> pb.GetBundleResponse:
        async def work() -> pb.GetBundleResponse:
            packed = await self._core.bundles.get(request.session_id, request.known_tag, request.known_graphs)
            if packed is None:
                return pb.GetBundleResponse(tag=request.known_tag)
            return pb.GetBundleResponse(bundle=packed.data, tag=packed.tag)

        return await self._answer("GetBundle", rpc, work)

    async def SubmitTransitions(self, request: pb.SubmitTransitionsRequest, rpc: Rpc) -> pb.SubmitTransitionsResponse:
        async def work() -> pb.SubmitTransitionsResponse:
            stored = await self._core.recording.submit(m.submission(request))
            self._metrics.stored(stored.stored)
            return pb.SubmitTransitionsResponse(
                stored=stored.stored,
                duplicates=stored.duplicates,
                transitions_count=stored.transitions_count,
            )

        return await self._answer("SubmitTransitions", rpc, work)

    async def SubmitTransitionsStream(
        self, requests: AsyncIterator[pb.SubmitTransitionsStreamRequest], rpc: Rpc
    ) -> pb.SubmitTransitionsStreamResponse:
        async def work() -> pb.SubmitTransitionsStreamResponse:
            reply = pb.SubmitTransitionsStreamResponse()
            async for request in requests:
                stored = await self._core.recording.submit(m.submission(request.batch))
                self._metrics.stored(stored.stored)
                reply.batches += 1
                reply.stored += stored.stored
                reply.duplicates += stored.duplicates
            return reply

        return await self._answer("SubmitTransitionsStream", rpc, work)

    async def ListTransitions(self, request: pb.ListTransitionsRequest, rpc: Rpc) -> pb.ListTransitionsResponse:
        async def work() -> pb.ListTransitionsResponse:
            page = await self._core.recorded.transitions(request.session_id, request.page_size, request.page_token)
            return m.transitions(page)

        return await self._answer("ListTransitions", rpc, work)

    async def Adapt(self, request: pb.AdaptRequest, rpc: Rpc) -> pb.AdaptResponse:
        async def work() -> pb.AdaptResponse:
            window = m.window(request.window)
            found = await self._core.learning.adapt(request.session_id, window, request.idempotency_key)
            return m.adaptation(found)

        return await self._answer("Adapt", rpc, work)

    async def FineTune(self, request: pb.FineTuneRequest, rpc: Rpc) -> pb.FineTuneResponse:
        async def work() -> pb.FineTuneResponse:
            updates = request.updates if request.HasField("updates") else None
            operation = await self._core.learning.fine_tune(
                request.session_id, updates, request.seed, request.idempotency_key
            )
            return pb.FineTuneResponse(operation=m.operation(operation))

        return await self._answer("FineTune", rpc, work)

    async def GetOperation(self, request: pb.GetOperationRequest, rpc: Rpc) -> pb.GetOperationResponse:
        async def work() -> pb.GetOperationResponse:
            operation = await self._core.learning.operation(request.operation_id)
            return pb.GetOperationResponse(operation=m.operation(operation))

        return await self._answer("GetOperation", rpc, work)

    async def CancelOperation(self, request: pb.CancelOperationRequest, rpc: Rpc) -> pb.CancelOperationResponse:
        async def work() -> pb.CancelOperationResponse:
            operation = await self._core.learning.cancel(request.operation_id, request.idempotency_key)
            return pb.CancelOperationResponse(operation=m.operation(operation))

        return await self._answer("CancelOperation", rpc, work)

    async def WatchOperation(
        self, request: pb.WatchOperationRequest, rpc: Rpc
    ) -> AsyncIterator[pb.WatchOperationResponse]:
        async def work() -> AsyncIterator[pb.WatchOperationResponse]:
            async for operation in self._core.learning.watch(request.operation_id):
                yield pb.WatchOperationResponse(operation=m.operation(operation))

        async for reply in self._stream("WatchOperation", rpc, work):
            yield reply

    async def Act(self, request: pb.ActRequest, rpc: Rpc) -> pb.ActResponse:
        async def work() -> pb.ActResponse:
            call = self._read(request, self._budgets.own(rpc))
            return m.act_response(await self._core.acting.act(call))

        return await self._answer("Act", rpc, work)

    async def ActStream(
        self, requests: AsyncIterator[pb.ActStreamRequest], rpc: Rpc
    ) -> AsyncIterator[pb.ActStreamResponse]:
        async def work() -> AsyncIterator[pb.ActStreamResponse]:
            own_id = request_id(rpc)
            outcome: Action | ServiceError
            while True:
                try:
                    request = await anext(requests)
                    call = self._read(request.request, self._budgets.own(rpc))
                    outcome = await self._core.acting.act(call)
                except StopAsyncIteration:
                    return
                except ServiceError as error:  # also of a message that could not be read: the next one may be fine
                    outcome = error
                reply = pb.ActStreamResponse()
                m.put_outcome(outcome, own_id, reply.outcome)
                yield reply

        async for reply in self._stream("ActStream", rpc, work):
            yield reply

    async def ActBatch(self, request: pb.ActBatchRequest, rpc: Rpc) -> pb.ActBatchResponse:
        async def work() -> pb.ActBatchResponse:
            own = self._budgets.own(rpc)
            calls = [_or_error(self._read, item, own) for item in request.requests]
            own_id = request_id(rpc)
            outcomes = await self._core.acting.act_batch(calls)
            reply = pb.ActBatchResponse()
            for outcome in outcomes:
                m.put_outcome(outcome, own_id, reply.outcomes.add())
            return reply

        return await self._answer("ActBatch", rpc, work)

    def _read(self, request: pb.ActRequest, own: Budget | None) -> ActCall:
        return m.act_call(request, self._budgets.of(request, own))


class GrpcServer:
    """The server with its health service; belongs to the event loop."""

    def __init__(
        self,
        core: GuardedCore,
        gate: Gate,
        calls: CallsUnderWay,
        metrics: Metrics,
        watch: LoopWatch,
        config: ServeConfig,
    ) -> None:
        self._config = config
        answers = Answers(gate, metrics)
        open_services = (_HEALTH, reflection.SERVICE_NAME)
        self._server = grpc.aio.server(
            interceptors=[Wire(answers, calls, Patience(metrics, calls.turns, config), config, open_services)],
            # What goes beyond these gRPC refuses by itself, in its own words; up to there `Wire` says what is wrong.
            # Refusals that wait for their turn are among them.
            maximum_concurrent_rpcs=2 * config.max_grpc_calls + MAX_HELD,
            options=[
                ("grpc.max_receive_message_length", 2 * config.max_body_bytes),
                # What a connection has beyond these waits with its caller. Up to there a key's calls are refused by
                # `Wire`, and those that gRPC has not handed over yet are not so many that others wait long for them.
                ("grpc.max_concurrent_streams", 2 * config.max_calls_per_key),
                ("grpc.max_allowed_incoming_connections", config.max_connections),
                ("grpc.so_reuseport", 0),  # a port in use is an error, not shared
                *options(config),
            ],
        )
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        servicer = AdaptationServicer(core, answers, metrics, watch)
        pb_grpc.add_AdaptationServiceServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if config.grpc_reflection:
            reflection.enable_server_reflection((SERVICE_NAME, *open_services), self._server)

    async def start(self, host: str, tls: Tls | None) -> int:
        """Listens; the actual port. OSError if the address cannot be had."""
        address = f"{host}:{self._config.grpc_port}"
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, tls.grpc())
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} for gRPC: is the port in use?") from error
        await self.set_serving(False)
        await self._server.start()
        return int(port)

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 says."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE_NAME):
            await self._health.set(name, status)

    async def stop(self, within_s: float) -> None:
        """Takes no more calls; those under way may end within that time."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(within_s)


def _or_error(
    read: Callable[[pb.ActRequest, Budget | None], ActCall], request: pb.ActRequest, own: Budget | None
) -> ActCall | ServiceError:
    try:
        return read(request, own)
    except ServiceError as error:
        return error
