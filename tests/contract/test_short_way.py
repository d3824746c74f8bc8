"""Acts that go the short way are answered as those that the framework's route answers, which any oddity sends there."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from mier_service.http.bodies import BINARY, JSON
from tests.contract import tiny
from tests.contract.conftest import REWARD

SEEN = [0.1, -0.2, 0.3, 0.4]
RAW = np.asarray(SEEN, "<f4").tobytes()
LONG_JSON = f"{JSON}; charset=utf-8"


@pytest.fixture
def session_id(http: httpx.Client) -> str:
    return str(http.post("/sessions", json={"checkpoint": REWARD, "seed": 7}).json()["id"])


def told(reply: httpx.Response) -> tuple[Any, ...]:
    """All of an answer but what names the request, and what a server adds."""
    headers = {name: value for name, value in reply.headers.items() if name not in ("x-request-id", "date")}
    assert reply.headers["x-request-id"]
    if reply.headers["content-type"] == BINARY:
        return reply.status_code, headers, reply.content
    body = reply.json()
    if "request_id" in body:
        assert body.pop("request_id") == reply.headers["x-request-id"]
        headers.pop("content-length")
    return reply.status_code, headers, body


def test_the_ways_differ_in_nothing_that_is_seen_of_an_action(http: httpx.Client, session_id: str) -> None:
    ask = {"session_id": session_id, "observation": SEEN, "episode": 3, "step": 5}
    for accept in ("*/*", BINARY):
        short, long = (
            http.post("/v1/act", content=json.dumps(ask), headers={"Content-Type": kind, "Accept": accept})
            for kind in (JSON, LONG_JSON)
        )
        assert told(short) == told(long)
        assert short.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"observation": SEEN, "deterministic": True, "session_id": "nobody"},
        {"observation": SEEN},
        {"observation": SEEN[:3], "deterministic": True},
        {"observation": ["0.1"], "deterministic": True},
        {"observation": [1e39] * tiny.OBSERVATION_DIM, "deterministic": True},
        {"observation": SEEN, "episode": 2**31, "step": 0},
        {"observation": SEEN, "deterministic": True, "budget_ms": 0.0},
        {"observation": SEEN, "deterministic": True, "previous_action": [1.0]},
        {"observation": SEEN, "deterministic": True, "seen": SEEN},
    ],
)
def test_nor_of_a_refusal(http: httpx.Client, session_id: str, body: dict[str, Any]) -> None:
    content = json.dumps({"session_id": session_id} | body if body else [])
    short, long = (http.post("/act", content=content, headers={"Content-Type": kind}) for kind in (JSON, LONG_JSON))
    assert told(short) == told(long)


@pytest.mark.parametrize("content", [b"", b"{", b'{"session_id": "\xff"}', b"[" * 100_000])
def test_nor_of_what_is_no_json(http: httpx.Client, content: bytes) -> None:
    short, long = (http.post("/act", content=content, headers={"Content-Type": kind}) for kind in (JSON, LONG_JSON))
    assert told(short) == told(long)
    assert short.status_code in (400, 422)


@pytest.mark.parametrize(
    ("content", "query", "odd"),
    [
        (RAW, "deterministic=true", "deterministic=1"),
        (RAW, "episode=3&step=5", "episode=3&step=%35"),
        (RAW, "episode=0003&step=5&deterministic=false", "episode=3&step=%35"),
        (RAW, "episode=3&step=5&budget_ms=9999", "episode=3&step=5&budget_ms=9999.0"),
        (RAW, "", "deterministic=0"),
        (RAW, "episode=999999999&step=1", "episode=999999999&step=%31"),
        (RAW[:-1], "deterministic=true", "deterministic=on"),
        (RAW[:-4], "deterministic=true", "deterministic=on"),
        (np.full(4, np.nan, "<f4").tobytes(), "deterministic=true", "deterministic=on"),
        (b"", "deterministic=true", "deterministic=on"),
    ],
)
def test_nor_of_a_binary_body(http: httpx.Client, session_id: str, content: bytes, query: str, odd: str) -> None:
    for accept in ("*/*", BINARY):
        headers = {"Content-Type": BINARY, "Accept": accept}
        short, long = (
            http.post(f"/act?session_id={session_id}&{text}".rstrip("&"), content=content, headers=headers)
            for text in (query, odd)
        )
        assert told(short) == told(long)


@pytest.mark.parametrize("query", ["episode=-1&step=0", "episode=3&step=5&budget_ms=0", "episode=3&episode=4&step=1"])
def test_what_is_odd_in_a_query_is_refused_or_read_as_ever(http: httpx.Client, session_id: str, query: str) -> None:
    reply = http.post(f"/act?session_id={session_id}&{query}", content=RAW, headers={"Content-Type": BINARY})
    assert reply.status_code == (200 if "episode=4" in query else 422)


def test_it_is_measured_by_its_name(http: httpx.Client, session_id: str) -> None:
    def counted() -> float:
        name = 'mier_call_seconds_count{call="act",outcome="OK",transport="http"} '
        return sum(float(line.removeprefix(name)) for line in http.get("/metrics").text.splitlines() if name in line)

    before = counted()
    ask = {"session_id": session_id, "observation": SEEN, "deterministic": True}
    assert http.post("/act", json=ask).status_code == 200
    assert counted() == before + 1
