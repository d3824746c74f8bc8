"""Row 10: meta-training steps a second in the paper's form, against the plain port."""

from __future__ import annotations

import torch
from torch import Tensor

from mier.adaptation import meta_loss
from mier.config import AdaptConfig, ModelConfig
from mier.networks import DynamicsModel
from mier.types import EnvSpec, Transitions
from mier_bench import bundled
from mier_bench.interleaving import Pace, interleave
from mier_bench.plain_port import adaptation as plain
from mier_bench.plain_port.comparison import gradient_difference
from mier_bench.plain_port.model import batch_of, port_of
from mier_bench.row import Row, Target, Wanted, absent, compared, per_second, require_equal

ID = 10
WHAT = "meta-training steps, 6 tasks x 128, the paper's form"
PEER = "plain port"
TASKS, ROWS_PER_TASK = 6, 128
TARGET = Target(Wanted.AT_LEAST, 3.0)
UNIT = per_second("steps")


def rows(pace: Pace) -> list[Row]:
    found = []
    for family in bundled.FAMILY_NAMES:
        found += _of(family, pace)
    return [*found, absent(ID, f"{WHAT}; on a GPU", Target(Wanted.AT_LEAST, 20.0), UNIT, PEER, "no GPU here")]


def _of(family: str, pace: Pace) -> list[Row]:
    torch.manual_seed(0)
    spec = bundled.spec_of(family)
    config = AdaptConfig()
    model = DynamicsModel(spec, ModelConfig(), config)
    torch.nn.init.normal_(model.prior_context, std=0.1)
    adaptation, evaluation = random_rows(spec), random_rows(spec)
    port = port_of(model)
    before, after = ([batch_of(model, batch.rows(i)) for i in range(TASKS)] for batch in (adaptation, evaluation))
    meta_loss(model, adaptation, evaluation, config)[0].backward()
    plain.meta_loss(port, before, after).backward()
    checked = {"gradients, relative": require_equal("gradients", gradient_difference(model, port), 1e-4)}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, 1e-3, fused=True)
    port_optimizer = torch.optim.Adam(port.parameters(), 1e-3)

    def ours(bf16: bool) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
            loss = meta_loss(model, adaptation, evaluation, config)[0]
            optimizer.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, plain.GRADIENT_CLIP)
        optimizer.step()
        return loss.detach()

    timed = interleave(
        {
            "bf16": lambda: ours(True),
            "fp32": lambda: ours(False),
            "port": lambda: plain.meta_step(port, port_optimizer, before, after),
            "products": _products,
        },
        pace,
    )
    floor = ("its matrix products alone, bf16", timed["products"])
    return [
        compared(
            ID, f"{WHAT}; {family}, {kind}", TARGET, UNIT, timed[kind], (PEER, timed["port"]), floor, checked=checked
        )
        for kind in ("bf16", "fp32")
    ]


def random_rows(spec: EnvSpec) -> Transitions:
    """[tasks, rows, dim]; the times do not depend on what is learned."""
    shape = (TASKS, ROWS_PER_TASK)
    observation = torch.randn(*shape, spec.observation_dim)
    action = spec.from_unit_action(2.0 * torch.rand(*shape, spec.action_dim) - 1.0)
    following = observation + 0.1 * torch.randn_like(observation)
    return Transitions(observation, action, torch.randn(shape), following, torch.zeros(shape))


_ROWS = torch.zeros(TASKS * ROWS_PER_TASK, 200, dtype=torch.bfloat16)
_SQUARE = torch.zeros(200, 200, dtype=torch.bfloat16)


def _products() -> None:
    """The hidden layers' products: of each inner step forward, backward, tangent, its adjoint and two by weight; of the
    evaluation forward, backward and by weight; 3 layers of them all."""
    for _ in range(3 * (2 * 6 + 3)):
        torch.mm(_ROWS, _SQUARE)
