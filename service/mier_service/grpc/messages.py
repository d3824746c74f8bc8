"""Values <-> messages of the contract, one to one."""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from pydantic import ValidationError

from mier_proto import convert
from mier_proto.v1 import adaptation_pb2 as pb
from mier_service import values as v
from mier_service.acting.acting import ActCall, Action
from mier_service.acting.budget import Budget
from mier_service.environments import ExpectedEnvironment
from mier_service.errors import RULES, Reason, ServiceError, invalid
from mier_service.grpc.statuses import DOMAIN, status_of
from mier_service.http.problems import from_pydantic
from mier_service.sessions.recording import FloatArray, Submission

_VARIES = {v.VariesValue.REWARD: pb.VARIES_REWARD, v.VariesValue.DYNAMICS: pb.VARIES_DYNAMICS}
_MODES = {
    v.SessionMode.OFF: pb.SESSION_MODE_OFF,
    v.SessionMode.CONTEXT: pb.SESSION_MODE_CONTEXT,
    v.SessionMode.AUTO: pb.SESSION_MODE_AUTO,
}
_SESSION_STATES = {
    v.SessionState.ACTIVE: pb.SESSION_STATE_ACTIVE,
    v.SessionState.PAUSED: pb.SESSION_STATE_PAUSED,
}
_ORIGINS = {
    v.VersionOrigin.CHECKPOINT: pb.VERSION_ORIGIN_CHECKPOINT,
    v.VersionOrigin.ADAPT: pb.VERSION_ORIGIN_ADAPT,
    v.VersionOrigin.FINE_TUNE: pb.VERSION_ORIGIN_FINE_TUNE,
}
_PROMOTIONS = {
    v.Promotion.UNGATED: pb.PROMOTION_UNGATED,
    v.Promotion.PROMOTED: pb.PROMOTION_PROMOTED,
    v.Promotion.REJECTED: pb.PROMOTION_REJECTED,
    v.Promotion.INSUFFICIENT_DATA: pb.PROMOTION_INSUFFICIENT_DATA,
}
_PROMOTION_KINDS = {
    v.PromotionKind.PUBLISH: pb.PROMOTION_KIND_PUBLISH,
    v.PromotionKind.PROMOTE: pb.PROMOTION_KIND_PROMOTE,
    v.PromotionKind.ROLLBACK: pb.PROMOTION_KIND_ROLLBACK,
    v.PromotionKind.PIN: pb.PROMOTION_KIND_PIN,
    v.PromotionKind.UNPIN: pb.PROMOTION_KIND_UNPIN,
    v.PromotionKind.MOVE: pb.PROMOTION_KIND_MOVE,
}
_SHADOW_STATES = {
    v.ShadowState.RUNNING: pb.SHADOW_STATE_RUNNING,
    v.ShadowState.PASSED: pb.SHADOW_STATE_PASSED,
    v.ShadowState.REJECTED: pb.SHADOW_STATE_REJECTED,
    v.ShadowState.SUPERSEDED: pb.SHADOW_STATE_SUPERSEDED,
}
_FALLBACK_KINDS = {
    v.FallbackKind.INCUMBENT: pb.FALLBACK_KIND_INCUMBENT,
    v.FallbackKind.BASE_POLICY: pb.FALLBACK_KIND_BASE_POLICY,
    v.FallbackKind.HOLD_LAST: pb.FALLBACK_KIND_HOLD_LAST,
    v.FallbackKind.HOLD_ZERO: pb.FALLBACK_KIND_HOLD_ZERO,
}
_FALLBACK_REASONS = {
    v.FallbackReason.LOADING: pb.FALLBACK_REASON_LOADING,
    v.FallbackReason.BUSY: pb.FALLBACK_REASON_BUSY,
    v.FallbackReason.UNAVAILABLE: pb.FALLBACK_REASON_UNAVAILABLE,
}
_OPERATION_STATES = {
    v.OperationState.QUEUED: pb.OPERATION_STATE_QUEUED,
    v.OperationState.RUNNING: pb.OPERATION_STATE_RUNNING,
    v.OperationState.SUCCEEDED: pb.OPERATION_STATE_SUCCEEDED,
    v.OperationState.FAILED: pb.OPERATION_STATE_FAILED,
    v.OperationState.CANCELLED: pb.OPERATION_STATE_CANCELLED,
}


def environment(value: v.EnvironmentValue) -> pb.EnvironmentSpec:
    return pb.EnvironmentSpec(
        id=value.id,
        observation_dim=value.observation_dim,
        action_dim=value.action_dim,
        observation_names=value.observation_names,
        action_names=value.action_names,
        action_low=value.action_low,
        action_high=value.action_high,
        dt_s=value.dt_s,
        horizon_steps=value.horizon_steps,
        varies=_VARIES[value.varies],
        healthy_ranges=[pb.HealthyRange(index=r.index, low=r.low, high=r.high) for r in value.healthy_ranges],
        action_max_change=value.action_max_change,
    )


