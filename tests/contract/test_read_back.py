"""Transitions that are read back, over both transports: what was submitted, all of it, in the order of storing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

import httpx
import numpy as np
import pytest

from mier_client import Client
from mier_client.errors import InvalidRequest
from mier_client.transport import Page, TransitionBatch, Transport
from mier_client.values import Session
from tests.contract.conftest import REWARD
from tests.contract.helpers import CALL_S, batch, refused, rows, submit

MAX_RUNS = 64


@pytest.fixture
def lived(transport: Transport, session: Session) -> Session:
    """Two episodes in turn, a gap that is filled later, and steps that nobody of the session chose."""
    first, second = batch(30), batch(25, seed=4, episode=1)
    ended = np.zeros(25, np.bool_)
    ended[-1] = True
    second = replace(second, terminated=ended, policy_version=(1,) * 20 + (0,) * 5)
    for steps in (rows(first, 0, 5), rows(first, 5, 11)):
        submit(transport, session, steps)
    submit(transport, session, second)
    submit(transport, session, replace(rows(first, 20, 30), truncated=np.arange(10) == 9))
    submit(transport, session, rows(first, 11, 20))
    return session


def read(transport: Transport, session: Session, size: int) -> Iterator[list[TransitionBatch]]:
    """Page by page."""
    token, more = "", True
    while more:
        page, token = transport.list_transitions(session.id, Page(size, token), CALL_S)
        more = bool(token)
        assert page or not more
        yield list(page)


def table(runs: Sequence[TransitionBatch]) -> np.ndarray:
    """One row for each step, with everything that is known of it."""
    parts = []
    for run in runs:
        steps = np.arange(run.first_step, run.first_step + len(run.reward))
        versions = np.broadcast_to(np.array(run.policy_version), len(steps))
        numbers = [np.full(len(steps), run.episode), steps, versions, run.terminated, run.truncated, run.reward]
        parts.append(np.column_stack([*numbers, run.observation, run.action, run.next_observation]))
    return np.concatenate(parts)


def test_what_was_submitted_comes_back_as_it_was_stored(transport: Transport, lived: Session) -> None:
    (page,) = read(transport, lived, 1000)
    assert [(run.episode, run.first_step, len(run.reward)) for run in page] == [
        (0, 0, 11),
        (1, 0, 25),
        (0, 20, 10),
        (0, 11, 9),
    ]
    whole = batch(30)
    for name in ("observation", "action", "reward", "next_observation"):
        np.testing.assert_array_equal(getattr(page[0], name), getattr(whole, name)[:11])
    assert page[1].policy_version == (1,) * 20 + (0,) * 5
    assert page[1].terminated.tolist() == [False] * 24 + [True]
    assert page[2].truncated.tolist() == [False] * 9 + [True]
    assert not page[2].terminated.any()


@pytest.mark.parametrize("size", [1, 4, 11, 54])
def test_pages_of_any_size_are_the_whole(transport: Transport, lived: Session, size: int) -> None:
    pages = list(read(transport, lived, size))
    counts = [sum(len(run.reward) for run in page) for page in pages]
    assert counts[:-1] == [size] * (len(counts) - 1)
    assert sum(counts) == 55
    (whole,) = read(transport, lived, 1000)
    np.testing.assert_array_equal(table([run for page in pages for run in page]), table(whole))


def test_what_is_stored_meanwhile_comes_last(transport: Transport, lived: Session) -> None:
    before, token = transport.list_transitions(lived.id, Page(50, ""), CALL_S)
    submit(transport, lived, batch(3, episode=2))
    after, end = transport.list_transitions(lived.id, Page(50, token), CALL_S)
    assert [(run.episode, len(run.reward)) for run in after] == [(0, 5), (2, 3)]
    assert not end
    assert sum(len(run.reward) for run in before) == 50


def test_steps_of_many_episodes_in_turn_come_in_bounded_pages(transport: Transport, session: Session) -> None:
    for episode in range(MAX_RUNS + 3):
        submit(transport, session, batch(2, episode=episode))
    pages = list(read(transport, session, 1000))
    assert [len(page) for page in pages] == [MAX_RUNS, 3]


def test_a_session_without_transitions_has_an_empty_page(transport: Transport, session: Session) -> None:
    assert list(read(transport, session, 0)) == [[]]


def test_what_is_read_can_be_submitted_elsewhere(transport: Transport, lived: Session) -> None:
    """With the client's own methods, which walk the pages."""
    client = Client(transport)
    other = client.create_session(REWARD)
    for run in client.list_transitions(lived.id):
        client.submit_transitions(other.id, **{field.name: getattr(run, field.name) for field in fields(run)})
    (copied,) = read(transport, other, 1000)
    (whole,) = read(transport, lived, 1000)
    np.testing.assert_array_equal(table(copied), table(whole))


