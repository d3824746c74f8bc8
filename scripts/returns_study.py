"""How often a policy that is no worse is found to be, over its whole life, and how soon one that is worse.

python scripts/returns_study.py docs/results/returns.json
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mier.returns import fall, level_after

LIFE_EPISODES, LIVES, SEED = 250, 500, 0
Law = Callable[[np.random.Generator, int], np.ndarray]


def falling(share: float) -> Law:
    """A robot that falls in that share of its episodes."""
    return lambda g, n: np.where(g.random(n) < share, g.normal(10.0, 2.0, n), g.normal(100.0, 2.0, n))


LAWS: dict[str, Law] = {
    "normal": lambda g, n: g.normal(100.0, 10.0, n),
    "exponential": lambda g, n: g.exponential(10.0, n),
    "exponential, negative": lambda g, n: -g.exponential(10.0, n),
    "Student's t, 2 degrees of freedom": lambda g, n: 50.0 + g.standard_t(2, n),
    "falls 1 in 10": falling(0.1),
    "falls 3 in 10": falling(0.3),
    "falls 1 in 2": falling(0.5),
    "succeeds 1 in 2": lambda g, n: (g.random(n) < 0.5).astype(float),
    "succeeds 8 in 10": lambda g, n: (g.random(n) < 0.8).astype(float),
    "always the same": lambda g, n: np.full(n, 7.0),
}
BEFORE = (2, 3, 5, 10, 30)
DROPS = (1.0, 2.0, 3.0, 10.0)


def first_alarm(before: np.ndarray, life: np.ndarray) -> int | None:
    """Episodes until then."""
    looks = (n for n in range(2, len(life) + 1) if level_after(len(before), n) is not None)
    return next((n for n in looks if fall(before, life[:n])), None)


def main(target: Path) -> None:
    alarms = {}
    for name, law in LAWS.items():
        for n0 in BEFORE:
            g = np.random.default_rng(SEED)
            alarmed = sum(first_alarm(law(g, n0), law(g, LIFE_EPISODES)) is not None for _ in range(LIVES))
            alarms[f"{name}; {n0} before"] = alarmed / LIVES
    delays = {}
    for drop in DROPS:
        for n0 in BEFORE:
            g = np.random.default_rng(SEED)
            found = [
                first_alarm(g.normal(0.0, 1.0, n0), g.normal(-drop, 1.0, LIFE_EPISODES)) for _ in range(LIVES // 5)
            ]
            seen = sorted(n if n is not None else LIFE_EPISODES + 1 for n in found)
            delays[f"{drop} standard deviations; {n0} before"] = {
                "median_episodes": seen[len(seen) // 2] if seen[len(seen) // 2] <= LIFE_EPISODES else None,
                "found": sum(n is not None for n in found) / len(found),
            }
    facts = {
        "command": "python scripts/returns_study.py docs/results/returns.json",
        "seed": SEED,
        "lives": LIVES,
        "episodes_of_a_life": LIFE_EPISODES,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
    }
    target.write_text(json.dumps(facts | {"false_alarms": alarms, "delay": delays}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
