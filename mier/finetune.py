"""Relabel-based fine-tuning (paper, Algorithm 2), resumable bit for bit.

    start:  adapt context -> model steps -> warm start          (once; `save` carries the outcome)
    run:    relabel -> critic alone -> policy and critic        (any number of calls; judged on the way)

Invariants: after n updates the state is a function of (checkpoint, start weights, transitions, config, seed, n),
however the n were split over calls, saves and resumes. The checkpoint's own modules are never written to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from mier import sac, saved_finetune, state_fit
from mier.adaptation import NotFinite, nll, require_finite, split_holdout
from mier.checkpoint import Checkpoint
from mier.config import FineTuneConfig
from mier.judge import Best, Judge
from mier.model_steps import train_model
from mier.networks import DynamicsModel, Policy, TwinCritic
from mier.relabel import relabel_actions, relabel_rewards, relabel_rollouts
from mier.serialization import CorruptedData, pack, unpack
from mier.types import Transitions, Varies
from mier.warm_start import out_of_reach, policy_context_after
from mier.weights import PolicyWeights
from mier.world import World


@dataclass(frozen=True)
class FineTuneMetrics:
    """Progress after a call of `run`; losses are of its last update."""

    updates_done: int
    updates_total: int
    critic_loss: float
    actor_loss: float
    alpha: float
    relabelled_reward_mean: float
    heldout_nll: float


class FineTune:
    """One fine-tune of one session's policy on its task."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        transitions: Transitions,
        config: FineTuneConfig,
        seed: int,
        model: DynamicsModel,
        model_context: Tensor,
        policy_context: Tensor,
        sac_state: sac.SacState,
        bold: bool,
    ) -> None:
        """Parts put together; callers use `start` or `resume`."""
        self.checkpoint, self.config, self.seed = checkpoint, config, seed
        self.transitions = transitions
        self.model, self.model_context, self.policy_context = model, model_context, policy_context
        self.sac = sac_state
        self.bold = bold
        self.updates_done = 0
        self.generator = torch.Generator().manual_seed(seed)
        self.heldout_nll = nll(model, split_holdout(transitions, self._holdout)[1], model_context).item()
        steps = config.judge_steps
        self._judge = Judge.of(checkpoint, self._world, transitions, steps) if steps else None
        self._best: Best | None = None
        self._pool: Transitions | None = None
        self._stored_rows: Transitions | None = None
        self._critic_loss, self._actor_loss = torch.zeros(()), torch.zeros(())
        self._relabelled_mean = transitions.reward.mean()

    @classmethod
    def start(
        cls,
        checkpoint: Checkpoint,
        start_weights: PolicyWeights | None,
        transitions: Transitions,
        config: FineTuneConfig,
        seed: int,
    ) -> Self:
        """Adapt to `transitions` [n, dim] of the new task and set everything up.

        Args:
            start_weights: what to go on from; None is the checkpoint's own weights, to which the warm start applies.

        Raises:
            InsufficientData: too few transitions to adapt to.
            NotFinite: they lead to no finite context.
            CorruptedData: the start weights are of other networks than the checkpoint's.
        """
        agent = checkpoint.agent
        if start_weights is not None:
            start_weights.require_fit(agent)
        adapted = agent.adapt(transitions)
        context = torch.from_numpy(adapted.context)
        require_finite(context)
        model = agent.model
        if config.model_steps:
            fit, held = split_holdout(transitions, agent.configuration.adapt.holdout_fraction)
            model = train_model(model, context, fit, held, config.model_steps, config.model_learning_rate)
        if start_weights is not None:
            own = torch.from_numpy(start_weights.context)
        else:
            own = policy_context_after(checkpoint, adapted, transitions, model) if config.warm_start else context
        weights = start_weights or PolicyWeights.of(agent, own.numpy())
        return cls(
            checkpoint,
            transitions,
            config,
            seed,
            model,
            context,
            own,
            _sac_state(checkpoint, weights, config),
            out_of_reach(agent.configuration.adapt, adapted.ood_score),
        )

    @property
    def done(self) -> bool:
        return self.updates_done >= self.config.updates

    @property
    def _holdout(self) -> float:
        return self.checkpoint.agent.configuration.adapt.holdout_fraction

    def run(self, updates: int) -> FineTuneMetrics:
        """Advance by at most `updates`; never past the configured total.

        Raises:
            NotFinite: learning diverged; the weights as they stand are of no use.
        """
        config = self.config
        if self._best is None:
            self._consider()
        for _ in range(min(updates, config.updates - self.updates_done)):
            self.sac.set_learning_rate(config.rate_at(self.updates_done) * (config.bold_factor if self.bold else 1.0))
            batch = self._batch()
            context = self.policy_context.expand(batch.size, -1)
            noise = sac.SacNoise.draw(batch.size, self.checkpoint.spec.action_dim, self.generator)
            if self.updates_done < config.critic_phase:
                rate = config.critic_only_target_rate
                self._critic_loss, _ = sac.update_critic(self.sac, batch, context, noise.next_action, rate)
            else:
                metrics = sac.update(self.sac, batch, context, noise)
                self._critic_loss, self._actor_loss = metrics.critic_loss, metrics.actor_loss
            self.updates_done += 1
            if self.done or self.updates_done % config.judge_every_updates == 0:
                self._consider()
        if not (self._critic_loss.isfinite() and self._actor_loss.isfinite()):
            raise NotFinite(
                f"fine-tuning diverged within {self.updates_done} updates (critic loss {self._critic_loss.item()}, "
                f"actor loss {self._actor_loss.item()}); take more real transitions, or a lower learning rate"
            )
        return self.metrics()

    def metrics(self) -> FineTuneMetrics:
        return FineTuneMetrics(
            self.updates_done,
            self.config.updates,
            self._critic_loss.item(),
            self._actor_loss.item(),
            self.sac.log_alpha.exp().item(),
            self._relabelled_mean.item(),
            self.heldout_nll,
        )

    def result(self) -> PolicyWeights:
        """The weights as they stand; where they are judged, those that did best so far, the start's among them."""
        return self._as_they_stand() if self._best is None else self._best.weights

    def _as_they_stand(self) -> PolicyWeights:
        state = self.sac
        return PolicyWeights.of_modules(state.policy, state.critic, state.log_alpha.item(), self.policy_context.numpy())

    def save(self) -> bytes:
        """Everything that `resume` needs beside the checkpoint and the transitions."""
        tree: dict[str, Any] = {
            "config": self.config.to_json(),
            "seed": self.seed,
            "updates_done": self.updates_done,
            "checkpoint": self.checkpoint.hash,
            "transitions": _identity(self.transitions),
            "model": self.model.state_dict(),
            "model_context": self.model_context,
            "policy_context": self.policy_context,
            "sac": self.sac.state_dict(),
            "bold": self.bold,
            "generator": self.generator.get_state(),
            "last": torch.stack([self._critic_loss, self._actor_loss, self._relabelled_mean]),
        }
        if self._best is not None:
            tree["best"] = self._best.to_tree()
        if self._pool is not None:
            tree["pool"] = self._pool._asdict()
        return pack(tree)

    @classmethod
    def resume(cls, checkpoint: Checkpoint, transitions: Transitions, data: bytes) -> Self:
        """Go on from a save, to the same weights as without the stop.

        Raises:
            CorruptedData: the bytes are damaged, or were saved over other transitions or on another checkpoint.
        """
        tree = unpack(data)
        try:
            for name, came in (("checkpoint", checkpoint.hash), ("transitions", _identity(transitions))):
                if tree[name] != came:
                    raise CorruptedData(f"expected the {name} that the save was made over ({tree[name]}), came {came}")
            config = FineTuneConfig.from_json(tree["config"])
            agent = checkpoint.agent
            model = DynamicsModel(agent.spec, agent.configuration.model, agent.configuration.adapt)
            state_fit.load_state("model", model, tree["model"])
            state = _sac_state(checkpoint, PolicyWeights.of(agent), config)
            saved_finetune.require_sac(state, tree["sac"])
            state.load_state_dict(tree["sac"])
            for name in ("model_context", "policy_context"):
                state_fit.require_tensor(name, tree[name], (agent.configuration.model.context_dim,))
            seed, updates_done, bold = tree["seed"], tree["updates_done"], tree["bold"]
            if type(seed) is not int or type(updates_done) is not int or type(bold) is not bool:
                raise ValueError("seed and updates_done are integers, bold is true or false; came others")
            if not 0 <= updates_done <= config.updates:
                raise ValueError(f"expected 0 to {config.updates} updates done, came {updates_done}")
            tuned = cls(
                checkpoint, transitions, config, seed, model.requires_grad_(False),
                tree["model_context"], tree["policy_context"], state, bold,
            )  # fmt: skip
            tuned.updates_done = updates_done
            tuned.generator.set_state(tree["generator"])
            state_fit.require_tensor("last", tree["last"], (3,))
            tuned._critic_loss, tuned._actor_loss, tuned._relabelled_mean = tree["last"]
            tuned._best = saved_finetune.read_best(agent, tree["best"]) if "best" in tree else None
            tuned._pool = saved_finetune.read_pool(agent.spec, tree["pool"]) if "pool" in tree else None
        except CorruptedData:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise CorruptedData(f"expected a fine-tune's save, came another saved state ({error})") from error
        return tuned

    @property
    def _world(self) -> World:
        return World(self.checkpoint.spec, self.model, self.model_context, self.checkpoint.agent.dynamics)

    def _consider(self) -> None:
        """Keep the policy as it stands if it is the best so far."""
        if self._judge is None:
            return
        value = self._judge.mean_return(self.sac.policy, self.policy_context)
        if self._best is None or value > self._best.imagined_return:
            self._best = Best(value, self.updates_done, self._as_they_stand())

    @property
    def _relabels_dynamics(self) -> bool:
        return self.checkpoint.spec.varies is Varies.DYNAMICS

    def _batch(self) -> Transitions:
        config = self.config
        real = round(config.real_fraction * config.batch_size)
        imagined = round(self._imagined_share * (config.batch_size - real))
        stored = config.batch_size - real - imagined
        parts = [self._draw(self.transitions, real)]
        if stored:
            parts.append(self._draw(self._stored(), stored))
        if imagined:
            parts.append(self._draw(self._imagined(), imagined))
        return Transitions.concatenate(parts)

    @property
    def _imagined_share(self) -> float:
        """Of the rows that are not the task's own."""
        if not self._relabels_dynamics:
            return self.config.imagined_share
        return 1.0 - self.config.lived_share if self.config.cross_task else 1.0

    def _stored(self) -> Transitions:
        """Transitions as they were lived, with this task's rewards, or its actions; computed once, since the model and
        the context stand still."""
        if self._stored_rows is None:
            checkpoint = self.checkpoint
            if self._relabels_dynamics:
                contexts, buffer = checkpoint.agent.training_contexts, checkpoint.relabel_buffer
                self._stored_rows = relabel_actions(checkpoint.spec, buffer, contexts, self.model_context)
            else:
                rows = relabel_rewards(self.model, self.model_context, self._source)
                best = rows.reward.topk(max(1, round(self.config.best_share * rows.size))).indices
                self._stored_rows = rows.rows(best)
                if not self.config.imagined_share:
                    self._relabelled_mean = self._stored_rows.reward.mean()
        return self._stored_rows

    def _draw(self, rows: Transitions, count: int) -> Transitions:
        return rows.rows(torch.randint(rows.size, (count,), generator=self.generator))

    def _imagined(self) -> Transitions:
        """The newest rollouts; more of them every `relabel_every_updates`."""
        if self._pool is None or self.updates_done % self.config.relabel_every_updates == 0:
            new = self._rollouts()
            kept = [new] if self._pool is None else [self._pool, new]
            self._pool = Transitions.concatenate(kept).rows(slice(-self.config.relabel_capacity, None))
            self._relabelled_mean = new.reward.mean()
        return self._pool

    @property
    def _source(self) -> Transitions:
        return self.checkpoint.relabel_buffer.transitions if self.config.cross_task else self.transitions

    def _rollouts(self) -> Transitions:
        config = self.config
        starts = max(1, config.relabel_transitions // config.rollout_steps)
        own = round(config.own_starts * starts)
        elsewhere = self._source if self._relabels_dynamics else self._stored()
        states = Transitions.concatenate([self._draw(elsewhere, starts - own), self._draw(self.transitions, own)])
        return relabel_rollouts(
            self._world, self.sac.policy, self.policy_context, states.observation, config.rollout_steps, self.generator
        )


def _identity(transitions: Transitions) -> str:
    """Number and sha256 of transitions."""
    return f"{transitions.size} rows, sha256 {hashlib.sha256(pack(transitions._asdict())).hexdigest()}"


def _sac_state(checkpoint: Checkpoint, weights: PolicyWeights, config: FineTuneConfig) -> sac.SacState:
    """Fresh optimisers and targets equal to the loaded critics (ALGORITHM section 4, step 5)."""
    agent = checkpoint.agent
    dim, sac_config = agent.configuration.model.context_dim, agent.configuration.sac
    policy, critic = Policy(agent.spec, dim, sac_config), TwinCritic(agent.spec, dim, sac_config)
    policy.load_state_dict(weights.part("policy"))
    critic.load_state_dict(weights.part("critic"))
    return sac.SacState.start(
        agent.spec,
        policy,
        critic,
        sac_config,
        log_alpha=weights.state["log_alpha"].item(),
        rate=config.learning_rate,
    )
