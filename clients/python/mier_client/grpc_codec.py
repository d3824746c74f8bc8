"""Protocol messages <-> the client's values and errors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import grpc
import numpy as np
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from mier_client import errors, values
from mier_client.errors import FieldViolation, MierError, Problem
from mier_client.replies import reply
from mier_proto.convert import decode
from mier_proto.v1 import adaptation_pb2 as pb

_DOMAIN = "mier"
_TYPE_PREFIX = "urn:problem-type:mier:"
"""What HTTP's problems are called in full; gRPC sends the reason alone."""
_QUOTAS = ("TOO_MANY_CALLS", "TOO_MANY_SESSIONS", "TOO_MANY_FINE_TUNES", "TOO_MUCH_STORED")
"""Reasons of RESOURCE_EXHAUSTED that are the caller's own bound and not the service's."""
_PREFIXES = {
    "VersionOrigin": "VERSION_ORIGIN_",
    "Promotion": "PROMOTION_",
    "PromotionKind": "PROMOTION_KIND_",
    "FallbackKind": "FALLBACK_KIND_",
    "FallbackReason": "FALLBACK_REASON_",
    "ShadowState": "SHADOW_STATE_",
}
_KINDS: dict[grpc.StatusCode, type[MierError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: errors.AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: errors.AccessDenied,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Conflict,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: errors.Unavailable,
}


def error_from_rpc(error: grpc.RpcError) -> MierError:
    """The typed error of a call that failed; keeps the service's words, if it was the service that spoke."""
    rpc = cast(grpc.Call, error)  # what a stub raises is both, which its published types cannot say
    code, status = rpc.code(), _status(rpc)
    if status is None:  # not the service's words but the channel's
        detail = rpc.details() or ""
        reason = "UNREACHABLE" if code is grpc.StatusCode.UNAVAILABLE else code.name
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in detail:
            reason = "BODY_TOO_LARGE"  # so large that gRPC itself refused it
        return _error(code, Problem(reason, detail, request_id=_request_id(rpc)))
    return _error(code, _problem(status, code.name, _request_id(rpc)))


def error_from_status(status: status_pb2.Status) -> MierError:
    """The typed error of one entry of a stream or a batch."""
    code = next((c for c in grpc.StatusCode if c.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    return _error(code, _problem(status, code.name, None))


@reply("a session")
def session(message: pb.Session) -> values.Session:
    return values.Session(
        id=message.id,
        checkpoint=message.checkpoint,
        checkpoint_hash=message.checkpoint_hash,
        environment=_environment(message.environment),
        seed=message.seed,
        state=values.SessionState(_name(pb.SessionState.Name(message.state), "SESSION_STATE_")),
        active_version=message.active_version,
        model_context=model_context(message.model_context),
        transitions_count=message.transitions_count,
        create_time=_time(message.create_time),
        pinned=message.pinned,
        mode=_mode(message.mode),
        task_number=message.task_number or 1,  # the first releases did not say
        task_start=message.task_start,
        rules=_rules(message),
    )


def _mode(number: int) -> values.SessionMode:
    if number == pb.SESSION_MODE_UNSPECIFIED:
        return values.SessionMode.OFF  # the first releases did not say
    known = next((name for name, value in pb.SessionMode.items() if value == number), "")
    return values.SessionMode(known.removeprefix("SESSION_MODE_").lower())


def _rules(message: pb.Session) -> values.ActingRules:
    limits = None
    if message.HasField("action_limits"):
        own = message.action_limits
        limits = values.ActionLimits(
            tuple(own.low) or None,
            tuple(own.high) or None,
            tuple(own.max_change) or None,
        )
    return values.ActingRules(
        fallback=None
        if message.fallback in (pb.FALLBACK_KIND_UNSPECIFIED, pb.FALLBACK_KIND_NONE)
        else values.FallbackKind(_known("FallbackKind", message.fallback)),
        action_limits=limits,
        max_observation_age_ms=message.max_observation_age_ms if message.HasField("max_observation_age_ms") else None,
        shadow=_shadow_rule(message.shadow) if message.HasField("shadow") else None,
    )


def _shadow_rule(message: pb.ShadowRule) -> values.ShadowRule:
    return values.ShadowRule(message.acts, message.max_difference if message.HasField("max_difference") else None)


def put_rules(request: pb.CreateSessionRequest, rules: values.ActingRules) -> None:
    """Declares them in the request."""
    if rules.fallback is not None:
        request.fallback = pb.FallbackKind.Value(f"FALLBACK_KIND_{rules.fallback.name}")
    if rules.action_limits is not None:
        own = rules.action_limits
        request.action_limits.CopyFrom(pb.ActionLimits(low=own.low, high=own.high, max_change=own.max_change))
    if rules.max_observation_age_ms is not None:
        request.max_observation_age_ms = rules.max_observation_age_ms
    if rules.shadow is not None:
        request.shadow.CopyFrom(pb.ShadowRule(acts=rules.shadow.acts, max_difference=rules.shadow.max_difference))


def environment_message(spec: values.EnvironmentSpec) -> pb.EnvironmentSpec:
    return pb.EnvironmentSpec(
        id=spec.id,
        observation_names=spec.observation_names,
        action_names=spec.action_names,
        action_low=spec.action_low,
        action_high=spec.action_high,
        dt_s=spec.dt_s,
        horizon_steps=spec.horizon_steps,
        varies=pb.Varies.Value(f"VARIES_{spec.varies.name}"),
        healthy_ranges=[pb.HealthyRange(index=r.index, low=r.low, high=r.high) for r in spec.healthy_ranges],
        action_max_change=spec.action_max_change,
    )


def window_message(window: values.Window) -> pb.Window:
    if window.last_steps is not None:
        return pb.Window(last_steps=window.last_steps)
    if window.from_episode is not None:
        return pb.Window(from_episode=window.from_episode)
    return pb.Window(all=True)


@reply("a model context")
def model_context(message: pb.ModelContext) -> values.ModelContext:
    return values.ModelContext(
        number=message.number,
        values=np.array(message.values, dtype=np.float32),
        heldout_nll_before=message.heldout_nll_before if message.HasField("heldout_nll_before") else None,
        heldout_nll_after=message.heldout_nll_after if message.HasField("heldout_nll_after") else None,
        ood_score=message.ood_score if message.HasField("ood_score") else None,
        transitions_used=message.transitions_used,
        ood_percentile=message.ood_percentile if message.HasField("ood_percentile") else None,
    )


@reply("a policy version")
def policy_version(message: pb.PolicyVersion) -> values.PolicyVersion:
    return values.PolicyVersion(
        number=message.number,
        parent=message.parent,
        weights_hash=message.weights_hash,
        policy_context=np.array(message.policy_context, dtype=np.float32),
        model_context_number=message.model_context_number,
        origin=values.VersionOrigin(_known("VersionOrigin", message.origin)),
        promotion=values.Promotion(_known("Promotion", message.promotion)),
        operation_id=message.operation_id or None,
        checkpoint_hash=message.checkpoint_hash,
        transitions_used=message.transitions_used,
        seed=message.seed if message.HasField("seed") else None,
        configuration_json=message.configuration_json or None,
        create_time=_time(message.create_time),
        checkpoint=message.checkpoint,
        gate=_gate(message.gate) if message.HasField("gate") else None,
        shadow=_shadow(message.shadow) if message.HasField("shadow") else None,
        returns=_returns(message.returns) if message.HasField("returns") else None,
    )


def _gate(message: pb.Gate) -> values.Gate:
    return values.Gate(**{field.name: value for field, value in message.ListFields()})


def _shadow(message: pb.Shadow) -> values.Shadow:
    known = {field.name: value for field, value in message.ListFields()}
    counts = {name: getattr(message, name) for name in ("acts", "acts_wanted", "incumbent_version")}
    return values.Shadow(**(known | counts | {"state": values.ShadowState(_known("ShadowState", message.state))}))


def _returns(message: pb.EpisodeReturns) -> values.Returns:
    return values.Returns(
        episodes=message.episodes,
        mean=message.mean,
        low=message.low if message.HasField("low") else None,
        high=message.high if message.HasField("high") else None,
    )


@reply("a change of version")
def promotion_record(message: pb.PromotionRecord) -> values.PromotionRecord:
    return values.PromotionRecord(
        kind=values.PromotionKind(_known("PromotionKind", message.kind)),
        from_version=message.from_version,
        to_version=message.to_version,
        who=message.who,
        reason=message.reason,
        create_time=_time(message.create_time),
    )


@reply("an operation")
def operation(message: pb.Operation) -> values.Operation:
    fault = None
    if message.HasField("error"):
        problem = error_from_status(message.error).problem
        fault = values.Fault(problem.reason, problem.detail)
    return values.Operation(
        id=message.id,
        session_id=message.session_id,
        state=values.OperationState(_name(pb.OperationState.Name(message.state), "OPERATION_STATE_")),
        cancel_requested=message.cancel_requested,
        updates_done=message.updates_done,
        updates_total=message.updates_total,
        metrics=dict(message.metrics.values),
        seed=message.seed,
        transitions_used=message.transitions_used,
        start_version=message.start_version,
        result_version=message.result_version or None,
        error=fault,
        attempts=message.attempts,
        create_time=_time(message.create_time),
        update_time=_time(message.update_time),
        reason=message.reason,
    )


@reply("an adaptation")
def adapted(message: pb.AdaptResponse) -> values.Adapted:
    return values.Adapted(
        model_context=model_context(message.model_context),
        active_version=policy_version(message.active_version),
        published=message.published,
        elapsed_ms=message.elapsed_ms,
    )


@reply("a count of stored steps")
def submitted(message: pb.SubmitTransitionsResponse) -> values.Submitted:
    return values.Submitted(message.stored, message.duplicates, message.transitions_count)


@reply("a page of sessions")
def sessions(message: pb.ListSessionsResponse) -> tuple[list[values.Session], str]:
    return [session(item) for item in message.sessions], message.next_page_token


@reply("a page of versions")
def versions(message: pb.ListVersionsResponse) -> tuple[list[values.PolicyVersion], str]:
    return [policy_version(item) for item in message.versions], message.next_page_token


@reply("a page of changes of version")
def promotions(message: pb.ListPromotionsResponse) -> tuple[list[values.PromotionRecord], str]:
    return [promotion_record(item) for item in message.promotions], message.next_page_token


@reply("an action")
def acted(message: pb.ActResponse) -> values.Acted:
    fallback = None
    if message.HasField("fallback"):
        fallback = values.Fallback(
            values.FallbackKind(_known("FallbackKind", message.fallback.kind)),
            values.FallbackReason(_known("FallbackReason", message.fallback.reason)),
        )
    return values.Acted(
        action=decode(message.action, "action", (None,)),
        policy_version=message.policy_version,
        weights_hash=message.weights_hash,
        ood_percentile=message.ood_percentile if message.HasField("ood_percentile") else None,
        fallback=fallback,
        limited=message.limited,
    )


def _environment(message: pb.EnvironmentSpec) -> values.EnvironmentSpec:
    return values.EnvironmentSpec(
        id=message.id,
        observation_names=tuple(message.observation_names),
        action_names=tuple(message.action_names),
        action_low=tuple(message.action_low),
        action_high=tuple(message.action_high),
        dt_s=message.dt_s,
        horizon_steps=message.horizon_steps,
        varies=values.Varies(_name(pb.Varies.Name(message.varies), "VARIES_")),
        healthy_ranges=tuple(values.HealthyRange(r.index, r.low, r.high) for r in message.healthy_ranges),
        action_max_change=tuple(message.action_max_change),
    )


def _error(code: grpc.StatusCode, problem: Problem) -> MierError:
    if problem.reason == "BODY_TOO_LARGE":  # gRPC has one code for this and for overload; only the latter passes
        return errors.InvalidRequest(problem)
    if problem.reason in _QUOTAS:
        return errors.QuotaExceeded(problem)
    return _KINDS.get(code, errors.ServerFault)(problem)


def _problem(status: status_pb2.Status, code_name: str, request_id: str | None) -> Problem:
    reason, type_uri = code_name, "about:blank"
    violations: list[FieldViolation] = []
    retry_after_s = None
    for detail in status.details:
        info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry, request = error_details_pb2.RetryInfo(), error_details_pb2.RequestInfo()
        if _unpacks(detail, info):
            reason = info.reason
            if info.domain == _DOMAIN:
                type_uri = _TYPE_PREFIX + reason.lower().replace("_", "-")
            request_id = request_id or info.metadata.get("request_id")
        elif _unpacks(detail, bad_request):
            violations += [FieldViolation(v.field, v.description) for v in bad_request.field_violations]
        elif _unpacks(detail, retry):
            retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        elif _unpacks(detail, request):
            request_id = request.request_id
    return Problem(
        reason=reason,
        detail=status.message,
        type=type_uri,
        request_id=request_id,
        violations=tuple(violations),
        retry_after_s=retry_after_s,
    )


def _unpacks(detail: any_pb2.Any, into: Message) -> bool:
    try:
        return detail.Unpack(into)
    except DecodeError:
        return False


def _status(call: grpc.Call) -> status_pb2.Status | None:
    """The service's words, if some came with the call that fit how it ended."""
    try:
        found: status_pb2.Status | None = rpc_status.from_call(call)
    except (DecodeError, ValueError):
        return None
    return found


def _request_id(call: grpc.Call) -> str | None:
    for metadata in (call.trailing_metadata(), call.initial_metadata()):
        for key, value in metadata or ():
            if key == "x-request-id":
                return value if isinstance(value, str) else value.decode()
    return None


def _name(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _known(enum: str, number: int) -> str:
    """What this release calls a number of that enum; a later one may send numbers that have no name here."""
    values_by_number = pb.DESCRIPTOR.enum_types_by_name[enum].values_by_number
    if number not in values_by_number:
        return f"number {number}"
    return _name(values_by_number[number].name, _PREFIXES[enum])


def _time(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)
