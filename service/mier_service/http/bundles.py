"""The HTTP route of bundles: what a session acts with, as one signed file."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from mier_service.access.guarded import GuardedCore
from mier_service.acting.bundles import HASH_PATTERN, MAX_KNOWN_GRAPHS, MAX_TAG_CHARACTERS
from mier_service.http.bodies import BINARY
from mier_service.http.parameters import refusals

_ETAG = {"ETag": {"schema": {"type": "string"}, "description": "Tells it apart from all others of the session."}}

KnownTag = Annotated[
    str,
    Header(
        alias="If-None-Match",
        max_length=MAX_TAG_CHARACTERS,
        description="ETag of the bundle that you have, in its quotes.",
    ),
]
KnownGraphs = Annotated[
    list[Annotated[str, Query(pattern=f"^{HASH_PATTERN}$")]] | None,
    Query(
        max_length=MAX_KNOWN_GRAPHS,
        description="SHA-256 of an ONNX file that you have, for each a parameter: the file leaves it out.",
    ),
]


def add_bundles(router: APIRouter, core: GuardedCore) -> None:
    """Adds it beside the other calls."""

    @router.get(
        "/sessions/{session_id}/bundle",
        tags=["acting"],
        response_class=Response,
        responses={
            200: {
                "description": "The file; docs/clients.md has its format.",
                "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
                "headers": _ETAG,
            },
            304: {"description": "The bundle that you have is what acts, and not old yet.", "headers": _ETAG},
            **refusals(404),
        },
    )
    async def get_bundle(session_id: str, known_tag: KnownTag = "", known_graphs: KnownGraphs = None) -> Response:
        """What the session acts with, as one signed file, for a robot that acts by itself."""
        packed = await core.bundles.get(session_id, known_tag.strip('"'), known_graphs or [])
        if packed is None:
            return Response(status_code=304, headers={"ETag": known_tag})
        return Response(packed.data, media_type=BINARY, headers={"ETag": f'"{packed.tag}"'})
