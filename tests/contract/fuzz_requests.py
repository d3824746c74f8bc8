"""Requests generated from the OpenAPI document, brought near to ones that succeed.

The document says what is legal; it cannot say which ids there are, or that a session's observations have 4 entries. So
most generated requests are aimed: ids that exist take the place of made-up ones, and arrays get the lengths that fit.
What is no legal value stays as it is: it may be what the request is about. How a request is aimed is a function of it
and of its turn, so that a run repeats itself.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import schemathesis

from mier.types import Varies
from mier_service.http.bodies import BINARY
from tests.contract import tiny
from tests.contract.every_call import whole_app
from tests.contract.fuzzed import CHECKPOINT, MAX_UPDATES, OPERATION, SESSION

Case = Any  # schemathesis.Case, whose parts may be anything: that is what it is for
_IDS = {"session_id": SESSION, "operation_id": OPERATION, "checkpoint": CHECKPOINT}
_MAX_ID = 100
_ID = re.compile("[0-9a-f]{32}")
_RIGHT = json.loads(json.dumps(tiny.spec(CHECKPOINT, Varies.DYNAMICS).to_json()))
_COLUMNS = {
    "observation": tiny.OBSERVATION_DIM,
    "next_observation": tiny.OBSERVATION_DIM,
    "action": tiny.ACTION_DIM,
}
_ROW = 2 * tiny.OBSERVATION_DIM + tiny.ACTION_DIM + 3
_PHASES = ("examples", "coverage", "fuzzing", "stateful")
_KEYS = ("admin",) * 12 + ("adapt", "act", "elsewhere", "unknown", "odd", "")

EXCLUDED = (
    "not_a_server_error",  # stricter here: 503 is allowed, as a problem with Retry-After
    "ignored_auth",  # `test_access` walks every route with every kind of key
)
_INFER = "POST /v2/models/{session_id}/infer"
_WITHIN_LIMITS = ("POST /act", "POST /act/batch", "POST /adapt", "POST /transitions", _INFER)


def is_limited(case: Case) -> bool:
    """Whether what the call takes is said by the document in part only: lengths that fit each other, at most one
    window, the token of a page that there was, a version that there is."""
    label = case.operation.label
    names = {parameter.name for parameter in case.operation.query}
    if label == "POST /sessions" and isinstance(case.body, dict) and case.body.get("action_limits"):
        return True
    return label in _WITHIN_LIMITS or "page_token" in names or label.endswith(("/promote", "/pin"))


def document() -> dict[str, Any]:
    """The OpenAPI document of a service that asks for keys."""
    return whole_app(keys_required=True).openapi()


def load(**phases: bool) -> Any:
    """The document as Schemathesis has it, with these phases alone."""
    config: dict[str, Any] = {
        "generation": {"mode": "all", "with-security-parameters": False},
        "phases": {
            name: {"enabled": phases.get(name, False)} for name in ("examples", "coverage", "fuzzing", "stateful")
        },
        "max-stream-events": 2,
        "request-timeout": 30.0,
    }
    # The document's own links are what is tried; guesses at others mostly lead nowhere.
    config["phases"]["stateful"]["inference"] = {"algorithms": []}
    schema = schemathesis.openapi.from_dict(document(), config=schemathesis.Config.from_dict(config))
    rejections = schema.config.checks.negative_data_rejection
    rejections.expected_statuses = [*rejections.expected_statuses, "413"]
    return schema


class Aim:
    """Brings one generated request nearer to one that succeeds."""

    def __init__(self, case: Case, turn: int) -> None:
        self._case = case
        parts = [turn, case.path, case.path_parameters, case.query, repr(case.body)]
        # Ids are made anew in each run.
        self._seed = zlib.crc32(_ID.sub("id", json.dumps(parts, default=repr)).encode())

    @property
    def key(self) -> str:
        """The kind of key to send it with: mostly one that may do everything."""
        return _KEYS[self._drawn("key", len(_KEYS))]

    def take(self, named: Callable[[str], str], *, ids: bool) -> None:
        """In place; `named` gives the id that one of the words stands for."""
        case = self._case
        if ids:
            case.path_parameters = self._with_ids(case.path_parameters, named)
            case.query = self._with_ids(case.query, named)
            case.body = self._with_ids(case.body, named)
        if isinstance(case.query, dict) and isinstance(case.query.get("page_token"), str) and self._drawn("page", 4):
            case.query = {**case.query, "page_token": ""}
        if case.media_type == BINARY:
            self._aim_binary()
        elif isinstance(case.body, dict):
            several = case.body.get("requests")
            for body in several if isinstance(several, list) else [case.body]:
                if isinstance(body, dict):
                    self._aim_body(body, single=case.operation.label.startswith("POST /act"))

    def _aim_binary(self) -> None:
        """Bytes of as many float32 as fit; a link brings the session's id in a body, where a binary one has none."""
        case = self._case
        given = case.body if isinstance(case.body, bytes) else b""
        if isinstance(case.body, dict):
            case.query = {**(case.query or {}), **case.body}
            case.body = given
        if not self._drawn("binary", 4):
            return
        single = case.operation.label == "POST /act"
        count = tiny.OBSERVATION_DIM if single else _ROW * (1 + self._drawn("rows", 60))
        values = np.frombuffer(given[: len(given) // 4 * 4] or bytes(4), "<f4")
        if self._drawn("finite", 4):
            values = np.nan_to_num(values, nan=0.5, posinf=1.0, neginf=-1.0).clip(-1.0, 1.0)
        rows = np.resize(values, count)
        if not single and self._drawn("flags", 8):
            rows = rows.reshape(-1, _ROW)
            rows[:, -2:] = rows[:, -2:] > 0.5
        case.body = rows.tobytes()
        known = {name: self._drawn(name, 1000) for name in ("episode", "step" if single else "first_step")}
        case.query = {**known, **({} if single else {"policy_version": 0}), **(case.query or {})}

    def _drawn(self, name: str, count: int) -> int:
        """0 to count - 1, drawn by the request and the name."""
        return Random(f"{self._seed} {name}").randrange(count)

    def _with_ids(self, value: Any, named: Callable[[str], str]) -> Any:
        if isinstance(value, list):
            return [self._with_ids(item, named) for item in value]
        if not isinstance(value, dict):
            return value
        found = {key: self._with_ids(item, named) for key, item in value.items()}
        for name, word in _IDS.items():
            given = found.get(name)
            if isinstance(given, str) and 0 < len(given) <= _MAX_ID and self._drawn(name, 16):
                found[name] = named(word)
        return found

    def _aim_body(self, body: dict[str, Any], *, single: bool) -> None:
        if self._drawn("arrays", 8):
            if single:
                self._fit(body, "observation", (tiny.OBSERVATION_DIM,))
            else:
                self._aim_rows(body, 1 + self._drawn("rows", 60))
            inputs = body.get("inputs")
            for tensor in inputs if isinstance(inputs, list) else ():
                if isinstance(tensor, dict) and "data" in tensor:
                    rows = 1 + self._drawn("rows", 3)
                    self._fit(tensor, "data", (rows, tiny.OBSERVATION_DIM))
                    tensor["shape"] = [rows, tiny.OBSERVATION_DIM]
        if single and body.get("deterministic") is False and self._drawn("exploring", 4):
            for name in ("episode", "step"):
                if body.get(name) is None:
                    body[name] = self._drawn(name, 1000)
        if _whole(body.get("updates")) and MAX_UPDATES < body["updates"] <= 1_000_000:
            body["updates"] = int(body["updates"]) % MAX_UPDATES + 1
        if isinstance(expected := body.get("expected_environment"), dict):
            for name, value in _RIGHT.items():
                # What is left of an environment that is not right is compared, and refused.
                if isinstance(expected.get(name), type(value)) and self._drawn(name, 16):
                    expected[name] = value
        window = body.get("window")
        if isinstance(window, dict) and self._drawn("window", 4):
            for name in sorted(window)[1:]:
                if window[name] is not None and _legal(window[name]):
                    window[name] = None

    def _aim_rows(self, body: dict[str, Any], rows: int) -> None:
        for name, columns in _COLUMNS.items():
            self._fit(body, name, (rows, columns))
        self._fit(body, "reward", (rows,))
        for name in ("terminated", "truncated"):
            flags = body.get(name)
            if isinstance(flags, list) and all(isinstance(flag, bool) for flag in flags):
                body[name] = [bool(flags) and flags[row % len(flags)] for row in range(rows)]
        version = body.get("policy_version")
        legal = isinstance(version, list) or (version is not None and _whole(version) and version >= 0)
        if legal and self._drawn("version", 8):
            body["policy_version"] = self._drawn("which", 2)
        if _whole(body.get("episode")) and 0 <= body["episode"] < 2**31 and self._drawn("new", 2):
            body["episode"] = self._drawn("episode", 2**31)

    def _fit(self, body: dict[str, Any], name: str, shape: tuple[int, ...]) -> None:
        """The values of an array of numbers in another shape, and mostly of a size that float32 can hold."""
        given = body.get(name)
        if not isinstance(given, list):
            return
        flat = [value for row in given for value in (row if isinstance(row, list) else [row])]
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in flat):
            return
        fitted = np.resize(np.array(flat or [0.0], np.float64), shape)
        most = 1.0 if name == "action" else (np.inf, 3e38, 10.0, 10.0)[self._drawn("size", 4)]
        body[name] = fitted.clip(-most, most).tolist()


def _whole(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1


def _legal(value: Any) -> bool:
    return value is True or (_whole(value) and 1 <= value < 2**31)
