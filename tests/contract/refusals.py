"""What a refusal must look like on either transport: typed, named, without a trace of the service's inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from mier_service.errors import RULES, Reason

PROBLEM = "application/problem+json"
_TYPE = "urn:problem-type:mier:"
_INSIDE = ("Traceback", 'File "', "site-packages", "<class '", "object at 0x")
_NEVER = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


@dataclass(frozen=True)
class Refusal:
    """What both transports say of the same mistake."""

    reason: Reason
    type: str
    detail: str
    fields: tuple[tuple[str, str], ...]
    """(dotted path, what is wrong with it), in order."""
    retry_after_s: int | None


def of_problem(status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> Refusal:
    """An HTTP problem, checked."""
    told = f"{status} {body}"
    assert headers["content-type"] == PROBLEM, told
    retry_after = headers.get("retry-after")
    refusal = Refusal(
        reason=Reason(body["reason"]),
        type=body["type"],
        detail=body["detail"],
        fields=tuple((error["field"], error["detail"]) for error in body["errors"]),
        retry_after_s=None if retry_after is None else int(retry_after),
    )
    rule = RULES[refusal.reason]
    assert status == body["status"] == rule.http_status, told
    assert body["title"] == rule.title, told
    assert headers["x-request-id"] == body["request_id"], told
    assert status < 500 or status == 503, told
    assert status not in (429, 503) or retry_after is not None, told
    return _checked(refusal)


def of_rpc(error: grpc.RpcError) -> Refusal:
    """A gRPC error, checked."""
    call = cast(grpc.Call, error)  # what a call raises is both, which its published types cannot say
    told = f"{call.code()} {call.details()}"
    assert call.code() not in _NEVER, told
    status = rpc_status.from_call(call)
    assert status is not None, f"no google.rpc.Status came with {told}"
    return of_status(status)


def of_status(status: status_pb2.Status) -> Refusal:
    """The same, of one outcome of a stream or a batch."""
    told = str(status)
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    assert _unpacked(status, info), told
    assert info.domain == "mier", told
    assert _unpacked(status, request), told
    assert request.request_id, told
    refusal = Refusal(
        reason=Reason(info.reason),
        type=info.metadata["type"],
        detail=status.message,
        fields=tuple((v.field, v.description) for v in bad.field_violations) if _unpacked(status, bad) else (),
        retry_after_s=retry.retry_delay.seconds if _unpacked(status, retry) else None,
    )
    code = RULES[refusal.reason].grpc_code
    assert status.code == code.value[0], told
    assert code not in _NEVER, told
    passes = code is grpc.StatusCode.UNAVAILABLE or RULES[refusal.reason].http_status == 429
    assert not passes or refusal.retry_after_s is not None, told
    return _checked(refusal)


def nothing_from_inside(text: str) -> None:
    """No traceback, no class, no path of the service."""
    assert not [word for word in _INSIDE if word in text], text[:2000]


def _unpacked(status: status_pb2.Status, into: Any) -> bool:
    return any(detail.Unpack(into) for detail in status.details)


def _checked(refusal: Refusal) -> Refusal:
    assert refusal.type == _TYPE + refusal.reason.value.lower().replace("_", "-"), refusal
    assert refusal.detail, refusal
    assert refusal.retry_after_s == RULES[refusal.reason].retry_after_s, refusal
    for text in (refusal.detail, *(part for field in refusal.fields for part in field)):
        nothing_from_inside(text)
    return refusal
