"""The compose file: Docker Compose itself reads it, and what it sets and mounts is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mier_service.access.exposure import exposure_of
from mier_service.config import is_loopback
from tests.deploy import test_image
from tests.deploy.settings import taken

DEPLOY = test_image.REPOSITORY / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
SECRETS = {"POSTGRES_PASSWORD": "one", "GRAFANA_PASSWORD": "two"}


def _config(secrets: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["docker-compose", "--file", str(COMPOSE), "--env-file", os.devnull, "config", "--format", "json"]
    return subprocess.run(
        command, env={"PATH": os.environ["PATH"], **secrets}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    done = _config(SECRETS)
    assert (done.returncode, done.stderr) == (0, "")
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


def test_it_does_not_start_without_passwords() -> None:
    done = _config({"POSTGRES_PASSWORD": "one"})
    assert done.returncode != 0
    assert "GRAFANA_PASSWORD" in done.stderr


def test_what_it_mounts_is_in_the_repository(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service["volumes"] if mount["type"] == "bind"]
    assert len(mounts) == 5
    for mount in mounts:
        assert Path(mount["source"]).exists()
        assert mount["read_only"]
    assert Path(services["mier"]["build"]["context"], "Dockerfile") == test_image.DOCKERFILE


def test_it_can_be_reached_from_this_machine_only(services: dict[str, Any]) -> None:
    hosts = [port["host_ip"] for service in services.values() for port in service.get("ports", [])]
    assert len(hosts) == 4
    assert all(map(is_loopback, hosts))


def test_the_service_starts_with_its_settings(services: dict[str, Any]) -> None:
    config = taken(test_image.environment() | services["mier"]["environment"])
    assert config.store_url is not None
    assert config.store_url.get_secret_value() == "postgresql://mier:one@postgres/mier"
    exposure_of(config)


def test_everything_is_bounded_and_unprivileged(services: dict[str, Any]) -> None:
    assert services["mier"]["read_only"]
    for name, service in services.items():
        assert int(service["mem_limit"]) > 0, name
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_prometheus_scrapes_the_service_and_grafana_asks_prometheus(services: dict[str, Any]) -> None:
    scrape = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    alone = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    [job] = scrape["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["mier:8080"]
    # But for the target it is the one that `make dashboard-check` tries.
    job["static_configs"] = alone["scrape_configs"][0]["static_configs"]
    assert scrape == alone
    [source] = yaml.safe_load((DEPLOY / "compose/grafana/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert set(services["mier"]["networks"]) & set(services["prometheus"]["networks"]) == {"watching"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    for file in (DEPLOY / "compose" / "prometheus.yml", DEPLOY / "prometheus" / "alerts.yml"):
        shutil.copy(file, tmp_path)
    subprocess.run(["promtool", "check", "config", str(tmp_path / "prometheus.yml")], check=True)
