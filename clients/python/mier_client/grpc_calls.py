"""The calls over gRPC: what is sent, and how its answer is read. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mier_client import grpc_codec as codec
from mier_client import transition_codec
from mier_client.calls import ActQuery, Call, Page, TransitionBatch
from mier_client.replies import require_within
from mier_client.values import (
    Acted,
    ActingRules,
    Adapted,
    EnvironmentSpec,
    FloatArray,
    Operation,
    PolicyVersion,
    PromotionRecord,
    Session,
    SessionMode,
    Submitted,
    Window,
)
from mier_proto.convert import encode
from mier_proto.v1 import adaptation_pb2 as pb
from mier_proto.v1 import adaptation_pb2_grpc

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class GrpcCall(Call[Value]):
    """`read` is given the reply, or one message of a stream of replies."""

    method: str
    message: Message
    stub: type[Any] = adaptation_pb2_grpc.AdaptationServiceStub


class GrpcCalls:
    """See `Calls`."""

    def create_session(
        self,
        checkpoint: str,
        seed: int,
        expected: EnvironmentSpec | None,
        key: str,
        timeout_s: float,
        rules: ActingRules | None = None,
    ) -> GrpcCall[Session]:
        request = pb.CreateSessionRequest(
            checkpoint=checkpoint,
            seed=seed,
            expected_environment=None if expected is None else codec.environment_message(expected),
            idempotency_key=key,
        )
        if rules is not None:
            codec.put_rules(request, rules)
        return GrpcCall(_session, timeout_s, "CreateSession", request)

    def get_session(self, session_id: str, timeout_s: float) -> GrpcCall[Session]:
        return GrpcCall(_session, timeout_s, "GetSession", pb.GetSessionRequest(session_id=session_id))

    def list_sessions(self, page: Page, timeout_s: float) -> GrpcCall[tuple[Sequence[Session], str]]:
        request = pb.ListSessionsRequest(page_size=page.size, page_token=page.token)
        return GrpcCall(codec.sessions, timeout_s, "ListSessions", request)

    def delete_session(self, session_id: str, key: str, timeout_s: float) -> GrpcCall[None]:
        request = pb.DeleteSessionRequest(session_id=session_id, idempotency_key=key)
        return GrpcCall(_nothing, timeout_s, "DeleteSession", request)

    def pause(self, session_id: str, key: str, timeout_s: float) -> GrpcCall[Session]:
        request = pb.PauseSessionRequest(session_id=session_id, idempotency_key=key)
        return GrpcCall(_session, timeout_s, "PauseSession", request)

    def set_mode(self, session_id: str, mode: SessionMode, key: str, timeout_s: float) -> GrpcCall[Session]:
        number = pb.SessionMode.Value(f"SESSION_MODE_{mode.name}")
        request = pb.SetSessionModeRequest(session_id=session_id, mode=number, idempotency_key=key)
        return GrpcCall(_session, timeout_s, "SetSessionMode", request)

    def resume(self, session_id: str, key: str, timeout_s: float) -> GrpcCall[Session]:
        request = pb.ResumeSessionRequest(session_id=session_id, idempotency_key=key)
        return GrpcCall(_session, timeout_s, "ResumeSession", request)

    def submit_transitions(
        self, session_id: str, batch: TransitionBatch, key: str, timeout_s: float
    ) -> GrpcCall[Submitted]:
        request = pb.SubmitTransitionsRequest(
            session_id=session_id,
            episode=batch.episode,
            first_step=batch.first_step,
            observation=encode(batch.observation),
            action=encode(batch.action),
            reward=encode(batch.reward),
            next_observation=encode(batch.next_observation),
            terminated=batch.terminated.tolist(),
            truncated=batch.truncated.tolist(),
            policy_version=batch.policy_version,
            idempotency_key=key,
        )
        return GrpcCall(codec.submitted, timeout_s, "SubmitTransitions", request)

    def list_transitions(
        self, session_id: str, page: Page, timeout_s: float
    ) -> GrpcCall[tuple[Sequence[TransitionBatch], str]]:
        request = pb.ListTransitionsRequest(session_id=session_id, page_size=page.size, page_token=page.token)
        return GrpcCall(transition_codec.grpc_page, timeout_s, "ListTransitions", request)

    def adapt(self, session_id: str, window: Window, key: str, timeout_s: float) -> GrpcCall[Adapted]:
        request = pb.AdaptRequest(session_id=session_id, window=codec.window_message(window), idempotency_key=key)
        return GrpcCall(codec.adapted, timeout_s, "Adapt", request)

    def finetune(
        self, session_id: str, updates: int | None, seed: int, key: str, timeout_s: float
    ) -> GrpcCall[Operation]:
        request = pb.FineTuneRequest(session_id=session_id, updates=updates, seed=seed, idempotency_key=key)
        return GrpcCall(_operation, timeout_s, "FineTune", request)

    def get_operation(self, operation_id: str, timeout_s: float) -> GrpcCall[Operation]:
        return GrpcCall(_operation, timeout_s, "GetOperation", pb.GetOperationRequest(operation_id=operation_id))

    def cancel_operation(self, operation_id: str, key: str, timeout_s: float) -> GrpcCall[Operation]:
        request = pb.CancelOperationRequest(operation_id=operation_id, idempotency_key=key)
        return GrpcCall(_operation, timeout_s, "CancelOperation", request)

    def watch_operation(self, operation_id: str, timeout_s: float) -> GrpcCall[Operation]:
        return GrpcCall(_operation, timeout_s, "WatchOperation", pb.WatchOperationRequest(operation_id=operation_id))

    def act(self, session_id: str, observation: FloatArray, query: ActQuery, timeout_s: float) -> GrpcCall[Acted]:
        return GrpcCall(codec.acted, timeout_s, "Act", act_request(session_id, observation, query))

    def list_versions(
        self, session_id: str, page: Page, timeout_s: float
    ) -> GrpcCall[tuple[Sequence[PolicyVersion], str]]:
        request = pb.ListVersionsRequest(session_id=session_id, page_size=page.size, page_token=page.token)
        return GrpcCall(codec.versions, timeout_s, "ListVersions", request)

    def promote(self, session_id: str, version: int, reason: str, key: str, timeout_s: float) -> GrpcCall[Session]:
        request = pb.PromoteVersionRequest(session_id=session_id, version=version, reason=reason, idempotency_key=key)
        return GrpcCall(_session, timeout_s, "PromoteVersion", request)

    def roll_back(self, session_id: str, reason: str, key: str, timeout_s: float) -> GrpcCall[Session]:
        request = pb.RollbackVersionRequest(session_id=session_id, reason=reason, idempotency_key=key)
        return GrpcCall(_session, timeout_s, "RollbackVersion", request)

    def pin(self, session_id: str, version: int | None, reason: str, key: str, timeout_s: float) -> GrpcCall[Session]:
        request = pb.PinVersionRequest(session_id=session_id, version=version, reason=reason, idempotency_key=key)
        return GrpcCall(_session, timeout_s, "PinVersion", request)

    def unpin(self, session_id: str, reason: str, key: str, timeout_s: float) -> GrpcCall[Session]:
        request = pb.UnpinVersionRequest(session_id=session_id, reason=reason, idempotency_key=key)
        return GrpcCall(_session, timeout_s, "UnpinVersion", request)

    def move(self, session_id: str, checkpoint: str, reason: str, key: str, timeout_s: float) -> GrpcCall[Session]:
        request = pb.MoveSessionRequest(
            session_id=session_id, checkpoint=checkpoint, reason=reason, idempotency_key=key
        )
        return GrpcCall(_session, timeout_s, "MoveSession", request)

    def list_promotions(
        self, session_id: str, page: Page, timeout_s: float
    ) -> GrpcCall[tuple[Sequence[PromotionRecord], str]]:
        request = pb.ListPromotionsRequest(session_id=session_id, page_size=page.size, page_token=page.token)
        return GrpcCall(codec.promotions, timeout_s, "ListPromotions", request)

    def get_bundle(
        self, session_id: str, known_tag: str, known_graphs: Sequence[str], max_bytes: int, timeout_s: float
    ) -> GrpcCall[bytes | None]:
        request = pb.GetBundleRequest(session_id=session_id, known_tag=known_tag, known_graphs=known_graphs)

        def read(reply: Any) -> bytes | None:
            require_within(len(reply.bundle), max_bytes)
            return reply.bundle or None

        return GrpcCall(read, timeout_s, "GetBundle", request)

    def live(self, timeout_s: float) -> GrpcCall[bool]:
        return GrpcCall(lambda reply: True, timeout_s, "Check", health_pb2.HealthCheckRequest(), _HEALTH)

    def ready(self, timeout_s: float) -> GrpcCall[bool]:
        return GrpcCall(_serving, timeout_s, "Check", health_pb2.HealthCheckRequest(), _HEALTH)


def act_request(session_id: str, observation: FloatArray, query: ActQuery) -> pb.ActRequest:
    return pb.ActRequest(
        session_id=session_id,
        observation=encode(observation),
        deterministic=query.deterministic,
        episode=query.episode,
        step=query.step,
        budget_ms=query.budget_ms,
        observed_at_unix_us=query.observed_at_unix_us,
        previous_action=None if query.previous_action is None else encode(query.previous_action),
    )


_HEALTH: type[Any] = health_pb2_grpc.HealthStub


def _session(reply: Any) -> Session:
    return codec.session(reply.session)


def _operation(reply: Any) -> Operation:
    return codec.operation(reply.operation)


def _nothing(reply: pb.DeleteSessionResponse) -> None:
    """The status says it all."""


def _serving(reply: Any) -> bool:
    return int(reply.status) == int(health_pb2.HealthCheckResponse.SERVING)
