"""Every HTTP operation under requests generated from the OpenAPI document, alone and one after the other.

Schemathesis makes them: legal ones, and ones that break the document in one place, types included (`false` is no
number). Each reply is held against the document, and each refusal must be a problem of a known type.
"""

from __future__ import annotations

import http.client
import json
import socket
import uuid
from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis.checks import load_all_checks

from mier_service.errors import Reason
from tests.contract import fuzz_requests, refusals
from tests.contract.fuzzed import Fuzzed
from tests.contract.helpers import CALL_S, batch
from tests.fuzzing import Tried, fuzz

load_all_checks()
CHECKS: list[Any] = [
    check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ not in fuzz_requests.EXCLUDED
]
ALONE = fuzz_requests.load(examples=True, coverage=True, fuzzing=True)
_SEPARATORS = st.sampled_from([b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\xff"])
IN_TURN = fuzz_requests.load(stateful=True)


@ALONE.parametrize()  # type: ignore[untyped-decorator]
@fuzz(10)
def test_any_request_is_answered_or_refused(case: fuzz_requests.Case, fuzzed: Fuzzed, tried: Tried) -> None:
    """Failed on what was so once: types taken for one another within a body, 2.0 no integer, one method in `Allow`, an
    event described as a string."""
    tried()
    aim = fuzz_requests.Aim(case, tried.count)
    aim.take(fuzzed.named, ids=True)
    response = case.call(base_url=fuzzed.server.http, headers=fuzzed.authorization(aim.key))
    if case.method.upper() == "DELETE" and response.status_code == 204:
        fuzzed.forget()
    _check(case, response)


def test_any_order_of_requests_is_answered_or_refused(fuzzed: Fuzzed, tried: Tried) -> None:
    """Failed on the service of before it was fuzzed, in whose document nothing led anywhere."""

    class Workflow(IN_TURN.as_state_machine()):  # type: ignore[misc]
        """Follows the document's links: what one reply names, the next request is about."""

        def setup(self) -> None:
            self.turn, self.name = 0, uuid.uuid4().hex

        def before_call(self, case: fuzz_requests.Case) -> None:
            tried()
            self.turn += 1
            fuzz_requests.Aim(case, self.turn).take(fuzzed.named, ids=case.path.endswith(("/sessions", "/move")))
            # What comes of a scenario is its own doing: keys of earlier ones would bring their replies back.
            if "Idempotency-Key" in case.headers:
                case.headers["Idempotency-Key"] = f"{self.name}{case.headers['Idempotency-Key']}"

        def after_call(self, response: Any, case: fuzz_requests.Case) -> None:
            super().after_call(response, case)
            # Learning needs more data than generated requests often bring; and what it comes to is waited for, since
            # a scenario must be the same when it is tried again.
            if case.path == "/sessions" and response.status_code == 201:
                fuzzed.admin.submit_transitions(response.json()["id"], batch(), "", CALL_S)
            if response.status_code == 202:
                list(fuzzed.admin.watch_operation(response.json()["id"], CALL_S))

        def get_call_kwargs(self, case: fuzz_requests.Case) -> dict[str, Any]:
            return {"base_url": fuzzed.server.http, "headers": fuzzed.authorization("admin")}

        def validate_response(self, response: Any, case: fuzz_requests.Case, **others: Any) -> None:
            _check(case, response, self.recorder)

    Workflow.run(settings=settings(fuzz(8), stateful_step_count=16))


def _check(case: fuzz_requests.Case, response: Any, recorder: Any = None) -> None:
    left_out = {"positive_data_acceptance"} if fuzz_requests.is_limited(case) else set()
    if response.status_code >= 400:
        headers = {name: values[0] for name, values in response.headers.items()}
        refusal = refusals.of_problem(response.status_code, headers, response.json())
        if refusal.reason in (Reason.CHECKPOINT_NOT_FOUND, Reason.VERSION_NOT_FOUND):
            left_out.add("ensure_resource_availability")  # of another thing than the one that the path names
    checks = [check for check in CHECKS if check.__name__ not in left_out]
    refusals.nothing_from_inside(response.content.decode(errors="replace"))  # it may be a bundle
    case.validate_response(response, checks=checks, recorder=recorder)


@pytest.mark.parametrize("path", ["/livez", "/act", "/sessions", "/v1/sessions/x", "/openapi.json"])
def test_bytes_that_are_no_request_are_refused(path: str, fuzzed: Fuzzed, tried: Tried) -> None:
    """What cannot be parsed as HTTP at all: whatever answer comes is a problem, or good. Failed on what was so once:
    the HTTP server's own words, in plain text."""
    good = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Bearer {fuzzed.keys['admin']}\r\nIdempotency-Key: k\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
    ).encode()
    host, port = fuzzed.server.http.removeprefix("http://").rsplit(":", 1)

    @fuzz(20)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        tried()
        at = data.draw(st.integers(0, len(good)))
        some = data.draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\xff"]))
        )
        kept = data.draw(st.integers(0, 12))
        with socket.create_connection((host, int(port)), CALL_S) as connection:
            connection.sendall(good[:at] + some + good[at + kept :])
            connection.shutdown(socket.SHUT_WR)
            reply = http.client.HTTPResponse(connection)
            try:
                reply.begin()
            except http.client.BadStatusLine:
                return  # the half of a request is no reason to answer
            except ConnectionResetError:
                return
            body = reply.read()
        headers = {name.lower(): value for name, value in reply.getheaders()}
        if reply.status >= 400:
            refusals.of_problem(reply.status, headers, json.loads(body))
        refusals.nothing_from_inside(body.decode(errors="replace"))

    run()


def test_every_call_about_something_follows_from_what_made_it() -> None:
    """So that a new route is reached in its turn, too. Failed on a document without links."""
    paths = fuzz_requests.document()["paths"]
    calls = {call["operationId"]: path for path, item in paths.items() for call in item.values()}
    led_to = {
        link["operationId"]
        for item in paths.values()
        for call in item.values()
        for response in call["responses"].values()
        for link in response.get("links", {}).values()
    }
    unreached = {path for name, path in calls.items() if "{" in path and name not in led_to}
    assert not unreached
