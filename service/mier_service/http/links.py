"""Links of the OpenAPI document: which calls may follow a reply, and which value they take from it.

They follow from the schemas, so that a new route has its links at once: what creates a session or an operation leads to
all that take its id, in the path or in the body; what is about a session leads to all else about the same one.

    POST /sessions     201  $response.body#/id          ─► session_id
    POST /finetune     202  $response.body#/id          ─► operation_id
                            $response.body#/session_id  ─► session_id
    POST /transitions  200  $request.body#/session_id   ─► session_id
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

_CREATED = {
    "SessionValue": {"session_id": "$response.body#/id"},
    "OperationValue": {"operation_id": "$response.body#/id", "session_id": "$response.body#/session_id"},
}
"""By the schema of what was created: the ids that it gives to what follows."""
_SAME_SESSION = {"session_id": "$request.body#/session_id"}


class _Call(NamedTuple):
    path: str
    description: dict[str, Any]
    """The OpenAPI operation."""

    @property
    def id(self) -> str:
        return str(self.description["operationId"])


def add_links(document: dict[str, Any]) -> None:
    """Adds them to an OpenAPI document, in place."""
    calls = [_Call(path, call) for path, item in document["paths"].items() for call in item.values()]
    schemas = document["components"]["schemas"]
    for source in calls:
        for status, ids in _gives(source, schemas):
            links = {
                target.id: {"operationId": target.id, **taken}
                for target in calls
                if target is not source and (taken := _takes(target, ids, schemas))
            }
            if links:
                source.description["responses"][status]["links"] = links


def _gives(call: _Call, schemas: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Status of a reply, and the ids that it gives: name -> expression."""
    responses = call.description["responses"]
    for status in {"201", "202"} & responses.keys():
        created = responses[status]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        yield status, _CREATED.get(created, {})
    if "200" in responses and "session_id" in _body_fields(call, schemas):
        yield "200", _SAME_SESSION


def _takes(call: _Call, ids: dict[str, str], schemas: dict[str, Any]) -> dict[str, Any] | None:
    """How the call takes one of the ids."""
    for name, expression in ids.items():
        if f"{{{name}}}" in call.path:
            return {"parameters": {name: expression}}
        if name in _body_fields(call, schemas):
            return {"requestBody": {name: expression}}
    return None


def _body_fields(call: _Call, schemas: dict[str, Any]) -> set[str]:
    content = call.description.get("requestBody", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    return set(schemas.get(reference.rpartition("/")[2], {}).get("properties", ()))
