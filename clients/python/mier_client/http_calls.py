"""The calls over HTTP and JSON: what is sent, and how its answer is read. Sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from mier_client import http_codec as codec
from mier_client import transition_codec
from mier_client.calls import ActQuery, Call, Page, TransitionBatch
from mier_client.replies import json_object, unexpected
from mier_client.values import (
    Acted,
    ActingRules,
    Adapted,
    EnvironmentSpec,
    FloatArray,
    Operation,
    PolicyVersion,
    PromotionRecord,
    Session,
    SessionMode,
    Submitted,
    Window,
)

Value = TypeVar("Value")

_PREFIX = "/v1"


@dataclass(frozen=True, eq=False)
class HttpCall(Call[Value]):
    """`read` is given the response, or the data of one event of a stream."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str | Sequence[str]] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    any_status: bool = False
    """Whether an error's status is an answer, too."""
    max_bytes: int | None = None
    """No more of the answer is read; None: it is taken as it comes."""

    def arguments(self) -> dict[str, Any]:
        """For httpx, without a timeout."""
        return {
            "method": self.method,
            "url": self.path,
            "json": self.body,
            "params": self.query,
            "headers": dict(self.headers),
        }

    def answer(self, response: httpx.Response) -> Value:
        """The value of a response that has been read; a typed error if that is what it is."""
        if response.is_error and not self.any_status:
            raise codec.error_from_response(response)
        return self.read(response)


