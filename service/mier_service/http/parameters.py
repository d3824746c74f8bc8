"""What HTTP routes have in common: parameters that many take, and the refusals that all may answer with."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Query

from mier_service.errors import Reason, ServiceError, Violation
from mier_service.http.problems import MEDIA_TYPE
from mier_service.pages import MAX_PAGE_SIZE
from mier_service.store.idempotency_rows import MAX_KEY_CHARACTERS
from mier_service.values import MAX_INDEX

Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        max_length=MAX_KEY_CHARACTERS,
        description="Repeat a request with its key, and it is done once; the same key with another body is refused.",
    ),
]
PageSize = Annotated[int, Query(ge=0, le=MAX_PAGE_SIZE, description="At most so many; 0: 100.")]
QuerySession = Annotated[str | None, Query(max_length=100, description="For a binary body only.")]
QueryIndex = Annotated[int | None, Query(ge=0, lt=MAX_INDEX, description="For a binary body only.")]
PageToken = Annotated[str, Query(max_length=100, description="next_page_token of the page before.")]


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the problems that a route may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    always = (400, 401, 403, 413, 422, 429, 500, 503)
    return {
        status: {"description": "Refused; the problem says why.", "content": content}
        for status in sorted({*always, *statuses})
    }


def required(**given: Any) -> dict[str, Any]:
    """The query parameters of a binary body; ServiceError that names those that are missing."""
    missing = [name for name, value in given.items() if value is None]
    if missing:
        text = "a binary body needs this query parameter"
        raise ServiceError(
            Reason.INVALID_ARGUMENT,
            f"a binary body needs the query parameters {', '.join(given)}; missing: {', '.join(missing)}",
            tuple(Violation(name, text) for name in missing),
        )
    return given
