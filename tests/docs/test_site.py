"""The site builds without a warning and without a link that leads nowhere; the reference has all that the code has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mier_service.config import ServeConfig
from tests.docs.pages import REPOSITORY


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "scripts.docs_site", "--out", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "site"


@pytest.mark.slow
def test_every_page_is_in_it(site: Path) -> None:
    for page in (REPOSITORY / "docs").rglob("*.md"):
        built = (site / page.relative_to(REPOSITORY / "docs")).with_suffix(".html")
        assert built.is_file() != (page.name == "0000-template.md"), built


@pytest.mark.slow
def test_every_setting_call_and_class_is_in_the_reference(site: Path) -> None:
    settings, http, grpc, python = (
        (site / "reference" / f"{name}.html").read_text() for name in ("configuration", "http", "grpc", "python")
    )
    for name in ServeConfig.model_fields:
        assert f"MIER_{name.upper()}" in settings
    for call in ("POST /act", "POST /adapt", "GET /sessions/{session_id}/versions", "GET /readyz"):
        assert call in http
    assert "AdaptationService" in grpc
    for name in ("mier_client.Client", "mier_client.RemotePolicy", "submit_transitions"):
        assert name in python
