"""TLS and mutual TLS of both transports, with authorities that are made here: who is let in, and who is not."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgpack
import pytest
import trustme
from websockets.sync.client import connect

from mier_client import AccessDenied, AsyncClient, Client, MierError, Retrier, RetryPolicy, Timeouts, Tls
from mier_service.access.keys import Scope
from tests.contract import peers
from tests.contract.conftest import REWARD
from tests.contract.helpers import OBSERVATION
from tests.contract.keys import make_key, migrate
from tests.contract.server import Server, serving

ONCE = Retrier(RetryPolicy(attempts=1))
PATIENT = Timeouts(act_s=20.0, call_s=20.0)


@dataclass(frozen=True)
class Authority:
    """An authority in files, with the server's certificate and a client's."""

    ca: Path
    server_cert: Path
    server_key: Path
    client: Tls


def _authority(folder: Path) -> Authority:
    folder.mkdir(parents=True)
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for name, issued in (("server", ca.issue_cert("127.0.0.1", "localhost")), ("client", ca.issue_cert("robot"))):
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        for pem in issued.cert_chain_pems:
            pem.write_to_path(folder / f"{name}.pem", append=True)
    return Authority(
        ca=folder / "ca.pem",
        server_cert=folder / "server.pem",
        server_key=folder / "server.key",
        client=Tls(folder / "ca.pem", folder / "client.pem", folder / "client.key"),
    )


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return _authority(tmp_path_factory.mktemp("ours") / "pem")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Somebody else's, of which the service knows nothing."""
    return _authority(tmp_path_factory.mktemp("theirs") / "pem")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Good at `tls_server`, and nowhere else."""
    return make_key(_data(tmp_path_factory), Scope.ADMIN)


def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.getbasetemp() / "tls-data"
    migrate(data)
    return data


def _flags(authority: Authority) -> list[str]:
    return ["--tls-cert", str(authority.server_cert), "--tls-key", str(authority.server_key)]


@pytest.fixture(scope="module")
def tls_server(
    checkpoints: Path, ours: Authority, key: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Reachable from other machines, so that it asks for keys by itself."""
    server = Server(checkpoints, _data(tmp_path_factory), "--host", "0.0.0.0", *_flags(ours))
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def mutual_server(checkpoints: Path, ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("mutual") / "data"
    server = Server(checkpoints, data, "--host", "0.0.0.0", *_flags(ours), "--tls-client-ca", str(ours.ca))
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log()


def _url(server: Server, kind: str) -> str:
    url = server.http if kind == "http" else f"grpcs://{server.grpc}"
    return url.replace("0.0.0.0", "127.0.0.1")


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tls_and_a_key_let_in(tls_server: Server, ours: Authority, key: str, kind: str) -> None:
    """Broken on purpose: the gRPC port opened without credentials; keys not required on a public host with TLS."""
    assert tls_server.http.startswith("https://")
    url = _url(tls_server, kind)
    with Client.connect(url, PATIENT, ONCE, api_key=key, tls=Tls(ours.ca)) as client:
        session = client.create_session(REWARD)
        with client.open_act_stream() as acting:
            assert acting.act(session.id, OBSERVATION, deterministic=True).policy_version == 1
    with Client.connect(url, PATIENT, ONCE, tls=Tls(ours.ca)) as stranger:
        assert stranger.ready()
        with pytest.raises(AccessDenied, match="UNAUTHENTICATED"):
            stranger.get_session(session.id)


@pytest.mark.anyio
@pytest.mark.usefixtures("one_event_loop")
@pytest.mark.parametrize("kind", ["http", "grpc"])
async def test_tls_and_a_key_let_an_event_loop_in(tls_server: Server, ours: Authority, key: str, kind: str) -> None:
    """Broken on purpose: the key made a header twice over gRPC; seen: refused as no key before anything was sent."""
    url = _url(tls_server, kind)
    async with AsyncClient.connect(url, PATIENT, ONCE, api_key=key, tls=Tls(ours.ca)) as client:
        session = await client.create_session(REWARD)
        async with client.open_act_stream() as acting:
            assert (await acting.act(session.id, OBSERVATION, deterministic=True)).policy_version == 1
    async with AsyncClient.connect(url, PATIENT, ONCE, tls=Tls(ours.ca)) as stranger:
        assert await stranger.ready()
        with pytest.raises(AccessDenied, match="UNAUTHENTICATED"):
            await stranger.get_session(session.id)
    with pytest.raises(ValueError, match="expected api_key as"):
        AsyncClient.connect(url, api_key="no key", tls=Tls(ours.ca))


def test_a_robot_of_openpi_connects_over_tls(tls_server: Server, ours: Authority, key: str) -> None:
    with Client.connect(_url(tls_server, "http"), PATIENT, ONCE, api_key=key, tls=Tls(ours.ca)) as client:
        session = client.create_session(REWARD)
    url = f"{_url(tls_server, 'http').replace('http', 'ws', 1)}/sessions/{session.id}/openpi"
    headers = {"Authorization": f"Api-Key {key}"}
    with connect(url, ssl=Tls(ours.ca).http(), additional_headers=headers, proxy=None) as robot:
        assert msgpack.unpackb(robot.recv(PATIENT.call_s))["session_id"] == session.id


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_an_impostor_gets_no_key(tls_server: Server, theirs: Authority, key: str, kind: str) -> None:
    """A client that trusts another authority says nothing. Broken on purpose: the client not verifying (over HTTP)."""
    url = _url(tls_server, kind)
    with Client.connect(url, Timeouts(call_s=5.0), ONCE, api_key=key, tls=Tls(theirs.ca)) as client:
        with pytest.raises(MierError) as told:
            client.get_session("any")
        assert not isinstance(told.value, AccessDenied)
        assert told.value.reason in ("UNREACHABLE", "DEADLINE_EXCEEDED")


def test_plain_text_is_not_answered(tls_server: Server) -> None:
    """Broken on purpose: TLS given to one transport alone; each way fails here."""
    address = tls_server.http.replace("https://", "http://").replace("0.0.0.0", "127.0.0.1")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{address}/livez", trust_env=False)
    plain = f"grpc://{tls_server.grpc.replace('0.0.0.0', '127.0.0.1')}"
    with Client.connect(plain, retrier=ONCE) as client, pytest.raises(MierError):
        client.live(timeout_s=5.0)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_mutual_tls_lets_its_own_in(mutual_server: Server, ours: Authority, theirs: Authority, kind: str) -> None:
    """Broken on purpose: `CERT_OPTIONAL` for `CERT_REQUIRED`; `require_client_auth` left out."""
    url = _url(mutual_server, kind)
    with Client.connect(url, PATIENT, ONCE, tls=ours.client) as robot:
        session = robot.create_session(REWARD)
        assert robot.act(session.id, OBSERVATION, deterministic=True).policy_version == 1
    nobody, somebody_else = Tls(ours.ca), Tls(ours.ca, theirs.client.certificate, theirs.client.private_key)
    for tls in (nobody, somebody_else):
        with Client.connect(url, PATIENT, ONCE, tls=tls) as stranger, pytest.raises(MierError) as told:
            stranger.get_session(session.id, timeout_s=5.0)
        assert told.value.reason in ("UNREACHABLE", "DEADLINE_EXCEEDED")


def test_who_never_begins_tls_is_let_go(checkpoints: Path, ours: Authority, tmp_path: Path) -> None:
    """Broken on purpose: the HTTP server's own clock, and gRPC's; each holds its peer for a minute or longer."""
    flags = ("--peer-within-s", "2", "--finetune-workers", "0", *_flags(ours))
    with serving(checkpoints, tmp_path / "data", *flags) as server:
        for address in (server.http.removeprefix("https://"), server.grpc):
            with peers.connect(address) as peer:
                peers.until_ended(peer)


def test_old_protocols_are_refused(tls_server: Server, ours: Authority) -> None:
    """TLS 1.1 and older. Broken on purpose: the server's context with TLS 1.1 as its least (OpenSSL at level 0)."""
    context = ssl.create_default_context(cafile=ours.ca)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{_url(tls_server, 'http')}/livez", verify=context, trust_env=False)