class HttpCalls:
    """See `Calls`."""

    def create_session(
        self,
        checkpoint: str,
        seed: int,
        expected: EnvironmentSpec | None,
        key: str,
        timeout_s: float,
        rules: ActingRules | None = None,
    ) -> HttpCall[Session]:
        body: dict[str, Any] = {"checkpoint": checkpoint, "seed": seed}
        if rules is not None:
            body |= codec.rules_json(rules)
        if expected is not None:
            body["expected_environment"] = codec.environment_json(expected)
        return _post("/sessions", body, codec.session, timeout_s, key)

    def get_session(self, session_id: str, timeout_s: float) -> HttpCall[Session]:
        return _get(_session(session_id), {}, codec.session, timeout_s)

    def list_sessions(self, page: Page, timeout_s: float) -> HttpCall[tuple[Sequence[Session], str]]:
        return _get("/sessions", _page_query(page), codec.sessions, timeout_s)

    def delete_session(self, session_id: str, key: str, timeout_s: float) -> HttpCall[None]:
        return HttpCall(_nothing, timeout_s, "DELETE", _PREFIX + _session(session_id), headers=_keyed(key))

    def pause(self, session_id: str, key: str, timeout_s: float) -> HttpCall[Session]:
        return _post(_session(session_id, "pause"), None, codec.session, timeout_s, key)

    def resume(self, session_id: str, key: str, timeout_s: float) -> HttpCall[Session]:
        return _post(_session(session_id, "resume"), None, codec.session, timeout_s, key)

    def set_mode(self, session_id: str, mode: SessionMode, key: str, timeout_s: float) -> HttpCall[Session]:
        return _post(_session(session_id, "mode"), {"mode": mode.value}, codec.session, timeout_s, key)

    def submit_transitions(
        self, session_id: str, batch: TransitionBatch, key: str, timeout_s: float
    ) -> HttpCall[Submitted]:
        body = {
            "session_id": session_id,
            "episode": batch.episode,
            "first_step": batch.first_step,
            "observation": batch.observation.tolist(),
            "action": batch.action.tolist(),
            "reward": batch.reward.tolist(),
            "next_observation": batch.next_observation.tolist(),
            "terminated": batch.terminated.tolist(),
            "truncated": batch.truncated.tolist(),
            "policy_version": list(batch.policy_version),
        }
        return _post("/transitions", body, codec.submitted, timeout_s, key)

    def list_transitions(
        self, session_id: str, page: Page, timeout_s: float
    ) -> HttpCall[tuple[Sequence[TransitionBatch], str]]:
        return _get(_session(session_id, "transitions"), _page_query(page), transition_codec.http_page, timeout_s)

    def adapt(self, session_id: str, window: Window, key: str, timeout_s: float) -> HttpCall[Adapted]:
        body = {"session_id": session_id, "window": codec.window_json(window)}
        return _post("/adapt", body, codec.adapted, timeout_s, key)

    def finetune(
        self, session_id: str, updates: int | None, seed: int, key: str, timeout_s: float
    ) -> HttpCall[Operation]:
        body: dict[str, Any] = {"session_id": session_id, "seed": seed}
        if updates is not None:
            body["updates"] = updates
        return _post("/finetune", body, codec.operation, timeout_s, key)

    def get_operation(self, operation_id: str, timeout_s: float) -> HttpCall[Operation]:
        return _get(f"/operations/{_segment(operation_id)}", {}, codec.operation, timeout_s)

    def cancel_operation(self, operation_id: str, key: str, timeout_s: float) -> HttpCall[Operation]:
        return _post(f"/operations/{_segment(operation_id)}/cancel", None, codec.operation, timeout_s, key)

    def watch_operation(self, operation_id: str, timeout_s: float) -> HttpCall[Operation]:
        path = f"{_PREFIX}/operations/{_segment(operation_id)}/events"
        return HttpCall(codec.event, timeout_s, "GET", path, headers={"Accept": "text/event-stream"})

    def act(self, session_id: str, observation: FloatArray, query: ActQuery, timeout_s: float) -> HttpCall[Acted]:
        body: dict[str, Any] = {
            "session_id": session_id,
            "observation": observation.tolist(),
            "deterministic": query.deterministic,
        }
        if query.episode is not None:
            body["episode"] = query.episode
        if query.step is not None:
            body["step"] = query.step
        if query.budget_ms is not None:
            body["budget_ms"] = query.budget_ms
        if query.observed_at_unix_us is not None:
            body["observed_at_unix_us"] = query.observed_at_unix_us
        if query.previous_action is not None:
            body["previous_action"] = query.previous_action.tolist()
        return _post("/act", body, codec.acted, timeout_s, None)

    def list_versions(
        self, session_id: str, page: Page, timeout_s: float
    ) -> HttpCall[tuple[Sequence[PolicyVersion], str]]:
        return _get(_session(session_id, "versions"), _page_query(page), codec.versions, timeout_s)

    def promote(self, session_id: str, version: int, reason: str, key: str, timeout_s: float) -> HttpCall[Session]:
        body = {"version": version, "reason": reason}
        return _post(_session(session_id, "promote"), body, codec.session, timeout_s, key)

    def roll_back(self, session_id: str, reason: str, key: str, timeout_s: float) -> HttpCall[Session]:
        return _post(_session(session_id, "rollback"), {"reason": reason}, codec.session, timeout_s, key)

    def pin(self, session_id: str, version: int | None, reason: str, key: str, timeout_s: float) -> HttpCall[Session]:
        body = {"reason": reason} | ({} if version is None else {"version": version})
        return _post(_session(session_id, "pin"), body, codec.session, timeout_s, key)

    def unpin(self, session_id: str, reason: str, key: str, timeout_s: float) -> HttpCall[Session]:
        return _post(_session(session_id, "unpin"), {"reason": reason}, codec.session, timeout_s, key)

    def move(self, session_id: str, checkpoint: str, reason: str, key: str, timeout_s: float) -> HttpCall[Session]:
        body = {"checkpoint": checkpoint, "reason": reason}
        return _post(_session(session_id, "move"), body, codec.session, timeout_s, key)

    def list_promotions(
        self, session_id: str, page: Page, timeout_s: float
    ) -> HttpCall[tuple[Sequence[PromotionRecord], str]]:
        return _get(_session(session_id, "promotions"), _page_query(page), codec.promotions, timeout_s)

    def get_bundle(
        self, session_id: str, known_tag: str, known_graphs: Sequence[str], max_bytes: int, timeout_s: float
    ) -> HttpCall[bytes | None]:
        return HttpCall(
            lambda response: response.content or None,
            timeout_s,
            "GET",
            _PREFIX + _session(session_id, "bundle"),
            query={"known_graphs": list(known_graphs)} if known_graphs else None,
            headers={"If-None-Match": f'"{known_tag}"'} if known_tag else {},
            max_bytes=max_bytes,
        )

    def live(self, timeout_s: float) -> HttpCall[bool]:
        return HttpCall(_succeeded, timeout_s, "GET", "/livez", any_status=True)

    def ready(self, timeout_s: float) -> HttpCall[bool]:
        return HttpCall(_succeeded, timeout_s, "GET", "/readyz", any_status=True)


def _get(path: str, query: Mapping[str, str], read: Callable[[codec.Json], Value], timeout_s: float) -> HttpCall[Value]:
    return HttpCall(lambda response: read(_object(response)), timeout_s, "GET", _PREFIX + path, query=query)


def _post(
    path: str,
    body: Mapping[str, Any] | None,
    read: Callable[[codec.Json], Value],
    timeout_s: float,
    key: str | None,
) -> HttpCall[Value]:
    return HttpCall(
        lambda response: read(_object(response)), timeout_s, "POST", _PREFIX + path, body, headers=_keyed(key)
    )


def _keyed(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}


def _session(session_id: str, what: str | None = None) -> str:
    return f"/sessions/{_segment(session_id)}" + (f"/{what}" if what else "")


def _segment(identifier: str) -> str:
    """An id as one segment of a path, whatever it holds."""
    return quote(identifier, safe="")


def _page_query(page: Page) -> dict[str, str]:
    return {"page_size": str(page.size)} | ({"page_token": page.token} if page.token else {})


def _object(response: httpx.Response) -> codec.Json:
    body = json_object(response)
    if body is None:
        raise unexpected(f"expected a JSON object, got {response.text[:80]!r}")
    return body


def _nothing(response: httpx.Response) -> None:
    """The status says it all."""


def _succeeded(response: httpx.Response) -> bool:
    return response.is_success
