"""The HTTP route of transitions that are read back: core -> JSON, or a binary body that /transitions would take."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from mier_service.access.guarded import GuardedCore
from mier_service.http.bodies import BINARY, JSON
from mier_service.http.parameters import PageSize, PageToken, refusals
from mier_service.offload import BoundedPool
from mier_service.sessions.recorded import RecordedPage
from mier_service.values import StoredTransitionsValue, TransitionPage

_ROWS = (
    "With Accept: application/octet-stream: raw little-endian float32, row after row, as POST /transitions takes them. "
    "They are consecutive steps of one episode that one version chose; the headers Mier-Episode, Mier-First-Step, "
    "Mier-Policy-Version say which (left out where there are none), Mier-Next-Page-Token asks for the next ones, and "
    "is left out on the last page."
)


def add_recorded(router: APIRouter, core: GuardedCore, pool: BoundedPool) -> None:
    """Adds it beside the other calls."""
    binary = {"content": {BINARY: {"schema": {"type": "string", "format": "binary", "description": _ROWS}}}}

    @router.get(
        "/sessions/{session_id}/transitions",
        tags=["recording"],
        response_model=TransitionPage,
        responses={200: binary, **refusals(404)},
    )
    async def list_transitions(
        session_id: str, request: Request, page_size: PageSize = 0, page_token: PageToken = ""
    ) -> Response:
        """The session's transitions in the order of storing. A page has at most 256 KiB of values, and 64 runs."""
        as_rows = BINARY in request.headers.get("accept", "")
        page = await core.recorded.transitions(session_id, page_size, page_token, one_run=as_rows)
        if as_rows:
            return Response(*_rows(page), media_type=BINARY)
        return Response(await pool.run(_json, page), media_type=JSON)


def _rows(page: RecordedPage) -> tuple[bytes, int, dict[str, str]]:
    """Body, status, headers."""
    headers = {"Mier-Next-Page-Token": page.next_page_token} if page.next_page_token else {}
    if not page.runs:
        return b"", 200, headers
    (run,) = page.runs
    about: dict[str, Any] = {
        "Mier-Episode": run.episode,
        "Mier-First-Step": run.first_step,
        "Mier-Policy-Version": run.policy_version[0],
    }
    return run.rows.astype("<f4").tobytes(), 200, headers | {name: str(value) for name, value in about.items()}


def _json(page: RecordedPage) -> bytes:
    runs = []
    for run in page.runs:
        observation, action, reward, next_observation, terminated, truncated = page.fields(run)
        runs.append(
            StoredTransitionsValue.model_construct(
                episode=run.episode,
                first_step=run.first_step,
                observation=observation.tolist(),
                action=action.tolist(),
                reward=reward.tolist(),
                next_observation=next_observation.tolist(),
                terminated=(terminated != 0).tolist(),
                truncated=(truncated != 0).tolist(),
                policy_version=run.policy_version.tolist(),
            )
        )
    return TransitionPage.model_construct(runs=runs, next_page_token=page.next_page_token).model_dump_json().encode()
