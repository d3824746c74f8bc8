"""JSON bodies <-> the client's values and errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, TypeVar

import httpx
import numpy as np

from mier_client import errors, values
from mier_client.errors import FieldViolation, MierError, Problem
from mier_client.replies import json_object, reply

Json = Mapping[str, Any]
V = TypeVar("V", values.Gate, values.Returns, values.Shadow, values.ShadowRule)

_KINDS: dict[int, type[MierError]] = {
    401: errors.AccessDenied,
    403: errors.AccessDenied,
    404: errors.NotFound,
    408: errors.DeadlineExceeded,
    409: errors.Conflict,
    412: errors.Conflict,
    429: errors.QuotaExceeded,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}
_LIMITS = ("low", "high", "max_change")
_OVERLOAD_REASONS = ("OVERLOADED", "QUEUE_FULL")


def error_from_response(response: httpx.Response) -> MierError:
    """The typed error of a reply with status 400 or above; the body has been read."""
    return _error(_problem(response), response.status_code)


@reply("a problem document")
def error_from_event(data: str) -> MierError:
    """The typed error of a stream that the service ended early, from the problem document in its last event."""
    body = json.loads(data)
    return _error(_problem_of(body), int(body.get("status", 503)))


def _error(problem: Problem, status: int) -> MierError:
    if problem.reason in _OVERLOAD_REASONS:
        return errors.Overloaded(problem)
    if problem.reason == "DEADLINE_EXCEEDED":
        return errors.DeadlineExceeded(problem)
    kind = _KINDS.get(status)
    if kind is None:
        kind = errors.InvalidRequest if 400 <= status < 500 else errors.ServerFault
    return kind(problem)


@reply("a session")
def session(body: Json) -> values.Session:
    return values.Session(
        id=body["id"],
        checkpoint=body["checkpoint"],
        checkpoint_hash=body["checkpoint_hash"],
        environment=_environment(body["environment"]),
        seed=body["seed"],
        state=values.SessionState(body["state"]),
        active_version=body["active_version"],
        model_context=model_context(body["model_context"]),
        transitions_count=body["transitions_count"],
        create_time=_time(body["create_time"]),
        pinned=body.get("pinned", False),  # the first release did not say
        mode=values.SessionMode(body.get("mode", "off")),
        task_number=body.get("task_number", 1),
        task_start=body.get("task_start", 0),
        rules=_rules(body),
    )


def _rules(body: Json) -> values.ActingRules:
    """Earlier releases did not know them."""
    fallback, limits = body.get("fallback"), body.get("action_limits")
    return values.ActingRules(
        fallback=None if fallback is None else values.FallbackKind(fallback),
        action_limits=None if limits is None else values.ActionLimits(*map(_entries(limits), _LIMITS)),
        max_observation_age_ms=body.get("max_observation_age_ms"),
        shadow=_known(values.ShadowRule, body["shadow"]) if body.get("shadow") else None,
    )


def _entries(limits: Json) -> Callable[[str], tuple[float, ...] | None]:
    return lambda name: None if limits.get(name) is None else tuple(limits[name])


def rules_json(rules: values.ActingRules) -> dict[str, Any]:
    """What is declared; earlier releases refuse what they do not know."""
    body: dict[str, Any] = {}
    if rules.fallback is not None:
        body["fallback"] = rules.fallback.value
    if rules.action_limits is not None:
        body["action_limits"] = asdict(rules.action_limits)
    if rules.max_observation_age_ms is not None:
        body["max_observation_age_ms"] = rules.max_observation_age_ms
    if rules.shadow is not None:
        body["shadow"] = asdict(rules.shadow)
    return body


def environment_json(spec: values.EnvironmentSpec) -> dict[str, Any]:
    body = asdict(spec)
    if not spec.action_max_change:
        del body["action_max_change"]  # not compared, as over gRPC; earlier releases refuse what they do not know
    return body


def window_json(window: values.Window) -> dict[str, Any]:
    given = {name: value for name, value in asdict(window).items() if value is not None}
    return given or {"all": True}


def model_context(body: Json) -> values.ModelContext:
    return values.ModelContext(
        number=body["number"],
        values=np.array(body["values"], dtype=np.float32),
        heldout_nll_before=body["heldout_nll_before"],
        heldout_nll_after=body["heldout_nll_after"],
        ood_score=body["ood_score"],
        transitions_used=body["transitions_used"],
        ood_percentile=body.get("ood_percentile"),  # the first releases did not say
    )


@reply("a policy version")
def policy_version(body: Json) -> values.PolicyVersion:
    return values.PolicyVersion(
        number=body["number"],
        parent=body["parent"],
        weights_hash=body["weights_hash"],
        policy_context=np.array(body["policy_context"], dtype=np.float32),
        model_context_number=body["model_context_number"],
        origin=values.VersionOrigin(body["origin"]),
        promotion=values.Promotion(body["promotion"]),
        operation_id=body["operation_id"],
        checkpoint_hash=body["checkpoint_hash"],
        transitions_used=body["transitions_used"],
        seed=body["seed"],
        configuration_json=body["configuration_json"],
        create_time=_time(body["create_time"]),
        checkpoint=body.get("checkpoint", ""),  # the first release did not say
        gate=_known(values.Gate, body["gate"]) if body.get("gate") else None,  # nor did it judge
        shadow=_shadow(body["shadow"]) if body.get("shadow") else None,
        returns=_known(values.Returns, body["returns"]) if body.get("returns") else None,
    )


def _shadow(body: Json) -> values.Shadow:
    return _known(values.Shadow, {**body, "state": values.ShadowState(body["state"])})


def _known(kind: type[V], body: Json) -> V:
    """A value of all-known fields; a later release may send more of them, an earlier one fewer."""
    known: dict[str, Any] = {field.name: body.get(field.name) for field in fields(kind)}
    return kind(**known)


@reply("a change of version")
def promotion_record(body: Json) -> values.PromotionRecord:
    return values.PromotionRecord(
        kind=values.PromotionKind(body["kind"]),
        from_version=body["from_version"],
        to_version=body["to_version"],
        who=body["who"],
        reason=body["reason"],
        create_time=_time(body["create_time"]),
    )


@reply("an operation")
def operation(body: Json) -> values.Operation:
    fault = body["error"]
    return values.Operation(
        id=body["id"],
        session_id=body["session_id"],
        state=values.OperationState(body["state"]),
        cancel_requested=body["cancel_requested"],
        updates_done=body["updates_done"],
        updates_total=body["updates_total"],
        metrics=dict(body["metrics"] or {}),
        seed=body["seed"],
        transitions_used=body["transitions_used"],
        start_version=body["start_version"],
        result_version=body["result_version"] or None,
        error=values.Fault(fault["reason"], fault["detail"]) if fault else None,
        attempts=body["attempts"],
        create_time=_time(body["create_time"]),
        update_time=_time(body["update_time"]),
        reason=body.get("reason", ""),
    )


@reply("an adaptation")
def adapted(body: Json) -> values.Adapted:
    return values.Adapted(
        model_context=model_context(body["model_context"]),
        active_version=policy_version(body["active_version"]),
        published=body["published"],
        elapsed_ms=body["elapsed_ms"],
    )


@reply("an operation")
def event(data: str) -> values.Operation:
    """The operation in one event of a stream."""
    return operation(json.loads(data))


@reply("a count of stored steps")
def submitted(body: Json) -> values.Submitted:
    return values.Submitted(body["stored"], body["duplicates"], body["transitions_count"])


@reply("a page of sessions")
def sessions(body: Json) -> tuple[list[values.Session], str]:
    return [session(item) for item in body["sessions"]], body["next_page_token"]


@reply("a page of versions")
def versions(body: Json) -> tuple[list[values.PolicyVersion], str]:
    return [policy_version(item) for item in body["versions"]], body["next_page_token"]


@reply("a page of changes of version")
def promotions(body: Json) -> tuple[list[values.PromotionRecord], str]:
    return [promotion_record(item) for item in body["promotions"]], body["next_page_token"]


@reply("an action")
def acted(body: Json) -> values.Acted:
    action = np.array(body["action"])
    if action.ndim != 1 or action.dtype.kind not in "fi" or not np.isfinite(action).all():
        raise ValueError(f"expected finite numbers, got {body['action']!r}")
    fallback = body.get("fallback")
    return values.Acted(
        action=action.astype(np.float32),
        policy_version=body["policy_version"],
        weights_hash=body["weights_hash"],
        ood_percentile=body.get("ood_percentile"),
        fallback=None
        if fallback is None
        else values.Fallback(values.FallbackKind(fallback["kind"]), values.FallbackReason(fallback["reason"])),
        limited=body.get("limited", False),
    )


def _environment(body: Json) -> values.EnvironmentSpec:
    return values.EnvironmentSpec(
        id=body["id"],
        observation_names=tuple(body["observation_names"]),
        action_names=tuple(body["action_names"]),
        action_low=tuple(body["action_low"]),
        action_high=tuple(body["action_high"]),
        dt_s=body["dt_s"],
        horizon_steps=body["horizon_steps"],
        varies=values.Varies(body["varies"]),
        healthy_ranges=tuple(values.HealthyRange(r["index"], r["low"], r["high"]) for r in body["healthy_ranges"]),
        action_max_change=tuple(body.get("action_max_change", ())),
    )


def _problem(response: httpx.Response) -> Problem:
    body = json_object(response)
    if body is None:
        # Not the service itself, but something between it and the caller.
        body = {"detail": f"HTTP {response.status_code} {response.reason_phrase} without a problem document"}
    named = {"reason": f"HTTP_{response.status_code}", "request_id": response.headers.get("x-request-id")}
    return _problem_of(named | body, _seconds(response.headers.get("retry-after")))


def _problem_of(body: Json, retry_after_s: float | None = None) -> Problem:
    return Problem(
        reason=str(body.get("reason", "UNKNOWN")),
        detail=str(body.get("detail") or body.get("title") or ""),
        type=str(body.get("type", "about:blank")),
        request_id=None if body.get("request_id") is None else str(body["request_id"]),
        violations=_violations(body.get("errors")),
        retry_after_s=retry_after_s,
    )


def _violations(entries: object) -> tuple[FieldViolation, ...]:
    found = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return tuple(FieldViolation(str(entry.get("field", "")), str(entry.get("detail", ""))) for entry in found)


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; its other form, a date, is left to the client's own pause."""
    return float(header) if header and header.isascii() and header.isdigit() else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
