"""Every command of README and docs: run as its reader would, or marked on the page and checked for its syntax."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.docs.pages import LANGUAGES, REPOSITORY, Block, blocks, pages
from tests.docs.reader import Reader
from tests.postgres import Postgres

ELSEWHERE = {"docs/tutorials/your-environment.md": "tests/e2e/test_tutorial.py"}
"""Followed by a test of their own, which looks at more."""
SHORTER = {
    "finetune(session.id)": "finetune(session.id, updates=20)",
    "--targets 1.5,2.0 --rounds 2": "--targets 1.5 --rounds 1 --episodes 1 --updates 20",
    "--targets 2.0 --rounds 1": "--targets 2.0 --rounds 1 --episodes 1 --updates 20",
}
"""The same commands, too short to learn."""
NAMES = {
    "README.md": """
        import numpy as np
        rng = np.random.default_rng(0)
        observation = np.zeros(17, np.float32)
        observations, next_observations = rng.normal(size=(2, 100, 17))
        actions, rewards, versions = rng.uniform(-1.0, 1.0, (100, 6)), rng.normal(size=100), 1
    """,
    "docs/clients.md": """
        import numpy as np
        observation = np.zeros(17, np.float32)
    """,
}
"""What a robot of one's own would have by then."""
AFTER = {
    # Noise is no reason to act differently: a fifth of 100 rows is too few for the gate.
    "README.md": """
        *_, tuned = client.list_versions(session.id)
        assert (tuned.number, tuned.promotion.value) == (3, "insufficient_data"), tuned
        assert client.get_session(session.id).active_version == 2
    """,
}
"""What must be so after the last Python of the page."""
RAN_BEFORE = ("docs/operations.md", "docs/how-to/back-up.md", "docs/how-to/upgrade.md")
"""Pages whose reader has run a service for long."""


def _certificates(reader: Reader) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(reader.folder / "server.pem")
    certificate.private_key_pem.write_to_path(reader.folder / "server.key")


def _session_and_key(reader: Reader) -> None:
    """SESSION and ID of the page: a session there is, and a key there is."""
    reader.start_service(["--data", "mier-data"])
    reader.python(
        """
        from mier_client import Client
        with Client.connect("http://127.0.0.1:8080") as client:
            open("session", "w").write(client.create_session("cheetah-vel-ood").id)
        """.replace("\n        ", "\n"),
        "before the page",
    )
    made = ["mierctl", "keys", "create", "--scope", "act", "--data", "mier-data"]
    key = subprocess.run(made, cwd=reader.folder, env=reader.environment, check=True, capture_output=True, text=True)
    reader.replaced |= {
        "--session SESSION": f"--session {(reader.folder / 'session').read_text()}",
        "revoke ID": f"revoke {key.stdout.split('_')[1]}",
    }


PREPARED: dict[str, Callable[[Reader], None]] = {"README.md": _certificates, "SECURITY.md": _session_and_key}


def _commands(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language]


def _undented(code: str) -> str:
    return code.replace("\n        ", "\n")


RUN = [page for page in pages() if page not in ELSEWHERE and any(not b.not_run for b in _commands(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_its_commands_do_what_it_says(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    replaced = dict(SHORTER)
    if "postgresql://mier:PASSWORD@" in (REPOSITORY / page).read_text():
        server: Postgres = request.getfixturevalue("postgres")
        replaced["postgresql://mier:PASSWORD@db.example/mier"] = server.new_store()
    with Reader(tmp_path, replaced) as reader:
        if page in PREPARED:
            PREPARED[page](reader)
        if page in RAN_BEFORE:
            reader.start_service(["--data", "mier-data"])
        reader.python(_undented(NAMES.get(page, "")), "before the page")
        todo = [block for block in _commands(page) if not block.not_run]
        last = max((number for number, block in enumerate(todo) if block.language == "python"), default=None)
        for number, block in enumerate(todo):
            reader.follow(block)
            if number == last:
                reader.python(_undented(AFTER.get(page, "")), "after the page")


def test_what_cannot_run_here_is_at_least_well_formed() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    marked = [block for page in pages() for block in _commands(page) if block.not_run]
    assert marked
    for block in marked:
        place = f"{block.page}:{block.line}"
        if block.language == "python":
            compile(block.code, place, "exec")
            continue
        subprocess.run(["bash", "-n", "-c", block.code], check=True)
        for line in block.code.splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["make"]:
                assert {word for word in words[1:] if "=" not in word} <= targets, f"{place}: {line}"


def test_fences_say_what_they_are() -> None:
    """So that no command hides behind another name."""
    for page in pages():
        for block in blocks(page):
            assert block.language in LANGUAGES, f"{page}:{block.line}: expected {LANGUAGES}, got {block.language}"


def test_pages_tested_elsewhere_are_there() -> None:
    for page, test in ELSEWHERE.items():
        assert page in pages()
        assert Path(page).name in (REPOSITORY / test).read_text()
