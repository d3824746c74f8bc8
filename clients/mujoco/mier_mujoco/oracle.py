"""The oracle's returns: SAC trained on the one task, at length; a reference line, not a competitor.

The trainer records them (`mier-train oracle`) as JSONL, a row per task and seed, with
`family`, `task`, `return_mean`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

_NAME = "oracle.jsonl"


def bundled_path() -> Path | None:
    """The recorded oracle: packaged beside this module, or in the source tree; None if neither is there."""
    here = Path(__file__).resolve()
    candidates = (here.parent / _NAME, here.parents[3] / "docs" / "results" / _NAME)
    return next((path for path in candidates if path.is_file()), None)


def read_oracle(path: Path | None, family: str) -> Mapping[str, float]:
    """Mean return by task name, over the oracle's seeds; empty without a file."""
    if path is None:
        return {}
    returns: dict[str, list[float]] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if row["family"] == family:
                returns.setdefault(row["task"], []).append(float(row["return_mean"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}:{number}: expected a JSON object with family, task, return_mean ({error})"
            ) from error
    return {task: fmean(values) for task, values in returns.items()}
