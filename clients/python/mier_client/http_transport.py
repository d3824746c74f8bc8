"""The service over HTTP and JSON."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from mier_client import http_codec as codec
from mier_client.errors import DeadlineExceeded, Problem, Unavailable
from mier_client.replies import json_object, unexpected
from mier_client.security import Tls, authorization
from mier_client.tracing import TRACED, add_trace
from mier_client.transport import ActQuery, ActStream, Page, TransitionBatch
from mier_client.values import (
    Acted,
    Adapted,
    EnvironmentSpec,
    FloatArray,
    Operation,
    PolicyVersion,
    PromotionRecord,
    Session,
    Submitted,
    Window,
)

_PREFIX = "/v1"
_SILENCE_S = 60.0
"""A stream of events without a sign of life for so long is dead: the service sends a comment every few seconds."""


class HttpTransport:
    """A pool of connections to one service; safe to share between threads."""

    def __init__(self, url: str, tls: Tls | None = None, api_key: str | None = None) -> None:
        """`tls` is for an https URL; None: as the system trusts."""
        headers = {} if api_key is None else {"Authorization": authorization(api_key)}
        verify = tls.http() if tls is not None else True
        hooks = {"request": [add_trace]} if TRACED else {}
        self._http = httpx.Client(base_url=url, trust_env=False, verify=verify, headers=headers, event_hooks=hooks)

    def create_session(
        self, checkpoint: str, seed: int, expected: EnvironmentSpec | None, key: str, timeout_s: float
    ) -> Session:
        body: dict[str, Any] = {"checkpoint": checkpoint, "seed": seed}
        if expected is not None:
            body["expected_environment"] = codec.environment_json(expected)
        return codec.session(self._post("/sessions", body, timeout_s, key))

    def get_session(self, session_id: str, timeout_s: float) -> Session:
        return codec.session(self._get(f"/sessions/{_segment(session_id)}", {}, timeout_s))

    def list_sessions(self, page: Page, timeout_s: float) -> tuple[Sequence[Session], str]:
        return codec.sessions(self._get("/sessions", _page_query(page), timeout_s))

    def delete_session(self, session_id: str, key: str, timeout_s: float) -> None:
        self._request("DELETE", f"/sessions/{_segment(session_id)}", timeout_s, key=key)

    def pause(self, session_id: str, key: str, timeout_s: float) -> Session:
        return codec.session(self._post(f"/sessions/{_segment(session_id)}/pause", None, timeout_s, key))

    def resume(self, session_id: str, key: str, timeout_s: float) -> Session:
        return codec.session(self._post(f"/sessions/{_segment(session_id)}/resume", None, timeout_s, key))

    def submit_transitions(self, session_id: str, batch: TransitionBatch, key: str, timeout_s: float) -> Submitted:
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
        return codec.submitted(self._post("/transitions", body, timeout_s, key))

    def adapt(self, session_id: str, window: Window, key: str, timeout_s: float) -> Adapted:
        body = {"session_id": session_id, "window": codec.window_json(window)}
        return codec.adapted(self._post("/adapt", body, timeout_s, key))

    def finetune(self, session_id: str, updates: int | None, seed: int, key: str, timeout_s: float) -> Operation:
        body: dict[str, Any] = {"session_id": session_id, "seed": seed}
        if updates is not None:
            body["updates"] = updates
        return codec.operation(self._post("/finetune", body, timeout_s, key))

    def get_operation(self, operation_id: str, timeout_s: float) -> Operation:
        return codec.operation(self._get(f"/operations/{_segment(operation_id)}", {}, timeout_s))

    def cancel_operation(self, operation_id: str, key: str, timeout_s: float) -> Operation:
        return codec.operation(self._post(f"/operations/{_segment(operation_id)}/cancel", None, timeout_s, key))

    def watch_operation(self, operation_id: str, timeout_s: float) -> Iterator[Operation]:
        deadline = time.monotonic() + timeout_s
        timeout = httpx.Timeout(timeout_s, read=min(timeout_s, _SILENCE_S))
        url = f"{_PREFIX}/operations/{_segment(operation_id)}/events"
        headers = {"Accept": "text/event-stream"}
        with _typed_errors(), self._http.stream("GET", url, headers=headers, timeout=timeout) as response:
            if response.is_error:
                response.read()
                raise codec.error_from_response(response)
            for event, data in _events(response.iter_lines(), deadline):
                if event == "problem":
                    raise codec.error_from_event(data)
                yield codec.event(data)

    def act(self, session_id: str, observation: FloatArray, query: ActQuery, timeout_s: float) -> Acted:
        body: dict[str, Any] = {
            "session_id": session_id,
            "observation": observation.tolist(),
            "deterministic": query.deterministic,
        }
        if query.episode is not None:
            body["episode"] = query.episode
        if query.step is not None:
            body["step"] = query.step
        return codec.acted(self._post("/act", body, timeout_s, None))

    def open_act_stream(self) -> ActStream:
        return _CallByCall(self)

    def list_versions(self, session_id: str, page: Page, timeout_s: float) -> tuple[Sequence[PolicyVersion], str]:
        return codec.versions(self._get(f"/sessions/{_segment(session_id)}/versions", _page_query(page), timeout_s))

    def promote(self, session_id: str, version: int, reason: str, key: str, timeout_s: float) -> Session:
        return self._decide(session_id, "promote", {"version": version, "reason": reason}, key, timeout_s)

    def roll_back(self, session_id: str, reason: str, key: str, timeout_s: float) -> Session:
        return self._decide(session_id, "rollback", {"reason": reason}, key, timeout_s)

    def pin(self, session_id: str, version: int | None, reason: str, key: str, timeout_s: float) -> Session:
        body = {"reason": reason} | ({} if version is None else {"version": version})
        return self._decide(session_id, "pin", body, key, timeout_s)

    def unpin(self, session_id: str, reason: str, key: str, timeout_s: float) -> Session:
        return self._decide(session_id, "unpin", {"reason": reason}, key, timeout_s)

    def move(self, session_id: str, checkpoint: str, reason: str, key: str, timeout_s: float) -> Session:
        return self._decide(session_id, "move", {"checkpoint": checkpoint, "reason": reason}, key, timeout_s)

    def list_promotions(self, session_id: str, page: Page, timeout_s: float) -> tuple[Sequence[PromotionRecord], str]:
        return codec.promotions(self._get(f"/sessions/{_segment(session_id)}/promotions", _page_query(page), timeout_s))

    def live(self, timeout_s: float) -> bool:
        with _typed_errors():
            return self._http.get("/livez", timeout=timeout_s).is_success

    def ready(self, timeout_s: float) -> bool:
        with _typed_errors():
            return self._http.get("/readyz", timeout=timeout_s).is_success

    def close(self) -> None:
        self._http.close()

    def _decide(self, session_id: str, what: str, body: Mapping[str, Any], key: str, timeout_s: float) -> Session:
        return codec.session(self._post(f"/sessions/{_segment(session_id)}/{what}", body, timeout_s, key))

    def _get(self, path: str, query: Mapping[str, str], timeout_s: float) -> codec.Json:
        return _object(self._request("GET", path, timeout_s, query=query))

    def _post(self, path: str, body: Mapping[str, Any] | None, timeout_s: float, key: str | None) -> codec.Json:
        return _object(self._request("POST", path, timeout_s, body=body, key=key))

    def _request(
        self,
        method: str,
        path: str,
        timeout_s: float,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        with _typed_errors():
            response = self._http.request(
                method,
                _PREFIX + path,
                json=body,
                params=query,
                headers={"Idempotency-Key": key} if key else None,
                timeout=timeout_s,
            )
        if response.is_error:
            raise codec.error_from_response(response)
        return response


def _segment(identifier: str) -> str:
    """An id as one segment of a path, whatever it holds."""
    return quote(identifier, safe="")


def _events(lines: Iterable[str], deadline: float) -> Iterator[tuple[str, str]]:
    """Name and data (its `data:` lines joined) of each server-sent event; comments only show that the peer lives."""
    name, data = "message", list[str]()
    for line in lines:
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(Problem("DEADLINE_EXCEEDED", "the operation was not final in time"))
        key, _, value = line.partition(":")
        if key == "event":
            name = value.removeprefix(" ")
        elif key == "data":
            data.append(value.removeprefix(" "))
        elif not line:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []


class _CallByCall:
    """HTTP keeps its connection open between calls anyway."""

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport

    def act(self, session_id: str, observation: FloatArray, query: ActQuery, timeout_s: float) -> Acted:
        return self._transport.act(session_id, observation, query, timeout_s)

    def close(self) -> None:
        """Nothing of its own to let go of."""


def _page_query(page: Page) -> dict[str, str]:
    return {"page_size": str(page.size)} | ({"page_token": page.token} if page.token else {})


def _object(response: httpx.Response) -> codec.Json:
    body = json_object(response)
    if body is None:
        raise unexpected(f"expected a JSON object, got {response.text[:80]!r}")
    return body


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        raise DeadlineExceeded(Problem("DEADLINE_EXCEEDED", f"no answer in time ({type(error).__name__})")) from error
    except httpx.TransportError as error:
        raise Unavailable(Problem("UNREACHABLE", f"{error or type(error).__name__}")) from error
