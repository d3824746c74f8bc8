"""What a candidate in shadow costs the acts of its session: both kinds of act in turns, in one process.

python scripts/shadow_cost.py docs/results/shadow.json
"""

from __future__ import annotations

import asyncio
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from mier_service.acting.acting import ActCall, Acting, answer
from mier_service.acting.in_shadow import InShadow
from mier_service.acting.ready_sessions import ReadySessions
from mier_service.data.checkpoints import Checkpoints
from mier_service.data.storage import Storage
from mier_service.learning.changes import Changes
from mier_service.learning.shadowing import Shadowing
from mier_service.offload import BoundedPool
from mier_service.sessions.life import Sessions
from mier_service.store import session_rows, shadow_rows
from mier_service.values import ActingRules, ShadowRule

CHECKPOINT, ROUNDS, ACTS, RULE = "cheetah-vel-ood", 20, 250, ShadowRule(acts=100_000)


@contextmanager
def opened() -> Iterator[tuple[Storage, BoundedPool]]:
    with tempfile.TemporaryDirectory() as folder:
        storage, pool = Storage(Path(folder) / "data", 4, time.time), BoundedPool("store", 2, 16)
        storage.prepare()
        yield storage, pool
        pool.close()
        storage.close()


async def measured(storage: Storage, pool: BoundedPool, checkpoints: Path) -> dict[str, object]:
    acting = Acting(storage.store, storage.onnx, ReadySessions(10, 10), pool)
    sessions = Sessions(storage, Checkpoints(checkpoints), acting, Changes(1), pool, lambda: "s")
    session = await sessions.create(CHECKPOINT, None, 0, ActingRules(shadow=RULE), "")
    with storage.store.write() as c:  # another version on the same policy, which costs what any does
        version, onnx_hash = session_rows.get_version(c, session.id, 1)
        context = [x + 0.1 for x in version.policy_context]
        candidate = version.model_copy(update={"number": 2, "parent": 1, "policy_context": context})
        session_rows.add_version(c, session.id, candidate, onnx_hash)
        shadow_rows.begin(c, session.id, 2, RULE, 1, 0.0)
    shadowing = Shadowing(storage, acting, BoundedPool("upkeep", 1, 4, shared=False), lambda state: None)
    acting.on_shadow = shadowing.notice
    background = asyncio.create_task(shadowing.run())
    with_shadow = await acting.refresh(session.id)
    assert isinstance(with_shadow.shadow, InShadow)
    alone = replace(with_shadow, shadow=None)
    generator = np.random.default_rng(0)
    observation = generator.normal(size=(ACTS, session.environment.observation_dim)).astype(np.float32)
    calls = [ActCall(session.id, row, deterministic=False, episode=0, step=i) for i, row in enumerate(observation)]
    times: dict[str, list[float]] = {"alone": [], "shadow": []}
    for _ in range(ROUNDS):
        for call in calls:  # one by one, in turns, with the loop free in between as in a service
            for name, active in (("alone", alone), ("shadow", with_shadow)):
                started = time.perf_counter()
                answer(call, active)
                times[name].append(time.perf_counter() - started)
            await asyncio.sleep(0.002)
    background.cancel()
    with storage.store.read() as c:
        compared = shadow_rows.running(c, session.id)
    assert compared is not None
    quantiles = {name: statistics.quantiles(found, n=100) for name, found in times.items()}
    return {
        "acts": len(times["shadow"]),
        "compared": compared.evidence.acts,
        "p50_us": {name: 1e6 * found[49] for name, found in quantiles.items()},
        "p99_us": {name: 1e6 * found[98] for name, found in quantiles.items()},
        "ratio_p50": quantiles["shadow"][49] / quantiles["alone"][49],
        "ratio_p99": quantiles["shadow"][98] / quantiles["alone"][98],
    }


def main(target: Path) -> None:
    with opened() as (storage, pool):
        found = asyncio.run(measured(storage, pool, Path("checkpoints")))
    facts = {
        "command": "python scripts/shadow_cost.py docs/results/shadow.json",
        "checkpoint": CHECKPOINT,
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "machine": platform.machine(),
    }
    target.write_text(json.dumps(facts | found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
