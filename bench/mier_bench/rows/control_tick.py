"""Row 3: one control tick of 1,000 sessions in process, against one call for each session."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from mier import onnx_policy
from mier.batched_acting import Tick
from mier.networks import Policy
from mier.weights import PolicyWeights
from mier_bench import bundled
from mier_bench.interleaving import Pace, interleave
from mier_bench.row import MILLISECONDS, Row, Target, Wanted, compared, require_equal
from mier_service.acting.onnx_weights import export_like

ID = 3
SESSIONS = 1000
OWN_SHARE = 0.05
TARGET = Target(Wanted.AT_LEAST, 12.0)
WHAT = "a control tick of 1,000 sessions, 5% on own weights"


def rows(pace: Pace) -> list[Row]:
    torch.manual_seed(0)
    agent = bundled.checkpoint("cheetah-vel-ood").agent
    spec, dims = agent.spec, agent.configuration.model.context_dim
    contexts, observation = torch.randn(SESSIONS, dims), torch.randn(SESSIONS, spec.observation_dim)
    noise = torch.randn(SESSIONS, spec.action_dim)
    every = round(1 / OWN_SHARE)
    own = {i: _own(agent.policy, Policy(spec, dims, agent.configuration.sac)) for i in range(0, SESSIONS, every)}
    tick = Tick(spec, agent.policy, contexts, own)

    def one_call_each() -> list[Tensor]:
        with torch.inference_mode():
            return [
                spec.from_unit_action(
                    own.get(i, agent.policy)(observation[i : i + 1], contexts[i : i + 1], noise[i : i + 1])
                )
                for i in range(SESSIONS)
            ]

    difference = (tick.act(observation, noise) - torch.cat(one_call_each())).abs().max().item()
    checked = {"actions": require_equal("actions", difference, 1e-5)}
    each = [agent.policy, *own.values()]
    graph = onnx_policy.export(_weights(agent.policy), agent)
    loaded = {id(p): _session(export_like(graph, _weights(p), agent)) for p in each}
    named = {"observation": observation, "context": contexts, "noise": noise}
    fed = [{name: value[i : i + 1].numpy() for name, value in named.items()} for i in range(SESSIONS)]
    sessions = [loaded[id(own.get(i, agent.policy))] for i in range(SESSIONS)]

    def bare_onnx() -> list[np.ndarray]:
        return [s.run(["action"], inputs)[0] for s, inputs in zip(sessions, fed, strict=True)]

    wide, square = torch.zeros(SESSIONS, 256), torch.zeros(256, 256)
    timed = interleave(
        {
            "tick": lambda: tick.act(observation, noise),
            "calls": one_call_each,
            "onnx": bare_onnx,
            "product": lambda: torch.mm(wide, square),
        },
        pace,
    )
    floor = ("its largest matrix product alone", timed["product"])
    return [
        compared(ID, WHAT, TARGET, MILLISECONDS, timed["tick"], (peer, timed[name]), floor, checked=checked)
        for name, peer in (("calls", "one call for each session"), ("onnx", "one bare ONNX Runtime call for each"))
    ]


@torch.no_grad()
def _own(shared: Policy, fresh: Policy) -> Policy:
    """Weights near the shared ones, as fine-tuning leaves them."""
    fresh.load_state_dict(shared.state_dict())
    for parameter in fresh.parameters():
        parameter.add_(0.05 * parameter.std() * torch.randn_like(parameter))
    return fresh.eval().requires_grad_(False)


def _weights(policy: Policy) -> PolicyWeights:
    state = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    return PolicyWeights(state, np.zeros(policy.context_norm.mean.shape[0], np.float32))


def _session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
