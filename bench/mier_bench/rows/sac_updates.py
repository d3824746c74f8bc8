"""Row 9: SAC updates a second, replay included, against Stable-Baselines3's."""

from __future__ import annotations

import torch

from mier.types import Transitions
from mier_bench import bundled, sb3_sac
from mier_bench.hardware import has_amx
from mier_bench.interleaving import Pace, interleave
from mier_bench.row import Row, Target, Wanted, absent, compared, per_second, require_equal

ID = 9
WHAT = "SAC updates, batch 256, 256x256, replay included"
PEER = "Stable-Baselines3"
UPDATES_PER_CALL = 2
REPLAY = 50_000


def rows(pace: Pace) -> list[Row]:
    torch.manual_seed(0)
    spec = bundled.spec_of("cheetah-vel-ood")
    stored = bundled.checkpoint("cheetah-vel-ood").relabel_buffer.transitions.rows(slice(REPLAY))
    stored = stored._replace(action=spec.to_unit_action(stored.action))
    pair = sb3_sac.start(spec, Transitions(*(field.contiguous() for field in stored)))
    checked = sb3_sac.difference_after_one_update(pair, seed=0)
    for what, difference in checked.items():
        # SB3 guards the logarithm of the squashing by 1e-6; ours needs no guard.
        require_equal(what, difference, 5e-3 if what.startswith("gradients") else 1e-4)
    draws = torch.Generator().manual_seed(0)

    def ours(bf16: bool) -> None:
        for _ in range(UPDATES_PER_CALL):
            sb3_sac.step_ours(pair, draws, bf16)

    timed = interleave(
        {
            "bf16": lambda: ours(True),
            "fp32": lambda: ours(False),
            "sb3": lambda: pair.theirs.train(UPDATES_PER_CALL, sb3_sac.BATCH),
            "products": lambda: _products(UPDATES_PER_CALL),
        },
        pace,
    )
    unit = per_second("updates", UPDATES_PER_CALL)
    target = Target(Wanted.AT_LEAST, 2.5 if has_amx() else 1.5)
    floor = ("its matrix products alone, bf16", timed["products"])
    both = [
        compared(ID, f"{WHAT}; {kind}", target, unit, timed[kind], (PEER, timed["sb3"]), floor, checked=checked)
        for kind in ("bf16", "fp32")
    ]
    on_gpu = absent(ID, f"{WHAT}; on a GPU", Target(Wanted.AT_LEAST, 10.0), unit, PEER, "no GPU here")
    return [*both, on_gpu]


_WIDE = torch.zeros(sb3_sac.BATCH, 256, dtype=torch.bfloat16)
_SQUARE = torch.zeros(256, 256, dtype=torch.bfloat16)


def _products(updates: int) -> None:
    """The [256, 256] x [256, 256] products of an update: forward, by input, by weight of each pass that has them."""
    # Policy: next action, action, backward twice. Critics, two each: target, Q, backward twice, Q of pi, by input.
    for _ in range(updates * (1 + 1 + 2 + 2 * (1 + 1 + 2 + 1 + 1))):
        torch.mm(_WIDE, _SQUARE)
