"""Refusals as HTTP problems (RFC 9457): `application/problem+json` with a stable type and the request's id."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError
from starlette.responses import Response

from mier_service.errors import Reason, ServiceError, Violation
from mier_service.values import Value

MEDIA_TYPE = "application/problem+json"
OPEN_INFERENCE = "/v2"
_MAX_VIOLATIONS = 20


class ProblemField(Value):
    """What is wrong with one field."""

    field: str = Field(description="Dotted path.", examples=["observation"])
    detail: str = Field(description="What was expected, what came.")


class Problem(Value):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="Stable name of the refusal.", examples=["urn:problem-type:mier:session-not-found"])
    title: str = Field(description="The same in words.", examples=["No such session"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What was expected, what came, what to do.")
    reason: str = Field(description="The same name as in gRPC's ErrorInfo.", examples=["SESSION_NOT_FOUND"])
    request_id: str = Field(description="Names this request in the log; also header X-Request-Id.")
    errors: list[ProblemField] = Field(description="The fields at fault; empty if it is none of them.")
    error: str | None = Field(
        default=None, description="The detail once more; under /v2 alone, where the Open Inference Protocol has it so."
    )


def problem_json(error: ServiceError, request_id: str, path: str = "") -> str:
    """The refusal as a problem; `path` is what was asked for."""
    body: dict[str, Any] = {
        "type": error.type_uri,
        "title": error.rule.title,
        "status": error.rule.http_status,
        "detail": error.detail,
        "reason": error.reason.value,
        "request_id": request_id,
        "errors": [{"field": v.field, "detail": v.description} for v in error.violations],
    }
    if path == OPEN_INFERENCE or path.startswith(f"{OPEN_INFERENCE}/"):
        body["error"] = error.detail
    return json.dumps(body)


def problem_response(
    error: ServiceError, request_id: str, headers: Mapping[str, str] | None = None, path: str = ""
) -> Response:
    """The refusal on the wire."""
    rule = error.rule
    extra = dict(headers or {})
    if rule.retry_after_s is not None:
        extra["Retry-After"] = str(rule.retry_after_s)
    if error.challenge:
        extra["WWW-Authenticate"] = error.challenge
    return Response(problem_json(error, request_id, path), rule.http_status, extra, MEDIA_TYPE)


def from_validation(errors: Iterable[Mapping[str, Any]], skip: int = 0, within: str = "") -> ServiceError:
    """Pydantic's errors as one refusal; `skip` leading parts of each path are not the caller's words, and `within` is
    the field that the path begins in."""
    found = list(errors)
    if any(item["type"] == "json_invalid" for item in found):
        detail = str(found[0].get("ctx", {}).get("error", found[0]["msg"]))
        return ServiceError(Reason.MALFORMED_REQUEST, f"expected a JSON body, got something else: {detail}")
    violations = tuple(
        Violation(_path([within, *item["loc"][skip:]]) or "body", _expected(item)) for item in found[:_MAX_VIOLATIONS]
    )
    detail = "; ".join(f"{v.field}: {v.description}" for v in violations)
    if len(found) > _MAX_VIOLATIONS:
        detail += f"; and {len(found) - _MAX_VIOLATIONS} more"
    return ServiceError(Reason.INVALID_ARGUMENT, detail, violations)


def from_pydantic(error: ValidationError, within: str = "") -> ServiceError:
    return from_validation(error.errors(include_url=False, include_context=True, include_input=True), within=within)


def _path(parts: Sequence[object]) -> str:
    return ".".join(str(part) for part in parts if part != "")


def _expected(item: Mapping[str, Any]) -> str:
    message = str(item["msg"])
    if item["type"] == "missing":
        return "expected a value, got nothing"
    came = repr(item.get("input"))
    return f"{message}, got {came if len(came) <= 80 else came[:80] + '...'}"
