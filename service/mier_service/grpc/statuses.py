"""Refusals as gRPC statuses: google.rpc.Status with ErrorInfo, BadRequest, RetryInfo and RequestInfo."""

from __future__ import annotations

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from mier_service.errors import ServiceError

DOMAIN = "mier"


def status_of(error: ServiceError, request_id: str) -> status_pb2.Status:
    """Everything that the HTTP problem says, too."""
    rule = error.rule
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata={"type": error.type_uri}),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if error.violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if rule.retry_after_s is not None:
        delay = duration_pb2.Duration(seconds=rule.retry_after_s)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=rule.grpc_code.value[0], message=error.detail)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