def expected_environment(message: pb.EnvironmentSpec) -> ExpectedEnvironment:
    """What is left at its default is not compared."""
    fields = {
        name: getattr(message, name)
        for name in ("id", "observation_dim", "action_dim", "dt_s", "horizon_steps")
        if getattr(message, name)
    }
    fields |= {
        name: list(getattr(message, name))
        for name in ("observation_names", "action_names", "action_low", "action_high", "action_max_change")
        if getattr(message, name)
    }
    if message.healthy_ranges:
        fields["healthy_ranges"] = [{"index": r.index, "low": r.low, "high": r.high} for r in message.healthy_ranges]
    if message.varies != pb.VARIES_UNSPECIFIED:
        known = {number: value for value, number in _VARIES.items()}
        if message.varies not in known:
            raise invalid("expected_environment.varies", f"expected a number of Varies, got {message.varies}")
        fields["varies"] = known[message.varies]
    try:
        return ExpectedEnvironment.model_validate(fields)
    except ValidationError as error:
        raise from_pydantic(error, within="expected_environment") from None


def window(message: pb.Window) -> v.WindowValue:
    kind = message.WhichOneof("kind")
    try:
        return v.WindowValue.model_validate({} if kind is None else {kind: getattr(message, kind)})
    except ValidationError as error:
        raise from_pydantic(error, within="window") from None


def window_message(value: v.WindowValue | None) -> pb.Window | None:
    if value is None:
        return None
    message = pb.Window()
    for name, given in value.model_dump(exclude_none=True).items():
        setattr(message, name, given)
    return message


def model_context(value: v.ModelContextValue) -> pb.ModelContext:
    return pb.ModelContext(
        number=value.number,
        values=value.values,
        heldout_nll_before=value.heldout_nll_before,
        heldout_nll_after=value.heldout_nll_after,
        ood_score=value.ood_score,
        transitions_used=value.transitions_used,
        window=window_message(value.window),
        create_time=_time(value.create_time.timestamp()),
        ood_percentile=value.ood_percentile,
    )


def session_mode(number: int) -> v.SessionMode:
    """Refuses one that is not stated, or unknown."""
    for value, known in _MODES.items():
        if int(known) == number:
            return value
    raise invalid("mode", f"expected SESSION_MODE_OFF, _CONTEXT or _AUTO, got {number}")


def session(value: v.SessionValue) -> pb.Session:
    return pb.Session(
        id=value.id,
        checkpoint=value.checkpoint,
        checkpoint_hash=value.checkpoint_hash,
        environment=environment(value.environment),
        seed=value.seed,
        state=_SESSION_STATES[value.state],
        active_version=value.active_version,
        model_context=model_context(value.model_context),
        transitions_count=value.transitions_count,
        create_time=_time(value.create_time.timestamp()),
        pinned=value.pinned,
        mode=_MODES[value.mode],
        task_number=value.task_number,
        task_start=value.task_start,
        fallback=_FALLBACK_KINDS[value.fallback] if value.fallback else pb.FALLBACK_KIND_NONE,
        action_limits=None
        if value.action_limits is None
        else pb.ActionLimits(**value.action_limits.model_dump(exclude_none=True)),
        max_observation_age_ms=value.max_observation_age_ms,
        shadow=None if value.shadow is None else pb.ShadowRule(**value.shadow.model_dump(exclude_none=True)),
    )


def version(value: v.VersionValue) -> pb.PolicyVersion:
    return pb.PolicyVersion(
        number=value.number,
        parent=value.parent,
        weights_hash=value.weights_hash,
        policy_context=value.policy_context,
        model_context_number=value.model_context_number,
        origin=_ORIGINS[value.origin],
        promotion=_PROMOTIONS[value.promotion],
        operation_id=value.operation_id or "",
        checkpoint_hash=value.checkpoint_hash,
        transitions_used=value.transitions_used,
        seed=value.seed,
        configuration_json=value.configuration_json or "",
        create_time=_time(value.create_time.timestamp()),
        checkpoint=value.checkpoint,
        gate=None if value.gate is None else pb.Gate(**value.gate.model_dump(exclude_none=True)),
        shadow=None if value.shadow is None else _shadow(value.shadow),
        returns=None if value.returns is None else pb.EpisodeReturns(**value.returns.model_dump(exclude_none=True)),
    )


def _shadow(value: v.ShadowValue) -> pb.Shadow:
    return pb.Shadow(state=_SHADOW_STATES[value.state], **value.model_dump(exclude_none=True, exclude={"state"}))


def promotion(value: v.PromotionRecordValue) -> pb.PromotionRecord:
    return pb.PromotionRecord(
        kind=_PROMOTION_KINDS[value.kind],
        from_version=value.from_version,
        to_version=value.to_version,
        who=value.who,
        reason=value.reason,
        create_time=_time(value.create_time.timestamp()),
    )


def adaptation(value: v.AdaptationValue) -> pb.AdaptResponse:
    return pb.AdaptResponse(
        model_context=model_context(value.model_context),
        active_version=version(value.active_version),
        published=value.published,
        elapsed_ms=value.elapsed_ms,
    )


