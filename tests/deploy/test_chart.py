"""The Helm chart: linted, rendered by helm, each manifest checked against Kubernetes' own schemas, and read back."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mier_service.access.exposure import exposure_of
from tests.deploy import test_image
from tests.deploy.settings import taken

CHART = test_image.REPOSITORY / "deploy" / "helm" / "mier"
KUBERNETES = ("1.29", "1.37")
"""The oldest that Chart.yaml takes, and the newest whose schemas there are."""
SHARED = (
    *("--set", "replicas=3", "--set", "store.existingSecret=mier-store"),
    *("--set", "persistence.accessMode=ReadWriteMany", "--set", "tls.existingSecret=mier-tls"),
    *("--set", "checkpoints.existingClaim=checkpoints", "--set", "settings.finetune_workers=2"),
    *("--set", "settings.max_body_bytes=33554432", "--set", "settings.gate=false"),
)
WAYS = {
    "alone": (),
    "shared": SHARED,
    "open": ("--set", "keys=off", "--set", "networkPolicy.from[0].namespaceSelector.matchLabels.robots=yes"),
}

pytestmark = pytest.mark.skipif(
    shutil.which("helm") is None, reason="needs helm: `make lint-deploy` brings it on Linux, scripts/get_helm.py"
)


def _helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)


@cache
def _rendered(*arguments: str) -> dict[str, dict[str, Any]]:
    """Manifests by their kind."""
    done = _helm("template", "mier", str(CHART), *arguments)
    assert done.returncode == 0, done.stderr
    manifests = [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]
    assert len({manifest["kind"] for manifest in manifests}) == len(manifests)
    return {manifest["kind"]: manifest for manifest in manifests}


def _container(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    [container] = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def _environment(container: dict[str, Any]) -> dict[str, str]:
    """What the container is started with; secrets stand for themselves."""
    given = {entry["name"]: entry.get("value", "postgresql://from/secret") for entry in container["env"]}
    return test_image.environment() | given


@pytest.mark.parametrize("way", WAYS)
def test_helm_lints_it(way: str) -> None:
    done = _helm("lint", "--strict", str(CHART), *WAYS[way])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("way", WAYS)
def test_kubernetes_knows_every_field(way: str, kubernetes: str) -> None:
    """Seen to fail on `readOnlyRootFileSystem`, and on a port that is a string."""
    for manifest in _rendered(*WAYS[way]).values():
        kubernetes_validate.validate(manifest, kubernetes, strict=True)


@pytest.mark.parametrize("way", WAYS)
def test_the_service_starts_with_its_settings(way: str) -> None:
    container = _container(_rendered(*WAYS[way]))
    exposure = exposure_of(taken(_environment(container)))
    assert exposure.keys_required == (way != "open")


def test_numbers_arrive_as_they_were_given() -> None:
    config = taken(_environment(_container(_rendered(*SHARED))))
    assert (config.max_body_bytes, config.finetune_workers, config.gate) == (33554432, 2, False)


@pytest.mark.parametrize("way", WAYS)
def test_it_runs_confined(way: str) -> None:
    manifests = _rendered(*WAYS[way])
    pod, container = manifests["Deployment"]["spec"]["template"]["spec"], _container(manifests)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]) == {"requests", "limits"}
    assert not pod["automountServiceAccountToken"]
    assert not pod["enableServiceLinks"]
    assert manifests["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("way", WAYS)
def test_it_is_restarted_for_being_dead_only(way: str) -> None:
    container = _container(_rendered(*WAYS[way]))
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    secure = {probe["httpGet"].get("scheme") for name, probe in container.items() if name.endswith("Probe")}
    assert secure == ({"HTTPS"} if way == "shared" else {None})


def test_what_is_mounted_is_a_volume_and_what_is_set_points_into_it() -> None:
    manifests = _rendered(*SHARED)
    container, pod = _container(manifests), manifests["Deployment"]["spec"]["template"]["spec"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    config = taken(_environment(container))
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert config.tls_cert is not None
    assert {str(config.data), str(config.checkpoints), str(config.tls_cert.parent), "/tmp"} == mounted
    [claim] = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if v["name"] == "data"]
    assert claim == manifests["PersistentVolumeClaim"]["metadata"]["name"]


def test_a_budget_for_disruption_is_there_where_it_helps() -> None:
    assert "PodDisruptionBudget" not in _rendered()
    assert _rendered(*SHARED)["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "replicas=2"), "need store.existingSecret"),
        (("--set", "replicas=2", "--set", "store.existingSecret=s"), "ReadWriteMany"),
        (("--set", "setings.gate=false"), "setings"),
        (("--set", "settings.host=0.0.0.0"), "host"),
        (("--set", "keys=auto"), "keys"),
    ],
)
def test_values_that_cannot_work_are_refused(arguments: tuple[str, ...], said: str) -> None:
    done = _helm("template", "mier", str(CHART), *arguments)
    assert done.returncode != 0
    assert said in done.stderr
