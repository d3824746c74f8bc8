"""Prometheus metrics and the log, read back from a server that was used over both transports."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mier.calibration import GateThresholds
from mier.types import Varies
from mier_client.values import Operation, Session
from mier_service.grpc.answers import name_of
from tests.contract import tiny
from tests.contract.conftest import connect
from tests.contract.every_call import grpc_methods, whole_app
from tests.contract.helpers import ALL, CALL_S, MEAN, OBSERVATION, batch, fine_tune, refused, submit
from tests.contract.server import Server

CHECKPOINT = "gated"
Labels = frozenset[tuple[str, str]]


@dataclass
class Figures:
    """What /metrics said at one moment."""

    samples: dict[tuple[str, Labels], float]
    kinds: dict[str, str]

    def of(self, name: str, **labels: str) -> float:
        """The sum over the series that have these labels; 0 where there are none."""
        found = (
            value for (own, of), value in self.samples.items() if own == name and labels.items() <= dict(of).items()
        )
        return sum(found)

    def buckets(self, name: str) -> list[float]:
        return sorted({float(dict(own)["le"]) for (found, own) in self.samples if found == f"{name}_bucket"})


def read(server: Server) -> Figures:
    text = httpx.get(f"{server.http}/metrics", timeout=CALL_S, trust_env=False).text
    families = list(text_string_to_metric_families(text))
    samples = {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}
    return Figures(samples, {family.name: family.type for family in families})


def _settled(server: Server) -> Figures:
    """Once a look at the store has seen the end of the fine-tune, and every call has been counted."""
    deadline = time.monotonic() + CALL_S
    while (found := read(server)).of("mier_finetunes") or found.of("mier_calls_under_way", transport="grpc"):
        assert time.monotonic() < deadline, "the metrics do not see the end of what ended"
    return found


@dataclass(frozen=True)
class Lived:
    """A server, one robot's life on it, and what the metrics said before and after."""

    server: Server
    session: Session
    done: Operation
    before: Figures
    after: Figures
    log: list[dict[str, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its checkpoint has a gate of random weights: what it says is chance, that it is counted is not."""
    folder = tmp_path_factory.mktemp("measured")
    tiny.write(folder / "checkpoints", CHECKPOINT, Varies.DYNAMICS, seed=1, gate=GateThresholds(0.0, 0.0, 1))
    made = Server(folder / "checkpoints", folder / "data", "--check-every-s", "0.1", "--log-level", "DEBUG")
    yield made
    assert made.stop() == 0
    assert "Traceback" not in made.log()


@pytest.fixture(scope="module", params=["http", "grpc"])
def lived(request: pytest.FixtureRequest, server: Server) -> Lived:
    """Creates, submits, adapts, acts, is refused, fine-tunes, decides."""
    transport = connect(server, request.param)
    before, seen = read(server), len(server.log().splitlines())
    session = transport.create_session(CHECKPOINT, 7, None, "", CALL_S)
    submit(transport, session, batch(200))
    submit(transport, session, batch(200))
    transport.adapt(session.id, ALL, "", CALL_S)
    for _ in range(3):
        transport.act(session.id, OBSERVATION, MEAN, CALL_S)
    with refused("INVALID_ARGUMENT"):
        transport.act(session.id, OBSERVATION[:2], MEAN, CALL_S)
    done = fine_tune(transport, session)
    transport.roll_back(session.id, "to see it counted", "", CALL_S)
    transport.close()
    after = _settled(server)
    log = [json.loads(line) for line in server.log().splitlines()[seen:]]
    return Lived(server, session, done, before, after, log)


def test_what_a_robot_did_is_counted(lived: Lived, request: pytest.FixtureRequest) -> None:
    """Broken on purpose: with `watched` away from the core no decision is counted; without `store_holds` nothing of the
    store is."""
    transport = request.node.callspec.params["lived"]

    def more(name: str, **labels: str) -> float:
        return lived.after.of(name, **labels) - lived.before.of(name, **labels)

    calls = {"create_session": 1, "submit_transitions": 2, "adapt": 1, "fine_tune": 1, "rollback_version": 1}
    for call, count in calls.items():
        assert more("mier_call_seconds_count", transport=transport, call=call, outcome="OK") == count, call
    assert more("mier_call_seconds_count", transport=transport, call="act", outcome="INVALID_ARGUMENT") == 1
    assert more("mier_acts_total", transport=transport, outcome="OK") == 3
    assert more("mier_acts_total", transport=transport, outcome="INVALID_ARGUMENT") == 1
    assert more("mier_act_seconds_count", transport=transport) == 3
    assert more("mier_transitions_stored_total") == 200, "the second batch was the same"
    assert more("mier_adapt_seconds_count") == 1
    assert more("mier_adapt_ood_score_count") == 1
    assert more("mier_adapt_heldout_nll_gain_nats_count") == 1
    assert more("mier_versions_published_total", origin="adapt", promotion="ungated") == 1
    assert more("mier_versions_published_total", origin="fine_tune") == 1
    assert more("mier_gate_verdicts_total") == 1
    assert more("mier_gate_verdicts_total", verdict="ungated") == 0
    assert more("mier_finetune_seconds_count", state="succeeded") == 1
    assert more("mier_finetune_updates_total") == lived.done.updates_total
    assert more("mier_decisions_total", kind="roll_back") == 1
    assert more("mier_store_seconds_count", kind="write") >= 6
    assert more("mier_sessions", state="active") == 1
    assert more("mier_store_transitions") == 200
    assert more("mier_store_versions", origin="fine_tune") == 1
    assert lived.after.of("mier_finetunes") == 0
    assert lived.after.of("mier_ready") == 1
    assert lived.after.of("mier_store_disk_free_bytes") > 0
    assert lived.after.of("mier_store_database_bytes") > 0
    assert lived.after.of("mier_checkpoint_info", checkpoint=CHECKPOINT) == 1
    assert lived.after.of("mier_active_sessions") >= 1
    assert lived.after.of("mier_pool_limit", pool="adapt") == 65
    assert lived.after.of("mier_calls_under_way", transport="grpc") == 0


def test_names_units_and_buckets_are_by_the_contract(lived: Lived) -> None:
    """Broken on purpose: a metric in milliseconds, one without the prefix, buckets that begin at 1 ms."""
    for name, kind in lived.after.kinds.items():
        assert name.startswith("mier_"), name
        assert not name.endswith(("_ms", "_milliseconds", "_kb", "_mb", "_minutes")), name
        if kind == "histogram":
            assert name.endswith(("_seconds", "_nats", "_score", "_percentile")), name
    for name in ("mier_call_seconds", "mier_act_seconds", "mier_adapt_seconds", "mier_store_seconds"):
        assert lived.after.buckets(name)[0] == pytest.approx(50e-6), name


def test_no_label_names_a_session(lived: Lived) -> None:
    """Or anything else that there is one more of with each robot."""
    values = {value for _, own in lived.after.samples for _, value in own}
    assert not values & {lived.session.id, lived.done.id}
    assert not [value for value in values if len(value) == 32]


def test_the_log_says_what_each_call_was_about(lived: Lived, request: pytest.FixtureRequest) -> None:
    """One JSON object a line. Broken on purpose: without `note` in the gate no line names the session; with the
    worker's `begin` away its lines name neither session nor request."""
    transport = request.node.callspec.params["lived"]
    calls = [line for line in lived.log if line["event"] == "call" and line.get("session") == lived.session.id]
    assert {line["transport"] for line in calls} == {transport}
    by_name = {line["call"]: line for line in calls if line["outcome"] == "OK"}
    for name in ("create_session", "submit_transitions", "adapt", "act", "fine_tune", "rollback_version"):
        line = by_name[name]
        assert line["request_id"], name
        assert line["seconds"] > 0
        assert line["timestamp"].endswith("Z")
        assert line["caller"] == "anonymous"
    assert by_name["adapt"]["policy_version"] == 2
    assert by_name["act"]["policy_version"] == 2
    assert by_name["act"]["level"] == "debug", "acts come at control rate"
    assert by_name["adapt"]["level"] == "info"
    (bad,) = [line for line in calls if line["outcome"] == "INVALID_ARGUMENT"]
    assert bad["call"] == "act"
    (published,) = [line for line in lived.log if line["event"] == "fine_tune_published"]
    assert published["session"] == lived.session.id
    assert published["operation"] == lived.done.id
    assert published["policy_version"] == lived.done.result_version
    assert published["request_id"] == by_name["fine_tune"]["request_id"]


def test_a_call_is_counted_under_one_name_over_both_transports() -> None:
    """A dashboard's row for a call holds both. Broken on purpose: with a route's function renamed it is named here."""
    document = whole_app(keys_required=False).openapi()
    calls = [call for item in document["paths"].values() for call in item.values()]
    over_http = {call["summary"].lower().replace(" ", "_") for call in calls}
    over_grpc = {name_of(method) for method in grpc_methods()}
    assert over_grpc - over_http == {"act_stream", "submit_transitions_stream"}


@pytest.mark.parametrize("file", ["deploy/grafana/mier.json", "deploy/prometheus/alerts.yml", "docs/operations.md"])
def test_what_dashboard_alerts_and_docs_name_is_there(lived: Lived, file: str) -> None:
    """`make dashboard-check` asks the queries themselves. Broken on purpose: with a metric renamed, all three fail."""
    named = set(re.findall(r"\bmier_[a-z_]+[a-z]", Path(file).read_text())) - {"mier_client", "mier_proto"}
    assert named
    families = {name.removesuffix(end) for name, _ in lived.after.samples for end in ("", "_bucket", "_sum", "_count")}
    assert named - families - {name for name, _ in lived.after.samples} == set()


def test_every_metric_is_in_the_docs(lived: Lived) -> None:
    """Broken on purpose: with a metric added, it is named here."""
    text = Path("docs/operations.md").read_text()
    endings = {"counter": "_total", "info": "_info"}
    names = {name + endings.get(kind, "") for name, kind in lived.after.kinds.items()}
    assert [name for name in names if f"`{name}`" not in text and not name.startswith("mier_process_")] == []