def operation(value: v.OperationValue) -> pb.Operation:
    return pb.Operation(
        id=value.id,
        session_id=value.session_id,
        state=_OPERATION_STATES[value.state],
        cancel_requested=value.cancel_requested,
        updates_done=value.updates_done,
        updates_total=value.updates_total,
        metrics=None if value.metrics is None else pb.FineTuneMetrics(values=value.metrics),
        seed=value.seed,
        transitions_used=value.transitions_used,
        start_version=value.start_version,
        result_version=value.result_version,
        error=None if value.error is None else _operation_error(value.error),
        attempts=value.attempts,
        create_time=_time(value.create_time.timestamp()),
        update_time=_time(value.update_time.timestamp()),
        reason=value.reason,
    )


def submission(message: pb.SubmitTransitionsRequest) -> Submission:
    """As arrays; their sizes are checked by the use case."""
    reward = _array(message.reward, "reward")
    return Submission(
        session_id=message.session_id,
        episode=message.episode,
        first_step=message.first_step,
        observation=_array(message.observation, "observation"),
        action=_array(message.action, "action"),
        reward=reward,
        next_observation=_array(message.next_observation, "next_observation"),
        terminated=np.asarray(message.terminated, np.float32) if message.terminated else np.zeros_like(reward),
        truncated=np.asarray(message.truncated, np.float32) if message.truncated else np.zeros_like(reward),
        policy_version=np.asarray(message.policy_version, np.int64),
        key=message.idempotency_key,
    )


def acting_rules(message: pb.CreateSessionRequest) -> v.ActingRules:
    """What is left out, or empty, is not declared."""
    fields: dict[str, Any] = {}
    if message.fallback not in (pb.FALLBACK_KIND_UNSPECIFIED, pb.FALLBACK_KIND_NONE):
        known = {number: value for value, number in _FALLBACK_KINDS.items()}
        if message.fallback not in known:
            raise invalid("fallback", f"expected a number of FallbackKind, got {message.fallback}")
        fields["fallback"] = known[message.fallback]
    if message.HasField("action_limits"):
        limits = message.action_limits
        given = {name: list(getattr(limits, name)) for name in ("low", "high", "max_change") if getattr(limits, name)}
        fields["action_limits"] = given
    if message.HasField("max_observation_age_ms"):
        fields["max_observation_age_ms"] = message.max_observation_age_ms
    if message.HasField("shadow"):
        most = message.shadow.max_difference if message.shadow.HasField("max_difference") else None
        fields["shadow"] = {"acts": message.shadow.acts, "max_difference": most}
    try:
        return v.ActingRules.model_validate(fields)
    except ValidationError as error:
        raise from_pydantic(error) from None


def act_call(message: pb.ActRequest, budget: Budget | None) -> ActCall:
    return ActCall(
        session_id=message.session_id,
        observation=_array(message.observation, "observation"),
        deterministic=message.deterministic,
        episode=message.episode if message.HasField("episode") else None,
        step=message.step if message.HasField("step") else None,
        budget=budget,
        observed_at_unix_us=_time_us(message),
        previous_action=_array(message.previous_action, "previous_action")
        if message.HasField("previous_action")
        else None,
    )


def _time_us(message: pb.ActRequest) -> int | None:
    if not message.HasField("observed_at_unix_us"):
        return None
    if not 0 <= message.observed_at_unix_us < v.MAX_SEED:
        raise invalid(
            "observed_at_unix_us", f"expected 0 <= observed_at_unix_us < 2^53, got {message.observed_at_unix_us}"
        )
    return message.observed_at_unix_us


def act_response(action: Action) -> pb.ActResponse:
    data = action.action.astype("<f4", copy=False).tobytes()
    tensor = pb.Tensor(shape=action.action.shape, data=data)
    return pb.ActResponse(
        action=tensor,
        policy_version=action.policy_version,
        weights_hash=action.weights_hash,
        ood_percentile=action.ood_percentile,
        fallback=None if action.fallback is None else _fallback(action.fallback),
        limited=action.limited,
    )


def _fallback(value: v.FallbackValue) -> pb.Fallback:
    return pb.Fallback(kind=_FALLBACK_KINDS[value.kind], reason=_FALLBACK_REASONS[value.reason])


def act_outcome(outcome: Action | ServiceError, request_id: str) -> pb.ActOutcome:
    if isinstance(outcome, ServiceError):
        return pb.ActOutcome(error=status_of(outcome, request_id))
    return pb.ActOutcome(response=act_response(outcome))


def _array(tensor: pb.Tensor, name: str) -> FloatArray:
    try:
        return convert.decode(tensor, name)
    except ValueError as error:
        raise invalid(name, str(error)) from None


def _time(time_s: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(round(time_s * 1e6))
    return stamp


def _operation_error(value: v.OperationErrorValue) -> status_pb2.Status:
    rule = RULES[Reason(value.reason)]
    status = status_pb2.Status(code=rule.grpc_code.value[0], message=value.detail)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=value.reason, domain=DOMAIN))
    return status
