"""Acting without the service: one exported policy on the robot itself (extra `edge`).

Exploration noise is the service's own function of (seed, episode, step), and limits are its own code: the same question
gets the same action at the edge and over the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy.typing as npt

from mier_client.edge.graphs import Actor, Graph, exploration_noise
from mier_client.policy import Predicting
from mier_client.values import ActionLimits, FloatArray
from mier_proto.action_limits import Limiter
from mier_proto.last_actions import LastActions

_STEPS_KEPT = 4096
"""Of all episodes that `predict` is asked for at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Acts:
    """What chooses actions, as a whole."""

    actor: Actor
    limiter: Limiter | None
    """None: the graph's bounds alone."""
    seed: int
    """Of the exploration noise."""
    version: int = 0
    """Number of the policy version; 0 where it is not known."""
    weights_hash: str = ""


class ActsAtTheEdge(Predicting):
    """Limits, exploration and steps of a policy on the robot; what chooses is its subclasses' business."""

    def __init__(self, episode: int, explores: bool) -> None:
        super().__init__(episode)
        self._explores = explores
        self._actions = LastActions(_STEPS_KEPT)
        self.previous_action: FloatArray | None = None
        """[action_dim] What was done in the step before, where this policy did not do it: for the next action alone."""
        self.limited = False
        """Whether the limits changed the last action."""

    def act(self, observation: npt.ArrayLike) -> FloatArray:
        """observation [observation_dim] -> action [action_dim] in environment units.

        Raises:
            ValueError: another shape, numbers that are not finite, or so large that the action would not be; changes
                are limited, and what was done in the step before is not known.
        """
        action = self.act_at(observation, self.episode, self.step, not self._explores)
        self.step += 1
        return action

    def _by(self, acts: Acts, observation: npt.ArrayLike, episode: int, step: int, deterministic: bool) -> FloatArray:
        noise = None
        if not deterministic:
            noise = exploration_noise(acts.seed, episode, step, acts.actor.action_dim)
        action = acts.actor(observation, noise)
        return action if acts.limiter is None else self._within(action, episode, step, acts.limiter)

    def _within(self, action: FloatArray, episode: int, step: int, limiter: Limiter) -> FloatArray:
        """Within the limits, counted from the step before, as the service does: asked again it is the same."""
        before = self.previous_action
        if before is None and limiter.limits_change:
            before = self._actions.before(episode, step)
            if before is None and step > 0:
                raise ValueError(
                    f"changes are limited, and what was done in step {step - 1} of episode {episode} is not known: "
                    "set previous_action, or begin a new episode"
                )
        kept, self.limited = limiter(action, before)
        self._actions.remember(episode, step, kept)
        self.previous_action = None
        return kept


class EdgePolicy(ActsAtTheEdge):
    """One policy version, called step by step. Not for several threads at once: its buffers are its own.

    `predict` explores as it is told if there is a seed, else never.
    """

    def __init__(
        self,
        onnx: bytes | str | Path,
        context: npt.ArrayLike,
        *,
        seed: int | None = None,
        episode: int = 0,
        limits: ActionLimits | None = None,
    ) -> None:
        """
        Args:
            onnx: the policy's graph, or the path of its file.
            context: [context_dim], the policy context that the version acts under.
            seed: explore, with the session's seed; None acts deterministically.
            episode: number of the first episode.
            limits: what actions keep to, such as `Session.limits`, by the service's own code; None: the graph's bounds
                alone.

        Raises:
            ImportError: ONNX Runtime is not installed.
            ValueError: the context or the limits do not fit the graph.
        """
        super().__init__(episode, seed is not None)
        actor = Actor(Graph(onnx if isinstance(onnx, bytes) else Path(onnx).read_bytes()), context)
        limiter = None if limits is None else _limiter(limits, actor.action_dim)
        self._acts = Acts(actor, limiter, seed or 0)

    def act_at(self, observation: npt.ArrayLike, episode: int, step: int, deterministic: bool) -> FloatArray:
        """The action at that step of that episode, without counting it; ValueError as of `act`."""
        return self._by(self._acts, observation, episode, step, deterministic or not self._explores)


def _limiter(limits: ActionLimits, action_dim: int) -> Limiter:
    if limits.low is None or limits.high is None or len(limits.low) != action_dim:
        raise ValueError(f"expected limits with low and high [{action_dim}], came {limits}; Session.limits has them")
    return Limiter(limits.low, limits.high, limits.max_change)
