"""The id of a request over gRPC: one for all that is said of a call, in its refusal as in the log."""

from __future__ import annotations

from contextvars import Context

from mier_service.grpc.answers import request_id


class Rpc:
    """What a handler is told of its call."""

    def __init__(self, **metadata: str) -> None:
        self._metadata = tuple(metadata.items())

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple((name.replace("_", "-"), value) for name, value in self._metadata)


def test_a_call_keeps_its_id() -> None:
    """Once it was made anew each time that it is asked for, so that the one in the refusal was not in the log."""
    calls = [Context(), Context()]
    ids = [{call.run(request_id, Rpc()) for _ in range(3)} for call in calls]
    assert [len(own) for own in ids] == [1, 1]
    assert ids[0] != ids[1]


def test_the_callers_own_id_is_kept_if_it_is_one() -> None:
    assert request_id(Rpc(x_request_id="robot-7.1")) == "robot-7.1"
    for odd in ("", "a b", "x" * 65, "\u00e9"):
        assert Context().run(request_id, Rpc(x_request_id=odd)) != odd
