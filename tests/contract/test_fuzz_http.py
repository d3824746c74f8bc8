"""Every HTTP operation under requests generated from the OpenAPI document, alone and one after the other.

Schemathesis makes them: legal ones, and ones that break the document in one place, types included (`false` is no
number). Each reply is held against the document, and each refusal must be a problem of a known type.
"""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import settings
from schemathesis.checks import load_all_checks

from tests.contract import fuzz_requests, refusals
from tests.contract.fuzzed import Fuzzed
from tests.fuzzing import Tried, fuzz

load_all_checks()
CHECKS: list[Any] = [
    check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ not in fuzz_requests.EXCLUDED
]
ALONE = fuzz_requests.load(examples=True, coverage=True, fuzzing=True)
IN_TURN = fuzz_requests.load(stateful=True)


@ALONE.parametrize()  # type: ignore[untyped-decorator]
@fuzz(10)
def test_any_request_is_answered_or_refused(case: fuzz_requests.Case, fuzzed: Fuzzed, tried: Tried) -> None:
    tried()
    fuzz_requests.aim(case, ids=True)
    case.path_parameters = fuzz_requests.named(case.path_parameters, fuzzed.named)
    case.query = fuzz_requests.named(case.query, fuzzed.named)
    case.body = fuzz_requests.named(case.body, fuzzed.named)
    headers = fuzzed.authorization(fuzz_requests.key_of(case))
    response = case.call(base_url=fuzzed.server.http, headers=headers)
    if case.method.upper() == "DELETE" and response.status_code == 204:
        fuzzed.forget()
    _check(case, response)


def test_any_order_of_requests_is_answered_or_refused(fuzzed: Fuzzed, tried: Tried) -> None:
    class Workflow(IN_TURN.as_state_machine()):  # type: ignore[misc]
        """Follows the document's links: what one reply names, the next request is about."""

        def before_call(self, case: fuzz_requests.Case) -> None:
            tried()
            fuzz_requests.aim(case, ids=case.path == "/sessions")

        def get_call_kwargs(self, case: fuzz_requests.Case) -> dict[str, Any]:
            return {"base_url": fuzzed.server.http, "headers": fuzzed.authorization("admin")}

        def validate_response(self, response: Any, case: fuzz_requests.Case, **others: Any) -> None:
            _check(case, response, self.recorder)

    Workflow.run(settings=settings(fuzz(15), stateful_step_count=12))


def _check(case: fuzz_requests.Case, response: Any, recorder: Any = None) -> None:
    limited = case.operation.label in fuzz_requests.LIMITED
    checks = [check for check in CHECKS if not (limited and check.__name__ == "positive_data_acceptance")]
    if response.status_code >= 400:
        refusals.of_problem(
            response.status_code, {name: values[0] for name, values in response.headers.items()}, response.json()
        )
    refusals.nothing_from_inside(response.text)
    case.validate_response(response, checks=checks, recorder=recorder)
