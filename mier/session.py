"""The online loop of one controlled system, sans I/O: observe, act, adapt, fine-tune, publish.

Two contexts are kept apart. The *model context* is what adaptation infers from data. A *policy version* pins weights
and its own policy context. While the session acts on the checkpoint's weights, a new model context makes a new version
of the same weights under that context (far out of distribution, under the best known behaviour's: `mier.warm_start`);
once fine-tuned, `adapt` moves the model context only, and acting changes by a new version only: by one that the gate
promotes, where the checkpoint has a gate.

The trainer's evaluation runs this loop; the service keeps the same state in its store and calls the same functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mier.adaptation import Adaptation, require_finite
from mier.checkpoint import Checkpoint
from mier.config import FineTuneConfig
from mier.exploration import noise
from mier.finetune import FineTune
from mier.following import Followed, Following, follow
from mier.gate import Verdict, compare
from mier.types import Transitions
from mier.warm_start import policy_context_after
from mier.weights import PolicyWeights

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PolicyVersion:
    """An immutable step in the lineage of a session's policy."""

    number: int
    parent: int | None
    weights: PolicyWeights
    fine_tuned: bool


class Session:
    """One task of one system, on one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, seed: int) -> None:
        self.checkpoint, self.seed = checkpoint, seed
        self.transitions: Transitions | None = None
        self.model_context: Floats = checkpoint.agent.prior_context.numpy()
        self.following: Following | None = None
        self.task_start = 0
        """So many of the transitions are of earlier tasks."""
        self.versions: list[PolicyVersion] = []
        self._publish(PolicyWeights.of(checkpoint.agent), fine_tuned=False)

    @property
    def active(self) -> PolicyVersion:
        return self.versions[-1]

    def observe(self, transitions: Transitions) -> None:
        """Append transitions [n, dim] of this task."""
        kept = [] if self.transitions is None else [self.transitions]
        self.transitions = Transitions.concatenate([*kept, transitions])

    def act(self, observation: Floats, *, episode: int, step: int, deterministic: bool) -> Floats:
        """observation [observation_dim] -> action [action_dim] in environment units, by the active version."""
        spec = self.checkpoint.spec
        drawn = (
            np.zeros(spec.action_dim, np.float32) if deterministic else noise(self.seed, episode, step, spec.action_dim)
        )
        with torch.inference_mode():
            unit = self._policy(
                torch.from_numpy(observation)[None],
                torch.from_numpy(self.active.weights.context)[None],
                torch.from_numpy(drawn)[None],
            )
            action: Floats = spec.from_unit_action(unit)[0].numpy()
        return action

    def adapt(self) -> Adaptation:
        """Adapt the model context, from the prior, to everything observed of the present task.

        Raises:
            InsufficientData: too few transitions observed so far.
            NotFinite: they lead to no finite context; nothing was changed.
        """
        found = self.checkpoint.agent.adapt(self._observed())
        require_finite(torch.from_numpy(found.context))
        self.model_context = found.context
        if not self.active.fine_tuned:
            own = policy_context_after(self.checkpoint, found, self._observed())
            self._publish(PolicyWeights(self.active.weights.state, own.numpy()), fine_tuned=False)
        return found

    def follow(self, *, episode_ended: bool) -> Followed | None:
        """Let the context follow what was observed since the last call; where the task changed, begin anew with it.

        Raises:
            NotFinite: it leads to no finite context; nothing was changed.
        """
        found = follow(self.checkpoint.agent, self.following, self._observed(), episode_ended=episode_ended)
        if found is None:
            return None
        if found.changed and self.transitions is not None:
            self.task_start = self.transitions.size - found.state.rows
        self.following, self.model_context = found.state, found.adaptation.context
        if found.changed or not self.active.fine_tuned:
            own = policy_context_after(self.checkpoint, found.adaptation, self._observed())
            state = PolicyWeights.of(self.checkpoint.agent).state if found.changed else self.active.weights.state
            self._publish(PolicyWeights(state, own.numpy()), fine_tuned=False)
        return found

    def start_finetune(self, config: FineTuneConfig | None = None, seed: int | None = None) -> FineTune:
        """A fine-tune over everything observed, from the active version's weights."""
        return FineTune.start(
            self.checkpoint,
            self.active.weights if self.active.fine_tuned else None,
            self._observed(),
            config or self.checkpoint.agent.configuration.finetune,
            self.seed if seed is None else seed,
        )

    def propose(self, weights: PolicyWeights) -> Verdict | None:
        """Publish fine-tuned weights unless the gate has doubts; its verdict, None where there is no gate.

        Raises:
            InsufficientData: too few transitions for the gate.
        """
        verdict = None
        if (thresholds := self.checkpoint.calibration.gate) is not None:
            found = compare(self.checkpoint, self.active.weights, weights, self._observed())
            verdict = found.verdict(thresholds)
        if verdict in (None, Verdict.PROMOTE):
            self.publish(weights)
        return verdict

    def publish(self, weights: PolicyWeights) -> PolicyVersion:
        """Make fine-tuned weights the active version."""
        return self._publish(weights, fine_tuned=True)

    def _observed(self) -> Transitions:
        if self.transitions is None:
            return self.checkpoint.relabel_buffer.transitions.rows(slice(0, 0))
        return self.transitions.rows(slice(self.task_start, None))

    def _publish(self, weights: PolicyWeights, *, fine_tuned: bool) -> PolicyVersion:
        parent = self.versions[-1].number if self.versions else None
        version = PolicyVersion(len(self.versions) + 1, parent, weights, fine_tuned)
        self._policy = weights.load_policy(self.checkpoint.agent)
        self.versions.append(version)
        return version
