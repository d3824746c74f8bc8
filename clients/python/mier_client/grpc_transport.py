"""The service over gRPC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mier_client import grpc_codec as codec
from mier_client.act_stream import GrpcActStream
from mier_client.security import KeyedChannel, Tls, authorization
from mier_client.tracing import TRACED, TracedChannel
from mier_client.transport import ActQuery, ActStream, Page, TransitionBatch
from mier_client.values import (
    Acted,
    Adapted,
    EnvironmentSpec,
    FloatArray,
    Operation,
    PolicyVersion,
    PromotionRecord,
    Session,
    Submitted,
    Window,
)
from mier_proto.convert import encode
from mier_proto.v1 import adaptation_pb2 as pb
from mier_proto.v1 import adaptation_pb2_grpc

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # The client retries by itself, under one deadline and one idempotency key.
    ("grpc.enable_retries", 0),
    # A service that restarts is found again in fractions of a second, not after gRPC's default minute.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class GrpcTransport:
    """One channel to one service; safe to share between threads."""

    def __init__(self, target: str, tls: Tls | None, api_key: str | None = None) -> None:
        """`tls` None: plain text."""
        self._channel = (
            grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
            if tls is None
            else grpc.secure_channel(target, tls.grpc(), options=_CHANNEL_OPTIONS)
        )
        calls: Any = TracedChannel(self._channel) if TRACED else self._channel
        if api_key is not None:
            calls = KeyedChannel(calls, authorization(api_key))
        self._stub: adaptation_pb2_grpc.AdaptationServiceStub = adaptation_pb2_grpc.AdaptationServiceStub(calls)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def create_session(
        self, checkpoint: str, seed: int, expected: EnvironmentSpec | None, key: str, timeout_s: float
    ) -> Session:
        request = pb.CreateSessionRequest(
            checkpoint=checkpoint,
            seed=seed,
            expected_environment=None if expected is None else codec.environment_message(expected),
            idempotency_key=key,
        )
        with _typed_errors():
            return codec.session(self._stub.CreateSession(request, timeout=timeout_s).session)

    def get_session(self, session_id: str, timeout_s: float) -> Session:
        request = pb.GetSessionRequest(session_id=session_id)
        with _typed_errors():
            return codec.session(self._stub.GetSession(request, timeout=timeout_s).session)

    def list_sessions(self, page: Page, timeout_s: float) -> tuple[Sequence[Session], str]:
        request = pb.ListSessionsRequest(page_size=page.size, page_token=page.token)
        with _typed_errors():
            reply = self._stub.ListSessions(request, timeout=timeout_s)
        return [codec.session(session) for session in reply.sessions], reply.next_page_token

    def delete_session(self, session_id: str, key: str, timeout_s: float) -> None:
        request = pb.DeleteSessionRequest(session_id=session_id, idempotency_key=key)
        with _typed_errors():
            self._stub.DeleteSession(request, timeout=timeout_s)

    def pause(self, session_id: str, key: str, timeout_s: float) -> Session:
        request = pb.PauseSessionRequest(session_id=session_id, idempotency_key=key)
        with _typed_errors():
            return codec.session(self._stub.PauseSession(request, timeout=timeout_s).session)

    def resume(self, session_id: str, key: str, timeout_s: float) -> Session:
        request = pb.ResumeSessionRequest(session_id=session_id, idempotency_key=key)
        with _typed_errors():
            return codec.session(self._stub.ResumeSession(request, timeout=timeout_s).session)

    def submit_transitions(self, session_id: str, batch: TransitionBatch, key: str, timeout_s: float) -> Submitted:
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
        with _typed_errors():
            reply = self._stub.SubmitTransitions(request, timeout=timeout_s)
        return Submitted(reply.stored, reply.duplicates, reply.transitions_count)

    def adapt(self, session_id: str, window: Window, key: str, timeout_s: float) -> Adapted:
        request = pb.AdaptRequest(session_id=session_id, window=codec.window_message(window), idempotency_key=key)
        with _typed_errors():
            reply = self._stub.Adapt(request, timeout=timeout_s)
        return Adapted(
            model_context=codec.model_context(reply.model_context),
            active_version=codec.policy_version(reply.active_version),
            published=reply.published,
            elapsed_ms=reply.elapsed_ms,
        )

    def finetune(self, session_id: str, updates: int | None, seed: int, key: str, timeout_s: float) -> Operation:
        request = pb.FineTuneRequest(session_id=session_id, updates=updates, seed=seed, idempotency_key=key)
        with _typed_errors():
            return codec.operation(self._stub.FineTune(request, timeout=timeout_s).operation)

    def get_operation(self, operation_id: str, timeout_s: float) -> Operation:
        request = pb.GetOperationRequest(operation_id=operation_id)
        with _typed_errors():
            return codec.operation(self._stub.GetOperation(request, timeout=timeout_s).operation)

    def cancel_operation(self, operation_id: str, key: str, timeout_s: float) -> Operation:
        request = pb.CancelOperationRequest(operation_id=operation_id, idempotency_key=key)
        with _typed_errors():
            return codec.operation(self._stub.CancelOperation(request, timeout=timeout_s).operation)

    def watch_operation(self, operation_id: str, timeout_s: float) -> Iterator[Operation]:
        request = pb.WatchOperationRequest(operation_id=operation_id)
        with _typed_errors():
            stream = self._stub.WatchOperation(request, timeout=timeout_s)
            try:
                for reply in stream:
                    yield codec.operation(reply.operation)
            finally:
                cast("grpc.Future[object]", stream).cancel()

    def act(self, session_id: str, observation: FloatArray, query: ActQuery, timeout_s: float) -> Acted:
        with _typed_errors():
            return codec.acted(self._stub.Act(_act_request(session_id, observation, query), timeout=timeout_s))

    def open_act_stream(self) -> ActStream:
        return _Stream(GrpcActStream(self._stub.ActStream))

    def list_versions(self, session_id: str, page: Page, timeout_s: float) -> tuple[Sequence[PolicyVersion], str]:
        request = pb.ListVersionsRequest(session_id=session_id, page_size=page.size, page_token=page.token)
        with _typed_errors():
            reply = self._stub.ListVersions(request, timeout=timeout_s)
        return [codec.policy_version(version) for version in reply.versions], reply.next_page_token

    def promote(self, session_id: str, version: int, reason: str, key: str, timeout_s: float) -> Session:
        request = pb.PromoteVersionRequest(session_id=session_id, version=version, reason=reason, idempotency_key=key)
        with _typed_errors():
            return codec.session(self._stub.PromoteVersion(request, timeout=timeout_s).session)

    def roll_back(self, session_id: str, reason: str, key: str, timeout_s: float) -> Session:
        request = pb.RollbackVersionRequest(session_id=session_id, reason=reason, idempotency_key=key)
        with _typed_errors():
            return codec.session(self._stub.RollbackVersion(request, timeout=timeout_s).session)

    def pin(self, session_id: str, version: int | None, reason: str, key: str, timeout_s: float) -> Session:
        request = pb.PinVersionRequest(session_id=session_id, version=version, reason=reason, idempotency_key=key)
        with _typed_errors():
            return codec.session(self._stub.PinVersion(request, timeout=timeout_s).session)

    def unpin(self, session_id: str, reason: str, key: str, timeout_s: float) -> Session:
        request = pb.UnpinVersionRequest(session_id=session_id, reason=reason, idempotency_key=key)
        with _typed_errors():
            return codec.session(self._stub.UnpinVersion(request, timeout=timeout_s).session)

    def move(self, session_id: str, checkpoint: str, reason: str, key: str, timeout_s: float) -> Session:
        request = pb.MoveSessionRequest(
            session_id=session_id, checkpoint=checkpoint, reason=reason, idempotency_key=key
        )
        with _typed_errors():
            return codec.session(self._stub.MoveSession(request, timeout=timeout_s).session)

    def list_promotions(self, session_id: str, page: Page, timeout_s: float) -> tuple[Sequence[PromotionRecord], str]:
        request = pb.ListPromotionsRequest(session_id=session_id, page_size=page.size, page_token=page.token)
        with _typed_errors():
            reply = self._stub.ListPromotions(request, timeout=timeout_s)
        return [codec.promotion_record(entry) for entry in reply.promotions], reply.next_page_token

    def live(self, timeout_s: float) -> bool:
        self._check_health(timeout_s)
        return True

    def ready(self, timeout_s: float) -> bool:
        return self._check_health(timeout_s) == int(health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        self._channel.close()

    def _check_health(self, timeout_s: float) -> int:
        with _typed_errors():
            return int(self._health.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s).status)


class _Stream:
    """The transport's values over the stream's messages."""

    def __init__(self, stream: GrpcActStream) -> None:
        self._stream = stream

    def act(self, session_id: str, observation: FloatArray, query: ActQuery, timeout_s: float) -> Acted:
        return self._stream.act(_act_request(session_id, observation, query), timeout_s)

    def close(self) -> None:
        self._stream.close()


def _act_request(session_id: str, observation: FloatArray, query: ActQuery) -> pb.ActRequest:
    return pb.ActRequest(
        session_id=session_id,
        observation=encode(observation),
        deterministic=query.deterministic,
        episode=query.episode,
        step=query.step,
    )


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise codec.error_from_rpc(error) from error
