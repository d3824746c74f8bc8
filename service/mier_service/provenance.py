"""What a model context or a version was made from and with: enough to make it again (ADR 0025).

Numbers depend on more than their inputs: on the numeric core's code, on torch, and on the kind of CPU, whose kernels
add up in another order.
"""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Self

from pydantic import Field

import mier
from mier_service.values import ModelContextValue, SessionValue, Value

_SHOWN = 12
"""Hex digits of a hash that only has to differ where sources do."""


@cache
def build() -> str:
    """This process's build and CPU kind, a JSON object; equal strings promise equal bits from equal inputs."""
    import torch  # so that commands that only read rows need not wait for it

    sources = hashlib.sha256()
    for path in sorted(Path(mier.__file__).parent.glob("*.py")):
        sources.update(path.name.encode() + b"\0" + path.read_bytes())
    facts = {
        "mier": version("mier"),
        "core_sha256": sources.hexdigest()[:_SHOWN],
        "torch": torch.__version__,
        "cpu": _cpu(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
    }
    return json.dumps(facts, sort_keys=True)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {named[0] if named else platform.processor()}".strip()


class ContextOrigin(Value):
    """Of one model context."""

    checkpoint: str
    checkpoint_hash: str
    transitions_stored: int
    """So many had been stored in the session when it was inferred: all that it can have seen."""
    task_start: int
    """So many of them were of earlier tasks."""
    copy_of: int | None = None
    """The model context that it is a copy of: a rollback to another checkpoint brings back what was inferred there."""
    made_with: str = Field(default_factory=build)
    """`build` of whoever inferred it."""

    @classmethod
    def of(cls, session: SessionValue) -> Self:
        """Of a context that is inferred from the session as it was read, on its checkpoint."""
        return cls(
            checkpoint=session.checkpoint,
            checkpoint_hash=session.checkpoint_hash,
            transitions_stored=session.transitions_count,
            task_start=session.task_start,
        )

    def first_transition(self, context: ModelContextValue) -> int | None:
        """Where the transitions that the context was inferred from begin, in the order of storing; None where there are
        none, or where they need not lie one after another (a window by episode)."""
        by_episode = context.window is not None and context.window.from_episode is not None
        used = context.transitions_used
        return None if by_episode or not used else self.transitions_stored - used


def one_build(made_with: str) -> str:
    """The JSON list of builds that a version keeps: more than one had a hand in some fine-tunes."""
    return f"[{made_with}]"


def with_build(builds_json: str | None, made_with: str) -> str:
    """The list with one more, once each."""
    known = [] if builds_json is None else [json.dumps(item, sort_keys=True) for item in json.loads(builds_json)]
    return f"[{', '.join(dict.fromkeys([*known, made_with]))}]"