def test_a_binary_page_can_be_submitted(transport: Transport, lived: Session, http: httpx.Client) -> None:
    """Without any client of ours. A page ends where a header could not say of all rows what it says of the first."""
    other = transport.create_session(REWARD, 0, None, "", CALL_S)
    token, heads = "", []
    while True:
        page = http.get(
            f"/v1/sessions/{lived.id}/transitions",
            params={"page_token": token, "page_size": 1000},
            headers={"Accept": "application/octet-stream"},
        )
        assert page.headers["Content-Type"] == "application/octet-stream"
        names = ("episode", "first_step", "policy_version")
        query = {name: page.headers["Mier-" + name.title().replace("_", "-")] for name in names}
        heads.append(tuple(map(int, query.values())))
        stored = http.post(
            "/transitions",
            params={"session_id": other.id, **query},
            content=page.content,
            headers={"Content-Type": "application/octet-stream"},
        )
        assert stored.status_code == 200, stored.text
        token = page.headers.get("Mier-Next-Page-Token", "")
        if not token:
            break
    assert heads == [(0, 0, 1), (1, 0, 1), (1, 20, 0), (0, 20, 1), (0, 11, 1)]
    (copied,) = read(transport, other, 1000)
    (whole,) = read(transport, lived, 1000)
    np.testing.assert_array_equal(table(copied), table(whole))


def test_a_binary_page_of_nothing_is_empty(session: Session, http: httpx.Client) -> None:
    page = http.get(f"/sessions/{session.id}/transitions", headers={"Accept": "application/octet-stream"})
    assert (page.status_code, page.content) == (200, b"")
    assert "Mier-Episode" not in page.headers


def test_what_cannot_be_read_is_refused(transport: Transport, lived: Session) -> None:
    with refused("SESSION_NOT_FOUND", "nobody"):
        transport.list_transitions("nobody", Page(10, ""), CALL_S)
    with refused("INVALID_ARGUMENT", "page_token"):
        transport.list_transitions(lived.id, Page(10, "x"), CALL_S)
    _, token = transport.list_versions(lived.id, Page(1, ""), CALL_S)
    for other in (token, "MQ=="):  # of another list
        if other:
            with refused("INVALID_ARGUMENT", "page_token"):
                transport.list_transitions(lived.id, Page(10, other), CALL_S)
    with pytest.raises(InvalidRequest, match="1000"):
        transport.list_transitions(lived.id, Page(1001, ""), CALL_S)


def test_a_token_that_nobody_gave_reads_nothing_of_others(transport: Transport, lived: Session) -> None:
    """Beyond what there is: nothing, whatever the numbers in it."""
    for text in ("OTk5OTk5OTk5OTk5LjA=", "MC45OTk5OTk5OTk5OTk5"):  # 999999999999.0 and 0.9999999999999
        runs, _ = transport.list_transitions(lived.id, Page(1000, text), CALL_S)
        assert {run.episode for run in runs} <= {0, 1}
