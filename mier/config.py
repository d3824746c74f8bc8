"""Frozen configuration of the algorithm, one dataclass per idea; the manifest of a checkpoint carries them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from mier import json_values


class Conditioning(StrEnum):
    """How the context enters the model."""

    CONCAT = "concat"
    """Appended to the input (paper, appendix A)."""
    FILM = "film"
    """Scales and shifts every hidden layer."""
    LINEAR_HEAD = "linear_head"
    """mean = f0 + sum_k z_k f_k with learned features f: the context has a closed form (after ALPaCA)."""


class AdaptMethod(StrEnum):
    """How a context is found from data."""

    GRADIENT = "gradient"
    """A few gradient steps; second order in meta-training (paper, section 4.1)."""
    GAUSS_NEWTON = "gauss_newton"
    """Damped Gauss-Newton on the same objective."""
    CLOSED_FORM = "closed_form"
    """Bayesian linear regression; needs the linear head."""


class _Json:
    """(De)serialisation shared by the configuration dataclasses."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`; ValueError names an unknown key, or one whose value is of another type."""
        return json_values.from_json(cls, value)


_LAYERS = 64
_WIDTH = 65_536


def _require(config: object, low: int, high: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value < low:
            raise ValueError(f"{name} must be at least {low}, came {value}")
        if value > high:
            raise ValueError(f"{name} must be at most {high}, came {value}")


def _require_layers(hidden: tuple[int, ...]) -> None:
    if not 1 <= len(hidden) <= _LAYERS or not all(1 <= width <= _WIDTH for width in hidden):
        raise ValueError(f"hidden must be 1 to {_LAYERS} layers of 1 to {_WIDTH} units, came {str(hidden[:8])[:80]}")


@dataclass(frozen=True)
class ModelConfig(_Json):
    """The context-conditioned dynamics and reward model."""

    context_dim: int = 5
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    conditioning: Conditioning = Conditioning.CONCAT
    action_gate: bool = False
    """The first action_dim context entries multiply the actions, as 1 + z (a bilinear context-action term),
    and reach nothing else, so that a gain or sign change of an actuator is one direction in context space."""
    next_observation_input: bool = False
    """The reward model also sees the next observation; legitimate where only the reward varies."""
    log_var_min: float = -10.0
    log_var_max: float = 0.5
    """Fixed clamp of the predicted log variance: learned bounds drift and the variance collapses."""
    trained_prior: bool = True
    """Whether the prior context is trained (paper) or fixed at zero."""

    def __post_init__(self) -> None:
        _require(self, 0, _WIDTH, "context_dim")
        _require_layers(self.hidden)
        if self.log_var_min >= self.log_var_max:
            raise ValueError(f"log_var_min {self.log_var_min} must be below log_var_max {self.log_var_max}")
        if self.action_gate and self.conditioning is Conditioning.LINEAR_HEAD:
            raise ValueError("action_gate needs concat or film conditioning: a linear head's features see no context")


class OutOfReach(StrEnum):
    """What a policy acts under, and is fine-tuned from, when the adapted context is one that it cannot follow."""

    BEST_KNOWN = "best-known"
    """The context of the best known behaviour, as the adapted model judges it."""
    HOLD = "hold"
    """The same direction from the training tasks' mean, held at the threshold."""


@dataclass(frozen=True)
class AdaptConfig(_Json):
    """From transitions to a context."""

    method: AdaptMethod = AdaptMethod.GRADIENT
    steps: int = 2
    learning_rate: float = 0.1
    later_steps: int = 8
    """Further steps at test time, at a tenth of the rate (ALGORITHM: 10 in all)."""
    learned_rate: bool = False
    """Meta-train one inner learning rate per step and context entry, starting at `learning_rate`."""
    gradient_clip: float = 10.0
    damping: float = 1.0
    """Gauss-Newton: weight of the pull towards the prior context, in units of one transition."""
    gauss_newton_steps: int = 10
    starts: int = 1
    """Gauss-Newton: 1 starts at the prior, with an isotropic pull towards it. More start at so many contexts spread
    over the training tasks', and take the pull from their covariance."""
    joint: bool = False
    """Meta-training learns one context per training task together with the weights, and not through the adaptation
    itself; at test time the context is found by `method` all the same."""
    joint_learning_rate: float = 3e-3
    context_penalty: float = 0.01
    """Outer weight on the squared norm of the adapted context (paper, appendix A)."""
    min_transitions: int = 32
    holdout_fraction: float = 0.2
    ood_threshold: float | None = None
    """Beyond this out-of-distribution score the policy cannot follow the adapted context: the model keeps it, and the
    policy gets another (`out_of_reach`). None: never, as in the paper."""
    out_of_reach: OutOfReach = OutOfReach.BEST_KNOWN

    def __post_init__(self) -> None:
        _require(self, 1, 1000, "steps", "starts")
        _require(self, 0, 10_000, "later_steps", "gauss_newton_steps")
        if self.learning_rate <= 0.0:
            raise ValueError(f"learning_rate must be above 0, came {self.learning_rate}")
        if self.min_transitions < 5:
            raise ValueError(f"min_transitions must be at least 5 (a hold-out needs rows), came {self.min_transitions}")
        if not 0.0 < self.holdout_fraction <= 0.5:
            raise ValueError(f"holdout_fraction must be above 0 and at most 0.5, came {self.holdout_fraction}")
        if self.joint and self.method is not AdaptMethod.GAUSS_NEWTON:
            raise ValueError("joint training needs gauss_newton adaptation: gradient steps are meta-trained themselves")


@dataclass(frozen=True)
class SacConfig(_Json):
    """Soft actor-critic, conditioned on the context."""

    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.005
    target_entropy: float = -1.0
    reward_scale: float = 1.0
    actuator_frame: bool = False
    """Policy and critic work in the frame in which the sign of each actuator is the model's own; needs
    `ModelConfig.action_gate`, whose entries of the context say what that sign is."""

    def __post_init__(self) -> None:
        _require_layers(self.hidden)


@dataclass(frozen=True)
class FineTuneConfig(_Json):
    """Relabel-based fine-tuning at test time (paper, Algorithm 2)."""

    updates: int = 4000
    critic_only_updates: int = 1000
    """First the critic alone learns the new task, with a faster target: the policy must not climb a stale one. At most
    a quarter of the updates, so that a small budget trains the policy too."""
    critic_only_target_rate: float = 0.02
    batch_size: int = 256
    real_fraction: float = 0.05
    relabel_every_updates: int = 250
    relabel_transitions: int = 25_000
    """Drawn anew each time, where the dynamics vary."""
    relabel_capacity: int = 250_000
    """Of these the newest are kept: a critic that sees only the last policy's actions makes the policy swing."""
    rollout_steps: int = 1
    """Model steps from each stored state on; 1 is the paper's. More show the states that the policy itself leads to."""
    own_starts: float = 0.0
    """Share of the states to start from that are the session's own; the rest are the training tasks'."""
    lived_share: float = 0.0
    """Where the dynamics vary in the actuators' gains: this share of the relabelled rows are stored transitions with
    the actions of the new task (`mier.relabel.relabel_actions`); the rest come from the model."""
    imagined_share: float = 0.0
    """Where only the reward varies: this share of the relabelled rows are the policy's own rollouts in the adapted
    model's world (`mier.world`); the rest are stored transitions with new rewards."""
    best_share: float = 1.0
    """Where only the reward varies: learn from this share of the relabelled transitions, those of the highest rewards.
    What scores well on the new task lies near what its policy will do."""
    cross_task: bool = True
    """False relabels only the session's own data (the paper's ablation)."""
    model_steps: int = 0
    """At most so many steps on the model's weights with the context fixed, stopped early on the hold-out."""
    model_learning_rate: float = 1e-3
    warm_start: bool = True
    """Beyond `AdaptConfig.ood_threshold` start from what `AdaptConfig.out_of_reach` says, not the adapted context."""
    learning_rate: float = 3e-4
    final_rate: float = 1.0
    """Share of the learning rate that is left at the last update; it falls linearly."""

    judge_steps: int = 0
    """Length of the imagined episodes, from real first states, by which the policy is judged on its way: what comes out
    is the best of start, stages and end. 0: not judged, and the end comes out."""
    judge_every_updates: int = 250
    bold_factor: float = 1.0
    """Of the learning rate, where the adapted context is out of reach: there is more to learn, and less to spoil."""

    def rate_at(self, update: int) -> float:
        """Learning rate of an update, counted from 0, within reach."""
        return self.learning_rate * (1.0 - (1.0 - self.final_rate) * update / self.updates)

    @property
    def critic_phase(self) -> int:
        """Updates of the critic alone."""
        return min(self.critic_only_updates, self.updates // 4)

    def __post_init__(self) -> None:
        for name in ("real_fraction", "own_starts", "lived_share", "imagined_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be 0 to 1, came {getattr(self, name)}")
        _require(self, 1, 2**31 - 1, "updates", "relabel_every_updates", "judge_every_updates")
        _require(self, 0, 2**31 - 1, "critic_only_updates")
        _require(self, 1, 65_536, "batch_size", "rollout_steps")
        _require(self, 1, 10_000_000, "relabel_transitions", "relabel_capacity")
        _require(self, 0, 1_000_000, "model_steps", "judge_steps")
        for name in ("best_share", "final_rate"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be above 0 and at most 1, came {getattr(self, name)}")
        for name in ("learning_rate", "bold_factor"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} must be above 0, came {getattr(self, name)}")


@dataclass(frozen=True)
class Configuration(_Json):
    """Everything that makes one variant of the algorithm."""

    name: str = "paper"
    model: ModelConfig = field(default_factory=ModelConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    sac: SacConfig = field(default_factory=SacConfig)
    finetune: FineTuneConfig = field(default_factory=FineTuneConfig)
    dynamics: ModelConfig | None = None
    """Where only the reward varies: a network of where actions lead (`mier.world.shared_dynamics`), so that policies
    can be judged in imagined episodes. None: there is none."""
    gate: bool = False
    """Whether there are networks that no policy is trained on, to judge policies by (`mier.gate`)."""

    def __post_init__(self) -> None:
        if self.dynamics and self.dynamics.context_dim:
            raise ValueError(
                f"shared dynamics need no context: expected context_dim 0, came {self.dynamics.context_dim}"
            )
        closed = self.adapt.method is AdaptMethod.CLOSED_FORM
        _require(self.model, 1, _WIDTH, "context_dim")
        if closed and self.model.conditioning is not Conditioning.LINEAR_HEAD:
            raise ValueError("closed_form adaptation needs the linear_head conditioning of the model")
        if self.sac.actuator_frame and not self.model.action_gate:
            raise ValueError("actuator_frame needs action_gate: without it no context entry is an actuator's gain")
        if self.finetune.lived_share and not self.model.action_gate:
            raise ValueError("lived_share needs action_gate: without it no context entry is an actuator's gain")
