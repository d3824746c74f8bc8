"""Requests generated from the OpenAPI document, brought near to ones that succeed.

The document says what is legal; it cannot say which ids there are, or that a session's observations have 4 entries. So
some generated requests are aimed: ids that exist take the place of made-up ones, and arrays get the lengths that fit,
keeping their values. Which, is a function of the request, so that it is the same whenever the request is.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import schemathesis

from mier.types import Varies
from mier_service.health import build_health
from mier_service.http import build_app
from mier_service.http_routes import build_router
from tests.contract import tiny
from tests.contract.fuzzed import CHECKPOINT, MAX_UPDATES, OPERATION, SESSION

Case = Any  # schemathesis.Case, whose parts may be anything: that is what it is for
_IDS = {"session_id": SESSION, "operation_id": OPERATION, "checkpoint": CHECKPOINT}
_MAX_ID = 100
_COLUMNS = {
    "observation": tiny.OBSERVATION_DIM,
    "next_observation": tiny.OBSERVATION_DIM,
    "action": tiny.ACTION_DIM,
}
_PHASES = ("examples", "coverage", "fuzzing", "stateful")
_KEYS = ("admin",) * 12 + ("adapt", "act", "elsewhere", "unknown", "odd", "")

EXCLUDED = (
    "not_a_server_error",  # stricter here: 503 is allowed, as a problem with Retry-After
    "ignored_auth",  # `test_access` walks every route with every kind of key
)
LIMITED = (
    "POST /act",
    "POST /act/batch",
    "POST /adapt",
    "POST /transitions",
    "GET /sessions/{session_id}/versions",
    "GET /sessions",
)
"""What these take the document cannot say in full: lengths that fit each other, at most one window, a page's token."""


def document() -> dict[str, Any]:
    """The OpenAPI document of a service that asks for keys."""
    nothing: Any = None
    calls, health = build_router(nothing, nothing, nothing), build_health(nothing, nothing, nothing, nothing, nothing)
    return build_app(calls, health, keys_required=True).openapi()


def load(**phases: bool) -> Any:
    """The document as Schemathesis has it, with these phases alone."""
    config = {
        "generation": {"mode": "all", "with-security-parameters": False},
        "phases": {
            name: {"enabled": phases.get(name, False)} for name in ("examples", "coverage", "fuzzing", "stateful")
        },
        "max-stream-events": 2,
        "request-timeout": 30.0,
    }
    return schemathesis.openapi.from_dict(document(), config=schemathesis.Config.from_dict(config))


def aim(case: Case, *, ids: bool) -> None:
    """Brings a generated request nearer to one that succeeds, in place."""
    chance = _chance(case)
    if ids:
        for container in (case.path_parameters, case.query, case.body):
            _aim_ids(container, chance)
    if case.media_type == "application/json" and isinstance(case.body, dict):
        several = case.body.get("requests")
        for body in several if isinstance(several, list) else [case.body]:
            if isinstance(body, dict):
                _aim_arrays(body, chance, single=case.operation.label.startswith("POST /act"))
                _aim_environment(body, chance)
                if _whole(body.get("updates")) and MAX_UPDATES < body["updates"] <= 1_000_000:
                    body["updates"] = int(body["updates"]) % MAX_UPDATES + 1


def named(value: Any, name: Callable[[str], str]) -> Any:
    """The same with ids in place of the words that stand for them."""
    if isinstance(value, str):
        return name(value)
    if isinstance(value, dict):
        return {key: named(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [named(item, name) for item in value]
    return value


def key_of(case: Case) -> str:
    """The kind of key that a request is sent with: mostly one that may do everything."""
    return _KEYS[_chance(case)("key") % len(_KEYS)]


def _chance(case: Case) -> Callable[[str], int]:
    """A number for each name, drawn by the request itself."""
    seen = json.dumps([case.path, case.path_parameters, case.query, repr(case.body)], default=repr).encode()
    return lambda name: zlib.crc32(name.encode(), zlib.crc32(seen))


def _whole(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1


def _aim_ids(container: Any, chance: Callable[[str], int]) -> None:
    if isinstance(container, list):
        for item in container:
            _aim_ids(item, chance)
    if not isinstance(container, dict):
        return
    for name, word in _IDS.items():
        # What is no legal id stays as it is: it may be what the request is about.
        given = container.get(name)
        if isinstance(given, str) and 0 < len(given) <= _MAX_ID and chance(name) % 8:
            container[name] = word
    _aim_ids(container.get("requests"), chance)


def _aim_environment(body: dict[str, Any], chance: Callable[[str], int]) -> None:
    expected = body.get("expected_environment")
    if not isinstance(expected, dict):
        return
    # An environment that differs is refused for that; what remains is compared, and often fits.
    right = json.loads(json.dumps(tiny.spec(CHECKPOINT, Varies.DYNAMICS).to_json()))
    for name, value in right.items():
        if name in expected and isinstance(expected[name], type(value)) and chance(name) % 4:
            expected[name] = value


def _aim_arrays(body: dict[str, Any], chance: Callable[[str], int], single: bool) -> None:
    if chance("arrays") % 4 == 0:
        return
    if single:
        _fit(body, "observation", (tiny.OBSERVATION_DIM,))
        return
    rows = 1 + chance("rows") % 40
    for name, columns in _COLUMNS.items():
        _fit(body, name, (rows, columns))
    _fit(body, "reward", (rows,))
    for name in ("terminated", "truncated"):
        flags = body.get(name)
        if isinstance(flags, list) and all(isinstance(flag, bool) for flag in flags):
            body[name] = [bool(flags) and flags[row % len(flags)] for row in range(rows)]
    if _whole(body.get("policy_version")) and chance("version") % 4:
        body["policy_version"] = int(body["policy_version"] > 0)


def _fit(body: dict[str, Any], name: str, shape: tuple[int, ...]) -> None:
    """The values of an array of numbers in another shape; what is no array of numbers is left alone."""
    given = body.get(name)
    if not isinstance(given, list):
        return
    flat = [value for row in given for value in (row if isinstance(row, list) else [row])]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in flat):
        return
    fitted = np.resize(np.array(flat or [0.0], np.float64), shape)
    body[name] = (fitted.clip(-1.0, 1.0) if name == "action" else fitted).tolist()
