"""Signed bundles over both transports: what acts, signed by the service's own key, and nothing where nothing is new."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest

from mier_client.edge import BundledPolicy, BundleReader, BundleRefused
from mier_client.transport import ActQuery, Transport
from mier_client.values import ActingRules, ActionLimits, FallbackKind, Session
from mier_service.access.bundle_key import KEY_FILE
from tests.contract.conftest import REWARD
from tests.contract.helpers import ALL, CALL_S, MEAN, OBSERVATION, batch, mierctl, refused, submit
from tests.contract.server import Server

MAX_BYTES = 1024 * 1024


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    """As an operator has it."""
    printed = mierctl("bundles", "key", "--data", server.data)
    assert printed.returncode == 0
    return printed.stdout.strip()


def fetch(transport: Transport, session: Session, tag: str = "", graphs: Sequence[str] = ()) -> bytes | None:
    return transport.get_bundle(session.id, tag, graphs, MAX_BYTES, CALL_S)


def whole(transport: Transport, session: Session) -> bytes:
    data = fetch(transport, session)
    assert data is not None
    return data


def test_the_edge_acts_as_the_service_does(transport: Transport, session: Session, key: str) -> None:
    reader = BundleReader(key, session.id)
    edge = BundledPolicy(reader.read(whole(transport, session)), explore=True)
    for step in range(3):
        wanted = transport.act(session.id, OBSERVATION, ActQuery(False, 0, step), CALL_S)
        np.testing.assert_allclose(edge.act(OBSERVATION), wanted.action, rtol=0, atol=1e-5)
        assert edge.acted is not None
        assert (edge.version, edge.acted.weights_hash) == (wanted.policy_version, wanted.weights_hash)
    submit(transport, session, batch())
    transport.adapt(session.id, ALL, "", CALL_S)
    edge.take(reader.read(whole(transport, session)))
    wanted = transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    np.testing.assert_allclose(edge.predict(OBSERVATION, deterministic=True)[0], wanted.action, rtol=0, atol=1e-5)
    assert edge.version == wanted.policy_version == 2


def test_nothing_is_sent_where_nothing_is_new(transport: Transport, session: Session, key: str) -> None:
    reader = BundleReader(key, session.id)
    first = reader.read(whole(transport, session))
    assert fetch(transport, session, first.manifest.tag) is None
    for other in ("", "1", "x-y", f"{first.manifest.serial}-{10**15}", f"0{first.manifest.tag}"):
        assert fetch(transport, session, other) is not None
    part = fetch(transport, session, "", list(first.graphs))
    assert part is not None
    assert len(part) < len(whole(transport, session)) - sum(map(len, first.graphs.values())) + 100
    assert reader.read(part, first.graphs.get).graphs == first.graphs
    with pytest.raises(BundleRefused, match="neither in it nor here"):
        reader.read(part)


def test_a_rollback_is_news_and_what_it_undid_is_old(transport: Transport, session: Session, key: str) -> None:
    reader = BundleReader(key, session.id)
    first = reader.read(whole(transport, session))
    submit(transport, session, batch())
    transport.adapt(session.id, ALL, "", CALL_S)
    second = reader.read(whole(transport, session))
    edge = BundledPolicy(second)
    with pytest.raises(BundleRefused, match="BUNDLE_OLDER"):
        edge.take(first)
    transport.roll_back(session.id, "stumbles", "", CALL_S)
    third = fetch(transport, session, second.manifest.tag)
    assert third is not None
    edge.take(reader.read(third))
    edge.act(OBSERVATION)
    assert edge.version == 1
    with pytest.raises(BundleRefused, match="BUNDLE_OLDER"):
        edge.take(second)


def test_it_holds_what_the_session_declared(transport: Transport, key: str) -> None:
    limits = ActionLimits(low=(-0.5, -0.25), max_change=(0.0625, 0.03))
    rules = ActingRules(fallback=FallbackKind.BASE_POLICY, action_limits=limits)
    session = transport.create_session(REWARD, 7, None, "", CALL_S, rules)
    bundle = BundleReader(key, session.id).read(whole(transport, session))
    manifest = bundle.manifest
    assert manifest.action_low == limits.low
    assert (manifest.action_high, manifest.action_max_change) == ((1.0, 2.0), limits.max_change)
    assert (manifest.limited, manifest.fallback, manifest.max_age_s) == (True, "base_policy", 3600.0)
    assert manifest.base == manifest.acts
    assert manifest.observation_names == session.environment.observation_names
    assert [hashlib.sha256(graph).hexdigest() for graph in bundle.graphs.values()] == [manifest.acts.graph]
    actions = []
    edge = BundledPolicy(bundle)
    for step in range(4):
        actions.append(edge.act((3 - step) * OBSERVATION))
        wanted = transport.act(session.id, (3 - step) * OBSERVATION, ActQuery(True, 0, step), CALL_S)
        np.testing.assert_allclose(actions[-1], wanted.action, rtol=0, atol=1e-5)
    assert (np.abs(np.diff(actions, axis=0)) <= np.array(limits.max_change)).all()


def test_a_bundle_larger_than_the_robot_takes_is_not_read_to_its_end(transport: Transport, session: Session) -> None:
    with pytest.raises(Exception, match="REPLY_TOO_LARGE"):
        transport.get_bundle(session.id, "", (), 1000, CALL_S)


def test_what_is_no_name_of_a_graph_is_refused(transport: Transport, session: Session) -> None:
    for names in (["x"], ["A" * 64], ["0" * 64] * 9):
        with refused("INVALID_ARGUMENT"):
            fetch(transport, session, "", names)
    with refused("INVALID_ARGUMENT"):
        fetch(transport, session, "9" * 101)


def test_over_http_it_is_a_resource_with_an_etag(http: httpx.Client, transport: Transport, session: Session) -> None:
    first = http.get(f"/sessions/{session.id}/bundle")
    assert (first.status_code, first.headers["content-type"]) == (200, "application/octet-stream")
    again = http.get(f"/v1/sessions/{session.id}/bundle", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])


def test_the_key_is_its_owners_alone_and_stays(server: Server, key: str) -> None:
    file = server.data / KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(bytes.fromhex(key)) == 32
    assert mierctl("bundles", "key", "--data", server.data).stdout.strip() == key
    assert mierctl("bundles", "key", "--json", "--data", server.data).stdout.split()[2] == f'"{key}"'


def test_it_can_be_carried_to_a_robot_that_never_calls(
    transport: Transport, session: Session, key: str, server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "robot.bundle"
    done = mierctl("bundles", "export", session.id, file, "--data", server.data)
    assert (done.returncode, done.stdout) == (0, "")
    manifest = BundleReader(key, session.id).read(file.read_bytes()).manifest
    assert (manifest.acts.version, manifest.max_age_s) == (1, None)
    mierctl("bundles", "export", session.id, file, "--max-age-s", "60", "--data", server.data)
    assert BundleReader(key, session.id).read(file.read_bytes()).manifest.max_age_s == 60.0
    for wrong in (("nobody", file), (session.id, tmp_path / "none" / "x"), (session.id, file, "--max-age-s", "0")):
        assert mierctl("bundles", "export", *wrong, "--data", server.data).returncode == 1


def test_another_key_can_be_given(tmp_path: Path) -> None:
    for content, says in (("", "expected an Ed25519 private key"), ("x", "openssl genpkey")):
        file = tmp_path / "key.pem"
        if content:
            file.write_text(content)
        told = mierctl("bundles", "key", "--bundle-key", file, "--data", tmp_path)
        assert (told.returncode, told.stdout) == (1, "")
        assert says in told.stderr
